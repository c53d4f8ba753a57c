"""What the validated configuration compiles to, for the parts around the core: frozen, plain, no validation left.

The policies' own settings live beside each policy (`meshlib.policy`); this module has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from meshlib.balance.endpoint import Endpoint, Locality
from meshlib.balance.settings import LoadBalancing
from meshlib.config.server_settings import ServerSettings
from meshlib.dataclass import dataclass, field
from meshlib.policy.settings import (
    BreakerSettings,
    BudgetSettings,
    CallPolicy,
    LimitSettings,
    OutlierSettings,
    ShadowSettings,
    UserBreaker,
)
from meshlib.routing.override_settings import OverrideSettings
from meshlib.routing.route import Backend, Route

if TYPE_CHECKING:
    from meshlib.balance.filter import EndpointFilter
    from meshlib.config.overlay import Overlay
    from meshlib.policy.admission_settings import BulkheadSettings, FleetSettings, RateLimitSettings, ThrottleAlgorithm
    from meshlib.policy.health_check import HealthCheckSettings

__all__ = [
    "ClusterSettings",
    "ConsulSettings",
    "DiscoverySettings",
    "DocumentSettings",
    "FailoverTarget",
    "KeepaliveSettings",
    "LocalSettings",
    "MeshSettings",
    "Mode",
    "PoolSettings",
    "RedisSettings",
    "RegisterSettings",
    "ServerSettings",
    "ServiceSettings",
    "StaticSettings",
    "TlsSettings",
    "WatchSettings",
    "default_service",
]


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """Endpoints written in the configuration, by service."""

    services: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The embedded registry of one machine.

    Attributes:
        directory: where instances are entered; None for the user's own: ``$MESHLIB_LOCAL_DIR``, else
            ``$XDG_RUNTIME_DIR/meshlib``, else a directory of the user's under the system's temporary directory.
        poll_interval_s: how often a watch looks at the directory.
    """

    directory: str | None = None
    poll_interval_s: float = 0.2


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """A Consul agent.

    Attributes:
        address: its HTTP address, ``http://127.0.0.1:8500``.
        token: ACL token; never shown.
        datacenter: another datacenter to ask for; None for the agent's own.
        tag: only instances with this tag.
        chain: whether to follow the discovery chain of each service in use: its routes, splits, subsets and failover.
        wait_s: how long a blocking query may block at the server.
        retry_base_s, retry_max_s: full-jitter back-off while Consul is unwell.
    """

    address: str = "http://127.0.0.1:8500"
    token: str | None = field(default=None, repr=False)
    datacenter: str | None = None
    tag: str | None = None
    chain: bool = False
    wait_s: float = 60.0
    retry_base_s: float = 0.1
    retry_max_s: float = 1.0


DiscoverySettings: TypeAlias = StaticSettings | LocalSettings | ConsulSettings


