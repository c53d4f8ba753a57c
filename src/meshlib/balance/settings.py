"""How the endpoints of a cluster are chosen: frozen, plain, validated before. Times are in seconds.

Defaults are those of a mesh without configuration; those of the policies are in `meshlib.policy.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from meshlib.dataclass import dataclass, field

__all__ = [
    "HASH_BALANCERS",
    "ApertureSettings",
    "BalancerName",
    "BoundStatus",
    "DistributeRule",
    "FailoverRegion",
    "HashCookie",
    "HashName",
    "HashOn",
    "LeastRequestSettings",
    "LoadBalancing",
    "PrequalSettings",
    "RingSettings",
    "ServerWeightSettings",
    "SessionAffinity",
    "SlowStartSettings",
    "SubsetSelector",
    "SubsetSettings",
    "SubsettingSettings",
    "ZoneAwareSettings",
]

BalancerName: TypeAlias = Literal[
    "peak_ewma",
    "least_request",
    "round_robin",
    "random",
    "server_weights",
    "aperture",
    "prequal",
    "ring_hash",
    "maglev",
]
HASH_BALANCERS: frozenset[BalancerName] = frozenset({"ring_hash", "maglev"})
HashName: TypeAlias = Literal["xxhash", "murmur2"]
BoundStatus: TypeAlias = Literal["healthy", "degraded", "draining", "unhealthy"]


@dataclass(frozen=True, slots=True)
class LeastRequestSettings:
    """How `meshlib.balance.least_request` chooses. The defaults are Envoy's.

    Attributes:
        selection: where weights are alike, ``n_choices``: the best of some that are drawn; or ``full_scan``: of all.
        choice_count: how many are drawn.
        active_request_bias: where weights differ, ``weight / (in flight + 1) ** bias``; 0 leaves weights as they are.
    """

    selection: Literal["n_choices", "full_scan"] = "n_choices"
    choice_count: int = 2
    active_request_bias: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerWeightSettings:
    """How load reports become weights, see `meshlib.balance.server_weights`. The defaults are gRPC's.

    Attributes:
        blackout_s: for how long an endpoint must have reported before its weight counts.
        expiration_s: how long its weight counts after its last report.
        update_s: how often the schedule is made anew.
        error_penalty: what a share of errors of 1 adds to the utilization.
        metrics: what the utilization is taken from, ``named_metrics.queue``; of several the largest counts.
        load: what two that have their turn are compared by; None to take the first, as gRPC does.
    """

    blackout_s: float = 10.0
    expiration_s: float = 180.0
    update_s: float = 1.0
    error_penalty: float = 1.0
    metrics: tuple[str, ...] = ()
    load: Literal["least_request", "peak_ewma"] | None = None


@dataclass(frozen=True, slots=True)
class PrequalSettings:
    """How servers are probed, see `meshlib.balance.prequal`. The defaults are the paper's, but for the last two.

    Attributes:
        probes: for each call, of servers drawn by chance; need not be whole.
        removals: for each call, of answers from the pool.
        pool_size: how many answers are kept.
        max_age_s: for how long.
        delta: by how much an answer is used more often than would keep the pool as full as it is.
        hot_percent: the quantile of the requests in flight above which a server is hot; 0 goes by those alone, 100 by
            latency alone.
        timeout_s: of a probe.
        min_endpoints: with fewer than these there are no probes, and the balancer is ``peak_ewma``.
        max_probes_per_s: of one cluster by this process, however many calls there are.
    """

    probes: float = 3.0
    removals: float = 1.0
    pool_size: int = 16
    max_age_s: float = 1.0
    delta: float = 1.0
    hot_percent: float = 84.0
    timeout_s: float = 1.0
    min_endpoints: int = 10
    max_probes_per_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ApertureSettings:
    """Where this client is among its peers, see `meshlib.balance.aperture`.

    Attributes:
        instance: its number, from 0; None is 0.
        of: how many of them there are; None is 1, so that the slice is the whole ring.
        size: how many servers a client calls at least. Finagle has 12: with fewer, two draws do not keep to the weights
            of the edges, and one slice may be down as a whole.
        load: what two servers are compared by: ``least_request``, the attempts in flight, or ``peak_ewma``.
    """

    instance: int | None = None
    of: int | None = None
    size: int = 12
    load: Literal["least_request", "peak_ewma"] = "least_request"


@dataclass(frozen=True, slots=True)
class SubsettingSettings:
    """Which of the servers a client knows, see `meshlib.balance.subsetting`.

    Attributes:
        kind: ``random`` or ``rounds``.
        size: how many; all, if there are no more.
        seed: of ``random``; None for one of this process's own.
        instance: of ``rounds``: the client's number among its peers, from 0; None is 0.
    """

    kind: Literal["random", "rounds"] = "random"
    size: int = 20
    seed: int | None = None
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class RingSettings:
    """The ring of `meshlib.balance.ring_hash`. The defaults are Envoy's.

    Attributes:
        min_size: points at least; more make shares more even.
        max_size: points at most.
        hash: what puts endpoints on the ring. Calls are hashed by ``xxhash`` always.
    """

    min_size: int = 1024
    max_size: int = 8_388_608
    hash: HashName = "xxhash"


@dataclass(frozen=True, slots=True)
class HashCookie:
    """A cookie that calls are hashed by.

    Attributes:
        name: of the cookie.
        ttl_s: of one that is made for calls without; 0 for one that ends with the client's session; None to make none.
        path: of one that is made; empty for that of the request.
    """

    name: str = ""
    ttl_s: float | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class HashOn:
    """One property that calls are hashed by, see `meshlib.balance.hash_policy`: the one of the first four that is set.

    Attributes:
        header: its name, in lower case.
        cookie: which.
        query: the name of a parameter of the URL.
        source: who calls.
        terminal: whether the list ends here, if there is a hash by then.
    """

    header: str | None = None
    cookie: HashCookie | None = None
    query: str | None = None
    source: bool = False
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class SessionAffinity:
    """Calls stay at one endpoint, by a cookie: see `meshlib.balance.affinity`.

    Attributes:
        cookie: its name.
        path: the paths that it is for.
        ttl_s: how long clients keep it; 0 for as long as their session lives.
        statuses: the health of the endpoints that calls may be bound to.
    """

    cookie: str = "meshlib-endpoint"
    path: str = "/"
    ttl_s: float = 0.0
    statuses: tuple[BoundStatus, ...] = ("healthy", "degraded")


_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ZoneAwareSettings:
    """When calls stay in their zone, see `meshlib.balance.zone_aware`. The defaults are Envoy's.

    Attributes:
        local_service: the service whose endpoints are the callers, this process among them.
        local_counts: or how many callers there are, by locality, where no registry knows.
        min_cluster_size: with fewer healthy endpoints than this, zones do not count.
        routing_percent: of calls to which this applies.
        force_local_zone: with at least as many healthy endpoints in the zone as this, all calls stay; None for never.
    """

    local_service: str | None = None
    local_counts: Mapping[str, float] = field(default_factory=lambda: _NOTHING, hash=False)
    min_cluster_size: int = 6
    routing_percent: float = 100.0
    force_local_zone: int | None = None


@dataclass(frozen=True, slots=True)
class FailoverRegion:
    """Calls from one region go to another before any other, see `meshlib.balance.failover`."""

    from_: str = ""
    to: str = ""


@dataclass(frozen=True, slots=True)
class DistributeRule:
    """Where the calls of one place go, see `meshlib.balance.locality`.

    Attributes:
        from_: where the caller runs.
        to: places, and the percentage for each.
    """

    from_: str = ""
    to: Mapping[str, float] = field(default_factory=lambda: _NOTHING, hash=False)


@dataclass(frozen=True, slots=True)
class SubsetSelector:
    """A set of metadata keys by which subsets are made, see `meshlib.balance.subset`.

    Attributes:
        keys: all that a call names.
        fallback: what takes a call that names these keys, with values that nobody has; None for the fallback of all.
        fallback_keys: with ``keys``: those of the keys that are looked up instead.
    """

    keys: tuple[str, ...] = ()
    fallback: Literal["none", "any", "default", "keys"] | None = None
    fallback_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubsetSettings:
    """How a call's metadata choose among endpoints, see `meshlib.balance.subset`. The defaults are Envoy's.

    Attributes:
        selectors: the sets of keys that may be asked for.
        fallback: what takes a call whose metadata make no subset.
        default: the metadata of ``default``.
        panic_mode_any: whether all endpoints are used where that has none that may be picked.
        list_as_any: whether metadata are lists, with commas, any of which a call may ask for.
    """

    selectors: tuple[SubsetSelector, ...] = ()
    fallback: Literal["none", "any", "default"] = "none"
    default: Mapping[str, str] = field(default_factory=dict, hash=False)
    panic_mode_any: bool = False
    list_as_any: bool = False


@dataclass(frozen=True, slots=True)
class SlowStartSettings:
    """How a newcomer's weight grows, see `meshlib.balance.slow_start`.

    Attributes:
        window_s: how long it takes to the full weight.
        aggression: the shape of the growth, above 0; 1 is a straight line.
        min_weight_percent: of its weight that it has from the first moment.
    """

    window_s: float = 60.0
    aggression: float = 1.0
    min_weight_percent: float = 10.0


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """How endpoints are chosen.

    Attributes:
        policy: the balancer.
        decay_s: of the moving average of latency (Linkerd: 10 s).
        default_latency_s: what an endpoint is thought to take before it has answered (Linkerd: 30 ms).
        panic_percent: with fewer healthy endpoints than this, all are used; 0 for never.
        fail_on_panic: whether calls fail then instead.
        overprovisioning_percent: how much of the load the healthy can carry, in percent of their share.
        weighted_priority_health: whether the health of a priority is that of its weights, not of its endpoints.
        failover: whether the nearest endpoints are the first choice; or where regions fail over to, besides.
        failover_priority: labels by which endpoints are the first choice, the most important first.
        locality_weights: by locality; empty for none.
        distribute: what share of the calls goes where, by where they come from.
        zone_aware: how calls stay in their zone; None if they need not.
        subset: how the metadata of a call choose among endpoints; None if they do not.
        least_request, server_weights, aperture, prequal: of the balancers of these names.
        subsetting: which of the endpoints this client knows at all; None for all.
        ring: of ``ring_hash``.
        table_size: of ``maglev``, a prime.
        hash_key: what these two hash of an endpoint; its metadata ``hash_key`` stands in place of it.
        hash_balance_percent: of the average load, what an endpoint may have before these two pass calls on; None for
            any.
        session_affinity: None for none.
        slow_start: how newcomers begin, with ``round_robin`` and ``least_request``; None for at once.
    """

    policy: BalancerName = "peak_ewma"
    decay_s: float = 10.0
    default_latency_s: float = 0.03
    panic_percent: float = 50.0
    fail_on_panic: bool = False
    overprovisioning_percent: float = 140.0
    weighted_priority_health: bool = False
    failover: bool | tuple[FailoverRegion, ...] | None = False
    failover_priority: tuple[str, ...] = ()
    locality_weights: Mapping[str, float] = field(default_factory=lambda: _NOTHING, hash=False)
    distribute: tuple[DistributeRule, ...] = ()
    zone_aware: ZoneAwareSettings | None = None
    subset: SubsetSettings | None = None
    least_request: LeastRequestSettings = LeastRequestSettings()
    server_weights: ServerWeightSettings = ServerWeightSettings()
    aperture: ApertureSettings = ApertureSettings()
    prequal: PrequalSettings = PrequalSettings()
    subsetting: SubsettingSettings | None = None
    ring: RingSettings = RingSettings()
    table_size: int = 65537
    hash_key: Literal["address", "hostname"] = "address"
    hash_balance_percent: int | None = None
    session_affinity: SessionAffinity | None = None
    slow_start: SlowStartSettings | None = None
