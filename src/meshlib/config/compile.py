"""From what a user wrote to what the mesh reads: frozen settings, with everything merged in.

Each level (built-in, `defaults`, the service, a route) is laid over the one above it, field by field. What counts is
whether a field was written, not its value: ``max_retries: 2`` on a service holds over ``defaults`` that say 5, although
2 is also what a mesh without configuration does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.balance import endpoint as balance
from meshlib.config import model as written
from meshlib.config.fields import split_endpoint
from meshlib.config.lay import lay_over
from meshlib.config.settings import (
    ClusterSettings,
    ConsulSettings,
    DiscoverySettings,
    LocalSettings,
    MeshSettings,
    RedisSettings,
    RegisterSettings,
    ServerSettings,
    ServiceSettings,
    StaticSettings,
)
from meshlib.config.shadow import shadow_of
from meshlib.dataclass import dataclass, replace
from meshlib.policy.settings import (
    BudgetSettings,
    CallPolicy,
)
from meshlib.routing.match import PathKind, PathMatch, RouteMatch, StringKind, StringMatch
from meshlib.routing.route import Backend, HeaderEdits, Route

__all__ = [
    "Levels",
    "compile_config",
    "compile_service",
    "consul_settings",
    "endpoints_of",
    "levels_of",
    "route_names",
    "route_policy",
]


@dataclass(frozen=True, slots=True)
class Levels:
    """The policy of a service after some levels are laid over one another."""

    call: CallPolicy
    cluster: ClusterSettings
    budget: BudgetSettings
    mode: Any = None
    shadows: tuple[written.Shadow, ...] = ()

    def under(self, policy: written.Policy) -> Levels:
        """With `policy` laid over it."""
        given = policy.model_fields_set
        cluster = lay_over(self.cluster, policy)
        if "connect_timeout" in given:
            connect_s: Any = policy.connect_timeout
            cluster = replace(cluster, pool=replace(cluster.pool, connect_timeout_s=connect_s))
        shadows = self.shadows
        if "shadow" in given:
            shadows = (*shadows, policy.shadow) if policy.shadow else ()
        if shadows or "shadow" in given:
            cluster = replace(cluster, shadow=shadow_of(cluster, shadows))
        return Levels(
            lay_over(self.call, policy),
            cluster,
            _budget(self.budget, policy.retry_budget),
            policy.mode if "mode" in given else self.mode,
            shadows,
        )


def _budget(base: BudgetSettings, part: written.RetryBudget) -> BudgetSettings:
    # What is left of a budget of another kind means something else in this one.
    changes = "kind" in part.model_fields_set and part.kind != base.kind
    return lay_over(BudgetSettings() if changes else base, part)


def levels_of(name: str, *policies: written.Policy) -> Levels:
    """The policy of the service `name`: the built-in one with each of `policies` laid over it in turn."""
    levels = Levels(CallPolicy(), ClusterSettings(name), BudgetSettings())
    for policy in policies:
        levels = levels.under(policy)
    return levels


def route_policy(base: CallPolicy, route: written.Route) -> CallPolicy:
    """The policy of one route over its service's."""
    return lay_over(base, route)


def route_names(service: written.Service) -> list[str]:
    """The names of a service's routes; one without a name has its place."""
    return [route.name or f"route-{index}" for index, route in enumerate(service.routes, 1)]


@dataclass(frozen=True, slots=True)
class Fallback:
    """Builds the settings of a service that the configuration does not name. Two of equal defaults are equal."""

    levels: Levels

    def __call__(self, name: str) -> ServiceSettings:
        levels = self.levels
        routes = (Route("default", (Backend(name),), levels.call),)
        cluster = replace(levels.cluster, service=name)
        return ServiceSettings(name, routes, {None: cluster}, levels.budget, mode=levels.mode, declared=False)


def compile_config(config: written.MeshConfig) -> MeshSettings:
    """Compile a configuration that `meshlib.config.load` has checked."""
    services = {name: compile_service(name, service, config.defaults) for name, service in config.services.items()}
    static = {
        name: endpoints_of(service)
        for name, service in config.services.items()
        if "endpoints" in service.model_fields_set
    }
    sources = tuple(_source(source) for source in config.discovery)
    return MeshSettings(
        service=config.service,
        mode=config.mode,
        egress=config.egress,
        domains=tuple(config.domains),
        locality=_locality(config.locality),
        wire=config.wire,
        discovery=(StaticSettings(static), *sources) if static else sources,
        services=services,
        fallback=Fallback(levels_of("", config.defaults)),
        register=_register(config),
        server=lay_over(ServerSettings(), config.server),
        redis=None if config.redis is None else lay_over(RedisSettings(""), config.redis),
        sources=config.sources,
    )


