"""All of the Gateway API's documents together: the routes of each Service, and how its backends are encrypted.

A route whose Service is in its own namespace is for all callers; one of another namespace is for the callers in that
namespace alone, and there it takes the place of the former (GEP-1294: producer and consumer routes).
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.gateway_api.backend_tls import read_backend_tls
from meshlib.config.dialects.gateway_api.http_route import HttpRoute, read_http_route
from meshlib.config.dialects.gateway_api.parents import Parent
from meshlib.config.dialects.gateway_api.precedence import in_order
from meshlib.config.dialects.gateway_api.references import References, read_grants
from meshlib.config.dialects.resources import Place, Resource

__all__ = ["translate", "write_routes"]


def translate(draft: Draft, resources: Sequence[Resource]) -> None:
    """Write what routes and policies say."""
    grants = read_grants(draft, (each for each in resources if each.kind == "ReferenceGrant"))
    references = References(draft, grants, "HTTPRoute")
    routes: dict[tuple[str, str], HttpRoute] = {}
    places: dict[tuple[str, str], Place] = {}
    for resource in resources:
        if resource.kind == "HTTPRoute":
            key = draft.namespace_of(resource), resource.name
            if key in routes:
                draft.note(resource.place(), f"is declared by {places[key]} as well", "wrong")
                continue
            routes[key] = read_http_route(draft, resource, references)
            places[key] = resource.place()
    write_routes(draft, list(routes.values()))
    read_backend_tls(draft, resources)


def write_routes(draft: Draft, routes: Sequence[HttpRoute]) -> None:
    """Write the routes of each port of each Service."""
    own = draft.context.namespace
    by_service: dict[str, dict[int, tuple[Parent, HttpRoute]]] = {}
    for index, route in enumerate(routes):
        for parent in route.parents:
            name = draft.port_name_of(parent.name, parent.namespace, parent.port)
            by_service.setdefault(name, {}).setdefault(index, (parent, route))
    for held in by_service.values():
        consumers = [each for each in held.values() if each[1].namespace == own != each[0].namespace]
        producers = [each for each in held.values() if each[1].namespace == each[0].namespace]
        effective = consumers or producers
        if effective:
            _write(draft, effective)


def _write(draft: Draft, held: Sequence[tuple[Parent, HttpRoute]]) -> None:
    parent = held[0][0]
    service = draft.port_service(parent.name, parent.namespace, parent.port, parent.place)
    written = in_order((route for _, route in held), parent.port, parent.place)
    for each in written:
        if not each.reached:
            text = "is never reached: a rule before it takes everything"
            draft.note(each.place, text, "different")
    live = [each for each in written if each.reached]
    service.routes([each.native for each in live], [each.place for each in live])
