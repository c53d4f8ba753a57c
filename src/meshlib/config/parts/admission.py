"""Whether a cluster takes a call, as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, PlainValidator, Tag, model_validator

from meshlib.config import shown
from meshlib.config.fields import (
    MAP_OR_FALSE,
    TOKEN,
    Amount,
    Count,
    Flag,
    Interval,
    OrFalse,
    Part,
    Percent,
    Positive,
    Span,
    Text,
    closest,
    reject,
)
from meshlib.durations import parse_duration
from meshlib.policy.admission_settings import (
    AimdSettings,
    BucketSettings,
    BulkheadSettings,
    FleetBreakerSettings,
    FleetRateSettings,
    FleetSettings,
    GcraSettings,
    Gradient2Settings,
    GradientSettings,
    KeySource,
    NackSettings,
    RateLimitSettings,
    SuccessRateThrottleSettings,
    ThrottleSettings,
    VegasSettings,
)
from meshlib.policy.settings import BreakerSettings, HighLimitSettings, LimitSettings

__all__ = [
    "Adaptive",
    "BreakerOrFalse",
    "Bulkhead",
    "CircuitBreaker",
    "Fleet",
    "FleetBreaker",
    "FleetRateLimit",
    "HighLimits",
    "Limits",
    "Rate",
    "RateLimit",
    "Throttle",
]

_BREAKER = BreakerSettings()
_LIMITS = LimitSettings()
_RATES = RateLimitSettings()
_FLEET_BREAKER = FleetBreakerSettings()
_BY = ("route", "criticality", "hash_key", "header:x-user")

_Least = Annotated[Count, Field(ge=1)]
_Share = Annotated[Percent, Field(gt=0)]


def _user_breaker(value: Any) -> Any:
    if not callable(getattr(value, "call", None)):
        reject("is not a circuit breaker: one of pybreaker's is expected", kind="type")
    return value


def _key_source(value: Any) -> KeySource:
    if isinstance(value, KeySource):
        return value
    if isinstance(value, str):
        kind, _, name = value.partition(":")
        if kind == "header" and TOKEN.fullmatch(name):
            return KeySource("header", name.lower())
        if value in _BY:
            return KeySource(value)
    near = closest(value, _BY) if isinstance(value, str) else None
    reject(f"does not tell calls apart: {', '.join(_BY[:-1])} or {_BY[-1]} is expected", nearest=near)


_By = Annotated[Any, PlainValidator(_key_source), shown.CALLERS]


class CircuitBreaker(Part):
    """When a cluster is taken to be down.

    Attributes:
        failure_percent: the share of calls that fail.
        min_calls: of at least so many.
        window: within this time.
        open_for: how long it stays open the first time.
        max_open_for: how long at most, doubling.
        open_for_shedding: how long at most, where the service's own mesh refuses what it cannot do.
    """

    compiles_to: ClassVar = BreakerSettings

    failure_percent: Percent = _BREAKER.failure_percent
    min_calls: _Least = _BREAKER.min_calls
    window: Interval = _BREAKER.window_s
    open_for: Interval = _BREAKER.open_for_s
    max_open_for: Interval = _BREAKER.max_open_for_s
    open_for_shedding: Interval = _BREAKER.open_for_shedding_s


def _breaker_kind(value: Any) -> str:
    if value is False:
        return "false"
    return "code" if hasattr(value, "current_state") else MAP_OR_FALSE


BreakerOrFalse = Annotated[
    Annotated[CircuitBreaker, Tag(MAP_OR_FALSE)]
    | Annotated[Literal[False], Tag("false")]
    | Annotated[Any, PlainValidator(_user_breaker), shown.CODE, Tag("code")],
    Discriminator(_breaker_kind),
]
"""A map, false, or in code a breaker of the user's own."""


class _Choice(Part):
    """A part of which one field, `algorithm`, says what settings it compiles to, and so which others it may have."""

    choices: ClassVar[Mapping[str, type]] = {}
    if TYPE_CHECKING:  # each that derives from it has a field of this name, with the choices it has
        algorithm: str

    @property
    def compiles_to(self) -> Any:  # type: ignore[override]
        """The settings of its algorithm."""
        return self.choices[self.algorithm]

    @model_validator(mode="after")
    def _own_fields(self) -> _Choice:
        own = _fields_of(self.compiles_to)
        for field in sorted(self.model_fields_set - {"algorithm"}):
            if field not in own:
                owners = " and ".join(name for name, kind in self.choices.items() if field in _fields_of(kind))
                reject(f"has {field}, which belongs to {owners}, and its algorithm is {self.algorithm}")
            if getattr(self, field) is None:
                reject(f"has {field}: null; leave it out for the default")
        return self


