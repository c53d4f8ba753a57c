"""The policies of a service as they are written, one class for each map in the file.

Defaults come from the settings that each compiles to, so that they are stated once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from meshlib.config.fields import (
    Amount,
    Code,
    Count,
    Flag,
    Interval,
    IpAddress,
    Part,
    Percent,
    RetryConditions,
    Span,
    Text,
    reject,
)
from meshlib.config.settings import KeepaliveSettings, PoolSettings
from meshlib.policy.settings import (
    BalancerName,
    BreakerSettings,
    BudgetSettings,
    LimitSettings,
    OutlierSettings,
    RetryPolicy,
)
from meshlib.policy.settings import LoadBalancing as LoadBalancingSettings

__all__ = [
    "Backoff",
    "CircuitBreaker",
    "Limits",
    "LoadBalancing",
    "OutlierDetection",
    "Pool",
    "Retry",
    "RetryBudget",
    "TcpKeepalive",
    "Tls",
]

_RETRY = RetryPolicy()
_BUDGET = BudgetSettings()
_BALANCING = LoadBalancingSettings()
_BREAKER = BreakerSettings()
_OUTLIER = OutlierSettings()
_LIMITS = LimitSettings()
_POOL = PoolSettings()
_KEEPALIVE = KeepaliveSettings()
_DEFAULT_CONDITIONS: Any = _RETRY.on


class Backoff(Part):
    """How long to wait before a retry: full jitter over ``min(max, base * 2**(retry - 1))``.

    Attributes:
        base: the upper end for the first retry.
        max: the upper end for any.
    """

    base: Span = _RETRY.backoff_base_s
    max: Span = _RETRY.backoff_max_s


class Retry(Part):
    """When a failed attempt is followed by another.

    Attributes:
        max_retries: attempts beyond the first.
        on: ``connect-failure``, ``reset``, ``5xx``, ``retry-after``, or statuses.
        backoff: the wait between attempts.
        retry_after_max: the longest ``Retry-After`` that is waited for.
        wait, stop, retry: tenacity strategy objects (or functions like them), in code only.
    """

    max_retries: Annotated[Count, Field(ge=0, le=100)] = _RETRY.max_retries
    on: RetryConditions = _DEFAULT_CONDITIONS
    backoff: Backoff = Backoff()
    retry_after_max: Span = _RETRY.retry_after_max_s
    wait: Code = None
    stop: Code = None
    retry: Code = None


class RetryBudget(Part):
    """The retry budget of a service; retries go ahead only while it is more than half full.

    Attributes:
        tokens: its size. A retryable failure costs 1.
        success_gain: what a success puts back.
    """

    tokens: Amount = _BUDGET.tokens
    success_gain: Amount = _BUDGET.success_gain


class LoadBalancing(Part):
    """How endpoints are chosen.

    Attributes:
        policy: ``peak_ewma``, ``least_request``, ``round_robin`` or ``random``.
        decay: of the moving average of latency.
        default_latency: what an endpoint is thought to take before it has answered.
        panic_percent: with fewer healthy endpoints than this, all are used.
    """

    policy: BalancerName = _BALANCING.policy
    decay: Interval = _BALANCING.decay_s
    default_latency: Interval = _BALANCING.default_latency_s
    panic_percent: Percent = _BALANCING.panic_percent


class CircuitBreaker(Part):
    """When a cluster is taken to be down.

    Attributes:
        failure_percent: the share of calls that fail.
        min_calls: of at least so many.
        window: within this time.
        open_for: how long it stays open the first time.
        max_open_for: how long at most, doubling.
    """

    failure_percent: Percent = _BREAKER.failure_percent
    min_calls: Annotated[Count, Field(ge=1)] = _BREAKER.min_calls
    window: Interval = _BREAKER.window_s
    open_for: Interval = _BREAKER.open_for_s
    max_open_for: Interval = _BREAKER.max_open_for_s


class OutlierDetection(Part):
    """When a single endpoint is left out for a while.

    Attributes:
        consecutive_errors: failures in a row.
        base_ejection: how long it is out the first time.
        max_ejection: how long at most.
        max_ejection_percent: of the endpoints, at once.
    """

    consecutive_errors: Annotated[Count, Field(ge=1)] = _OUTLIER.consecutive_errors
    base_ejection: Interval = _OUTLIER.base_ejection_s
    max_ejection: Interval = _OUTLIER.max_ejection_s
    max_ejection_percent: Percent = _OUTLIER.max_ejection_percent


class Limits(Part):
    """Calls to a cluster at once.

    Attributes:
        max_in_flight: null for no limit.
        max_pending: calls that wait for one of them to end; a further one fails at once.
    """

    max_in_flight: Annotated[Count, Field(ge=1)] | None = _LIMITS.max_in_flight
    max_pending: Annotated[Count, Field(ge=0)] = _LIMITS.max_pending


def _whole_seconds(value: float) -> float:
    # What the system takes: it counts in seconds, in 15 bits.
    if not 1 <= value <= 32767:
        reject("is out of range: 1s to 32767s is expected")
    return value


_Seconds = Annotated[Span, AfterValidator(_whole_seconds)]


class TcpKeepalive(Part):
    """When the system asks a silent peer whether it is still there.

    Attributes:
        time: of silence, before the first probe.
        interval: between probes.
        probes: without an answer, after which the connection is broken.
    """

    time: _Seconds = _KEEPALIVE.time_s
    interval: _Seconds = _KEEPALIVE.interval_s
    probes: Annotated[Count, Field(ge=1, le=127)] = _KEEPALIVE.probes


_KeepaliveOrFalse = Annotated[
    Annotated[TcpKeepalive, Tag("map")] | Annotated[Literal[False], Tag("false")],
    Discriminator(lambda value: "false" if value is False else "map"),
]


class Pool(Part):
    """Connections to one endpoint.

    Attributes:
        max_connections: open at once.
        max_pending: calls that wait for one of them; a further one fails at once.
        idle: a connection idle for longer is not used again.
        idle_unsafe: the same for a request that could not be sent twice.
        local_address: the IP address that connections begin at; the system's choice unless given.
        tcp_keepalive: see its class; false switches it off.
    """

    max_connections: Annotated[Count, Field(ge=1)] = _POOL.max_connections
    max_pending: Annotated[Count, Field(ge=0)] = _POOL.max_pending
    idle: Span = _POOL.idle_s
    idle_unsafe: Span = _POOL.idle_unsafe_s
    local_address: IpAddress | None = _POOL.local_address
    tcp_keepalive: _KeepaliveOrFalse = TcpKeepalive()


class Tls(Part):
    """How connections to a service are encrypted.

    Attributes:
        mode: ``simple`` (the server has a certificate) or ``off``.
        server_name: for SNI and verification; the service's name unless given.
        ca_file: a PEM bundle of trusted roots; the system's unless given.
        cert_file, key_file: this workload's own certificate and its key, if the peer asks for one.
        verify: false turns verification off, for tests only.
    """

    mode: Literal["off", "simple"] = "simple"
    server_name: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = Field(default=None, repr=False)
    verify: Flag = True

    @model_validator(mode="after")
    def _whole_certificate(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            there, missing = ("cert_file", "key_file") if self.key_file is None else ("key_file", "cert_file")
            reject(f"has a {there} without a {missing}")
        if not self.verify and self.ca_file is not None:
            reject("has a ca_file and verify: false, which does not look at it")
        return self
