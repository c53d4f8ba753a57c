"""What a call notes of itself as it goes, and the record that is made of it when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.errors import MeshError, PoolTimeout
from meshlib.policy.attempt import Attempt
from meshlib.policy.facts import CallFacts
from meshlib.policy.record import Record, Wait
from meshlib.policy.retry import NO_BUDGET, OVERLOADED
from meshlib.policy.traits import Traits

__all__ = ["Journal"]

_OVERLOAD = frozenset({NO_BUDGET.reason, OVERLOADED.reason})


class Journal:
    """Notes of one call. Writing one costs an assignment; the record is built only when it is read.

    Attributes:
        began, ended: on the monotonic clock, None while they are not there; the end is that of the headers, or of the
            failure.
        outcome, status, error, limit, no_retry, refused_by, fault: see `meshlib.policy.record.Record`.
        waiting_for: what it waits for now; empty while it does not.
        mirrored, override, shadow: see there, too.
    """

    __slots__ = (
        "_since",
        "_waits",
        "began",
        "ended",
        "error",
        "fault",
        "limit",
        "mirrored",
        "no_retry",
        "outcome",
        "override",
        "refused_by",
        "shadow",
        "status",
        "waiting_for",
    )

    def __init__(self) -> None:
        self.began: float | None = None
        self.ended: float | None = None
        self.outcome = "pending"
        self.status: int | None = None
        self.error: MeshError | None = None
        self.limit: str | None = None
        self.no_retry: str | None = None
        self.refused_by: str | None = None
        self.fault: str | None = None
        self.waiting_for = ""
        self._since = 0.0
        self._waits: tuple[Wait, ...] = ()
        self.shadow: tuple[str, ...] = ()
        self.mirrored: tuple[str, ...] = ()
        self.override: str | None = None

    @property
    def overloaded(self) -> bool:
        """Whether the call failed because somebody has too much to do: to make it again would add to that.

        A gate or a circuit breaker refused it, the retry budget was used up, this process's connections were all
        busy, or the server said so.
        """
        return (
            self.refused_by is not None
            or isinstance(self.error, PoolTimeout)
            or (self.no_retry is not None and self.no_retry in _OVERLOAD)
        )

    def wait_began(self, now: float, reason: str) -> None:
        self.waiting_for = reason
        self._since = now

    def wait_ended(self, now: float) -> None:
        if self.waiting_for:
            self._waits = (*self._waits, Wait(self.waiting_for, now - self._since))
            self.waiting_for = ""

    def differs(self, text: str) -> None:
        """A shadow would have decided otherwise."""
        self.shadow = (*self.shadow, text)

    def idle_s(self) -> float:
        """Seconds spent waiting so far."""
        return sum(wait.duration_s for wait in self._waits)

    def record(
        self,
        facts: CallFacts,
        path: str,
        attempts: Sequence[Attempt],
        why: Sequence[str] | None,
        now: float,
        traits: Traits | None = None,
    ) -> Record:
        """What happened so far."""
        began = now if self.began is None else self.began
        waits = self._waits
        if self.waiting_for:
            waits = (*waits, Wait(self.waiting_for, now - self._since))
        return Record(
            service=facts.service,
            method=facts.method,
            path=path,
            route=facts.route.name,
            outcome=self.outcome,
            duration_s=(now if self.ended is None else self.ended) - began,
            status=self.status,
            error=type(self.error).__name__ if self.error is not None else None,
            attempts=tuple(attempt.record(began, now) for attempt in attempts),
            waits=waits,
            limit=self.limit,
            no_retry=self.no_retry,
            refused_by=self.refused_by,
            fault=self.fault,
            reply=None if traits is None or traits.answer is None or not traits.replied else traits.answer.text,
            rewritten=None if traits is None or facts.observe else traits.rewritten,
            mirrored=self.mirrored,
            override=self.override,
            shadow=self.shadow,
            why=tuple(why or ()),
        )
