"""Outlier detection: take single endpoints that keep failing out of their cluster, for a while.

An endpoint with `consecutive_errors` failures in a row is ejected for ``base_ejection * n``, at most `max_ejection`,
where n is how often that happened lately (one time less for each `base_ejection` that it stayed in). Then one probe is
sent: if it succeeds the endpoint is back, if it fails it is ejected for longer. At most `max_ejection_percent` of a
cluster are out at once, but one always may be if there are two. Source of the growth and of the percentage: Envoy's
``outlier_detection_impl.cc``; the return by probe is ours (Envoy lets all traffic back at once). Envoy's own rules are
in `meshlib.policy.outlier_sweep`, and Finagle's and Linkerd's in `meshlib.policy.accrual`: detectors of this kind that
know more reasons.

A probe is a lease. A call that could be made again is preferred; any other is taken only after `PATIENCE_S`. Whoever
has the lease ends it by the probe's outcome, or abandons it if the call was cancelled, and the next call takes it over.
A probe that has hung for `LEASE_S` is passed over in the same way, and what becomes of it no longer counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Sequence
from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.endpoint import Health
from meshlib.balance.health import EndpointHealth
from meshlib.policy.settings import OutlierSettings

__all__ = ["LEASE_S", "PATIENCE_S", "EjectionProbe", "OutlierDetector", "make_detector"]

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
        ejections: how many there were, for telemetry, failed probes among them.
        detected: how often an endpoint was found to be an outlier, by the rule that found it.
        enforced: how often it was ejected for that.
        overflow: how often it was not, because too many were out already.
    """

    __slots__ = (
        "_lock",
        "_members",
        "_next_due",
        "_on_change",
        "_rng",
        "detected",
        "ejected",
        "ejected_healthy",
        "ejections",
        "enforced",
        "overflow",
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
        self.detected: dict[str, int] = {}
        self.enforced: dict[str, int] = {}
        self.overflow = 0
        self._on_change = on_change
        # A change of weight or metadata makes a new member of the same endpoint; its health is what stays.
        self._members: dict[EndpointHealth, Member] = {}
        self._next_due = float("inf")
        self._rng: Random | None = None
        self._lock = threading.Lock()

    def succeeded(self, member: Member, now: float, status: int | None = None) -> None:
        """An attempt at `member` succeeded. One that was ejected comes back only by a probe.

        Args:
            member: the endpoint.
            now: on the monotonic clock.
            status: of the response.
        """
        health = member.health
        # Only a success after failures comes here, so the others pay for no lock.
        with self._lock:
            health.heeds_success = False
            health.consecutive = 0

    def failed(
        self,
        member: Member,
        now: float,
        *,
        status: int | None = None,
        timed_out: bool = False,
        connected: bool = False,
    ) -> None:
        """An attempt at `member` failed.

        Args:
            member: the endpoint.
            now: on the monotonic clock.
            status: of the response; None if there was none.
            timed_out: whether it took too long.
            connected: whether there was a connection to it.
        """
        with self._lock:
            out = self._count_error(member.health, now)
        if out is not None:
            self._tell(out, True)

    def report_to(self, on_change: Callable[[Member, bool], None]) -> None:
        """From now on, call this one instead at each ejection and return."""
        self._on_change = on_change

    def sweep(self, now: float) -> None:
        """Do what is due at intervals: nothing, but for the rules that look at intervals."""

    def due(
        self,
        now: float,
        repeatable: bool,
        tried: Sequence[Member] = (),
        among: Container[EndpointHealth] | None = None,
    ) -> EjectionProbe | None:
        """Lease the probe of an endpoint whose time is up.

        Args:
            now: on the monotonic clock.
            repeatable: whether the call could be made again.
            tried: members that it has tried already.
            among: the health of those that it may go to; None for all.

        Returns:
            The lease; None if none is due, or the call does not suit.
        """
        patience_s = 0.0 if repeatable else PATIENCE_S
        longest_s = self._longest_s() + LEASE_S
        if not self.ejected or (now < self._next_due + patience_s and self._next_due - now <= longest_s):
            return None
        with self._lock:
            for member in self.ejected:
                health = member.health
                if health.probe is not None and 0.0 <= now - health.probe_since < LEASE_S:
                    continue
                if health.ejected_until - now > self._longest_s():  # the clock went back
                    health.ejected_until = now
                if among is not None and health not in among:
                    continue
                if health.active_failed:
                    continue  # it is being asked by others, and a call would be spent on it in vain
                if now < health.ejected_until + patience_s or any(member.node is other.node for other in tried):
                    continue
                probe = EjectionProbe(self, member)
                health.probe, health.probe_since = probe, now
                self._reckon()
                return probe
            self._reckon()
        return None

    def passed_check(self, health: EndpointHealth, now: float) -> None:
        """An endpoint has passed an active check, which brings it back if it was ejected."""
        if not self.ejected:
            return
        with self._lock:
            self._reckon()
            wanted = health.ejected and self.settings.active_check_unejects
            back = self._members.get(health) if wanted else None
            if back is not None:
                self._take_back(health, now, "it passed its active check")
        if back is not None:
            self._tell(back, False)

    def rebind(self, members: Sequence[Member], now: float = 0.0, rng: Random | None = None) -> None:
        """The cluster's endpoints changed.

        Args:
            members: they are these now.
            now: on the monotonic clock.
            rng: for jitter and for what is enforced in part.
        """
        with self._lock:
            self._rng = rng
            self._members = {member.health: member for member in members}
            self._set_ejected(tuple(member for member in members if member.health.ejected))

    def renew_lock(self) -> None:
        """After a fork, in the child: probes under way in the parent will not end here."""
        self._lock = threading.Lock()
        for member in self.ejected:
            member.health.probe = None
        self._reckon()

    def _count_error(self, health: EndpointHealth, now: float) -> Member | None:
        """One failure more in a row. Returns who is out for it, to be told."""
        health.consecutive += 1
        health.heeds_success = True
        threshold = self.settings.consecutive_errors
        if health.ejected or not 0 < threshold <= health.consecutive:
            return None
        failures = "failure" if health.consecutive == 1 else "failures"
        return self._detect(health, now, "consecutive_errors", f"{health.consecutive} {failures} in a row")

    def _detect(
        self, health: EndpointHealth, now: float, rule: str, because: str, percent: float = 100.0
    ) -> Member | None:
        """An endpoint is an outlier by `rule`. Returns the member if it is out for that, to be told."""
        current = self._members.get(health)
        if current is None or health.ejected:  # it has left; a call that began before still tried it
            return None
        self.detected[rule] = self.detected.get(rule, 0) + 1
        if not self._may_eject():
            self.overflow += 1
            return None
        if percent < 100.0 and (self._rng is None or self._rng.random() * 100.0 >= percent):
            return None
        self.enforced[rule] = self.enforced.get(rule, 0) + 1
        self._forgive(health, now)
        health.ejected = True
        health.ejected_for = because
        self._sentence(health, now)
        # Not by `_set_ejected`, which looks at all that are out: a sweep may eject thousands.
        self.ejected = (*self.ejected, current)
        self.ejected_healthy += current.endpoint.health is Health.HEALTHY
        if not health.active_failed:
            self._next_due = min(self._next_due, health.ejected_until)
        return current

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
                self._take_back(health, now, "its probe succeeded")
            else:
                self._sentence(health, now)
                self._reckon()
        if success:
            self._tell(probe.member, False)

    def _take_back(self, health: EndpointHealth, now: float, because: str) -> None:
        """It gets calls again, with a clean slate but for how often it was out."""
        health.ejected = False
        health.returned_for = because
        health.probe = None
        health.consecutive = 0
        health.returned_at = now
        self._set_ejected(tuple(member for member in self.ejected if member.health is not health))

    def _may_eject(self) -> bool:
        """Whether one more may be out."""
        size, out, percent = len(self._members), len(self.ejected), self.settings.max_ejection_percent
        if 100.0 * (out + 1) <= percent * size:
            return True
        return out == 0 and percent > 0 and 0 < self.settings.always_eject_one_of <= size

    def _forgive(self, health: EndpointHealth, now: float) -> None:
        """One time less for each `base_ejection_s` that it has stayed in."""
        base_s = self.settings.base_ejection_s
        if base_s > 0:
            health.ejections = max(0, health.ejections - int(max(0.0, now - health.returned_at) / base_s))

    def _sentence(self, health: EndpointHealth, now: float) -> None:
        base_s, longest_s = self.settings.base_ejection_s, self.settings.max_ejection_s
        if base_s * health.ejections < longest_s + base_s:
            health.ejections += 1
        health.ejected_until = now + min(base_s * health.ejections, longest_s)
        if self.settings.max_ejection_jitter_s and self._rng is not None:
            health.ejected_until += self._rng.random() * self.settings.max_ejection_jitter_s
        self.ejections += 1

    def _longest_s(self) -> float:
        return self.settings.max_ejection_s + self.settings.max_ejection_jitter_s

    def _set_ejected(self, ejected: tuple[Member, ...]) -> None:
        self.ejected = ejected
        self.ejected_healthy = sum(1 for member in ejected if member.endpoint.health is Health.HEALTHY)
        self._reckon()

    def _reckon(self) -> None:
        """Note when the next probe is due, so that a pick need not look at each that is out."""
        due = float("inf")
        for member in self.ejected:
            health = member.health
            if not health.active_failed:
                due = min(due, health.ejected_until if health.probe is None else health.probe_since + LEASE_S)
        self._next_due = due

    def _tell(self, member: Member, ejected: bool) -> None:
        if self._on_change is not None:
            self._on_change(member, ejected)

    def __repr__(self) -> str:
        return f"<OutlierDetector {len(self.ejected)} of {len(self._members)} ejected>"


def make_detector(
    settings: OutlierSettings | None, on_change: Callable[[Member, bool], None] | None = None
) -> OutlierDetector | None:
    """The detector that these settings ask for; None for none."""
    if settings is None:
        return None
    envoy = (
        settings.consecutive_5xx,
        settings.consecutive_gateway_failure,
        settings.split_external_local_origin_errors and settings.consecutive_local_origin_failure,
        settings.success_rate is not None,
        settings.failure_percentage is not None,
        settings.return_by == "sweep",
    )
    if settings.accrual is not None:
        from meshlib.policy.accrual import AccruingDetector, AccruingSweepingDetector

        return (AccruingSweepingDetector if any(envoy) else AccruingDetector)(settings, on_change)
    if not any(envoy):
        return OutlierDetector(settings, on_change)
    from meshlib.policy.outlier_sweep import SweepingDetector

    return SweepingDetector(settings, on_change)
