"""Client throttling: a service that rejects its calls is spared those that it would reject anyway.

After "Handling Overload", chapter 21 of Google's SRE book. Of the calls that the application makes, the share

    p = max(0, (requests - k * accepts) / (requests + 1))

is refused here, where `requests` are the calls of the window and `accepts` those that the service accepted. A service
that accepts everything is never throttled (k >= 1); one that accepts nothing gets ever fewer calls.

What was not accepted: a 429 or a 503, and an attempt that ended in a timeout, or with its connection refused or reset.
Any other answer was accepted, a 500 too: an error of the application is no overload. Calls under way count as nothing
yet, or a cold burst would throttle itself; a cancelled call never counts.

Three things differ from the book. `max_rejection_percent` bounds p: where overload shows as timeouts and not as quick
rejections, the formula lets one call per second through, and these time out too, so a service that is well again stays
locked out. Nothing is refused before `min_calls` calls ended in the window, since one failure out of one is half of a
formula. And criticality: the calls to be refused, p of all, are taken from the least critical ones first, each class
up to `max_rejection_percent`, while the book keeps separate counts for each class.
"""

from __future__ import annotations

import threading
from random import Random

from meshlib.policy.admission_settings import ThrottleSettings
from meshlib.policy.rolling import RollingCounts

__all__ = ["Throttle"]

_CLASSES = 4
_ACCEPTS = _CLASSES  # after the requests of each criticality


class Throttle:
    """The throttle of one cluster. Safe under threads.

    Attributes:
        rejected: calls that it refused.
    """

    __slots__ = ("_counts", "_lock", "rejected", "settings")

    def __init__(self, settings: ThrottleSettings, now: float) -> None:
        self.settings = settings
        self.rejected = 0
        self._counts = RollingCounts(_CLASSES + 1, settings.window_s, now, buckets=40)
        self._lock = threading.Lock()

    def admit(self, now: float, criticality: int, rng: Random) -> bool:
        """Whether a call of this criticality (0 to 3) may pass; drawn by chance."""
        with self._lock:
            self._counts.roll(now)
            share = self._share(criticality)
            if share <= 0.0 or rng.random() >= share:
                return True
            self._counts.add(criticality)
            self.rejected += 1
            return False

    def ended(self, now: float, criticality: int, accepted: bool) -> None:
        """A call that passed is over, and the service accepted it or did not."""
        with self._lock:
            self._counts.roll(now)
            self._counts.add(criticality)
            if accepted:
                self._counts.add(_ACCEPTS)

    def rejection_percent(self, now: float, criticality: int) -> float:
        """Of a hundred calls of this criticality, how many it would refuse now."""
        with self._lock:
            self._counts.roll(now)
            return self._share(criticality) * 100.0

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _share(self, criticality: int) -> float:
        settings, totals = self.settings, self._counts.totals
        requests = sum(totals[:_CLASSES])
        excess = requests - settings.k * totals[_ACCEPTS]
        if excess <= 0.0 or requests < settings.min_calls:
            return 0.0
        cap = settings.max_rejection_percent / 100.0
        # Calls of the window that should have been refused; the least critical ones first.
        left = min(cap, excess / (requests + 1)) * requests
        for below in totals[:criticality]:
            left -= below * cap
        # A class without calls so far: the one that asks is its first.
        return min(cap, max(0.0, left) / max(1, totals[criticality]))

    def __repr__(self) -> str:
        totals = self._counts.totals
        return f"<Throttle {totals[_ACCEPTS]} accepted of {sum(totals[:_CLASSES])}>"