@dataclass(frozen=True, slots=True)
class KeepaliveSettings:
    """When the system asks a silent peer whether it is still there. The values are Go's, and notice after 2.5 minutes.

    Attributes:
        time_s: of silence, before the first probe.
        interval_s: between probes.
        probes: without an answer, after which the connection is broken.
    """

    time_s: float = 15.0
    interval_s: float = 15.0
    probes: int = 9


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Connections to one endpoint.

    Attributes:
        max_connections: open at once, per endpoint and event loop (or, in sync code, per process).
        max_pending: calls that wait for one of them; a further one fails at once.
        idle_s: a connection idle for longer is not used again.
        idle_unsafe_s: the same for a request that could not be sent twice.
        connect_timeout_s: for TCP and TLS together.
        local_address: the IP address that connections begin at; None for the system's choice.
        tcp_keepalive: None where switched off.
    """

    max_connections: int = 100
    max_pending: int = 1000
    idle_s: float = 4.0
    idle_unsafe_s: float = 1.5
    connect_timeout_s: float = 1.0
    local_address: str | None = None
    tcp_keepalive: KeepaliveSettings | None = KeepaliveSettings()


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How connections to a service are encrypted; None where they are not.

    Attributes:
        server_name: for SNI and for the verification of the peer's certificate; None for the service's name.
        ca_file: a PEM bundle of trusted roots; None for the system's, or `ca`.
        ca: the text of such a bundle.
        cert_file, key_file: this workload's own certificate, if the peer asks for one.
        verify: False turns verification off, for tests only.
    """

    server_name: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = field(default=None, repr=False)
    verify: bool = True
    ca: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RegisterSettings:
    """How this process enters itself into the registry.

    Attributes:
        service: the name; None for the configuration's ``service``.
        host: the address that callers use; None for the one that reaches the registry (127.0.0.1 for the local one).
        port: the port that callers use.
        weight: its share of calls relative to the other instances'.
        metadata: what subsets select by.
        check_path: an HTTP path to check; None for a check of the TCP port.
        check_interval_s: between checks.
    """

    port: int
    service: str | None = None
    host: str | None = None
    weight: float = 1.0
    metadata: dict[str, str] = field(default_factory=dict)
    check_path: str | None = None
    check_interval_s: float = 5.0


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """The Redis over which a fleet shares limits and breakers.

    Attributes:
        url: may hold a password, and is never shown.
        max_wait_s: how long a call waits for an answer.
        prefix: of all keys.
    """

    url: str = field(repr=False)
    max_wait_s: float = 0.02
    prefix: str = "meshlib"


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """The files of the configuration are followed, and read again when they change.

    Attributes:
        interval_s: between two looks at them.
    """

    interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class DocumentSettings:
    """How the documents of other meshes are read.

    Attributes:
        strict: whether what is not honoured is an error.
        defaults: whose hold where nothing is said.
        retry_unsafe: whether retries hold for requests that are not safe to repeat as well.
        reference_grants: whether a route of the Gateway API needs a ReferenceGrant for backends in other namespaces.
    """

    strict: bool = False
    defaults: Literal["theirs", "ours"] = "theirs"
    retry_unsafe: bool = False
    reference_grants: bool = False


Mode: TypeAlias = Literal["off", "observe", "on"]


