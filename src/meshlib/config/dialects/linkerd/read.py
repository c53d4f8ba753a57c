"""Reads Linkerd's documents, and its annotations on those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meshlib.config.dialects.draft import Draft, ServiceDraft
from meshlib.config.dialects.linkerd.annotations import ANNOTATIONS, ROUTE, Annotations
from meshlib.config.dialects.linkerd.http_route import LinkerdRoute, Parent, read_route, write_routes
from meshlib.config.dialects.linkerd.names import drafts_of, usual
from meshlib.config.dialects.linkerd.profile import Profile, read_profile, write_profile
from meshlib.config.dialects.resources import Resource
from meshlib.config.dialects.security import keep

__all__ = ["SECURITY", "read"]

SECURITY: Final = frozenset(
    {
        "Server",
        "ServerAuthorization",
        "AuthorizationPolicy",
        "MeshTLSAuthentication",
        "NetworkAuthentication",
        "HTTPLocalRateLimitPolicy",
    }
)
"""Documents that speak of who may call, and how often."""

_OTHERS: Final = {
    "EgressNetwork": "what leaves the cluster is a matter of 'egress' and of declared services",
    "ExternalWorkload": "endpoints come from EndpointSlices",
    "Link": "other clusters are reached as their services are declared here",
    "ServiceMirror": "other clusters are reached as their services are declared here",
}


def read(draft: Draft, resources: Sequence[Resource]) -> None:
    """Write what the documents say into the draft."""
    profiles: list[Profile] = []
    routes: list[LinkerdRoute] = []
    annotated: list[Resource] = []
    for resource in resources:
        if resource.kind == "ServiceProfile":
            profiles.append(read_profile(draft, resource))
        elif resource.group == "policy.linkerd.io" and resource.kind == "HTTPRoute":
            routes.append(read_route(draft, resource))
        elif resource.group in ("", "gateway.networking.k8s.io"):
            annotated.append(resource)
        elif resource.kind in SECURITY:
            keep(draft, resource)
        else:
            why = _OTHERS.get(resource.kind, f"documents of the kind {resource.kind} are not read")
            draft.note(resource.place(), f"is not honoured: {why}", "ignored")
    chosen = _chosen(draft, profiles)
    taken = {name for profile in chosen for name in _names(draft, profile)}
    for resource in annotated:
        if resource.kind == "Service":
            _service(draft, resource, taken)
        else:
            _gateway_route(draft, resource, taken)
    _write_routes(draft, routes, taken)
    for profile in chosen:
        for service in drafts_of(draft, profile.host, draft.namespace_of(profile.resource), profile.resource.place()):
            usual(service, profile.resource.place())
            write_profile(draft, profile, service)


def _chosen(draft: Draft, profiles: Sequence[Profile]) -> list[Profile]:
    """Of each service the profile in the caller's own namespace, else that in the service's."""
    best: dict[str, Profile] = {}
    for profile in profiles:
        if not profile.counts:
            continue
        own = draft.namespace_of(profile.resource)
        theirs = profile.host.split(".")[1:2]
        if own != draft.context.namespace and theirs not in ([own], []):
            text = f"says nothing here: it is for callers in the namespace {own!r}"
            draft.note(profile.resource.place(), text, "passed")
            continue
        before = best.get(profile.host)
        if before is not None and draft.namespace_of(before.resource) == own:
            text = f"is for the service of {before.resource.place()} as well"
            draft.note(profile.resource.place(), text, "wrong")
        elif before is None or own == draft.context.namespace:
            best[profile.host] = profile
    return list(best.values())


def _names(draft: Draft, profile: Profile) -> list[str]:
    namespace, place = draft.namespace_of(profile.resource), profile.resource.place()
    return [service.name for service in drafts_of(draft, profile.host, namespace, place)]


def _annotations(draft: Draft, resource: Resource) -> Annotations:
    return Annotations(draft, resource.annotations, lambda key: resource.place("metadata", "annotations", key))


def _service(draft: Draft, resource: Resource, profiled: set[str]) -> None:
    said = _annotations(draft, resource)
    if not said:
        return
    said.unknown(ANNOTATIONS, "unknown")
    fields = {**said.service_fields(), **said.route_fields()}
    place = resource.place("metadata", "annotations")
    for service in drafts_of(draft, resource.name, draft.namespace_of(resource), place):
        if service.name in profiled:
            text = "say nothing here: the service has a ServiceProfile, which takes their place in Linkerd as well"
            draft.note(place, text, "different")
            continue
        usual(service, place)
        for name, value in fields.items():
            service.put(name, value, place)


def _gateway_route(draft: Draft, resource: Resource, profiled: set[str]) -> None:
    """Lay the annotations of a route of the Gateway API over what it has become."""
    said = _annotations(draft, resource)
    if not said:
        return
    said.unknown(ROUTE, "belongs on a Service")
    fields = said.route_fields()
    for service in draft.services.values():
        for index, route in enumerate(service.data.get("routes", ())):
            origin = service.origins.get(("routes", index))
            if origin is None or (origin.file, origin.subject) != (resource.document.name, resource.subject):
                continue
            if service.name not in profiled and "redirect" not in route and "direct_response" not in route:
                usual(service, origin)
                route.update(fields)


def _write_routes(draft: Draft, routes: Sequence[LinkerdRoute], profiled: set[str]) -> None:
    by_service: dict[str, list[tuple[LinkerdRoute, Parent]]] = {}
    services: dict[str, ServiceDraft] = {}
    for route in routes:
        for parent in route.parents:
            if route.namespace not in (parent.namespace, draft.context.namespace):
                text = f"says nothing here: it is for callers in the namespace {route.namespace!r}"
                draft.note(parent.place, text, "passed")
                continue
            for service in drafts_of(draft, parent.name, parent.namespace, parent.place, parent.port):
                services[service.name] = service
                by_service.setdefault(service.name, []).append((route, parent))
    for name, found in by_service.items():
        place, service = found[0][1].place, services[name]
        if _taken(draft, service, profiled, place):
            continue
        usual(service, place)
        # What callers say of their own calls takes the place of what the service says.
        consumers = [route for route, parent in found if route.namespace != parent.namespace]
        producers = [route for route, parent in found if route.namespace == parent.namespace]
        write_routes(consumers or producers, service, place)


def _taken(draft: Draft, service: ServiceDraft, profiled: set[str], place: Any) -> bool:
    if service.name in profiled:
        text = "says nothing here: the service has a ServiceProfile, which takes its place in Linkerd as well"
        draft.note(place, text, "different")
    elif service.data.get("routes"):
        text = f"is not honoured: {service.origins[('routes',)].subject} says where calls to {service.name!r} go"
        draft.note(place, text, "ignored")
    else:
        return False
    return True
