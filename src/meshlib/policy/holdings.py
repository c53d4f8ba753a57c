"""What a call holds while it runs, and how it lets go: the part of the state machine that ends and waits.

A call may hold places in endpoints' counts, one under its cluster's limit or in the line for it, and leases of probes.
It has one end, whatever way it comes there (an answer, an error, the deadline, the caller's own), and at that end it
holds nothing. The events and decisions that lead there are in `meshlib.policy.call`.
"""

from __future__ import annotations

import enum
from random import Random

from meshlib.balance.balancer import Member
from meshlib.errors import MeshError, PoolTimeout
from meshlib.policy.actions import Action, Cancel, Deliver, Fail
from meshlib.policy.attempt import Attempt
from meshlib.policy.classify import is_failure, is_to_blame
from meshlib.policy.facts import CallFacts, Ready
from meshlib.policy.journal import Journal
from meshlib.policy.placement import Placement
from meshlib.policy.timeouts import Timeouts

__all__ = ["CallState", "Holdings"]


class CallState(enum.Enum):
    """Where a call is."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DELIVERED = "delivered"
    DONE = "done"


class Holdings:
    """The data of a call, and its end. `meshlib.policy.call.Call` adds the events."""

    __slots__ = (
        "_journal",
        "_owed",
        "_placement",
        "_rng",
        "_timeouts",
        "_tried",
        "_wake_at",
        "attempts",
        "deadline",
        "facts",
        "state",
        "wait_on",
    )

    def __init__(self, facts: CallFacts, rng: Random) -> None:
        self.facts = facts
        self.state = CallState.NEW
        self.attempts: list[Attempt] = []
        self.wait_on: Ready | None = None
        self.deadline: float | None = None
        self._rng = rng
        self._placement = Placement(facts, rng)
        self._timeouts: Timeouts
        self._tried: list[Member] = []
        self._owed = 0  # failures that the budget has not been charged for
        self._journal = Journal()
        self._wake_at: float | None = None

    def _elapsed_s(self, now: float) -> float:
        return now - (now if self._journal.began is None else self._journal.began)

    def _deliver(self, attempt: Attempt, now: float, *, good: bool) -> list[Action]:
        """Hand a response to the caller; a `good` one is none that the policy would have retried."""
        if good:
            self.facts.budget.succeeded()
        success = not is_failure(attempt.status or 0)
        if success:
            attempt.completed()
        self._journal.status = attempt.status
        self._journal.outcome = "success"
        self._end(now, success)
        actions = [*self._cancel_open(now, keep=attempt), Deliver(attempt.n)]
        self.state = CallState.DELIVERED
        return actions

    def _broke(self, attempt: Attempt, now: float, error: MeshError) -> list[Action]:
        """The body of a delivered response broke. The caller sees it; there is nothing left to decide."""
        attempt.error = error
        if is_to_blame(error) and attempt.outcome == "success":
            attempt.failed(now)
        attempt.close(now)
        self._journal.outcome = "failure"
        self._journal.error = error
        self._finish()
        return []

    def _not_sent(self, attempt: Attempt, now: float, error: MeshError) -> list[Action]:
        """It failed by what is on this side: a full pool, a request that cannot be read, a closed mesh."""
        attempt.refused(now)
        attempt.close(now)
        if isinstance(error, PoolTimeout):
            # Another endpoint's pool may have room, and an attempt there be under way.
            if any(other.open for other in self.attempts):
                return []
            self._journal.no_retry = "too much is under way in this process, and a retry would add to it"
        return [*self._cancel_open(now), *self._fail(now, error, success=None)]

    def _fail(self, now: float, error: MeshError, *, success: bool | None) -> list[Action]:
        self._journal.error = error
        self._journal.outcome = "failure"
        self._end(now, success)
        self._placement.leave()
        self.state = CallState.DONE
        return [Fail(error)]

    def _cut(self, now: float) -> list[Action]:
        """The deadline has come."""
        self._journal.limit = self._timeouts.name
        under_way = [attempt for attempt in self.attempts if attempt.open]
        phase = under_way[0].stage() if under_way else self._journal.waiting_for
        error = self._timeouts.exceeded(self.attempts, phase)
        for attempt in under_way:
            attempt.phase = attempt.stage()
            if self._timeouts.blames(attempt, now):
                attempt.error = error
                attempt.failed(now)
        actions = self._cancel_open(now)
        own = self._timeouts.name == "timeout" and any(attempt.outcome == "failure" for attempt in self.attempts)
        return [*actions, *self._fail(now, error, success=False if own else None)]

    def _end(self, now: float, success: bool | None) -> None:
        """The outcome is known; None is neither good nor bad."""
        self._journal.ended = now
        self._stop_waiting(now)
        self._placement.judge(now, success)

    def _finish(self) -> None:
        """After a delivered body ended: the call is over."""
        if self.state is not CallState.DELIVERED:
            return
        for attempt in self.attempts:
            if attempt.open:
                return
        self._placement.leave()
        self.state = CallState.DONE

    def _cancel_open(self, now: float, keep: Attempt | None = None) -> list[Action]:
        """Give up all open attempts but one."""
        actions: list[Action] = []
        for attempt in self.attempts:
            if attempt.open and attempt is not keep:
                attempt.given_up(now)
                attempt.close(now)
                actions.append(Cancel(attempt.n))
        return actions

    def _wait(self, now: float, reason: str, token: Ready | None, until: float | None = None) -> list[Action]:
        self.state = CallState.WAITING
        self.wait_on = token
        self._wake_at = until
        self._journal.wait_began(now, reason)
        return []

    def _stop_waiting(self, now: float) -> None:
        if self.wait_on is not None:
            self.wait_on.leave()
            self.wait_on = None
        self._journal.wait_ended(now)
        self._wake_at = None