@dataclass(frozen=True, slots=True)
class FailoverTarget:
    """Where calls of a cluster go while none of its own endpoints is healthy.

    Attributes:
        service: None for its own.
        subset: None for all of it.
    """

    service: str | None = None
    subset: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What a call is balanced over, and how.

    Attributes:
        service: the service whose endpoints these are.
        subset: the subset's name, or None for the whole service.
        selector: metadata that an endpoint must have to belong to the subset.
        otherwise: those that endpoints must have which stand in while nobody has these; None for nobody.
        filter: instead of `selector`, what an endpoint of the subset is to be; None for none.
        failover_to: whose endpoints stand by, in this order.
        http2: speak HTTP/2.
        host_header: ``service`` (the name that the caller used), ``endpoint`` (the address), or a literal value.
        breaker, outlier: None where switched off; the breaker may be one of the user's own.
        bulkhead, throttle, rate_limit, fleet: None where there is none.
        health_check: active checks; None for none.
        shadow: what runs beside the others and decides nothing; None for nothing.
    """

    service: str
    subset: str | None = None
    selector: tuple[tuple[str, str], ...] = ()
    otherwise: tuple[tuple[str, str], ...] | None = None
    filter: EndpointFilter | None = None
    failover_to: tuple[FailoverTarget, ...] = ()
    load_balancing: LoadBalancing = LoadBalancing()
    breaker: BreakerSettings | UserBreaker | None = BreakerSettings()
    outlier: OutlierSettings | None = OutlierSettings()
    health_check: HealthCheckSettings | None = None
    limits: LimitSettings = LimitSettings()
    bulkhead: BulkheadSettings | None = None
    throttle: ThrottleAlgorithm | None = None
    rate_limit: RateLimitSettings | None = None
    fleet: FleetSettings | None = None
    shadow: ShadowSettings | None = None
    pool: PoolSettings = PoolSettings()
    tls: TlsSettings | None = None
    http2: bool = False
    host_header: str = "service"

    @property
    def name(self) -> str:
        """``orders`` or ``orders/v2``."""
        return self.service if self.subset is None else f"{self.service}/{self.subset}"


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service, compiled: its own values over those of `defaults`.

    Attributes:
        routes: in order; the last has no match, so that one always matches.
        clusters: by subset name; None is the whole service.
        mode: its own, or None for the mesh's.
        declared: whether the configuration names it (others get the defaults when first called).
        each_host: endpoints at each host that callers name, which is a service by itself then
            (`meshlib.config.own_hosts`).
    """

    name: str
    routes: tuple[Route, ...]
    clusters: Mapping[str | None, ClusterSettings]
    budget: BudgetSettings = BudgetSettings()
    hosts: tuple[str, ...] = ()
    mode: Mode | None = None
    declared: bool = True
    each_host: tuple[Endpoint, ...] = ()

    @property
    def standbys(self) -> set[str]:
        """The services that clusters of this one fail over to."""
        if not any(cluster.failover_to for cluster in self.clusters.values()):
            return set()
        return {target.service or self.name for cluster in self.clusters.values() for target in cluster.failover_to}

    @property
    def callers(self) -> set[str]:
        """The services whose endpoints are counted as callers of this one."""
        balancings = [cluster.load_balancing for cluster in self.clusters.values()]
        shadows = [cluster.shadow for cluster in self.clusters.values() if cluster.shadow is not None]
        balancings += [shadow.load_balancing for shadow in shadows if shadow.load_balancing is not None]
        zone_aware = [balancing.zone_aware for balancing in balancings]
        return {each.local_service for each in zone_aware if each is not None and each.local_service}


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """The whole configuration, compiled.

    Attributes:
        service: this workload's own name.
        mode: ``off``, ``observe`` or ``on``.
        egress: what to do with hosts outside the mesh.
        domains: patterns of names that are looked up in discovery: ``*.mesh``.
        wire: ``native`` (the mesh's own connections), ``h11`` (the same, with h11 as the parser of HTTP/1.1, which is
            slower and takes more from old servers) or ``stock`` (the client's own transport).
        discovery: sources, in the order in which they are asked (static endpoints come before all).
        services: those that the configuration names.
        fallback: builds the settings of a service that it does not name.
        overlay: lays what a control plane says of a service under what is written of it; None where none does.
        overrides: which overrides of single requests are believed; None for none.
        namespace, labels: of this workload.
        path_normalization: what is done to paths before routes see them (`meshlib.routing.normalize`).
        watch: None where its files are not followed.
        sidecar: whether a sidecar of another mesh is looked for, in a pod, and told of: ``warn`` or ``ignore``.
        sources: the files that this was read from.
        notes: what documents of other meshes say that is not honoured, or not to the letter: each a `Note` of
            `meshlib.config.dialects.draft`.
        security_documents: those among them that speak of identity and authorization, as they were read.
    """

    service: str = ""
    mode: Mode = "on"
    egress: Literal["pass", "refuse"] = "pass"
    domains: tuple[str, ...] = ("*.mesh", "*.svc.cluster.local")
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    path_normalization: Literal["none", "base", "merge_slashes", "decode_and_merge_slashes"] = "none"
    locality: Locality = Locality()
    wire: Literal["native", "h11", "stock"] = "native"
    discovery: tuple[DiscoverySettings, ...] = (LocalSettings(),)
    services: Mapping[str, ServiceSettings] = field(default_factory=dict)
    fallback: Callable[[str], ServiceSettings] = field(default=lambda name: default_service(name), repr=False)
    overlay: Overlay | None = field(default=None, repr=False, compare=False)
    register: RegisterSettings | None = None
    server: ServerSettings = ServerSettings()
    redis: RedisSettings | None = None
    overrides: OverrideSettings | None = None
    watch: WatchSettings | None = None
    sidecar: Literal["warn", "ignore"] = "warn"
    sources: tuple[str, ...] = ()
    notes: tuple[Any, ...] = ()
    security_documents: tuple[Any, ...] = ()


def default_service(name: str) -> ServiceSettings:
    """A service without any configuration: one route to one cluster, with all defaults."""
    route = Route("default", (Backend(name),), CallPolicy())
    return ServiceSettings(name, (route,), {None: ClusterSettings(name)}, declared=False)
