"""Adaptive concurrency by the ratio of a long to a short average of latency: Netflix's ``Gradient2Limit``.

    gradient = clamp(tolerance * long / short, 0.5, 1)
    new      = limit * gradient + queue_size
    limit    = clamp((1 - smoothing) * limit + smoothing * new, min_limit, max_limit)

`short` is the latency of this sample; `long` an exponential average over about `long_window` samples, the first ten
of which count alike. Once long is above twice short, which happens after an overload ended, it is cut to 95 % at each
sample, so that it finds back sooner. The limit is left alone while less than half of it is used, and drops are ignored.
"""

from __future__ import annotations

from random import Random

from meshlib.policy.admission_settings import Gradient2Settings

__all__ = ["ExponentialAverage", "Gradient2Limit"]

_WARM_UP = 10


class ExponentialAverage:
    """The average of all samples while they are few, then each with the weight 2 / (window + 1)."""

    __slots__ = ("_count", "_sum", "_warm_up", "_weight", "value")

    def __init__(self, window: int, warm_up: int) -> None:
        self.value = 0.0
        self._count = 0
        self._sum = 0.0
        self._warm_up = warm_up
        self._weight = 2.0 / (window + 1)

    def add(self, sample: float) -> float:
        if self._count < self._warm_up:
            self._count += 1
            self._sum += sample
            self.value = self._sum / self._count
        else:
            self.value += (sample - self.value) * self._weight
        return self.value


class Gradient2Limit:
    """The limit of one cluster. Whoever owns it holds a lock around each use.

    Attributes:
        limit: calls that may be under way.
    """

    __slots__ = ("_estimate", "_long", "settings")

    def __init__(self, settings: Gradient2Settings, now: float, rng: Random) -> None:
        self.settings = settings
        self._estimate = float(settings.initial_limit)
        self._long = ExponentialAverage(settings.long_window, _WARM_UP)

    @property
    def limit(self) -> int:
        return int(self._estimate)

    def advance(self, now: float) -> None:
        """Nothing happens with time alone."""

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
        """A call that was one of `in_flight` ended after `latency_s`."""
        if not latency_s > 0.0:
            return
        settings, limit = self.settings, self._estimate
        long_s = self._long.add(latency_s)
        if long_s / latency_s > 2.0:
            self._long.value *= 0.95
        if in_flight < limit / 2:
            return
        gradient = max(0.5, min(1.0, settings.tolerance * long_s / latency_s))
        smoothing = settings.smoothing_percent / 100.0
        new = limit * (1.0 - smoothing) + (limit * gradient + settings.queue_size) * smoothing
        self._estimate = max(float(settings.min_limit), min(float(settings.max_limit), new))
