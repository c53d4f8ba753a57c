"""What the gates of admission are set to: frozen, plain, validated before. All of them are off unless configured.

Times are in seconds; shares are percentages. What each means is told at the top of the module that has its mechanism.
"""

from __future__ import annotations

from math import ceil
from typing import TypeAlias

from meshlib.dataclass import dataclass, field

__all__ = [
    "AdaptiveSettings",
    "AimdSettings",
    "BucketSettings",
    "BulkheadSettings",
    "FleetBreakerSettings",
    "FleetRateSettings",
    "FleetSettings",
    "GcraSettings",
    "Gradient2Settings",
    "GradientSettings",
    "KeySource",
    "NackSettings",
    "RateLimitSettings",
    "RateSettings",
    "SuccessRateThrottleSettings",
    "ThrottleAlgorithm",
    "ThrottleSettings",
    "VegasSettings",
]


@dataclass(frozen=True, slots=True)
class ThrottleSettings:
    """The SRE book's; see `meshlib.policy.throttle`."""

    k: float = 2.0
    window_s: float = 120.0
    max_rejection_percent: float = 90.0
    min_calls: int = 10


@dataclass(frozen=True, slots=True)
class SuccessRateThrottleSettings:
    """Envoy's; see `meshlib.policy.success_rate_throttle`."""

    success_rate_percent: float = 95.0
    window_s: float = 30.0
    aggression: float = 1.0
    rps_threshold: float = 0.0
    max_rejection_percent: float = 80.0


@dataclass(frozen=True, slots=True)
class NackSettings:
    """Finagle's; see `meshlib.policy.nack_throttle`."""

    threshold_percent: float = 50.0
    window_s: float = 120.0
    rps_threshold: float = 5.0
    max_rejection_percent: float = 75.0


ThrottleAlgorithm: TypeAlias = ThrottleSettings | SuccessRateThrottleSettings | NackSettings


@dataclass(frozen=True, slots=True)
class GradientSettings:
    """Envoy's controller; see `meshlib.policy.gradient`.

    Attributes:
        min_limit, max_limit: between which the limit stays; it starts at the least, and goes there to measure.
        update_interval_s: between two corrections of the limit.
        min_rtt_interval_s: between two measurements of the latency without load.
        min_rtt_calls: that a measurement takes.
        jitter_percent: by how much the interval between measurements is drawn out, at most.
        buffer_percent: of the latency without load, that is no sign of a queue.
        percentile: of the latencies of a window that stands for it.
    """

    min_limit: int = 3
    max_limit: int = 1000
    update_interval_s: float = 0.1
    min_rtt_interval_s: float = 60.0
    min_rtt_calls: int = 50
    jitter_percent: float = 15.0
    buffer_percent: float = 25.0
    percentile: float = 50.0


@dataclass(frozen=True, slots=True)
class VegasSettings:
    """Netflix's Vegas; see `meshlib.policy.vegas`.

    Attributes:
        initial_limit, max_limit: where the limit starts, and what it never exceeds.
        smoothing_percent: how much of a new estimate is taken over.
        probe_multiplier: after about so many calls per place, the latency without load is measured anew.
        window_s: over which calls are summed up; 0 for each call by itself.
    """

    initial_limit: int = 20
    max_limit: int = 1000
    smoothing_percent: float = 100.0
    probe_multiplier: int = 30
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Gradient2Settings:
    """Netflix's Gradient2; see `meshlib.policy.gradient2`.

    Attributes:
        initial_limit, min_limit, max_limit: where the limit starts, and between which it stays.
        smoothing_percent: how much of a new estimate is taken over.
        queue_size: calls that may queue.
        long_window: the number of samples that the long average stands for.
        tolerance: how many times the long average a latency may be before the limit falls.
        window_s: over which calls are summed up; 0 for each call by itself.
    """

    initial_limit: int = 20
    min_limit: int = 20
    max_limit: int = 200
    smoothing_percent: float = 20.0
    queue_size: int = 4
    long_window: int = 600
    tolerance: float = 1.5
    window_s: float = 1.0


@dataclass(frozen=True, slots=True)
class AimdSettings:
    """Netflix's AIMD; see `meshlib.policy.aimd`.

    Attributes:
        initial_limit, min_limit, max_limit: where the limit starts, and between which it stays.
        backoff_percent: of the limit, that is left after a drop.
        timeout_s: a latency above it counts as a drop.
        window_s: over which calls are summed up; 0 for each call by itself.
    """

    initial_limit: int = 20
    min_limit: int = 20
    max_limit: int = 200
    backoff_percent: float = 90.0
    timeout_s: float = 5.0
    window_s: float = 0.0


AdaptiveSettings: TypeAlias = GradientSettings | VegasSettings | Gradient2Settings | AimdSettings


@dataclass(frozen=True, slots=True)
class KeySource:
    """What tells calls apart.

    Attributes:
        kind: ``header``, ``hash_key``, ``route`` or ``criticality``.
        name: of the header, in lower case.
    """

    kind: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class BulkheadSettings:
    """Parts of the limit on calls in flight; see `meshlib.policy.bulkhead`.

    Attributes:
        by: what tells calls apart.
        percents: of the limit, for each part.
        hard: whether a part may never have more than its share; else only while the whole limit is taken.
    """

    by: KeySource = KeySource("route")
    percents: dict[str, float] = field(default_factory=dict, hash=False)
    hard: bool = False


@dataclass(frozen=True, slots=True)
class GcraSettings:
    """So many calls per second, evenly spread, of which `burst` may come at once; see `meshlib.policy.gcra`."""

    rate: float = 1.0
    burst: int | None = None

    @property
    def at_once(self) -> int:
        """The burst; one second's worth unless it is given."""
        return max(1, ceil(self.rate)) if self.burst is None else self.burst


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """A bucket of tokens, one for each call; see `meshlib.policy.token_bucket`."""

    max_tokens: int = 1
    tokens_per_fill: int = 1
    fill_interval_s: float = 1.0


RateSettings: TypeAlias = GcraSettings | BucketSettings


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """How many calls may be made in a time; see `meshlib.policy.rate_limit`.

    Attributes:
        total: for all calls together; None for no such limit.
        by: what tells callers apart; None where they are not.
        each: for each of them; None for those in `overrides` alone.
        overrides: for some of them, instead of `each`.
        max_keys: callers remembered; the one that was silent longest is forgotten first, and begins anew.
        max_wait_s: how long a call may wait for its turn instead of being refused.
    """

    total: RateSettings | None = None
    by: KeySource | None = None
    each: RateSettings | None = None
    overrides: dict[str, RateSettings] = field(default_factory=dict, hash=False)
    max_keys: int = 10_000
    max_wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetRateSettings(GcraSettings):
    """A rate that a whole fleet keeps to; see `meshlib.policy.fleet_gate`.

    Attributes:
        by: what tells callers apart; None where all calls are counted together.
    """

    by: KeySource | None = None


@dataclass(frozen=True, slots=True)
class FleetBreakerSettings:
    """A breaker that a whole fleet shares, with the parameters of pybreaker; see `meshlib.policy.user_breaker`."""

    fail_max: int = 5
    reset_timeout_s: float = 60.0
    success_threshold: int = 1


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What a fleet shares of a service; None for what it does not."""

    rate_limit: FleetRateSettings | None = None
    circuit_breaker: FleetBreakerSettings | None = None
