"""From what a user wrote to what the mesh reads: frozen settings, with everything merged in.

Each level (built-in, `defaults`, the service, a route) is laid over the one above it, field by field. What counts is
whether a field was written, not its value: ``max_retries: 2`` on a service holds over ``defaults`` that say 5, although
2 is also what a mesh without configuration does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from meshlib.balance import endpoint as balance
from meshlib.balance.filter import parse_filter
from meshlib.config import model as written
from meshlib.config.compile_routes import compile_routes
from meshlib.config.fields import split_endpoint
from meshlib.config.lay import lay_over
from meshlib.config.own_hosts import EACH_HOST, OwnHosts, WrittenEndpoints
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
    WatchSettings,
)
from meshlib.config.shadow import shadow_of
from meshlib.dataclass import dataclass, replace
from meshlib.policy.settings import (
    BudgetSettings,
    CallPolicy,
)
from meshlib.routing.index import RouteTable
from meshlib.routing.override_settings import OverrideSettings
from meshlib.routing.route import Backend, Route

if TYPE_CHECKING:
    from meshlib.config.overlay import Overlay

__all__ = [
    "Levels",
    "compile_config",
    "compile_service",
    "consul_settings",
    "endpoints_of",
    "levels_of",
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


@dataclass(frozen=True, slots=True)
class Fallback:
    """Builds the settings of a service that the configuration does not name. Two of equal defaults are equal."""

    levels: Levels
    own: OwnHosts | None = None

    def __call__(self, name: str) -> ServiceSettings:
        levels = self.levels
        settings = None if self.own is None else self.own.settings_of(name)
        if settings is not None:
            return settings
        routes = (Route("default", (Backend(name),), levels.call),)
        cluster = replace(levels.cluster, service=name)
        return ServiceSettings(name, routes, {None: cluster}, levels.budget, mode=levels.mode, declared=False)


def compile_config(config: written.MeshConfig) -> MeshSettings:
    """Compile a configuration that `meshlib.config.load` has checked."""
    services = {name: compile_service(name, service, config) for name, service in config.services.items()}
    own = OwnHosts.among(services.values())
    static = {
        name: endpoints_of(name, service)
        for name, service in config.services.items()
        if "endpoints" in service.model_fields_set
    }
    if own is not None:
        static = WrittenEndpoints(static, own)
    sources = tuple(_source(source) for source in config.discovery)
    return MeshSettings(
        service=config.service,
        mode=config.mode,
        egress=config.egress,
        domains=tuple(config.domains),
        namespace=config.namespace,
        labels=dict(config.labels),
        path_normalization=config.path_normalization,
        locality=_locality(config.locality),
        wire=config.wire,
        discovery=(StaticSettings(static), *sources) if static else sources,
        services=services,
        fallback=Fallback(levels_of("", config.defaults), own),
        overlay=_overlay(config),
        register=_register(config),
        server=lay_over(ServerSettings(), config.server),
        redis=None if config.redis is None else lay_over(RedisSettings(""), config.redis),
        overrides=None if config.overrides is None else lay_over(OverrideSettings(), config.overrides),
        watch=None if config.watch is None else lay_over(WatchSettings(), config.watch),
        sidecar=config.sidecar,
        sources=config.sources,
        notes=config.notes,
        security_documents=config.security_documents,
    )


def _overlay(config: written.MeshConfig) -> Overlay | None:
    if not any(isinstance(source, written.Consul) and source.chain for source in config.discovery):
        return None
    from meshlib.config.overlay import Overlay

    return Overlay(config)


def compile_service(name: str, service: written.Service, config: written.MeshConfig) -> ServiceSettings:
    """Compile one service of a configuration."""
    levels = levels_of(name, config.defaults, service)
    clusters: dict[str | None, ClusterSettings] = {None: levels.cluster}
    for subset, selector in service.subsets.items():
        given = service.subset_fallback.get(subset, "none")
        others = tuple(sorted(given.items())) if isinstance(given, Mapping) else () if given == "any" else None
        policy = service.subset_policies.get(subset)
        cluster = levels.cluster if policy is None else levels.under(policy).cluster
        clusters[subset] = replace(cluster, subset=subset, selector=tuple(sorted(selector.items())), otherwise=others)
    for subset, expression in service.subset_filters.items():
        policy = service.subset_policies.get(subset)
        cluster = levels.cluster if policy is None else levels.under(policy).cluster
        clusters[subset] = replace(cluster, subset=subset, filter=parse_filter(expression))
    routes = compile_routes(name, service.routes, levels.call, config)
    routes.append(Route("default", (Backend(name),), levels.call))
    hosts = tuple(service.hosts)
    each_host = tuple(each for each in _endpoints(service) if each.host == EACH_HOST)
    return ServiceSettings(
        name, RouteTable.of(routes), clusters, levels.budget, hosts, levels.mode, each_host=each_host
    )


def endpoints_of(name: str, service: written.Service) -> tuple[balance.Endpoint, ...]:
    """The endpoints of a service that are written in the configuration."""
    return tuple(replace(each, host=name) if each.host == EACH_HOST else each for each in _endpoints(service))


def _endpoints(service: written.Service) -> Iterator[balance.Endpoint]:
    for one in service.endpoints:
        yield _endpoint(written.Endpoint(address=one) if isinstance(one, str) else one)


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
