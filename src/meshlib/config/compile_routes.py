"""Routes, from what a user wrote to what calls read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from meshlib.config import model as written
from meshlib.config.lay import compiled, lay_over
from meshlib.config.parts import actions as parts
from meshlib.policy.settings import CallPolicy
from meshlib.routing.actions import DirectResponse, Mirror, Redirect, RegexRewrite, Rewrite
from meshlib.routing.delegation import delegated
from meshlib.routing.match import PathKind, PathMatch, RouteMatch, StringMatch, string_match
from meshlib.routing.route import Backend, HeaderEdits, Route

__all__ = ["compile_routes", "route_names", "route_policy"]

_PATH_KINDS: Final[tuple[PathKind, ...]] = ("exact", "prefix", "path_prefix", "regex", "template")


def route_policy(base: CallPolicy, route: written.Route) -> CallPolicy:
    """The policy of one route over its service's."""
    return lay_over(base, route)


def route_names(routes: Sequence[written.Route]) -> list[str]:
    """The names of a list of routes; one without a name has its place."""
    return [route.name or f"route-{index}" for index, route in enumerate(routes, 1)]


def compile_routes(service: str, routes: Sequence[written.Route], base: CallPolicy, config: _Config) -> list[Route]:
    """The routes of a service, with those that others delegate to in their place.

    Args:
        service: its name.
        routes: as written.
        base: the policy of the service.
        config: the whole configuration: who this workload is, and the lists to delegate to.
    """
    return list(_routes(service, routes, base, config, ()))


_Config = written.MeshConfig


def _routes(
    service: str, routes: Sequence[written.Route], base: CallPolicy, config: _Config, chain: tuple[str, ...]
) -> Iterator[Route]:
    for name, route in zip(route_names(routes), routes, strict=True):
        policy = route_policy(base, route)
        matches = tuple(_match(match, config) for match in route.match)
        made = _route(name, service, route, policy, matches)
        if route.delegate is None:
            yield made
        elif route.delegate not in chain:
            inner = config.route_sets.get(route.delegate, ())
            for each in _routes(service, inner, policy, config, (*chain, route.delegate)):
                yield delegated(made, each)


def _route(name: str, service: str, route: written.Route, policy: CallPolicy, matches: tuple[RouteMatch, ...]) -> Route:
    templates = {match.path.value if match.path and match.path.kind == "template" else None for match in matches}
    return Route(
        name,
        tuple(_backend(backend, service) for backend in route.backends),
        policy,
        matches,
        _edits(route.headers.request),
        _edits(route.headers.response),
        # One name for all that the route takes, or none.
        templates.pop() if len(templates) == 1 else None,
        _rewrite(route),
        _reply(route),
        tuple(Mirror(mirror.service or service, mirror.subset, mirror.percent) for mirror in route.mirror),
        compiled(route.sticky),
    )


def _backend(backend: written.Backend, service: str) -> Backend:
    edits = _edits(backend.headers.request), _edits(backend.headers.response)
    return Backend(
        backend.service or service, backend.subset, backend.weight, *edits, backend.headers.request.set.get("host")
    )


def _rewrite(route: written.Route) -> Rewrite | None:
    given, host = route.rewrite, route.headers.request.set.get("host")
    if given is None:
        return None if host is None else Rewrite(host=host)
    return Rewrite(given.path, given.prefix, _regex_rewrite(given.regex), given.host or host)


def _regex_rewrite(given: parts.RegexRewrite | None) -> RegexRewrite | None:
    return None if given is None else RegexRewrite(given.pattern, given.substitution)


def _reply(route: written.Route) -> Redirect | DirectResponse | None:
    redirect, given = route.redirect, route.direct_response
    if redirect is not None:
        return Redirect(
            redirect.path,
            redirect.prefix,
            _regex_rewrite(redirect.regex),
            redirect.host,
            redirect.port,
            redirect.scheme,
            redirect.status,
            redirect.strip_query,
        )
    if given is None:
        return None
    return DirectResponse(given.status, given.body.encode(), _pairs(given.headers))


def _match(match: written.Match, config: _Config) -> RouteMatch:
    return RouteMatch(
        None if match.path is None else _path(match.path),
        frozenset(match.method),
        _values(match.headers),
        _values(match.query),
        _values(match.cookies),
        match.scheme,
        None if match.authority is None else string_match(match.authority),
        match.port,
        match.percent,
        None if match.caller is None else _never(match.caller, config),
        unless=tuple(_match(each, config) for each in match.unless),
    )


def _never(caller: written.Caller, config: _Config) -> str | None:
    """Why the route is not for this workload; None if it is."""
    if caller.namespace is not None and caller.namespace != config.namespace:
        return f"it is for callers in the namespace {caller.namespace!r}, and this one is in {config.namespace!r}"
    for name, value in caller.labels.items():
        given = config.labels.get(name)
        if given != value:
            has = "has no such label" if given is None else f"has {given!r}"
            return f"it is for callers with the label {name} {value!r}, and this one {has}"
    return None


def _path(match: written.PathMatch) -> PathMatch:
    kind = next(kind for kind in _PATH_KINDS if getattr(match, kind) is not None)
    return PathMatch(kind, getattr(match, kind), match.ignore_case)


def _values(conditions: Mapping[str, written.ValueMatch]) -> tuple[tuple[str, StringMatch], ...]:
    return tuple((name, string_match(condition)) for name, condition in conditions.items())


def _pairs(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("ascii"), value.encode("utf-8")) for name, value in headers.items())


def _edits(edit: written.HeaderEdit) -> HeaderEdits:
    replaced = {name: value for name, value in edit.set.items() if name != "host"}  # which rewrites the host
    return HeaderEdits(frozenset(name.encode("ascii") for name in edit.remove), _pairs(replaced), _pairs(edit.add))
