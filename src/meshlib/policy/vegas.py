"""Adaptive concurrency after TCP Vegas: Netflix's ``VegasLimit`` of concurrency-limits.

    queue = ceil(limit * (1 - rtt_noload / rtt))         calls that must be waiting, by Little's law
    step  = max(1, int(log10(limit)))

    a drop             limit - step
    queue <= step      limit + 6 * step      no queue at all
    queue <  3 * step  limit + step
    queue >  6 * step  limit - step
    else               unchanged; and so it is while less than half of the limit is used

`rtt_noload` is the least latency seen. After `U(0.5, 1) * probe_multiplier * limit` calls it is forgotten and measured
anew, since a service may have become slower for good.
"""

from __future__ import annotations

from math import ceil, log10
from random import Random

from meshlib.policy.admission_settings import VegasSettings

__all__ = ["VegasLimit"]


class VegasLimit:
    """The limit of one cluster. Whoever owns it holds a lock around each use.

    Attributes:
        limit: calls that may be under way.
    """

    __slots__ = ("_calls", "_estimate", "_jitter", "_noload_s", "_rng", "settings")

    def __init__(self, settings: VegasSettings, now: float, rng: Random) -> None:
        self.settings = settings
        self._estimate = float(settings.initial_limit)
        self._noload_s = 0.0
        self._calls = 0
        self._rng = rng
        self._jitter = rng.uniform(0.5, 1.0)

    @property
    def limit(self) -> int:
        return int(self._estimate)

    def advance(self, now: float) -> None:
        """Nothing happens with time alone."""

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
        """A call that was one of `in_flight` ended after `latency_s`; `dropped`: by a timeout, or declined."""
        if not latency_s > 0.0:
            return
        self._calls += 1
        if self._calls >= self._jitter * self.settings.probe_multiplier * self._estimate:
            self._jitter = self._rng.uniform(0.5, 1.0)
            self._calls = 0
            self._noload_s = latency_s
        elif self._noload_s == 0.0 or latency_s < self._noload_s:
            self._noload_s = latency_s
        else:
            self._estimate = self._next(latency_s, in_flight, dropped)

    def _next(self, latency_s: float, in_flight: int, dropped: bool) -> float:
        limit, settings = self._estimate, self.settings
        queue = ceil(limit * (1.0 - self._noload_s / latency_s))
        step = max(1, int(log10(limit)))
        if dropped:
            new = limit - step
        elif in_flight * 2 < limit:
            return limit
        elif queue <= step:
            new = limit + 6 * step
        elif queue < 3 * step:
            new = limit + step
        elif queue > 6 * step:
            new = limit - step
        else:
            return limit
        new = max(1.0, min(float(settings.max_limit), new))
        smoothing = settings.smoothing_percent / 100.0
        return (1.0 - smoothing) * limit + smoothing * new
