"""Contradictions of routes: what a route does, where it hands over to, and what can never be reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from meshlib.config import model as written
from meshlib.config.compile_routes import route_names, route_policy
from meshlib.config.fields import closest
from meshlib.config.problems import Found, Path
from meshlib.policy.settings import CallPolicy

__all__ = ["Place", "Placed", "delegations", "endless", "placed_routes", "route_faults", "subset_faults"]

MAX_ROUTES: Final = 100_000
"""So many routes, each counted once for each of its matches, a service may come to with all that it delegates to."""

MAX_ALL_ROUTES: Final = 300_000
"""So many all services may come to together."""

MAX_DEPTH: Final = 32
"""So many times a route may be handed over, from one list to the next."""

_NOBODY_CALLED: Final = ("backends", "sticky", "rewrite", "mirror", "delegate")
_EXCLUDED: Final = {
    "redirect": _NOBODY_CALLED,
    "direct_response": ("redirect", *_NOBODY_CALLED),
    "delegate": ("backends", "sticky"),
}
_WITHOUT_BODY: Final = (204, 304)
_DELEGATION: Final = frozenset({"delegate", "route_sets"})

Place: TypeAlias = tuple[Path, written.Route, CallPolicy]
"""A route, where it is written, and the policy that it is laid over."""

Placed: TypeAlias = tuple[Path, str, frozenset[str], Path | None, tuple[str, ...]]
"""Of a contradiction the path, the text, what it rests on, another field concerned, and services that it rests on."""


def delegations(config: written.MeshConfig) -> Found:
    """Routes that hand over to a list that nobody wrote."""
    sets = config.route_sets
    lists: list[tuple[Path, Sequence[written.Route]]] = [
        (("services", name, "routes"), service.routes) for name, service in config.services.items()
    ]
    lists += [(("route_sets", name), routes) for name, routes in sets.items()]
    for path, routes in lists:
        for index, route in enumerate(routes):
            if route.delegate is not None and route.delegate not in sets:
                nearest = closest(route.delegate, sets)
                hint = f"; did you mean {nearest!r}?" if nearest else ""
                text = f"no list under 'route_sets' has the name {route.delegate!r}{hint}"
                yield (*path, index, "delegate"), text, _DELEGATION


def endless(config: written.MeshConfig) -> Found:
    """Lists of routes that lead back to themselves, or that grow too large: nothing can be made of them."""
    sets = config.route_sets
    order, circle = _in_order(sets)
    if circle:
        index = next(index for index, route in enumerate(sets[circle[0]]) if route.delegate == circle[1])
        yield (
            ("route_sets", circle[0], index, "delegate"),
            f"goes round in a circle: {' to '.join(circle)}",
            _DELEGATION,
        )
        return
    sizes: dict[str | None, int] = {None: 1}
    depths: dict[str | None, int] = {None: 0}
    for name in order:
        sizes[name] = _size(sets[name], sizes)
        depths[name] = 1 + max((depths.get(route.delegate, 0) for route in sets[name]), default=0)
    total = 0
    for name, service in config.services.items():
        size = _size(service.routes, sizes)
        total += size
        if max((depths.get(route.delegate, 0) for route in service.routes), default=0) > MAX_DEPTH:
            text = f"hand over from list to list more than {MAX_DEPTH} times"
        elif size > MAX_ROUTES:
            text = f"come to more than {MAX_ROUTES} routes with what they delegate to"
        elif total > MAX_ALL_ROUTES:
            text = f"come, with those of all services before, to more than {MAX_ALL_ROUTES} routes"
        else:
            continue
        yield ("services", name, "routes"), text, _DELEGATION
        if total > MAX_ALL_ROUTES:
            return


def _in_order(sets: Mapping[str, Sequence[written.Route]]) -> tuple[list[str], list[str]]:
    """The lists, each after those that it hands over to; or else the first circle, from one list back to itself."""
    over: dict[str, None] = {}
    for name in sets:
        # A dict, since the way may be long.
        way: dict[str, Iterator[written.Route]] = {} if name in over else {name: iter(sets[name])}
        while way:
            last = next(reversed(way))
            to = next((route.delegate for route in way[last] if route.delegate in sets), None)
            if to is None:
                over[last] = None
                del way[last]
            elif to in way:
                names = list(way)
                return [], [*names[names.index(to) :], to]
            elif to not in over:
                way[to] = iter(sets[to])
    return list(over), []


def _size(routes: Sequence[written.Route], sizes: Mapping[str | None, int]) -> int:
    """How many routes, each counted for each of its matches, a list comes to."""
    return sum(max(1, len(route.match)) * sizes.get(route.delegate, 0) for route in routes)


def placed_routes(
    path: Path, routes: Sequence[written.Route], base: CallPolicy, config: written.MeshConfig
) -> list[Place]:
    """The routes of a service, and those of all lists that they hand over to; each list once."""
    found: list[Place] = []
    ahead: list[tuple[Path, Sequence[written.Route], CallPolicy]] = [(path, routes, base)]
    seen: set[str] = set()
    while ahead:
        here, listed, policy = ahead.pop()
        for index, route in enumerate(listed):
            found.append(((*here, index), route, policy))
            if route.delegate is not None and route.delegate not in seen:
                seen.add(route.delegate)
                inner = config.route_sets.get(route.delegate, ())
                ahead.append((("route_sets", route.delegate), inner, route_policy(policy, route)))
    return found


def route_faults(path: Path, routes: Sequence[written.Route]) -> Found:
    """Those of one list of routes."""
    names = route_names(routes)
    first: dict[str, int] = {}
    open_at: int | None = None
    for index, (name, route) in enumerate(zip(names, routes, strict=True)):
        here = (*path, index)
        if name == "default" and path[0] == "services":
            text = "'default' is the name of the route that takes what no other does; choose another"
            yield (*here, "name"), text, frozenset({"name"})
        elif first.setdefault(name, index) != index:
            yield (*here, "name"), f"{name!r} is the name of {path[-1]}[{first[name]}] as well", frozenset({"name"})
        if open_at is not None:
            text = f"is never reached: {path[-1]}[{open_at}] has no 'match', so it takes everything"
            yield here, text, frozenset({"match"})
        elif not route.match and route.delegate is None:
            open_at = index
        yield from _one(here, route)


def _one(path: Path, route: written.Route) -> Found:
    given = route.model_fields_set
    for action, others in _EXCLUDED.items():
        if getattr(route, action) is None:
            continue
        for other in others:
            if other in given and getattr(route, other):
                why = "the routes that it hands over to say that" if action == "delegate" else "nobody is called"
                yield (*path, other), f"excludes {action!r}: {why}", frozenset({action, other})
    if not any(backend.weight > 0 for backend in route.backends):
        text = "the weights sum to zero, so no call can go anywhere"
        yield (*path, "backends"), text, frozenset({"backends"})
    elif route.sticky is not None and len(route.backends) == 1 and route.delegate is None:
        yield (*path, "sticky"), "does nothing: there is one backend", frozenset({"sticky", "backends"})
    for action in ("rewrite", "redirect"):
        part: written.Rewrite | written.Redirect | None = getattr(route, action)
        # Where a list is handed over to, or one of a list is this, another route has the condition.
        if part is None or part.prefix is None or path[0] != "services" or route.delegate is not None:
            continue
        if not any(match.path and (match.path.prefix or match.path.path_prefix) for match in route.match):
            text = "replaces the prefix that matched, and no match has one: 'path' replaces the whole path"
            yield (*path, action, "prefix"), text, frozenset({"prefix", "path", "path_prefix", "match", action})
    redirect, response = route.redirect, route.direct_response
    if redirect is not None and redirect.port is not None and redirect.host is not None and _has_port(redirect.host):
        text = "is in 'host' already; write it in one place"
        yield (*path, "redirect", "port"), text, frozenset({"port", "host", "redirect"})
    if response is not None and response.status in _WITHOUT_BODY and response.body:
        text = f"cannot be sent: a response {response.status} has none"
        yield (*path, "direct_response", "body"), text, frozenset({"status", "body", "direct_response"})


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def subset_faults(path: Path, route: written.Route, own: str, config: written.MeshConfig) -> Iterator[Placed]:
    """Backends and mirrors of a route that name a subset which nobody defines; `own` is its service."""
    needs = frozenset({"subsets", "subset_filters", "subset"})
    parts: list[tuple[str, int, written.Backend | written.Mirror]] = []
    if route.delegate is None:
        parts += [("backends", index, backend) for index, backend in enumerate(route.backends)]
    parts += [("mirror", index, mirror) for index, mirror in enumerate(route.mirror)]
    for field, index, part in parts:
        if part.subset is None:
            continue
        here, service = (*path, field, index, "subset"), part.service or own
        target = config.services.get(service)
        if target is None:
            text = f"the service {service!r} is not declared under 'services', so it has no subsets"
            yield here, text, needs, None, (service,)
        elif part.subset not in (defined := {**target.subsets, **target.subset_filters}):
            nearest = closest(part.subset, defined)
            known = ", ".join(defined) or "none"
            hint = f"; did you mean {nearest!r}?" if nearest else f"; those of {service!r} are: {known}"
            yield here, f"nobody defines the subset {part.subset!r}{hint}", needs, None, (service,)
