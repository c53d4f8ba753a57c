"""What each policy is set to: frozen, plain, validated before. Times are in seconds; shares are percentages.

Defaults are those of a mesh without configuration, and the reason stands beside each that is not obvious.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from meshlib.dataclass import dataclass, field
from meshlib.policy.retry_settings import BudgetSettings, RetryPolicy

if TYPE_CHECKING:
    from meshlib.balance.settings import HashOn, LoadBalancing
    from meshlib.policy.admission_settings import (
        AdaptiveSettings,
        BulkheadSettings,
        RateLimitSettings,
        ThrottleAlgorithm,
    )
    from meshlib.policy.fault import FaultSettings

__all__ = [
    "AccrualSettings",
    "BreakerSettings",
    "BudgetSettings",
    "CallPolicy",
    "FailurePercentageSettings",
    "HedgeSettings",
    "HighLimitSettings",
    "LimitSettings",
    "OutlierSettings",
    "RetryPolicy",
    "ShadowSettings",
    "SuccessRateSettings",
    "UserBreaker",
]


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """The circuit breaker of a cluster; see `meshlib.policy.breaker`."""

    failure_percent: float = 50.0
    min_calls: int = 20
    window_s: float = 10.0
    open_for_s: float = 5.0
    max_open_for_s: float = 60.0
    open_for_shedding_s: float = 1.0


@dataclass(frozen=True, slots=True)
class SuccessRateSettings:
    """Who is ejected for a success rate that is far below that of the others; see `meshlib.policy.success_rate`.

    Attributes:
        minimum_hosts: with fewer endpoints that had enough calls, nobody is.
        request_volume: so many calls in an interval are enough.
        stdev_factor: by how many standard deviations below the mean (Envoy writes 1900 for 1.9).
        enforcing_percent: how many of those found are ejected; the others are only counted.
        enforcing_local_origin_percent: the same, for failures on this side of the connection where they are split.
    """

    minimum_hosts: int = 5
    request_volume: int = 100
    stdev_factor: float = 1.9
    enforcing_percent: float = 100.0
    enforcing_local_origin_percent: float = 100.0


@dataclass(frozen=True, slots=True)
class FailurePercentageSettings:
    """Who is ejected for failing in too many of its calls; see `meshlib.policy.success_rate`.

    Attributes:
        threshold_percent: of its calls.
        minimum_hosts: with fewer endpoints that had enough calls, nobody is.
        request_volume: so many calls in an interval are enough.
        enforcing_percent: how many of those found are ejected; the others are only counted.
        enforcing_local_origin_percent: the same, for failures on this side of the connection where they are split.
    """

    threshold_percent: float = 85.0
    minimum_hosts: int = 5
    request_volume: int = 50
    enforcing_percent: float = 100.0
    enforcing_local_origin_percent: float = 100.0


@dataclass(frozen=True, slots=True)
class AccrualSettings:
    """Who is ejected for a success rate of its own that is too low; see `meshlib.policy.accrual`.

    Attributes:
        kind: ``ema`` (Finagle's moving average) or ``window`` (Linkerd's exact counts).
        success_rate_percent: below it one is ejected.
        window_s: over which time.
        requests: over so many requests instead; None for the time. ``ema`` only.
        min_requests: with fewer in the window, none is ejected. Not with `requests`.
    """

    kind: Literal["ema", "window"] = "ema"
    success_rate_percent: float = 80.0
    window_s: float = 30.0
    requests: int | None = None
    min_requests: int = 5


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """Ejection of single endpoints; see `meshlib.policy.outlier`, and for Envoy's rules `meshlib.policy.outlier_sweep`.

    Attributes:
        consecutive_errors: failures in a row, as `meshlib.policy.classify` has them; 0 for no such rule.
        consecutive_5xx, consecutive_gateway_failure, consecutive_local_origin_failure: Envoy's rules; 0 for no such.
        enforcing_consecutive_5xx_percent and so on: how many of those found are ejected; the others are only counted.
        split_external_local_origin_errors: whether failures on this side of a connection are counted apart.
        success_rate, failure_percentage, accrual: None for no such rule.
        interval_s: between sweeps.
        base_ejection_s, max_ejection_s: how long one is out: the first time, and at most.
        max_ejection_jitter_s: up to this is added to it.
        max_ejection_percent: of the endpoints, at once.
        always_eject_one_of: with so many endpoints or more one may be out whatever the percentage says; 0 for never.
        return_by: ``probe`` (one call, to see) or ``sweep`` (all of its share, at the next sweep).
        active_check_unejects: whether passing an active check brings one back.
    """

    consecutive_errors: int = 5
    consecutive_5xx: int = 0
    consecutive_gateway_failure: int = 0
    consecutive_local_origin_failure: int = 0
    enforcing_consecutive_5xx_percent: float = 100.0
    enforcing_consecutive_gateway_failure_percent: float = 100.0
    enforcing_consecutive_local_origin_failure_percent: float = 100.0
    split_external_local_origin_errors: bool = False
    success_rate: SuccessRateSettings | None = None
    failure_percentage: FailurePercentageSettings | None = None
    accrual: AccrualSettings | None = None
    interval_s: float = 10.0
    base_ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_ejection_jitter_s: float = 0.0
    max_ejection_percent: float = 50.0
    always_eject_one_of: int = 2
    return_by: Literal["probe", "sweep"] = "probe"
    active_check_unejects: bool = True


class UserBreaker(Protocol):
    """A circuit breaker of the user's own: one of pybreaker's, or of the same shape."""

    @property
    def current_state(self) -> str: ...

    def call(self, func: Any, /, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class HighLimitSettings:
    """The limits of calls with high priority; see `LimitSettings`."""

    max_in_flight: int | None = None
    max_pending: int | None = None


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """How much may be under way in a cluster at once; None is no limit.

    Attributes:
        max_in_flight: calls under way.
        max_pending: calls that wait for one of them to end; None for 100, and where the limit adapts or is divided,
            for none.
        max_wait_s: how long a call waits in that line; None for as long as its deadline allows.
        order: who gets a place that falls free: ``fifo``, the call that waited longest, or ``lifo``, the last.
        max_connections: open to all endpoints together; each endpoint may have one all the same.
        high: for calls with high priority, which then have places of their own; None: they share the others'.
        adaptive: what finds out `max_in_flight`, which then is the most that it may find; a settings object of
            `meshlib.policy.admission_settings`.
    """

    max_in_flight: int | None = None
    max_pending: int | None = None
    max_wait_s: float | None = None
    order: Literal["fifo", "lifo"] = "fifo"
    max_connections: int | None = None
    high: HighLimitSettings | None = None
    adaptive: AdaptiveSettings | None = None


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """What runs beside the policies of a cluster and decides nothing; see `meshlib.policy.shadow`.

    Attributes:
        breaker, outlier, throttle, limits, bulkhead, rate_limit, load_balancing: as those of the cluster; None for no
            shadow of that policy.
    """

    breaker: BreakerSettings | None = None
    outlier: OutlierSettings | None = None
    throttle: ThrottleAlgorithm | None = None
    limits: LimitSettings | None = None
    bulkhead: BulkheadSettings | None = None
    rate_limit: RateLimitSettings | None = None
    load_balancing: LoadBalancing | None = None


@dataclass(frozen=True, slots=True)
class HedgeSettings:
    """When a call is hedged; see `meshlib.policy.hedge`.

    Attributes:
        after: ``p95`` (any percentile above 0 and below 100) or seconds; None: ``p95``, or never by time where
            `on_per_try_timeout` is set.
        max_extra_percent: hedges, as a share of the calls of the last 10 s.
        on_per_try_timeout: start the next attempt beside one whose per-try timeout has come, not instead of it.
        max_hedges: of one call.
        min_delay_s: the least delay that a percentile can lead to.
    """

    after: str | float | None = None
    max_extra_percent: float = 5.0
    on_per_try_timeout: bool = False
    max_hedges: int = 1
    min_delay_s: float = 0.001

    @property
    def rule(self) -> str | float | None:
        """What `after` comes to; None for never."""
        return "p95" if self.after is None and not self.on_per_try_timeout else self.after


_NO_METADATA: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How one call is made.

    Attributes:
        timeout_s: for the call, attempts and waits together, up to the end of its body, or to its headers if the
            caller streams it; None for none.
        per_try_timeout_s: for one attempt, up to the headers; None for none.
        body_idle_s: for each read of a response's body; None for none.
        retry: when to try again.
        endpoint_wait_s: how long a call waits for the first endpoints of its service.
        hash_on: what calls are hashed by, for balancers that go by a hash.
        metadata_match: of the endpoints that may be called, where metadata make subsets.
        priority: ``default``, or ``high`` for calls that have limits of their own.
        fault: to inject; None for none.
        hedge: when a further attempt starts beside one that takes long; None for never.
    """

    timeout_s: float | None = 30.0
    per_try_timeout_s: float | None = 10.0
    body_idle_s: float | None = 300.0
    retry: RetryPolicy = RetryPolicy()
    endpoint_wait_s: float = 5.0
    hash_on: tuple[HashOn, ...] = ()
    metadata_match: Mapping[str, str] = field(default_factory=lambda: _NO_METADATA, hash=False)
    priority: Literal["default", "high"] = "default"
    fault: FaultSettings | None = None
    hedge: HedgeSettings | None = None
