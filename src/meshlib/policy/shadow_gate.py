"""The shadows of throttles, limits and rate limits; see `meshlib.policy.shadow`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshlib.errors import MeshError
from meshlib.policy.comparison import Comparison
from meshlib.policy.gate import PlainGate
from meshlib.policy.limit import Waiter

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.gate import Gate
    from meshlib.policy.placement import Placement
    from meshlib.policy.traits import Traits
    from meshlib.routing.match import RequestView

__all__ = ["PickNotes", "ShadowGate"]


class _Visit:
    """What a shadow would have done with one call.

    Attributes:
        inside: how many of its gates have let the call in.
        refused: whether one would have refused it.
        token: what it would have waited for, since `asked_at`.
    """

    __slots__ = ("asked_at", "inside", "refused", "token")

    def __init__(self, now: float) -> None:
        self.asked_at = now
        self.inside = 0
        self.refused = False
        self.token: Ready | None = None


class ShadowGate(PlainGate):
    """A gate that asks others and keeps their answers to itself; it stands before the one that they are compared with.

    Args:
        gates: to ask, in their order.
        live: the one that decides; None where there is none.
        comparison: what it counts in.
    """

    __slots__ = ("_gates", "_live", "_visits", "comparison", "name", "readers")

    rejected = 0

    def __init__(self, gates: Sequence[Gate], live: Gate | None, comparison: Comparison) -> None:
        self._gates = gates
        self._live = live
        self._visits: dict[Placement, _Visit] = {}
        self.comparison = comparison
        self.name = f"shadow-{comparison.policy.replace('_', '-')}"
        self.readers = tuple(reader for gate in gates for reader in gate.readers)

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        visit = self._visits[call] = _Visit(now)
        for gate in self._gates:
            answer = gate.ask(now, call)
            if answer is None:
                visit.inside += 1
                continue
            if isinstance(answer, MeshError):
                self._refuse(now, call, visit)
            else:
                visit.token = answer
                self.comparison.count("waited")
            break
        return None

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """What was decided is known now: compare, and hand on what the call would have shown."""
        visit = self._visits.get(call)
        if visit is None:
            return
        if visit.token is not None:
            self._end_wait(now, call, visit, visit.token)
        self._compare(call, visit.refused)
        if not visit.refused:
            for gate in self._gates[: visit.inside]:
                gate.judged(now, call, success)

    def left(self, now: float, call: Placement) -> None:
        """It holds nothing in the shadow any more."""
        visit = self._visits.pop(call, None)
        if visit is None:
            return
        if visit.token is not None:
            visit.token.leave()
        self._give_back(now, call, visit)

    def renew_lock(self) -> None:
        """After a fork, in the child: the parent's calls are not ours."""
        self._visits = {}
        self.comparison.renew_lock()
        for gate in self._gates:
            gate.renew_lock()

    def _end_wait(self, now: float, call: Placement, visit: _Visit, token: Ready) -> None:
        """The call is answered, or was given up; would its wait have been over by then, and how?"""
        gate = self._gates[visit.inside]
        patience_s = gate.patience_s(call, token)
        up = patience_s is not None and now >= visit.asked_at + patience_s
        if isinstance(token, Waiter):
            over, late = token.granted or up, not token.granted
        else:  # a turn that comes with time; a call that was made has taken it
            over, late = up or _was_made(call), False
        if not over:
            return  # it would still wait, and does until it leaves
        visit.token = None
        if gate.decide(now, call, token, late) is None:
            visit.inside += 1
        else:
            self._refuse(now, call, visit)

    def _compare(self, call: Placement, refused: bool) -> None:
        by = call.journal.refused_by
        live = self._live is not None and by == self._live.name
        if not (live or by or _was_made(call)):
            return  # the caller gave up before it was decided
        self.comparison.of_call(call.journal, refused, live)

    def _refuse(self, now: float, call: Placement, visit: _Visit) -> None:
        visit.refused = True
        self._give_back(now, call, visit)

    def _give_back(self, now: float, call: Placement, visit: _Visit) -> None:
        inside, visit.inside = visit.inside, 0
        for gate in reversed(self._gates[:inside]):
            gate.left(now, call)


def _nothing(request: RequestView, traits: Traits) -> None:
    """Reads nothing."""


class PickNotes(PlainGate):
    """A gate that lets all pass, and hands what shadows would have picked on to the records of calls."""

    __slots__ = ()

    name = "shadow-picks"
    rejected = 0
    readers = (_nothing,)  # so that there are traits to note it in

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        return None

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """All attempts are made."""
        traits = call.traits
        if traits is not None and traits.shadow:
            for note in traits.shadow:
                call.journal.differs(note)
            traits.shadow = ()

    def renew_lock(self) -> None:
        """It has none."""


def _was_made(call: Placement) -> bool:
    """Whether an attempt was made in the cluster in which the call is."""
    return any(attempt.cluster is call.cluster for attempt in call.attempts)
