"""Outlier detection by Envoy's own rules: every outcome is counted, and at intervals a sweep looks at the counts.

Each rule is on where it is configured, and then does what Envoy's does (``outlier_detection_impl.cc``):

    rule                              ejects an endpoint
    consecutive_5xx                   at its n-th answer of 500-599 in a row, at once
    consecutive_gateway_failure       at its n-th 502, 503 or 504 in a row, at once
    consecutive_local_origin_failure  at its n-th failure on this side of the connection in a row, at once; if split
    success_rate, failure_percentage  at a sweep (`meshlib.policy.success_rate`)

A failure without an answer counts as an answer: a 504 if it took too long, else a 503, whether there was no connection
or it broke. With `split_external_local_origin_errors` it counts apart: a connection that is there is a success on this
side, and a timeout, a reset or a refused connection a failure; statuses are then those of answers alone. (As in Envoy,
an endpoint that takes connections and never answers so has no two such failures in a row.)

A count in a row begins again at any answer below 500; that of gateway failures at a 500 too; and when it has reached
its threshold, whether the endpoint may be ejected or not. All begin again when an endpoint comes back.

A sweep takes endpoints back (with `return_by: sweep`) whose time is up, applies the two rules on rates to what was
counted since the sweep before, and shortens by one step the next ejection of each endpoint that has been in for an
interval. Sweeps have no thread. They are due every `interval_s`, and done by the first outcome of a call that is noted
later, or by the housekeeping of the mesh; they happen as of the time that they were due at, whoever does them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.health import EndpointHealth, Tally
from meshlib.policy.outlier import EjectionProbe, OutlierDetector
from meshlib.policy.settings import OutlierSettings
from meshlib.policy.success_rate import Rate, failing, unlike_others

__all__ = ["GRACE_S", "SMALL", "SweepingDetector"]

SMALL = 1000
GRACE_S = 2.0
"""A sweep of more than `SMALL` endpoints is left to the housekeeping for so long: it would hold up a call."""

_GATEWAY = frozenset({502, 503, 504})


class SweepingDetector(OutlierDetector):
    """Ejections in one cluster, by Envoy's rules and by our own."""

    __slots__ = ("_sweep_at", "_to_forgive")

    def __init__(self, settings: OutlierSettings, on_change: Callable[[Member, bool], None] | None = None) -> None:
        super().__init__(settings, on_change)
        self._sweep_at = float("inf")
        self._to_forgive: set[EndpointHealth] = set()
        """Those that were out lately, so that their next ejection is longer."""

    def succeeded(self, member: Member, now: float, status: int | None = None) -> None:
        """An attempt at `member` was answered; also with a 500, which only the rules of Envoy call a failure."""
        self._sweep_if_due(now)
        health = member.health
        with self._lock:
            health.consecutive = 0
            self._count_connected(health)
            out = self._count_status(health, now, 200 if status is None else status)
        if out is not None:
            self._tell(out, True)

    def failed(
        self,
        member: Member,
        now: float,
        *,
        status: int | None = None,
        timed_out: bool = False,
        connected: bool = False,
    ) -> None:
        self._sweep_if_due(now)
        health = member.health
        with self._lock:
            if connected:
                self._count_connected(health)
            if status is not None or not self.settings.split_external_local_origin_errors:
                code = status if status is not None else 504 if timed_out else 503
                out = self._count_status(health, now, code)
            else:
                out = self._count_local_failure(health, now)
            error = self._count_error(health, now)
        for each in (out, error):
            if each is not None:
                self._tell(each, True)

    def due(
        self,
        now: float,
        repeatable: bool,
        tried: Sequence[Member] = (),
        among: Container[EndpointHealth] | None = None,
    ) -> EjectionProbe | None:
        self._sweep_if_due(now)
        return super().due(now, repeatable, tried, among) if self.settings.return_by == "probe" else None

    def rebind(self, members: Sequence[Member], now: float = 0.0, rng: Random | None = None) -> None:
        for member in members:
            health = member.health
            health.heeds_success = True
            if health.tally is None:
                health.tally = Tally()
        super().rebind(members, now, rng)
        with self._lock:
            if self._sweep_at == float("inf"):
                self._sweep_at = now + self.settings.interval_s
            self._to_forgive = {health for health in self._members if health.ejections}

    def sweep(self, now: float) -> None:
        """Do the sweeps that are due."""
        interval_s = self.settings.interval_s
        if now < self._sweep_at <= now + interval_s:
            return
        changes: list[tuple[Member, bool]] = []
        with self._lock:
            if self._sweep_at > now + interval_s:  # the clock went back
                self._sweep_at = now + interval_s
                return
            while self._sweep_at <= now:
                self._sweep(self._sweep_at, changes)
                # Of all that would follow up to now, only what can change anything.
                idle = max(0, int((min(now, self._next_change(now)) - self._sweep_at) / interval_s))
                self._sweep_at += interval_s * max(1, idle)
        for member, ejected in changes:
            self._tell(member, ejected)

    def _sweep_if_due(self, now: float) -> None:
        due = self._sweep_at
        if now < due <= now + self.settings.interval_s:
            return
        if len(self._members) <= SMALL or now >= due + GRACE_S or now < due:
            self.sweep(now)

    def _next_change(self, now: float) -> float:
        """When a further sweep could find anything to do, if nobody is called before `now`."""
        if self._to_forgive and any(not health.ejected for health in self._to_forgive):
            return self._sweep_at
        if self.ejected and self.settings.return_by == "sweep":
            return min(member.health.ejected_until for member in self.ejected)
        return now

    def _sweep(self, at: float, changes: list[tuple[Member, bool]]) -> None:
        if self.settings.return_by == "sweep":
            for member in self.ejected:
                health = member.health
                # A time that lies further ahead than any ejection is long is from before the clock went back.
                if health.ejected_until <= at or health.ejected_until - at > self._longest_s():
                    self._take_back(health, at, "its time was up")
                    changes.append((member, False))
        if self.settings.success_rate is not None or self.settings.failure_percentage is not None:
            changes.extend((member, True) for member in self._look_at_rates(at))
        for health in [health for health in self._to_forgive if not health.ejected]:
            health.returned_at = min(health.returned_at, at)  # later only if the clock went back
            if at - health.returned_at >= self.settings.interval_s:
                health.ejections = max(0, health.ejections - 1)
                if not health.ejections:
                    self._to_forgive.discard(health)

    def _look_at_rates(self, at: float) -> list[Member]:
        """Apply the rules on rates to what was counted, and begin to count anew. Returns who is out for it."""
        external: list[Rate] = []
        local: list[Rate] = []
        for health in self._members:
            tally = health.tally
            if tally is None or not (tally.total or tally.local_total):
                continue
            if not health.ejected:
                external.append(Rate(health, tally.good, tally.total))
                local.append(Rate(health, tally.local_good, tally.local_total))
            tally.begin_interval()
        out = self._judge_rates(external, at, "")
        return out + self._judge_rates(local, at, "_local_origin")

    def _judge_rates(self, rates: list[Rate], at: float, origin: str) -> list[Member]:
        success, failure = self.settings.success_rate, self.settings.failure_percentage
        found: list[tuple[Rate, str, str, float]] = []
        if success is not None:
            percent = success.enforcing_local_origin_percent if origin else success.enforcing_percent
            for rate in unlike_others(success, rates):
                because = f"{rate.success_percent:.3g} % of {rate.total} calls went well, below {rate.limit:.3g} %"
                found.append((rate, f"success_rate{origin}", because, percent))
        if failure is not None:
            percent = failure.enforcing_local_origin_percent if origin else failure.enforcing_percent
            for rate in failing(failure, rates):
                because = f"{100 - rate.success_percent:.3g} % of {rate.total} calls failed"
                found.append((rate, f"failure_percentage{origin}", because, percent))
        out = []
        for rate, rule, because, percent in found:
            health = rate.of
            assert isinstance(health, EndpointHealth)
            member = self._detect(health, at, rule, because, percent)
            if member is not None:
                out.append(member)
        return out

    def _count_connected(self, health: EndpointHealth) -> None:
        tally = health.tally
        if tally is not None and self.settings.split_external_local_origin_errors:
            tally.local_total += 1
            tally.local_good += 1
            tally.consecutive_local_origin_failure = 0

    def _count_local_failure(self, health: EndpointHealth, now: float) -> Member | None:
        tally, settings = health.tally, self.settings
        if tally is None:
            return None
        tally.local_total += 1
        tally.consecutive_local_origin_failure += 1
        if tally.consecutive_local_origin_failure != settings.consecutive_local_origin_failure or health.ejected:
            return None
        tally.consecutive_local_origin_failure = 0
        because = f"{settings.consecutive_local_origin_failure} connections or calls in a row failed on this side"
        percent = settings.enforcing_consecutive_local_origin_failure_percent
        return self._detect(health, now, "consecutive_local_origin_failure", because, percent)

    def _count_status(self, health: EndpointHealth, now: float, status: int) -> Member | None:
        tally, settings = health.tally, self.settings
        if tally is None:
            return None
        tally.total += 1
        if not 500 <= status <= 599:
            tally.good += 1
            tally.consecutive_5xx = tally.consecutive_gateway_failure = 0
            return None
        out = None
        tally.consecutive_gateway_failure = tally.consecutive_gateway_failure + 1 if status in _GATEWAY else 0
        if tally.consecutive_gateway_failure == settings.consecutive_gateway_failure > 0 and not health.ejected:
            tally.consecutive_gateway_failure = 0
            failures = "failure" if settings.consecutive_gateway_failure == 1 else "failures"
            because = f"{settings.consecutive_gateway_failure} gateway {failures} in a row"
            percent = settings.enforcing_consecutive_gateway_failure_percent
            out = self._detect(health, now, "consecutive_gateway_failure", because, percent)
        tally.consecutive_5xx += 1
        if tally.consecutive_5xx == settings.consecutive_5xx and not health.ejected:
            tally.consecutive_5xx = 0
            answers = "answer" if settings.consecutive_5xx == 1 else "answers"
            because = f"{settings.consecutive_5xx} {answers} of 5xx in a row"
            percent = settings.enforcing_consecutive_5xx_percent
            out = self._detect(health, now, "consecutive_5xx", because, percent) or out
        return out

    def _take_back(self, health: EndpointHealth, now: float, because: str) -> None:
        if health.tally is not None:
            health.tally.begin_rows()
        super()._take_back(health, now, because)

    def _forgive(self, health: EndpointHealth, now: float) -> None:
        """At sweeps, and not here."""
        self._to_forgive.add(health)
