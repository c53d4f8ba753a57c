"""Adaptive concurrency: the limit on calls in flight finds itself, from how the latency of a service grows with it.

Four ways to do so, each in a module of its own, after the systems that they are named by:

    gradient     Envoy's: a controller that measures the latency without load now and then
    vegas        Netflix's, after TCP Vegas: from the least latency seen
    gradient2    Netflix's: from the ratio of a long average of latency to a short one
    aimd         Netflix's: one more while all goes well, a tenth less at a timeout or when a call is declined

The gate refuses nobody itself: it sets the limit that is asked after it. A sample is one attempt, from its start to its
headers. A drop is one that was declined (429, 503), timed out, or lost its connection; Envoy's controller does not know
drops, and passes over attempts without an answer.

With a window (`window_s`; Netflix's ``WindowedLimit``) the attempts that end in it are one sample: their mean latency,
the most that were in flight, and whether any was dropped. Windows with fewer than ten of them, and attempts shorter
than 100 microseconds, are passed over.
"""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING, Protocol

from meshlib.errors import MeshError
from meshlib.policy.admission_settings import AdaptiveSettings, AimdSettings, GradientSettings, VegasSettings
from meshlib.policy.aimd import AimdLimit
from meshlib.policy.gate import PlainGate
from meshlib.policy.gradient import GradientLimit
from meshlib.policy.gradient2 import Gradient2Limit
from meshlib.policy.sample import samples
from meshlib.policy.vegas import VegasLimit

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.limit import InFlightLimit
    from meshlib.policy.placement import Placement

__all__ = ["AdaptiveGate", "Algorithm", "Windowed", "algorithm_of"]

_MIN_SAMPLES = 10
_MIN_LATENCY_S = 100e-6


class Algorithm(Protocol):
    """What finds the limit. Whoever owns it holds a lock around each use."""

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        ...

    def advance(self, now: float) -> None:
        """Do what is due by now."""
        ...

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
        """Learn from one attempt."""
        ...


class Windowed:
    """Sums up the attempts of a window for the algorithm behind it."""

    __slots__ = ("_algorithm", "_count", "_dropped", "_in_flight", "_next", "_sum_s", "_window_s")

    def __init__(self, algorithm: Algorithm, window_s: float) -> None:
        self._algorithm = algorithm
        self._window_s = window_s
        self._next = float("-inf")
        self._count = self._in_flight = 0
        self._sum_s = 0.0
        self._dropped = False

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        return self._algorithm.limit

    def advance(self, now: float) -> None:
        """Do what is due by now."""
        self._algorithm.advance(now)

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
        """Learn from one attempt, at the end of its window."""
        if not latency_s >= _MIN_LATENCY_S:
            return
        self._count += 1
        self._sum_s += latency_s
        self._in_flight = max(self._in_flight, in_flight)
        self._dropped = self._dropped or dropped
        if now <= self._next <= now + self._window_s:
            return
        self._next = now + self._window_s
        if self._count >= _MIN_SAMPLES:
            self._algorithm.ended(now, began, self._sum_s / self._count, self._in_flight, self._dropped)
        self._count = self._in_flight = 0
        self._sum_s = 0.0
        self._dropped = False


def algorithm_of(settings: AdaptiveSettings, now: float, rng: Random) -> Algorithm:
    """The algorithm that the settings ask for."""
    algorithm: Algorithm
    if isinstance(settings, GradientSettings):
        return GradientLimit(settings, now, rng)
    if isinstance(settings, VegasSettings):
        algorithm = VegasLimit(settings, now, rng)
    elif isinstance(settings, AimdSettings):
        algorithm = AimdLimit(settings, now, rng)
    else:
        algorithm = Gradient2Limit(settings, now, rng)
    return Windowed(algorithm, settings.window_s) if settings.window_s > 0 else algorithm


class AdaptiveGate(PlainGate):
    """Sets the limit of one cluster.

    Args:
        limit: the limit to set.
        most: what it may not exceed, whatever the algorithm says; None for no such bound.
    """

    __slots__ = ("_algorithm", "_answers_only", "_limit", "_lock", "_most")

    name = "adaptive"
    rejected = 0

    def __init__(
        self, settings: AdaptiveSettings, limit: InFlightLimit, most: int | None, now: float, rng: Random
    ) -> None:
        self._algorithm = algorithm_of(settings, now, rng)
        self._answers_only = isinstance(settings, GradientSettings)
        self._limit = limit
        self._most = most
        self._lock = threading.Lock()
        limit.resize(self._bounded())

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        with self._lock:
            self._algorithm.advance(now)
        self._set()
        return None

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """Learn from the answers."""
        in_flight = self._limit.in_flight
        with self._lock:
            for sample in samples(now, call):
                if sample.status is None and self._answers_only:
                    continue
                self._algorithm.ended(now, sample.began, sample.latency_s, in_flight, not sample.accepted)
        self._set()

    def note(self, now: float) -> str | None:
        """What the limit is now."""
        return f"its limit adapts: {self._limit.maximum} calls in flight now"

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _bounded(self) -> int:
        limit = self._algorithm.limit
        return limit if self._most is None else min(limit, self._most)

    def _set(self) -> None:
        # Without the lock, since calls that waited are woken. Of threads that do so at once one may set what is past
        # by then, so each looks again: the last one sees the last limit.
        while (limit := self._bounded()) != self._limit.maximum:
            self._limit.resize(limit)
