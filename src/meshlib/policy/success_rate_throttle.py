"""Admission control by success rate, as Envoy's filter ``envoy.filters.http.admission_control`` does it.

    p = min(max_rejection, (max(0, total - successes / threshold) / (total + 1)) ** (1 / aggression))

over the calls of the window that were let through: unlike in `throttle`, those refused here are not among them. A
success is any status below 500, whatever that status says of load; an error without a response is none. Nothing is
refused while there are fewer than `rps_threshold` calls per second. Envoy draws with four digits; this draws exactly.
Criticality makes no difference here, as in Envoy.
"""

from __future__ import annotations

import threading
from random import Random

from meshlib.policy.admission_settings import SuccessRateThrottleSettings
from meshlib.policy.rolling import RollingCounts

__all__ = ["SuccessRateThrottle"]

_TOTAL, _SUCCESSES = 0, 1


class SuccessRateThrottle:
    """The admission control of one cluster. Safe under threads.

    Attributes:
        rejected: calls that it refused.
    """

    __slots__ = ("_counts", "_lock", "rejected", "settings")

    def __init__(self, settings: SuccessRateThrottleSettings, now: float) -> None:
        self.settings = settings
        self.rejected = 0
        # Envoy forgets second by second, which for a window of days would take more memory than it is worth.
        self._counts = RollingCounts(2, settings.window_s, now, buckets=min(3600, max(1, round(settings.window_s))))
        self._lock = threading.Lock()

    def admit(self, now: float, rng: Random) -> bool:
        """Whether a call may pass; drawn by chance."""
        with self._lock:
            share = self._share(now)
            if share <= 0.0 or rng.random() >= share:
                return True
            self.rejected += 1
            return False

    def ended(self, now: float, success: bool) -> None:
        """A call that passed is over."""
        with self._lock:
            self._counts.roll(now)
            self._counts.add(_TOTAL)
            if success:
                self._counts.add(_SUCCESSES)

    def rejection_percent(self, now: float) -> float:
        """Of a hundred calls, how many it would refuse now."""
        with self._lock:
            return self._share(now) * 100.0

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _share(self, now: float) -> float:
        settings = self.settings
        self._counts.roll(now)
        total, successes = self._counts.totals
        if total / max(1.0, self._counts.span_s(now)) < settings.rps_threshold:
            return 0.0
        share = (total - successes / (settings.success_rate_percent / 100.0)) / (total + 1)
        if share <= 0.0:
            return 0.0
        return min(settings.max_rejection_percent / 100.0, float(share ** (1.0 / settings.aggression)))

    def __repr__(self) -> str:
        total, successes = self._counts.totals
        return f"<SuccessRateThrottle {successes} good of {total}>"
