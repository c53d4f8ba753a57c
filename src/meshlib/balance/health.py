"""What is known of one endpoint's health in one cluster, besides what its registry says.

Two sources write here: outlier detection (`meshlib.policy.outlier`), by how calls went, and active checks
(`meshlib.policy.health_check`), by asking. An endpoint may be picked if neither its registry nor either of them is
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Accrual", "ActiveHealth", "EndpointHealth", "Tally"]


class Accrual(Protocol):
    """The success rate of one endpoint (`meshlib.policy.accrual`)."""

    @property
    def settings(self) -> object:
        """What it was made by."""

    def note(self, now: float, good: bool) -> str | None:
        """One more outcome. Returns what is wrong with the endpoint, if that trips it."""

    def reset(self, now: float) -> None:
        """Begin anew."""


class Tally:
    """What was counted of one endpoint by the rules that look at every outcome (`meshlib.policy.outlier_sweep`).

    Attributes:
        consecutive_5xx, consecutive_gateway_failure, consecutive_local_origin_failure: of each kind, in a row.
        total, good: calls since the last sweep, and those that went well.
        local_total, local_good: the same on this side of the connection, where that is counted apart.
        accrual: its success rate, where there is a rule on it.
    """

    __slots__ = (
        "accrual",
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "consecutive_local_origin_failure",
        "good",
        "local_good",
        "local_total",
        "total",
    )

    def __init__(self) -> None:
        self.accrual: Accrual | None = None
        self.begin_interval()
        self.begin_rows()

    def begin_interval(self) -> None:
        """Count calls anew."""
        self.total = self.good = self.local_total = self.local_good = 0

    def begin_rows(self) -> None:
        """Count what is in a row anew."""
        self.consecutive_5xx = self.consecutive_gateway_failure = self.consecutive_local_origin_failure = 0


class EndpointHealth:
    """The live health of one endpoint.

    Attributes:
        consecutive: failures since the last success.
        heeds_success: whether a success is news to outlier detection; mostly it is not.
        tally: what it counts besides; None where it needs nothing else.
        ejected: whether it gets no calls but probes.
        ejected_for, returned_for: what it was last ejected for and came back by, in words.
        ejected_until: when a probe may be sent; on the monotonic clock.
        ejections: how often it was ejected lately; the ejection time grows with it.
        returned_at: when it last came back.
        probe: the lease of the probe under way; None if there is none.
        probe_since: when that lease was taken.
        active_failed: whether active checks say that it is down. Never, where there are none.
        active_degraded: whether they say that it is up, and to be used only for want of better ones.
        hears: given the headers of each answer to a call, where there are active checks; None where there are none.
        joined_at: when it joined the cluster, or last passed its active check after it had not; slow start begins
            there (`meshlib.balance.slow_start`). None for long ago.
    """

    __slots__ = (
        "active_degraded",
        "active_failed",
        "consecutive",
        "ejected",
        "ejected_for",
        "ejected_until",
        "ejections",
        "hears",
        "heeds_success",
        "joined_at",
        "probe",
        "probe_since",
        "returned_at",
        "returned_for",
        "tally",
    )

    def __init__(self) -> None:
        self.consecutive = 0
        self.heeds_success = False
        self.tally: Tally | None = None
        self.ejected = False
        self.ejected_for = ""
        self.returned_for = ""
        self.ejected_until = 0.0
        self.ejections = 0
        self.returned_at = 0.0
        self.probe: object | None = None
        self.probe_since = 0.0
        self.active_failed = False
        self.active_degraded = False
        self.hears: Callable[[Sequence[tuple[bytes, bytes]]], object] | None = None
        self.joined_at: float | None = None


class ActiveHealth:
    """What active checks find in one cluster: the one writer of ``active_failed`` and ``active_degraded``.

    Attributes:
        version: another number after each change, so that whoever reckons with these states knows when to do so anew.
        newcomers_fail: whether an endpoint that joins is left out until its first check has passed.
        passed, failed: checks so far, for telemetry.
    """

    __slots__ = ("failed", "newcomers_fail", "passed", "version")

    def __init__(self) -> None:
        self.version = 0
        self.newcomers_fail = False
        self.passed = 0
        self.failed = 0

    def checked(self, passed: bool) -> None:
        """Count a check."""
        if passed:
            self.passed += 1
        else:
            self.failed += 1

    def found(self, health: EndpointHealth, *, failed: bool, degraded: bool) -> bool:
        """Note what a check found; return whether that is new."""
        if health.active_failed is failed and health.active_degraded is degraded:
            return False
        health.active_failed, health.active_degraded = failed, degraded
        self.version += 1
        return True
