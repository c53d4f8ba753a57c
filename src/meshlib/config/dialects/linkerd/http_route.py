"""HTTPRoute of Linkerd's own group, ``policy.linkerd.io``: the Gateway API's of old, with Linkerd's precedence.

What takes a request is, of all rules of all routes of a Service: the longest name of a host, then the longest match of
the path, the most headers, the most query parameters, and one with a method; of equals the oldest route, by name, and
of its rules the first. A path that is matched whole (``Exact``, ``RegularExpression``) matches as long as it is.

Source: ``policy-controller/k8s/index/src/outbound/index/http.rs`` of linkerd2; ``http/route/src`` of its proxy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final, Literal, TypeAlias

from meshlib.config.dialects.draft import Draft, ServiceDraft
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.gateway_api.filters import read_edits
from meshlib.config.dialects.linkerd.annotations import ROUTE, Annotations, fit_times
from meshlib.config.dialects.linkerd.names import backend_of
from meshlib.config.dialects.names import route_name
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass

__all__ = ["LinkerdRoute", "Parent", "read_route", "write_routes"]

Rank: TypeAlias = tuple[float, ...]
_FULL: Final = math.inf
_SIDES: Final[tuple[Literal["request", "response"], ...]] = ("request", "response")
_MATCHES: Final = {"Exact": "exact", "RegularExpression": "regex"}


@dataclass(frozen=True, slots=True)
class Parent:
    """The Service that a route is for.

    Attributes:
        name, namespace: of it.
        port: None for all.
        place: where the route says so.
    """

    name: str
    namespace: str
    port: int | None
    place: Place


@dataclass(frozen=True, slots=True)
class _Rule:
    """One match of a rule: its rank, and the route it makes."""

    rank: Rank
    route: dict[str, Any]
    place: Place


@dataclass(frozen=True, slots=True)
class LinkerdRoute:
    """What an HTTPRoute says.

    Attributes:
        resource: the document.
        namespace: that it is in.
        parents: the Services that it is for.
        rules: one for each match of each of its rules.
    """

    resource: Resource
    namespace: str
    parents: tuple[Parent, ...]
    rules: tuple[_Rule, ...]


def read_route(draft: Draft, resource: Resource) -> LinkerdRoute:
    """Read one."""
    namespace = draft.namespace_of(resource)
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata", "status")
    spec = reader.map("spec") or Reader(draft, resource, {}, ("spec",))
    parents = tuple(
        parent for each in spec.maps("parentRefs") if (parent := _parent(draft, each, namespace)) is not None
    )
    hosts = spec.texts("hostnames")
    said = Annotations(draft, resource.annotations, lambda key: resource.place("metadata", "annotations", key))
    said.unknown(ROUTE, "belongs on a Service")
    fields = said.route_fields()
    rules: list[_Rule] = []
    for rule in spec.maps("rules") if parents else ():
        rules += _rules(draft, rule, resource.name, namespace, hosts, fields)
    if not parents:
        spec.skip("rules")
    spec.rest()
    reader.rest()
    return LinkerdRoute(resource, namespace, parents, tuple(rules))


def write_routes(routes: Sequence[LinkerdRoute], service: ServiceDraft, place: Place) -> None:
    """Write the routes of one Service, whatever order they are in."""
    ordered = sorted(routes, key=lambda route: (route.resource.created or "~", route.namespace, route.resource.name))
    rules = [rule for route in ordered for rule in route.rules]
    rules.sort(key=lambda rule: tuple(-number for number in rule.rank))
    found: list[dict[str, Any]] = []
    places: list[Place] = []
    taken: set[str] = set()
    for rule in rules:
        found.append({**rule.route, "name": route_name(rule.route["name"], taken)})
        places.append(rule.place)
        if "match" not in rule.route:
            break
    else:
        # A Service with routes answers what none of them takes.
        found.append({"name": route_name("no-route", taken), "direct_response": {"status": 404}})
        places.append(place)
    service.routes(found, places)


def _parent(draft: Draft, reader: Reader, namespace: str) -> Parent | None:
    group, kind = reader.text("group") or "", reader.text("kind") or ""
    name, own, port = reader.text("name") or "", reader.text("namespace") or namespace, reader.integer("port")
    reader.ignore("sectionName", "the port says which part of a Service is meant")
    reader.rest()
    if kind == "Service" and group in ("", "core") and name:
        return Parent(name, own, port, reader.place())
    text = f"says nothing of calls: its parent is a {kind or 'resource without a kind'}, and no Service"
    effect: Any = "ignored" if kind == "EgressNetwork" else "passed"
    draft.note(reader.place(), text, effect)
    return None


def _rules(
    draft: Draft, reader: Reader, name: str, namespace: str, hosts: Sequence[str], annotated: dict[str, Any]
) -> list[_Rule]:
    place = reader.place()
    action = _action(draft, reader, namespace)
    action.update(annotated)
    timeouts = reader.map("timeouts")
    if timeouts is not None:
        request = timeouts.duration("request")
        timeouts.ignore(
            "backendRequest", "Linkerd's controller does not pass it on either; retry.linkerd.io/timeout does"
        )
        timeouts.rest()
        if request and "timeout" not in annotated:
            action["timeout"] = written(request)
            action.setdefault("per_try_timeout", None)
    fit_times(action)
    if "direct_response" in action or "redirect" in action:
        for each in ("timeout", "per_try_timeout", "body_idle_timeout", "retry", "headers", "backends"):
            action.pop(each, None)
    matches = [_match(each) for each in reader.maps("matches")] or [({}, (1.0, 0.0, 0.0, 0.0))]
    reader.rest()
    found = []
    for host in hosts or [""]:
        for match, rank in matches:
            conditions = {**match, **({"authority": _authority(host)} if host else {})}
            route = {"name": name, **({"match": [conditions]} if conditions else {}), **deepcopy(action)}
            found.append(_Rule((*_host_rank(host), *rank), route, place))
    return found


def _match(reader: Reader) -> tuple[dict[str, Any], Rank]:
    match: dict[str, Any] = {}
    length: float = 1
    path = reader.narrowing().map("path")
    if path is not None:
        kind, value = path.text("type") or "PathPrefix", path.text("value") or "/"
        path.rest()
        if kind in _MATCHES:
            length, match["path"] = _FULL, {_MATCHES[kind]: value}
        elif kind != "PathPrefix":
            path.wrong("type", f"{kind!r} is none of Exact, PathPrefix and RegularExpression")
        elif value != "/":
            stem = value.rstrip("/") or "/"
            length, match["path"] = len(stem), {"path_prefix": stem}
    counts = []
    for field, name in (("headers", "headers"), ("queryParams", "query")):
        conditions: dict[str, Any] = {}
        for each in reader.maps(field):
            key, wanted, matching = each.text("name"), each.text("value"), each.text("type") or "Exact"
            each.rest()
            if key is None or wanted is None or matching not in _MATCHES:
                each.wrong(None, "has to have a name, a value, and the type Exact or RegularExpression")
                continue
            key = key.lower() if name == "headers" else key
            if key in conditions:
                each.different(None, f"is a second condition on {key!r}, of which the first alone counts")
            conditions.setdefault(key, {_MATCHES[matching]: wanted})
        if conditions:
            match[name] = conditions
        counts.append(len(conditions))
    method = reader.text("method")
    if method:
        match["method"] = method
    reader.rest()
    return match, (length, counts[0], counts[1], float(bool(method)))


def _action(draft: Draft, reader: Reader, namespace: str) -> dict[str, Any]:
    action: dict[str, Any] = {}
    headers, redirect = _filters(reader)
    if redirect is not None:
        reader.skip("backendRefs")
        return {"redirect": redirect}
    backends: list[dict[str, Any]] = []
    invalid = 0
    for each in reader.maps("backendRefs"):
        backend = _backend(draft, each, namespace)
        if backend is None:
            invalid += 1
        else:
            backends.append(backend)
    if invalid and not backends:
        return {"direct_response": {"status": 500}}
    if backends:
        action["backends"] = backends
    if headers:
        action["headers"] = headers
    return action


def _backend(draft: Draft, reader: Reader, namespace: str) -> dict[str, Any] | None:
    group, kind = reader.text("group") or "", reader.text("kind") or "Service"
    name, own = reader.text("name") or "", reader.text("namespace") or namespace
    port, weight = reader.integer("port"), reader.integer("weight")
    headers, redirect = _filters(reader)
    reader.rest()
    if kind != "Service" or group not in ("", "core") or port is None or redirect is not None:
        text = "is not honoured: it is no Service with a port, and its share goes to the others instead of being a 500"
        draft.note(reader.place(), text, "ignored")
        return None
    backend: dict[str, Any] = {"service": backend_of(draft, f"{name}:{port}", own, reader.place())}
    if weight is not None:
        backend["weight"] = weight
    return {**backend, "headers": headers} if headers else backend


def _filters(reader: Reader) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Header edits, and a redirect if there is one."""
    headers: dict[str, Any] = {}
    redirect = None
    for each in reader.maps("filters"):
        kind = each.text("type")
        for side in _SIDES:
            field = f"{side}HeaderModifier"
            edits = each.map(field)
            if edits is not None and kind is not None and kind.lower() == field.lower():
                headers[side] = read_edits(edits, side)
        target = each.map("requestRedirect")
        if target is not None and kind == "RequestRedirect":
            redirect = _redirect(target)
        if kind not in ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect"):
            each.ignore("type", f"Linkerd has no filter {kind!r} either")
        each.rest()
    return {side: edit for side, edit in headers.items() if edit}, redirect


def _redirect(reader: Reader) -> dict[str, Any]:
    port, status = reader.integer("port"), reader.integer("statusCode")
    found = {"scheme": reader.text("scheme"), "host": reader.text("hostname"), "port": port, "status": status}
    path = reader.map("path")
    if path is not None:
        path.skip("type")
        found["path"] = path.text("replaceFullPath")
        if found["path"] is None:
            found["prefix"] = path.text("replacePrefixMatch")
        path.rest()
    reader.rest()
    return {name: value for name, value in found.items() if value is not None}


def _authority(host: str) -> dict[str, Any]:
    stem = re.escape(host.removeprefix("*.").lower())
    return {"regex": rf"(?i:{'.*[.]' if host.startswith('*.') else ''}{stem})[.]?(:[0-9]+)?"}


def _host_rank(host: str) -> tuple[float, float]:
    if not host:
        return (0, 0)
    return (1, len(host) - 1) if host.startswith("*.") else (2, len(host))
