"""Earliest deadline first: an exact weighted schedule, and the base of the balancers with unequal weights.

Each member has a deadline on a virtual clock. The pick is the earliest; it is put back at its deadline plus
``1 / weight``. Over any stretch of picks each member gets its share, spread evenly. Source: Envoy's
``edf_scheduler.h``; like there, the starting points are spread at random, so that many clients do not start in step.

A correction below 1 lengthens a member's period. It is worked out when the member is picked, so the schedule follows
the load with a delay of one period of that member.

A member that may not be used when its turn comes loses the turn: were it kept, it would make up for all of them at once
when it may be used again, and until then each pick would have to step over it.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Member, Usable

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["EdfSchedule"]


class EdfSchedule:
    """The schedule over one list of members, a balancer in itself. Safe under threads."""

    __slots__ = ("_correction", "_heap", "_lock")

    def __init__(
        self,
        members: Sequence[Member],
        rng: Random,
        correction: Callable[[Member, float], float] | None = None,
    ) -> None:
        """Make the schedule.

        Args:
            members: never empty; weights are above 0.
            rng: for the starting points.
            correction: factor on the weight of a member, given the time; must be above 0.
        """
        # The second element breaks ties, so that members themselves are never compared.
        self._heap = [(rng.random() / member.weight, index, member) for index, member in enumerate(members)]
        heapq.heapify(self._heap)
        self._correction = correction
        self._lock = threading.Lock()

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        """The member whose turn it is; None if `usable` holds for none."""
        passed: list[tuple[float, int, Member]] = []
        with self._lock:
            heap = self._heap
            picked = None
            while heap:
                deadline, index, member = heap[0]
                if usable is None or usable(member):
                    weight = member.weight
                    if self._correction is not None:
                        weight *= self._correction(member, now)
                    heapq.heapreplace(heap, (deadline + 1.0 / weight, index, member))
                    picked = member
                    break
                passed.append(heapq.heappop(heap))
            for deadline, index, member in passed:
                if picked is not None:
                    deadline += 1.0 / member.weight
                heapq.heappush(heap, (deadline, index, member))
            return picked
