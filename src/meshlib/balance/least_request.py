"""Least request: of two endpoints drawn at random, the one with fewer attempts in flight from this process.

Power of two choices (Mitzenmacher 2001) comes close to the best of all at the cost of two looks. With unequal weights
the schedule is earliest deadline first, and a member whose share of what is in flight runs away from its weight is put
back.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, Member, Usable, draw_two, is_even, pick_two
from meshlib.balance.cells import CELLS
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.fair_share import FairShare
from meshlib.balance.settings import LoadBalancing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["LeastRequest", "least_request"]


def least_request(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By attempts in flight, or by corrected weight where weights differ."""
    return LeastRequest(members) if is_even(members) else EdfSchedule(members, rng, FairShare(members, rng))


class LeastRequest:
    """Of two drawn at random, the one with fewer in flight."""

    __slots__ = ("_cells", "_count", "_members")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._count = len(members)
        self._cells = array("i", [member.node.cell for member in members])

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        if usable is None and self._count > 1:
            one, other = draw_two(self._count, rng)
            return self._members[one if CELLS[self._cells[one]] <= CELLS[self._cells[other]] else other]
        pair = pick_two(self._members, rng, usable)
        if pair is None:
            return None
        first, second = pair
        return first if first.node.in_flight <= second.node.in_flight else second
