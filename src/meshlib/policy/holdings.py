"""What a call holds while it runs, and how it lets go: the part of the state machine that ends and waits.

A call may hold places in endpoints' counts, what the gates of its cluster gave or a place in a line there, and leases
of probes.
It has one end, whatever way it comes there (an answer, an error, the deadline, the caller's own), and at that end it
holds nothing. The events and decisions that lead there are in `meshlib.policy.call`.

The third layer of a call; see `meshlib.policy.timeouts`.
"""

from __future__ import annotations

import enum
from random import Random
from typing import TYPE_CHECKING

from meshlib.errors import MeshError, PoolTimeout
from meshlib.policy.actions import Action, Cancel, Deliver, Fail
from meshlib.policy.attempt import Attempt
from meshlib.policy.classify import FAILURE_STATUSES, is_to_blame
from meshlib.policy.facts import CallFacts, Ready
from meshlib.policy.journal import Journal
from meshlib.policy.placement import NONE, Placement

if TYPE_CHECKING:
    from meshlib.policy.hedge import Hedging

__all__ = ["DELIVERED", "DONE", "NEW", "RUNNING", "WAITING", "CallState", "Holdings"]


class CallState(enum.Enum):
    """Where a call is."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DELIVERED = "delivered"
    DONE = "done"


# Before Python 3.12 it takes longer to look up a member of an enum than to call a function.
NEW, WAITING, RUNNING = CallState.NEW, CallState.WAITING, CallState.RUNNING
DELIVERED, DONE = CallState.DELIVERED, CallState.DONE


class Holdings(Placement):
    """The data of a call, and its end. `meshlib.policy.call.Call` adds the events."""

    __slots__ = (
        "_backoff_s",
        "_hedge_at",
        "_hedges",
        "_hedging",
        "_owed",
        "_retried",
        "_retry_due",
        "_taken",
        "_wake_at",
        "attempts",
        "journal",
        "path",
        "query",
        "state",
        "wait_on",
    )

    def __init__(
        self,
        facts: CallFacts,
        rng: Random,
        path: str = "/",
        query: str = "",
        inherited: float | None = None,
        replayable: bool = True,
    ) -> None:
        """A call that has not begun.

        Args:
            facts: what it has in common with others of its kind.
            rng: for all that is random.
            path, query: as sent.
            inherited: the deadline that it inherits, on the monotonic clock; None for none.
            replayable: whether its body can be produced again.
        """
        self.facts = facts
        self.path = path
        self.query = query
        self.inherited = inherited
        self.replayable = replayable
        self.why = None
        self.state = NEW
        self.attempts: list[Attempt] = []
        self.wait_on: Ready | None = None
        self.deadline = None
        self.cluster = None
        self.drawn = 0
        self._rng = rng
        self._used = NONE
        self._probe = None
        self._inside = 0
        self.traits = None
        self._owed = 0  # failures that the budget has not been charged for
        self._taken = 0  # retries and hedges that the budget counts as under way
        self._backoff_s = 0.0  # the wait before the last retry
        self._hedging: Hedging | None = None  # if it may be hedged; see `Attempts.may_hedge`
        self.journal = Journal()
        self._wake_at: float | None = None

    def _elapsed_s(self, now: float) -> float:
        return now - (now if self.journal.began is None else self.journal.began)

    def _deliver(self, attempt: Attempt, now: float, *, good: bool) -> list[Action]:
        """Hand a response to the caller; a `good` one is none that the policy would have retried."""
        if good:
            self.facts.budget.succeeded(now)
        success: bool | None = attempt.status not in FAILURE_STATUSES
        if success:
            attempt.completed()
        elif attempt.outcome == "cancelled":
            success = None
        if self.traits is not None:
            self.traits.answered_by = attempt.member.endpoint.address
        journal = self.journal
        journal.status = attempt.status
        journal.outcome = "success"
        journal.ended = now
        self._judge(now, success)
        self.state = DELIVERED
        if len(self.attempts) == 1 and self._hedging is None:
            return [Deliver(attempt.n)]
        self._give_back(now)
        if self._hedging is not None:
            self._settle_race(now, self._hedging, attempt)
        return [*self._cancel_open(now, keep=attempt), Deliver(attempt.n)]

    def _settle_race(self, now: float, hedging: Hedging, winner: Attempt) -> None:
        """One of several attempts was answered; how long a slower one took so far is as much as can be said of it."""
        if winner.hedge:
            hedging.count_won()
        for attempt in self.attempts:
            if attempt.open and attempt.headers_at is None:
                self._took(now, hedging, attempt)

    @staticmethod
    def _took(now: float, hedging: Hedging, attempt: Attempt) -> None:
        """An attempt was answered, ran out of time, or was overtaken. How soon a hedge was, says little of others."""
        if not attempt.hedge:
            hedging.took(now, now - attempt.started_at)

    def _broke(self, attempt: Attempt, now: float, error: MeshError) -> list[Action]:
        """The body of a delivered response broke. The caller sees it; there is nothing left to decide."""
        attempt.error = error
        if is_to_blame(error) and attempt.outcome == "success":
            attempt.failed(now, self._rng)
        attempt.close(now)
        self.journal.outcome = "failure"
        self.journal.error = error
        self._finish(now)
        return []

    def _not_sent(self, attempt: Attempt, now: float, error: MeshError) -> list[Action]:
        """It failed by what is on this side: a full pool, a request that cannot be read, a closed mesh."""
        attempt.refused(now)
        attempt.close(now)
        if isinstance(error, PoolTimeout):
            # Another endpoint's pool may have room, and an attempt there be under way.
            if any(other.open for other in self.attempts):
                return []
            self.journal.no_retry = "too much is under way in this process, and a retry would add to it"
        return [*self._cancel_open(now), *self._fail(now, error, success=None)]

    def _fail(self, now: float, error: MeshError, *, success: bool | None) -> list[Action]:
        self.journal.error = error
        self.journal.outcome = "failure"
        self._end(now, success)
        self._leave_cluster(now)
        self.state = DONE
        return [Fail(error)]

    def _cut(self, now: float) -> list[Action]:
        """The deadline has come."""
        self.journal.limit = self._limit
        under_way = [attempt for attempt in self.attempts if attempt.open]
        phase = under_way[0].stage() if under_way else self.journal.waiting_for
        error = self._exceeded(self.attempts, phase)
        for attempt in under_way:
            attempt.phase = attempt.stage()
            if self._blames(attempt, now):
                if self._hedging is not None:
                    self._took(now, self._hedging, attempt)
                attempt.error = error
                attempt.failed(now, self._rng)
        actions = self._cancel_open(now)
        own = self._limit == "timeout" and any(attempt.outcome == "failure" for attempt in self.attempts)
        return [*actions, *self._fail(now, error, success=False if own else None)]

    def _end(self, now: float, success: bool | None) -> None:
        """The outcome is known; None is neither good nor bad."""
        self.journal.ended = now
        self._stop_waiting(now)
        self._give_back(now)
        self._judge(now, success)

    def _finish(self, now: float) -> None:
        """After a delivered body ended: the call is over."""
        if self.state is not DELIVERED:
            return
        for attempt in self.attempts:
            if attempt.open:
                return
        self._leave_cluster(now)
        self.state = DONE

    def _give_back(self, now: float) -> None:
        """Give back to the budget what retries and hedges took."""
        while self._taken:
            self._taken -= 1
            self.facts.budget.ended(now)

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
        self.state = WAITING
        self.wait_on = token
        self._wake_at = until
        self.journal.wait_began(now, reason)
        return []

    def _stop_waiting(self, now: float) -> None:
        if self.wait_on is not None:
            self.wait_on.leave()
            self.wait_on = None
        self.journal.wait_ended(now)
        self._wake_at = None