def _fields_of(settings: type) -> set[str]:
    fields: Mapping[str, Any] = settings.__dataclass_fields__  # type: ignore[attr-defined]
    return {name.removesuffix("_s") for name in fields}


class Adaptive(_Choice):
    """How the limit on calls in flight finds itself. What a field is by default depends on the algorithm.

    Attributes:
        algorithm: ``gradient`` (Envoy's), ``vegas``, ``gradient2`` or ``aimd`` (Netflix's).
        min_limit, max_limit: between which the limit stays.
        initial_limit: where it starts (vegas, gradient2, aimd).
        window: over which calls are summed up; 0s for each by itself (vegas, gradient2, aimd).
        smoothing_percent: how much of a new estimate is taken over (vegas, gradient2).
        update_interval, min_rtt_interval, min_rtt_calls, jitter_percent, buffer_percent, percentile: of gradient.
        probe_multiplier: of vegas.
        queue_size, long_window, tolerance: of gradient2.
        backoff_percent, timeout: of aimd.
    """

    choices: ClassVar = {
        "gradient": GradientSettings,
        "vegas": VegasSettings,
        "gradient2": Gradient2Settings,
        "aimd": AimdSettings,
    }

    algorithm: Literal["gradient", "vegas", "gradient2", "aimd"] = "gradient"
    min_limit: _Least | None = None
    max_limit: _Least | None = None
    initial_limit: _Least | None = None
    window: Span | None = None
    smoothing_percent: _Share | None = None
    update_interval: Interval | None = None
    min_rtt_interval: Interval | None = None
    min_rtt_calls: _Least | None = None
    jitter_percent: Percent | None = None
    buffer_percent: Percent | None = None
    percentile: Percent | None = None
    probe_multiplier: _Least | None = None
    queue_size: Annotated[Count, Field(ge=0)] | None = None
    long_window: _Least | None = None
    tolerance: Annotated[Positive, Field(ge=1)] | None = None
    backoff_percent: Annotated[Percent, Field(ge=50, lt=100)] | None = None
    timeout: Interval | None = None


class HighLimits(Part):
    """The limits of calls with high priority.

    Attributes:
        max_in_flight: null for no limit.
        max_pending: calls that wait for one of them to end; null for 100.
    """

    compiles_to: ClassVar = HighLimitSettings

    max_in_flight: _Least | None = None
    max_pending: Annotated[Count, Field(ge=0)] | None = None


class Limits(Part):
    """Calls to a cluster at once.

    Attributes:
        max_in_flight: null for no limit.
        max_pending: calls that wait for one of them to end; a further one fails at once. Null for 100, and where the
            limit adapts or is divided by a bulkhead, for none.
        max_wait: how long a call waits in that line; null for as long as its deadline allows.
        order: who gets a place that falls free: ``fifo``, the call that waited longest, or ``lifo``, the last.
        max_connections: open to all endpoints together; null for no limit.
        high: limits for calls with high priority; null: they share the others' places.
        adaptive: how the limit finds itself; null or false for not at all.
    """

    compiles_to: ClassVar = LimitSettings

    max_in_flight: _Least | None = _LIMITS.max_in_flight
    max_pending: Annotated[Count, Field(ge=0)] | None = _LIMITS.max_pending
    max_wait: Interval | None = _LIMITS.max_wait_s
    order: Literal["fifo", "lifo"] = _LIMITS.order
    max_connections: _Least | None = _LIMITS.max_connections
    high: HighLimits | None = None
    adaptive: OrFalse[Adaptive] | None = None


class Throttle(_Choice):
    """Which share of the calls is not sent to a service that declines. Defaults depend on the algorithm.

    Attributes:
        algorithm: ``sre`` (Google's SRE book), ``success_rate`` (Envoy's admission control) or ``nack`` (Finagle's).
        window: of the past that counts.
        max_rejection_percent: the most that is refused.
        k: how many calls per accepted one are sent at least (sre).
        min_calls: before so many nothing is refused (sre).
        success_rate_percent: below which calls are refused (success_rate).
        aggression: above 1, calls are refused sooner (success_rate).
        rps_threshold: calls per second, below which nothing is refused (success_rate, nack).
        threshold_percent: of declined calls, above which calls are refused (nack).
    """

    choices: ClassVar = {"sre": ThrottleSettings, "success_rate": SuccessRateThrottleSettings, "nack": NackSettings}

    algorithm: Literal["sre", "success_rate", "nack"] = "sre"
    window: Interval | None = None
    max_rejection_percent: Percent | None = None
    k: Annotated[Positive, Field(ge=1)] | None = None
    min_calls: Annotated[Count, Field(ge=0)] | None = None
    success_rate_percent: _Share | None = None
    aggression: Annotated[Positive, Field(ge=1)] | None = None
    rps_threshold: Amount | None = None
    threshold_percent: Annotated[Percent, Field(gt=0, lt=100)] | None = None


