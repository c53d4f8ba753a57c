"""Earliest deadline first: an exact weighted schedule, and the base of the balancers with unequal weights.

Each member has a deadline on a virtual clock. The pick is the earliest, of equal ones that which has waited longest;
the clock goes on to it, and it is put back at

    deadline = clock + 1 / weight

with its weight of that moment. Over any stretch of picks each member gets its share, spread evenly. A weight that
changes with load is asked for when the member is picked, so the schedule follows with a delay of one period of that
member. The schedule begins as if it had been picked from for a random number of times, so that many clients do not
start in step. Source: Envoy's ``edf_scheduler.h``.

A member that may not be used when its turn comes loses the turn, which is ours: were it kept, it would make up for all
of them at once when it may be used again, and until then each pick would have to step over it.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balance.balancer import Member, Usable

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["EdfSchedule", "Weigh"]

Weigh: TypeAlias = Callable[[Member, float], float]
"""The weight of a member, given the time; must be above 0."""

_MOST_PICKS = 429_496_729
_SLIGHTLY = 1e-13


class EdfSchedule:
    """The schedule over one list of members, a balancer in itself. Safe under threads."""

    __slots__ = ("_heap", "_lock", "_order", "_weigh")

    def __init__(
        self,
        members: Sequence[Member],
        now: float,
        picks: int,
        weigh: Weigh | None = None,
        *,
        at_first: Weigh | None = None,
    ) -> None:
        """Make the schedule.

        Args:
            members: never empty; weights are above 0.
            now: on the monotonic clock.
            picks: how many picks it is ahead of its beginning; any whole number from 0.
            weigh: the weight of a member when it is put back; None for what discovery says.
            at_first: the same for the beginning; None for `weigh`.
        """
        self._weigh = weigh
        self._lock = threading.Lock()
        first = at_first or weigh
        weights = [member.weight if first is None else first(member, now) for member in members]
        picks %= _MOST_PICKS
        done, deadlines = _after(weights, picks)
        # The second element, the order in which members were put in, breaks ties; members are never compared.
        self._heap = [(deadlines[index], index, member) for index, member in enumerate(members)]
        heapq.heapify(self._heap)
        self._order = len(members)
        for _ in range(picks - done):
            deadline, _, member = self._heap[0]
            self._put_back(deadline, member.weight if first is None else first(member, now), member)

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        """The member whose turn it is; None if `usable` holds for none."""
        weigh = self._weigh
        with self._lock:
            heap = self._heap
            if usable is None or usable(heap[0][2]):
                deadline, _, member = heap[0]
                self._put_back(deadline, member.weight if weigh is None else weigh(member, now), member)
                return member
            return self._pick_among(now, usable)

    def _pick_among(self, now: float, usable: Usable) -> Member | None:
        """The first one that may be used; those before it lose their turn. Under the lock."""
        heap, weigh = self._heap, self._weigh
        passed: list[tuple[float, int, Member]] = []
        picked: Member | None = None
        while heap and picked is None:
            deadline, _, member = heap[0]
            if usable(member):
                picked = member
                self._put_back(deadline, member.weight if weigh is None else weigh(member, now), member)
            else:
                passed.append(heapq.heappop(heap))
        for deadline, order, member in passed:
            if picked is not None:
                deadline, order, self._order = deadline + 1.0 / member.weight, self._order, self._order + 1
            heapq.heappush(heap, (deadline, order, member))
        return picked

    def _put_back(self, deadline: float, weight: float, member: Member) -> None:
        heapq.heapreplace(self._heap, (deadline + 1.0 / weight, self._order, member))
        self._order += 1


def _after(weights: Sequence[float], picks: int) -> tuple[int, list[float]]:
    """How many of so many picks are certain, ``floor(picks * weight / total)`` of each, and the deadlines after them.

    Weights are made larger by a trifle. With weights that are multiples of each other deadlines that are equal would
    else differ by what is lost in rounding, and the next pick would be another than after so many real ones.
    """
    larger = [weight + _SLIGHTLY for weight in weights]
    total = sum(larger)
    rounds = picks / total
    done, deadlines = 0, []
    for weight in larger:
        count = int(weight * picks / total)
        if count > 0 and count / weight >= rounds:
            count -= 1
        done += count
        deadlines.append((count + 1) / weight)
    return done, deadlines
