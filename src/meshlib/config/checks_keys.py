"""Names that nothing bears: parts of a limit and metadata of calls that no call comes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from meshlib.config import model as written
from meshlib.config.compile import levels_of
from meshlib.config.compile_routes import route_names
from meshlib.config.problems import Found, Path
from meshlib.config.rejection import closest
from meshlib.context import Criticality
from meshlib.policy.admission_settings import KeySource

__all__ = ["unmatched", "unnamed"]

_CRITICALITIES = tuple(each.name.lower() for each in Criticality)


def unnamed(config: written.MeshConfig) -> Found:
    """Each share of a bulkhead, and each override of a rate limit, for a route or a criticality that there is not."""
    routes_to = _routes_to(config)
    for name, service in config.services.items():
        if service.bulkhead is None and service.rate_limit is None:
            continue
        cluster = levels_of(name, config.defaults, service).cluster
        here: Path = ("services", name)
        routes = {"default", *routes_to[name]}
        if service.bulkhead is not None and cluster.bulkhead is not None:
            yield from _strangers(
                (*here, "bulkhead", "percents"), service.bulkhead.percents, cluster.bulkhead.by, routes
            )
        if service.rate_limit is not None and cluster.rate_limit is not None:
            overrides = service.rate_limit.overrides
            yield from _strangers((*here, "rate_limit", "overrides"), overrides, cluster.rate_limit.by, routes)


def _routes_to(config: written.MeshConfig) -> Mapping[str, set[str]]:
    """For each service the names of all routes by which calls come to it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, service in config.services.items():
        for route_name, route in zip(route_names(service.routes), service.routes, strict=True):
            for target in {backend.service or name for backend in route.backends} or {name}:
                found[target].add(route_name)
    return found


def _strangers(path: Path, keys: Collection[str], by: KeySource | None, routes: set[str]) -> Found:
    if by is None or by.kind not in ("route", "criticality"):
        return
    known = sorted(routes) if by.kind == "route" else _CRITICALITIES
    for key in keys:
        if key not in known:
            near = closest(key, known)
            hint = f"did you mean {near!r}?" if near else f"those that there are: {', '.join(known)}"
            text = f"no call has the {by.kind} {key!r}; {hint}"
            yield (*path, key), text, frozenset({"by", "percents", "overrides", "routes", "backends", "name"})


def unmatched(config: written.MeshConfig) -> Found:
    """Each `metadata_match` of calls to a service whose endpoints are not chosen by metadata."""
    for name, service in config.services.items():
        if levels_of(name, config.defaults, service).cluster.load_balancing.subset is not None:
            continue
        elsewhere = [any(each.service not in (None, name) for each in route.backends) for route in service.routes]
        places: list[tuple[Path, written.Service | written.Route]] = []
        if not any(elsewhere):
            places.append((("services", name), service))
        for index, route in enumerate(service.routes):
            if not elsewhere[index]:
                places.append((("services", name, "routes", index), route))
        for path, part in places:
            if part.metadata_match:
                text = "has no effect without 'load_balancing: {subset: ...}', which chooses endpoints by it"
                yield (*path, "metadata_match"), text, frozenset({"metadata_match", "load_balancing", "subset"})