class Bulkhead(Part):
    """How the limit on calls in flight is divided.

    Attributes:
        by: what tells calls apart: ``route``, ``criticality``, ``hash_key`` or ``header:x-user``.
        percents: of the limit, for each part.
        hard: whether a part may never have more than its share; else only while the whole limit is taken.
    """

    compiles_to: ClassVar = BulkheadSettings

    by: _By = "route"
    percents: Annotated[Mapping[Text, _Share], Field(min_length=1)]
    hard: Flag = False

    @model_validator(mode="after")
    def _at_most_all(self) -> Bulkhead:
        if sum(self.percents.values()) > 100.000001:
            reject(f"has shares of {sum(self.percents.values()):g} % in all, and there are only 100")
        return self


class Rate(Part):
    """So many calls in a time: evenly spread (`rate` and `burst`), or by a bucket of tokens (the other fields).

    Attributes:
        rate: calls per second.
        burst: of them at once; one second's worth unless given.
        max_tokens: that the bucket holds.
        tokens_per_fill: put back at each fill; 1 unless given.
        fill_interval: between fills, 50ms at least; 1s unless given.
    """

    rate: Positive | None = None
    burst: _Least | None = None
    max_tokens: _Least | None = None
    tokens_per_fill: _Least | None = None
    fill_interval: Interval | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Rate:
        bucket = self.model_fields_set & {"max_tokens", "tokens_per_fill", "fill_interval"}
        if (self.rate is None) == (self.max_tokens is None):
            reject("needs either rate (calls per second), or max_tokens (a bucket)")
        if self.rate is not None and bucket:
            reject(f"has a rate, and {sorted(bucket)[0]} of a bucket; one of the two is expected")
        if self.max_tokens is not None and self.burst is not None:
            reject("has burst, which belongs to a rate; a bucket's is max_tokens")
        if self.fill_interval is not None and parse_duration(self.fill_interval) < 0.05:
            reject("has a fill_interval below 50ms")
        return self

    @property
    def compiles_to(self) -> Any:  # type: ignore[override]
        """The settings of its kind."""
        return GcraSettings if self.max_tokens is None else BucketSettings


class RateLimit(Part):
    """How many calls this process may make in a time.

    Attributes:
        total: all calls together.
        by: what tells callers apart: ``route``, ``criticality``, ``hash_key`` or ``header:x-user``.
        each: calls of each of them.
        overrides: for some of them, instead of `each`.
        max_keys: callers remembered.
        max_wait: how long a call may wait for its turn instead of being refused.
    """

    compiles_to: ClassVar = RateLimitSettings

    total: Rate | None = None
    by: _By | None = None
    each: Rate | None = None
    overrides: Mapping[Text, Rate] = Field(default_factory=dict)
    max_keys: _Least = _RATES.max_keys
    max_wait: Span = _RATES.max_wait_s


class FleetRateLimit(Part):
    """How many calls all processes together may make in a time, counted in Redis.

    Attributes:
        rate: calls per second.
        burst: of them at once; one second's worth unless given.
        by: what tells callers apart; without it all calls are counted together.
    """

    compiles_to: ClassVar = FleetRateSettings

    rate: Positive
    burst: _Least | None = None
    by: _By | None = None


class FleetBreaker(Part):
    """A circuit breaker that all processes share: pybreaker's, kept in Redis.

    Attributes:
        fail_max: failures in a row, in the whole fleet, that open it.
        reset_timeout: how long it stays open, before a call is let through to see.
        success_threshold: calls that must succeed then to close it.
    """

    compiles_to: ClassVar = FleetBreakerSettings

    fail_max: _Least = _FLEET_BREAKER.fail_max
    reset_timeout: Interval = _FLEET_BREAKER.reset_timeout_s
    success_threshold: _Least = _FLEET_BREAKER.success_threshold


class Fleet(Part):
    """What the processes of a fleet share of a service, over the Redis that ``redis`` names.

    Attributes:
        rate_limit: see its class; null for none.
        circuit_breaker: see its class; null for none.
    """

    compiles_to: ClassVar = FleetSettings

    rate_limit: FleetRateLimit | None = None
    circuit_breaker: FleetBreaker | None = None