def compile_service(name: str, service: written.Service, defaults: written.Policy) -> ServiceSettings:
    """Compile one service over the defaults."""
    levels = levels_of(name, defaults, service)
    clusters: dict[str | None, ClusterSettings] = {None: levels.cluster}
    for subset, selector in service.subsets.items():
        given = service.subset_fallback.get(subset, "none")
        others = tuple(sorted(given.items())) if isinstance(given, Mapping) else () if given == "any" else None
        clusters[subset] = replace(
            levels.cluster, subset=subset, selector=tuple(sorted(selector.items())), otherwise=others
        )
    routes = [
        _route(route_name, name, route, levels.call)
        for route_name, route in zip(route_names(service), service.routes, strict=True)
    ]
    routes.append(Route("default", (Backend(name),), levels.call))
    return ServiceSettings(name, tuple(routes), clusters, levels.budget, tuple(service.hosts), levels.mode)


def endpoints_of(service: written.Service) -> tuple[balance.Endpoint, ...]:
    """The endpoints that are written in the configuration."""
    return tuple(_endpoint(written.Endpoint(address=one) if isinstance(one, str) else one) for one in service.endpoints)


def _endpoint(one: written.Endpoint) -> balance.Endpoint:
    host, port = split_endpoint(one.address)
    return balance.Endpoint(
        host,
        port,
        one.weight,
        locality=_locality(one.locality),
        metadata=dict(one.metadata),
        health=balance.Health(one.health),
        priority=one.priority,
    )


def _locality(locality: written.Locality) -> balance.Locality:
    return balance.Locality(locality.region, locality.zone, locality.sub_zone)


def _source(source: written.Consul | written.Local) -> DiscoverySettings:
    if isinstance(source, written.Local):
        return lay_over(LocalSettings(), source)
    return consul_settings(source)


def consul_settings(source: written.Consul) -> ConsulSettings:
    """A Consul agent, compiled."""
    # An empty token is what `${CONSUL_HTTP_TOKEN:-}` gives where there is none.
    return replace(lay_over(ConsulSettings(), source), token=source.token or None)


def _register(config: written.MeshConfig) -> RegisterSettings | None:
    entry = config.registration
    if entry is None:
        return None
    interval: Any = entry.check_interval
    return RegisterSettings(
        entry.port, entry.service, entry.host, entry.weight, dict(entry.metadata), entry.check_path, interval
    )


def _route(name: str, service: str, route: written.Route, base: CallPolicy) -> Route:
    matches = tuple(_match(match) for match in route.match)
    templates = {match.path.value if match.path and match.path.kind == "template" else None for match in matches}
    return Route(
        name,
        tuple(Backend(backend.service or service, backend.subset, backend.weight) for backend in route.backends),
        route_policy(base, route),
        matches,
        _edits(route.headers.request),
        _edits(route.headers.response),
        # One name for all that the route takes, or none.
        templates.pop() if len(templates) == 1 else None,
    )


def _match(match: written.Match) -> RouteMatch:
    return RouteMatch(
        None if match.path is None else _path(match.path),
        frozenset(match.method),
        tuple((name, _value(condition)) for name, condition in match.headers.items()),
        tuple((name, _value(condition)) for name, condition in match.query.items()),
    )


_PATH_KINDS: Final[tuple[PathKind, ...]] = ("exact", "prefix", "path_prefix", "regex", "template")
_VALUE_KINDS: Final[tuple[StringKind, ...]] = ("exact", "prefix", "suffix", "regex")


def _path(match: written.PathMatch) -> PathMatch:
    kind = next(kind for kind in _PATH_KINDS if getattr(match, kind) is not None)
    return PathMatch(kind, getattr(match, kind))


def _value(match: written.ValueMatch) -> StringMatch:
    if match.present is not None:
        return StringMatch("present", invert=match.invert is match.present)
    kind = next(kind for kind in _VALUE_KINDS if getattr(match, kind) is not None)
    return StringMatch(kind, getattr(match, kind), match.invert)


def _edits(edit: written.HeaderEdit) -> HeaderEdits:
    return HeaderEdits(
        frozenset(name.encode("ascii") for name in edit.remove),
        tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in edit.set.items()),
        tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in edit.add.items()),
    )
