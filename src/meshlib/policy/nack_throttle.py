"""Throttling by a moving average of rejections, as Finagle's ``NackAdmissionFilter`` does it.

Each answer moves an average: 0 for a rejection, 1 for any other, and what was known before weighs exp(-t / window)
after t seconds. It starts at 1. Once it is below 1 - threshold a call is refused with the chance

    p = min(max_rejection, 1 - average / (1 - threshold))

so at a threshold of one half and averages of .5, .4, .3, .2, .125 with 0, .2, .4, .6, .75. With fewer than
`rps_threshold` calls per second nothing is refused, and each answer counts as accepted.

A rejection is what `throttle` says was not accepted, except timeouts and broken connections: Finagle's are those that
the service itself declined (here: a 429 or 503).
"""

from __future__ import annotations

import threading
from math import exp
from random import Random

from meshlib.policy.admission_settings import NackSettings
from meshlib.policy.rolling import RollingCounts

__all__ = ["NackThrottle"]

_RATE_WINDOW_S = 1.0


class NackThrottle:
    """The filter of one cluster. Safe under threads.

    Attributes:
        average: of the share of calls that the service did not decline.
        rejected: calls that it refused.
    """

    __slots__ = ("_asked", "_lock", "_updated_at", "average", "rejected", "settings")

    def __init__(self, settings: NackSettings, now: float) -> None:
        self.settings = settings
        self.average = 1.0
        self.rejected = 0
        self._asked = RollingCounts(1, _RATE_WINDOW_S, now)
        self._updated_at = now
        self._lock = threading.Lock()

    def admit(self, now: float, rng: Random) -> bool:
        """Whether a call may pass; drawn by chance."""
        with self._lock:
            self._asked.roll(now)
            self._asked.add(0)
            share = self._share()
            if share <= 0.0 or rng.random() >= share:
                return True
            self.rejected += 1
            return False

    def ended(self, now: float, declined: bool) -> None:
        """A call that passed was answered."""
        with self._lock:
            self._asked.roll(now)
            value = 0.0 if declined and self._busy() else 1.0
            weight = exp(-max(0.0, now - self._updated_at) / self.settings.window_s)
            self.average = value * (1.0 - weight) + self.average * weight
            self._updated_at = now

    def rejection_percent(self, now: float) -> float:
        """Of a hundred calls, how many it would refuse now."""
        with self._lock:
            self._asked.roll(now)
            return self._share() * 100.0

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _busy(self) -> bool:
        return self._asked.totals[0] >= self.settings.rps_threshold * _RATE_WINDOW_S

    def _share(self) -> float:
        settings = self.settings
        enough = 1.0 - settings.threshold_percent / 100.0
        if self.average >= enough or not self._busy():
            return 0.0
        return min(settings.max_rejection_percent / 100.0, 1.0 - self.average / enough)

    def __repr__(self) -> str:
        return f"<NackThrottle {self.average:.3g} accepted>"
