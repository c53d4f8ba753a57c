"""Outlier detection: take single endpoints that keep failing out of their cluster, for a while.

An endpoint with `consecutive_errors` failures in a row is ejected for ``base_ejection * n``, at most `max_ejection`, where n is
how often that happened lately (one time less for each `base_ejection` that it stayed in). Then one probe is sent: if it
succeeds the endpoint is back, if it fails it is ejected for longer. At most `max_ejection_percent` of a cluster are
out at once, but one always may be if there are two. Source of the growth and of the percentage: Envoy's
``outlier_detection_impl.cc``; the return by probe is ours (Envoy lets all traffic back at once).

A probe is a lease. A call that could be made again is preferred; any other is taken only after `PATIENCE_S`. Whoever has the lease
ends it by the probe's outcome, or abandons it if the call was cancelled, and the next call takes it over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from meshlib.balance.balancer import Member
from meshlib.policy.settings import OutlierSettings

__all__ = ["PATIENCE_S", "OutlierDetector"]

PATIENCE_S = 5.0


class OutlierDetector:
    """Ejections in one cluster. Safe under threads.

    Attributes:
        ejected: the members that are out. Most of the time it is empty, and then this costs a call nothing.
        ejections: how many there were, for telemetry.
    """

    __slots__ = ("_lock", "_on_change", "ejected", "ejections", "settings")

    def __init__(self, settings: OutlierSettings, on_change: Callable[[Member, bool], None] | None = None) -> None:
        """
        Args:
            settings: thresholds and times.
            on_change: called with a member and whether it was ejected (or is back); outside any lock.
        """
        self.settings = settings
        self.ejected: tuple[Member, ...] = ()
        self.ejections = 0
        self._on_change = on_change
        self._lock = threading.Lock()

    def succeeded(self, member: Member, now: float) -> None:
        """An attempt at `member` succeeded. One that was ejected comes back only by a probe."""
        health = member.health
        if health.consecutive:
            health.consecutive = 0

    def failed(self, member: Member, now: float, size: int) -> None:
        """An attempt at `member` failed, in a cluster of `size` members."""
        health = member.health
        with self._lock:
            health.consecutive += 1
            if health.ejected or health.consecutive < self.settings.consecutive_errors:
                return
            allowed = int(size * self.settings.max_ejection_percent / 100.0)
            if size >= 2 and self.settings.max_ejection_percent > 0:
                allowed = max(1, allowed)
            if len(self.ejected) >= allowed:
                return
            base = self.settings.base_ejection_s
            if base > 0:
                health.ejections = max(0, health.ejections - int(max(0.0, now - health.returned_at) / base))
            self._eject(member, now)
        self._tell(member, True)

    def due(self, now: float, repeatable: bool) -> Member | None:
        """Lease the probe of an endpoint whose time is up; None if there is none, or the call does not suit."""
        if not self.ejected:
            return None
        with self._lock:
            for member in self.ejected:
                health = member.health
                if health.probing:
                    continue
                if health.ejected_until - now > self.settings.max_ejection_s:  # the clock went back
                    health.ejected_until = now
                if now >= health.ejected_until + (0.0 if repeatable else PATIENCE_S):
                    health.probing = True
                    return member
        return None

    def probe_ended(self, member: Member, now: float, success: bool | None) -> None:
        """End a lease: the probe succeeded, failed, or (None) was cancelled and is to be handed on."""
        health = member.health
        with self._lock:
            if not health.probing:
                return
            health.probing = False
            if success is None or not health.ejected:
                return
            if success:
                self._restore(member, now)
            else:
                self._eject(member, now)
        if success:
            self._tell(member, False)

    def rebind(self, members: Sequence[Member]) -> None:
        """The cluster's endpoints changed: these are its members now."""
        with self._lock:
            self.ejected = tuple(member for member in members if member.health.ejected)

    def renew_lock(self) -> None:
        """After a fork, in the child: probes under way in the parent will not end here."""
        self._lock = threading.Lock()
        for member in self.ejected:
            member.health.probing = False

    def _eject(self, member: Member, now: float) -> None:
        health = member.health
        if not health.ejected:
            health.ejected = True
            self.ejected = (*self.ejected, member)
        health.ejections += 1
        health.ejected_until = now + min(self.settings.base_ejection_s * health.ejections, self.settings.max_ejection_s)
        self.ejections += 1

    def _restore(self, member: Member, now: float) -> None:
        health = member.health
        health.ejected = False
        health.consecutive = 0
        health.returned_at = now
        self.ejected = tuple(each for each in self.ejected if each is not member)

    def _tell(self, member: Member, ejected: bool) -> None:
        if self._on_change is not None:
            self._on_change(member, ejected)
