"""Outlier detection: take single endpoints that keep failing out of their cluster, for a while.

An endpoint with `consecutive_errors` failures in a row is ejected for ``base_ejection * n``, at most `max_ejection`,
where n is how often that happened lately (one time less for each `base_ejection` that it stayed in). Then one probe is
sent: if it succeeds the endpoint is back, if it fails it is ejected for longer. At most `max_ejection_percent` of a
cluster are out at once, but one always may be if there are two. Source of the growth and of the percentage: Envoy's
``outlier_detection_impl.cc``; the return by probe is ours (Envoy lets all traffic back at once).

A probe is a lease. A call that could be made again is preferred; any other is taken only after `PATIENCE_S`. Whoever
has the lease ends it by the probe's outcome, or abandons it if the call was cancelled, and the next call takes it over.
A probe that has hung for `LEASE_S` is passed over in the same way, and what becomes of it no longer counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from meshlib.balance.balancer import Member
from meshlib.balance.endpoint import Health
from meshlib.balance.health import EndpointHealth
from meshlib.policy.settings import OutlierSettings

__all__ = ["LEASE_S", "PATIENCE_S", "EjectionProbe", "OutlierDetector"]

PATIENCE_S = 5.0
LEASE_S = 30.0
"""The default of the total timeout: whoever takes longer with a probe has no timeouts at all."""


class EjectionProbe:
    """The lease of the one attempt that tests an ejected endpoint. `ended` takes effect once."""

    __slots__ = ("_detector", "member")

    def __init__(self, detector: OutlierDetector, member: Member) -> None:
        self._detector = detector
        self.member = member

    def ended(self, now: float, success: bool | None) -> None:
        """The probe succeeded, failed, or (None) was cancelled and is to be handed on."""
        self._detector._probe_ended(self, now, success)


class OutlierDetector:
    """Ejections in one cluster. Safe under threads.

    Attributes:
        ejected: the members that are out. Most of the time it is empty, and then this costs a call nothing.
        ejected_healthy: how many of those the registry calls healthy.
        ejections: how many there were, for telemetry.
    """

    __slots__ = (
        "_lock",
        "_members",
        "_next_due",
        "_on_change",
        "ejected",
        "ejected_healthy",
        "ejections",
        "settings",
    )

    def __init__(self, settings: OutlierSettings, on_change: Callable[[Member, bool], None] | None = None) -> None:
        """Begin with no members; `rebind` brings them.

        Args:
            settings: thresholds and times.
            on_change: called with a member and whether it was ejected (or is back); outside any lock.
        """
        self.settings = settings
        self.ejected: tuple[Member, ...] = ()
        self.ejected_healthy = 0
        self.ejections = 0
        self._on_change = on_change
        # A change of weight or metadata makes a new member of the same endpoint; its health is what stays.
        self._members: dict[EndpointHealth, Member] = {}
        self._next_due = float("inf")
        self._lock = threading.Lock()

    def succeeded(self, member: Member) -> None:
        """An attempt at `member` succeeded. One that was ejected comes back only by a probe."""
        health = member.health
        if health.consecutive:
            health.consecutive = 0

    def failed(self, member: Member, now: float) -> None:
        """An attempt at `member` failed."""
        health = member.health
        with self._lock:
            health.consecutive += 1
            if health.ejected or not 0 < self.settings.consecutive_errors <= health.consecutive:
                return
            current = self._members.get(health)
            if current is None:  # it has left; a call that began before still tried it
                return
            if len(self.ejected) >= self._allowed():
                return
            base = self.settings.base_ejection_s
            if base > 0:
                health.ejections = max(0, health.ejections - int(max(0.0, now - health.returned_at) / base))
            health.ejected = True
            self._sentence(health, now)
            self._set_ejected((*self.ejected, current))
        self._tell(current, True)

    def due(self, now: float, repeatable: bool, tried: Sequence[Member] = ()) -> EjectionProbe | None:
        """Lease the probe of an endpoint whose time is up.

        Args:
            now: on the monotonic clock.
            repeatable: whether the call could be made again.
            tried: members that it has tried already.

        Returns:
            The lease; None if none is due, or the call does not suit.
        """
        patience_s = 0.0 if repeatable else PATIENCE_S
        longest_s = self.settings.max_ejection_s + LEASE_S
        if not self.ejected or (now < self._next_due + patience_s and self._next_due - now <= longest_s):
            return None
        with self._lock:
            for member in self.ejected:
                health = member.health
                if health.probe is not None and 0.0 <= now - health.probe_since < LEASE_S:
                    continue
                if health.ejected_until - now > self.settings.max_ejection_s:  # the clock went back
                    health.ejected_until = now
                if now < health.ejected_until + patience_s or any(member.node is other.node for other in tried):
                    continue
                probe = EjectionProbe(self, member)
                health.probe, health.probe_since = probe, now
                self._reckon()
                return probe
            self._reckon()
        return None

    def rebind(self, members: Sequence[Member]) -> None:
        """The cluster's endpoints changed: these are its members now."""
        with self._lock:
            self._members = {member.health: member for member in members}
            self._set_ejected(tuple(member for member in members if member.health.ejected))

    def renew_lock(self) -> None:
        """After a fork, in the child: probes under way in the parent will not end here."""
        self._lock = threading.Lock()
        for member in self.ejected:
            member.health.probe = None
        self._reckon()

    def _probe_ended(self, probe: EjectionProbe, now: float, success: bool | None) -> None:
        health = probe.member.health
        with self._lock:
            if health.probe is not probe:
                return
            health.probe = None
            if success is None or not health.ejected:
                self._reckon()
                return
            if success:
                health.ejected = False
                health.consecutive = 0
                health.returned_at = now
                self._set_ejected(tuple(member for member in self.ejected if member.health is not health))
            else:
                self._sentence(health, now)
                self._reckon()
        if success:
            self._tell(probe.member, False)

    def _allowed(self) -> int:
        """How many may be out at once."""
        size, percent = len(self._members), self.settings.max_ejection_percent
        allowed = int(size * percent / 100.0)
        return max(1, allowed) if size >= 2 and percent > 0 else allowed

    def _sentence(self, health: EndpointHealth, now: float) -> None:
        health.ejections += 1
        health.ejected_until = now + min(self.settings.base_ejection_s * health.ejections, self.settings.max_ejection_s)
        self.ejections += 1

    def _set_ejected(self, ejected: tuple[Member, ...]) -> None:
        self.ejected = ejected
        self.ejected_healthy = sum(1 for member in ejected if member.endpoint.health is Health.HEALTHY)
        self._reckon()

    def _reckon(self) -> None:
        """Note when the next probe is due, so that a pick need not look at each that is out."""
        due = float("inf")
        for member in self.ejected:
            health = member.health
            due = min(due, health.ejected_until if health.probe is None else health.probe_since + LEASE_S)
        self._next_due = due

    def _tell(self, member: Member, ejected: bool) -> None:
        if self._on_change is not None:
            self._on_change(member, ejected)

    def __repr__(self) -> str:
        return f"<OutlierDetector {len(self.ejected)} of {len(self._members)} ejected>"
