"""What a user writes, as typed objects: the same names in a file and in code.

`Mesh(service="checkout", services={"orders": Service(timeout="2s")})` and a file with the same maps mean the same. This
module imports pydantic, so it is loaded only when there is a configuration to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag

from meshlib.balance.filter import FilterError, parse_filter
from meshlib.config import shown
from meshlib.config.fields import (
    Address,
    Count,
    Domain,
    Flag,
    HeaderValue,
    Host,
    Interval,
    Many,
    Name,
    OrFalse,
    OrNone,
    OwnName,
    Part,
    Positive,
    Span,
    Text,
    reject,
)
from meshlib.config.parts import (
    Accrual,
    Adaptive,
    Admission,
    AdmissionShares,
    Aperture,
    Backoff,
    BreakerOrFalse,
    Bulkhead,
    CircuitBreaker,
    Consul,
    DirectResponse,
    Distribute,
    Documents,
    Drain,
    FailoverRegion,
    FailoverTarget,
    FailurePercentage,
    Fault,
    FaultAbort,
    FaultDelay,
    Fleet,
    FleetBreaker,
    FleetRateLimit,
    HashCookie,
    HashOn,
    HeaderCondition,
    HeaderEdit,
    HeaderEdits,
    Health,
    HealthCheck,
    Hedge,
    HighLimits,
    Hopeless,
    HttpCheck,
    LeastRequest,
    Limits,
    LoadBalancing,
    Local,
    MetadataSubsets,
    Mirror,
    OutlierDetection,
    OverrideAllowed,
    Overrides,
    Pool,
    Prequal,
    Rate,
    RateLimit,
    RateLimitedBackoff,
    Redirect,
    Redis,
    RegexRewrite,
    Register,
    ResetHeader,
    Retry,
    RetryBudget,
    Rewrite,
    Ring,
    Server,
    ServerWeights,
    SessionAffinity,
    Shadow,
    SlowStart,
    Sticky,
    SubsetSelector,
    Subsetting,
    SuccessRate,
    TcpCheck,
    TcpKeepalive,
    Throttle,
    Tls,
    Watch,
    ZoneAware,
)
from meshlib.config.parts.sources import Source
from meshlib.config.rules import Backend, Caller, Match, PathMatch, Route, ValueMatch
from meshlib.config.settings import MeshSettings, Mode, PoolSettings
from meshlib.policy.settings import CallPolicy

__all__ = [
    "Accrual",
    "Adaptive",
    "Admission",
    "AdmissionShares",
    "Aperture",
    "Backend",
    "Backoff",
    "Bulkhead",
    "Caller",
    "CircuitBreaker",
    "Consul",
    "Defaults",
    "DirectResponse",
    "Distribute",
    "Documents",
    "Drain",
    "Endpoint",
    "FailoverRegion",
    "FailoverTarget",
    "FailurePercentage",
    "Fault",
    "FaultAbort",
    "FaultDelay",
    "Fleet",
    "FleetBreaker",
    "FleetRateLimit",
    "HashCookie",
    "HashOn",
    "HeaderCondition",
    "HeaderEdit",
    "HeaderEdits",
    "Health",
    "HealthCheck",
    "Hedge",
    "HighLimits",
    "Hopeless",
    "HttpCheck",
    "LeastRequest",
    "Limits",
    "LoadBalancing",
    "Local",
    "Locality",
    "Match",
    "MeshConfig",
    "MetadataSubsets",
    "Mirror",
    "OutlierDetection",
    "OverrideAllowed",
    "Overrides",
    "PathMatch",
    "Policy",
    "Pool",
    "Prequal",
    "Rate",
    "RateLimit",
    "RateLimitedBackoff",
    "Redirect",
    "Redis",
    "RegexRewrite",
    "Register",
    "ResetHeader",
    "Retry",
    "RetryBudget",
    "Rewrite",
    "Ring",
    "Route",
    "Server",
    "ServerWeights",
    "Service",
    "SessionAffinity",
    "Shadow",
    "SlowStart",
    "Sticky",
    "SubsetSelector",
    "Subsetting",
    "SuccessRate",
    "TcpCheck",
    "TcpKeepalive",
    "Throttle",
    "Tls",
    "ValueMatch",
    "Watch",
    "ZoneAware",
]

_CALL = CallPolicy()
_POOL = PoolSettings()
_MESH = MeshSettings()


def _empty(value: Any) -> Any:
    # `orders:` with nothing under it declares a service; YAML reads it as null.
    return {} if value is None else value


class Locality(Part):
    """Where a process runs.

    Attributes:
        region, zone, sub_zone: from coarse to fine; empty where unknown.
    """

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


class Endpoint(Part):
    """One address that serves a service.

    Attributes:
        address: ``10.0.0.1:8080``, ``[::1]:8080``, ``host:8080`` or ``unix:/run/orders.sock``.
        weight: its share of calls, relative to the other endpoints'.
        metadata: what subsets select by.
        locality: where it runs.
        priority: 0 for the first choice; the higher ones stand by.
        health: ``healthy``, ``degraded``, ``unhealthy`` or ``draining``.
    """

    address: Address
    weight: Positive = 1.0
    metadata: Mapping[Text, str] = Field(default_factory=dict)
    locality: Locality = Locality()
    priority: Annotated[Count, Field(ge=0, le=128)] = 0
    health: Literal["healthy", "degraded", "unhealthy", "draining"] = "healthy"


_EndpointOrAddress = Annotated[
    Annotated[Endpoint, Tag("map")] | Annotated[Address, Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "map"),
]

_SubsetFallback = Annotated[
    Annotated[Mapping[Text, str], Field(min_length=1), Tag("map")] | Annotated[Literal["none", "any"], Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "map"),
]


def _filter(value: str) -> str:
    try:
        parse_filter(value)
    except FilterError as error:
        reject(str(error))
    return value


class Policy(Part):
    """How a service is called.

    Attributes:
        timeout: for a call, attempts and waits together, up to the end of its body, or to its headers if the caller
            streams it; null for none.
        per_try_timeout: for one attempt, up to the headers; null for none.
        connect_timeout: for TCP and TLS together.
        body_idle_timeout: for each read of a response's body; null for none.
        endpoint_wait: how long a call waits for the first endpoints of its service.
        host_header: what servers see as Host: ``service``, ``endpoint``, or a literal.
        retry, retry_budget, load_balancing, limits, pool: see their classes.
        circuit_breaker, outlier_detection: see their classes; false switches them off. In code the breaker may be one
            of pybreaker's.
        bulkhead, throttle, rate_limit, fleet: see their classes; null or false for none.
        priority: ``default``, or ``high`` for calls with limits of their own (``limits: {high: ...}``).
        health_check: active checks; see its class; false switches off what is inherited.
        tls: see its class; null or ``mode: off`` for none.
        http2: speak HTTP/2.
        fault, hedge, shadow: see their classes; false switches off what is inherited.
        hash_on: what calls are hashed by, for the balancers ``ring_hash`` and ``maglev``.
        metadata_match: the metadata of the endpoints that may be called, for ``load_balancing.subset``.
        failover_to: where calls go, in this order, while none of the endpoints is healthy; see `FailoverTarget`.
        mode: ``off``, ``observe`` or ``on``; the mesh's unless given.
    """

    timeout: Interval | None = _CALL.timeout_s
    per_try_timeout: Interval | None = _CALL.per_try_timeout_s
    connect_timeout: Interval = _POOL.connect_timeout_s
    body_idle_timeout: Interval | None = _CALL.body_idle_s
    endpoint_wait: Span = _CALL.endpoint_wait_s
    host_header: Annotated[HeaderValue, Field(min_length=1)] = "service"
    retry: Retry = Retry()
    retry_budget: RetryBudget = RetryBudget()
    load_balancing: LoadBalancing = LoadBalancing()
    circuit_breaker: BreakerOrFalse = CircuitBreaker()
    outlier_detection: OrFalse[OutlierDetection] = OutlierDetection()
    health_check: OrFalse[HealthCheck] | None = None
    limits: Limits = Limits()
    bulkhead: OrNone[Bulkhead] = None
    throttle: OrNone[Throttle] = None
    rate_limit: OrNone[RateLimit] = None
    fleet: OrNone[Fleet] = None
    priority: Literal["default", "high"] = _CALL.priority
    pool: Pool = Pool()
    tls: Tls | None = None
    http2: Flag = False
    fault: OrFalse[Fault] | None = None
    hedge: OrFalse[Hedge] | None = None
    shadow: OrFalse[Shadow] | None = None
    hash_on: Many[HashOn] = ()
    metadata_match: Mapping[Text, str] = Field(default_factory=dict)
    failover_to: Many[FailoverTarget] = ()
    mode: Mode | None = None


class Defaults(Policy):
    """The policy of every service, unless the service says otherwise. Its fields are those of `Policy`."""


class Service(Policy):
    """One service: who serves it, its policy, and its routes. It takes from `Defaults` what it does not say itself.

    Attributes:
        hosts: other names by which code calls it: ``orders.internal:8080``.
        endpoints: static ones, each an address or an `Endpoint`.
        subsets: by name, the metadata that an endpoint of the subset has.
        subset_policies: by name of a subset, what is laid over the service's policy for it, as far as that belongs to
            a cluster (not timeouts, retries, hedges and faults, which belong to calls).
        subset_filters: further subsets: by name, a filter expression of Consul's that an endpoint of the subset meets.
        subset_fallback: by name of a subset, what takes its calls while nobody has its metadata: ``none``, ``any``, or
            the metadata of those that do.
        routes: in order; the first that matches is taken, and what none matches goes to the service.
    """

    hosts: Many[Host] = ()
    endpoints: Many[_EndpointOrAddress] = ()
    subsets: Mapping[Name, Annotated[Mapping[Text, str], Field(min_length=1)]] = Field(default_factory=dict)
    subset_policies: Mapping[Name, Policy] = Field(default_factory=dict)
    subset_filters: Mapping[Name, Annotated[str, AfterValidator(_filter)]] = Field(default_factory=dict)
    subset_fallback: Mapping[Name, _SubsetFallback] = Field(default_factory=dict)
    routes: Many[Route] = ()


class MeshConfig(Part):
    """The whole configuration.

    Attributes:
        service: this workload's own name.
        mode: ``off``, ``observe`` or ``on``.
        egress: hosts outside the mesh: ``pass`` or ``refuse``.
        domains: names that are looked up in discovery, besides those declared: ``*.mesh``.
        namespace: that this workload is in, as Kubernetes and Istio have it.
        labels: of this workload.
        path_normalization: what is done to paths before routes see them, and what is sent: ``none``, ``base``,
            ``merge_slashes`` or ``decode_and_merge_slashes``.
        locality: where this process runs.
        discovery: sources, in the order in which they are asked.
        defaults: a policy for every service.
        services: by name.
        wire: ``native``; ``h11`` for the same with h11 as the parser; or ``stock`` for the client's own transport.
        registration: how this process enters itself into the registry (``register`` in a file).
        server: the callee's side.
        redis: what a fleet shares limits over; null for none.
        overrides: what single requests may ask for, for development; null for nothing.
        watch: whether the files are followed, and read again when they change; null or false for not.
        sidecar: whether a sidecar of another mesh is looked for, in a pod, and told of: ``warn`` or ``ignore``.
        route_sets: lists of routes by name, for routes that delegate to them.
        documents: how the documents of other meshes are read.
        include: further files, as paths and globs relative to this one.
    """

    service: OwnName = ""
    mode: Mode = _MESH.mode
    egress: Literal["pass", "refuse"] = _MESH.egress
    domains: Many[Domain] = _MESH.domains
    namespace: Name = _MESH.namespace
    labels: Mapping[Text, str] = Field(default_factory=dict)
    path_normalization: Literal["none", "base", "merge_slashes", "decode_and_merge_slashes"] = _MESH.path_normalization
    locality: Locality = Locality()
    discovery: Many[Source] = (Local(),)
    defaults: Annotated[Defaults, BeforeValidator(_empty), shown.Also(None)] = Defaults()
    services: Annotated[
        Mapping[Name, Annotated[Service, BeforeValidator(_empty), shown.Also(None)]],
        BeforeValidator(_empty),
        shown.Also(None),
    ] = Field(default_factory=dict)
    wire: Literal["native", "h11", "stock"] = _MESH.wire
    # An abstract base class has a method `register`, which a field of that name would hide.
    registration: Register | None = Field(default=None, alias="register")
    server: Server = Server()
    redis: Redis | None = None
    overrides: OrNone[Overrides] = None
    watch: OrNone[Watch] = None
    sidecar: Literal["warn", "ignore"] = _MESH.sidecar
    route_sets: Mapping[Name, Many[Route]] = Field(default_factory=dict)
    documents: Documents = Documents()
    include: Many[Text] = ()

    _sources: tuple[str, ...] = PrivateAttr(default=())
    _notes: tuple[Any, ...] = PrivateAttr(default=())
    _security_documents: tuple[Any, ...] = PrivateAttr(default=())

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that this was read from."""
        return self._sources

    @property
    def notes(self) -> tuple[Any, ...]:
        """What documents of other meshes say that is not honoured, or not to the letter: each a `Note`."""
        return self._notes

    @property
    def security_documents(self) -> tuple[Any, ...]:
        """The documents that speak of identity and authorization."""
        return self._security_documents
