"""Adaptive concurrency by the gradient of latency: the controller of Envoy's ``adaptive_concurrency`` filter.

Every `update_interval_s`, from the latencies of the calls that ended in it:

    gradient = clamp(min_rtt * (1 + buffer) / sample_rtt, 0.5, 2)
    limit    = clamp(limit * gradient + sqrt(limit * gradient), min_limit, max_limit)

where `sample_rtt` is a percentile of them, and `min_rtt` the same percentile without load. To measure that, now and
then (every `min_rtt_interval_s`, drawn out by up to `jitter_percent`; and when the limit was the least five times in a
row, for then the measure is probably wrong) the limit is lowered to the least, until `min_rtt_calls` calls that began
since have ended; then it is what it was before.

Envoy runs timers; this does what is due when it is next asked, which comes to the same, for nothing can be seen of it
in between.
"""

from __future__ import annotations

from math import ceil, inf, sqrt
from random import Random

from meshlib.policy.admission_settings import GradientSettings

__all__ = ["GradientLimit"]

_MIN_LIMIT_IN_A_ROW = 5
_MAX_SAMPLES = 4096


class _Samples:
    """Latencies of one window; of very many only every second, fourth, ... is kept."""

    __slots__ = ("_kept", "_stride", "count")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._kept: list[float] = []
        self._stride = 1
        self.count = 0

    def add(self, latency_s: float) -> None:
        if self.count % self._stride == 0:
            if len(self._kept) == _MAX_SAMPLES:
                del self._kept[1::2]
                self._stride *= 2
            self._kept.append(latency_s)
        self.count += 1

    def percentile(self, percent: float) -> float:
        ordered = sorted(self._kept)
        return ordered[max(0, min(len(ordered), ceil(len(ordered) * percent / 100.0)) - 1)]


class GradientLimit:
    """The controller of one cluster. Whoever owns it holds a lock around each use.

    Attributes:
        limit: calls that may be under way.
        min_rtt_s: the latency without load, as last measured; None before that.
        measuring: whether it is being measured.
    """

    __slots__ = (
        "_at_min",
        "_epoch",
        "_held",
        "_measure_at",
        "_rng",
        "_samples",
        "_update_at",
        "limit",
        "measuring",
        "min_rtt_s",
        "settings",
    )

    def __init__(self, settings: GradientSettings, now: float, rng: Random) -> None:
        self.settings = settings
        self.limit = settings.min_limit
        self.min_rtt_s: float | None = None
        self.measuring = False
        self._rng = rng
        self._samples = _Samples()
        self._at_min = 0
        self._held = 0
        self._epoch = now
        self._measure_at = inf
        self._update_at = now + settings.update_interval_s
        self._measure(now)

    def advance(self, now: float) -> None:
        """Do what was due since the last time."""
        settings = self.settings
        if self._update_at - now > settings.update_interval_s:  # the clock went back
            self._update_at = now + settings.update_interval_s
        longest_s = settings.min_rtt_interval_s * (1.0 + settings.jitter_percent / 100.0)
        if not self.measuring and self._measure_at - now > longest_s:
            self._measure_at = now + longest_s
        if self._epoch > now:
            self._epoch = now
        if not self.measuring and now >= self._update_at and self._update_at < self._measure_at:
            self._update()
            self._update_at = now + settings.update_interval_s
        if not self.measuring and now >= self._measure_at:
            self._measure(now)

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
        """A call that began at `began` was answered after `latency_s`, however."""
        self.advance(now)
        if began < self._epoch or not latency_s >= 0.0:
            return
        self._samples.add(latency_s)
        if self.measuring and self._samples.count >= self.settings.min_rtt_calls:
            self._measured(now)

    def _measure(self, now: float) -> None:
        self._held = self.limit
        self.measuring = True
        self._set(self.settings.min_limit)
        self._samples.clear()
        self._epoch = now

    def _measured(self, now: float) -> None:
        settings = self.settings
        self.min_rtt_s = self._samples.percentile(settings.percentile)
        self._samples.clear()
        self._set(self._held)
        self.measuring = False
        jitter_s = settings.min_rtt_interval_s * settings.jitter_percent / 100.0
        self._measure_at = now + settings.min_rtt_interval_s + self._rng.random() * jitter_s
        self._update_at = now + settings.update_interval_s

    def _update(self) -> None:
        if not self._samples.count or self.min_rtt_s is None:
            return
        settings = self.settings
        sample_rtt_s = self._samples.percentile(settings.percentile)
        self._samples.clear()
        calm_s = self.min_rtt_s * (1.0 + settings.buffer_percent / 100.0)
        gradient = 2.0 if sample_rtt_s <= 0.0 else max(0.5, min(2.0, calm_s / sample_rtt_s))
        limit = self.limit * gradient
        self._set(max(settings.min_limit, min(settings.max_limit, int(limit + sqrt(limit)))))
        if self._at_min >= _MIN_LIMIT_IN_A_ROW:
            self._measure_at = -inf

    def _set(self, limit: int) -> None:
        least = self.settings.min_limit
        self._at_min = self._at_min + 1 if not self.measuring and self.limit == limit == least else 0
        self.limit = limit
