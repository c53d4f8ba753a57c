"""Peak EWMA, the default: of two endpoints drawn at random, the one that costs less, in time, to call.

``load = cost * (in flight + 1)``, with the cost of `meshlib.balance.load`. Source: Finagle's and Linkerd's balancer of
this name.

With unequal weights the schedule is earliest deadline first, the weight corrected by cost and by what is in flight
(`meshlib.balance.fair_share`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isnan, log
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, Member, Usable, is_even, pick_two
from meshlib.balance.cells import CELLS
from meshlib.balance.settings import LoadBalancing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["PeakEwma", "lighter", "peak_ewma"]


def peak_ewma(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By load, or by corrected weight where weights differ."""
    if is_even(members):
        return PeakEwma(members)
    from meshlib.balance.edf import EdfSchedule
    from meshlib.balance.fair_share import FairShare

    return EdfSchedule(members, now, rng.getrandbits(32), FairShare(members, rng), at_first=_by_weight)


def _by_weight(member: Member, now: float) -> float:
    return member.weight


class PeakEwma:
    """Of two drawn at random, the one with the lower load."""

    __slots__ = ("_cells", "_count", "_first", "_members")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._count = len(members)
        # Of each member, where its attempts in flight are, and then its score. As long as the members are those that
        # the cluster began with, these mostly follow one another, and then there is no need to look them up.
        self._cells = array("i", [cell for member in members for cell in (member.node.cell, member.load.cell)])
        first = self._cells[0]
        self._first = first if self._cells == array("i", range(first, first + 2 * len(members))) else None

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        count = self._count
        if usable is not None or count == 1:
            pair = pick_two(self._members, rng, usable)
            return None if pair is None else lighter(*pair, now)
        # Two different indexes out of one number, as `draw_two` makes them.
        drawn = rng.random() * count
        one = int(drawn)
        other = int((drawn - one) * (count - 1))
        if other >= one:
            other += 1
        at, at_other, first = 2 * one, 2 * other, self._first
        if first is not None:
            at += first
            at_other += first
            in_flight, in_flight_other = CELLS[at], CELLS[at_other]
            more = CELLS[at_other + 1] - CELLS[at + 1]
        else:
            cells = self._cells
            in_flight, in_flight_other = CELLS[cells[at]], CELLS[cells[at_other]]
            more = CELLS[cells[at_other + 1]] - CELLS[cells[at + 1]]
        # Scores are logarithms, so loads are compared by theirs.
        if in_flight != in_flight_other:
            more += log((in_flight_other + 1.0) / (in_flight + 1.0))
        if more >= 0.0:
            return self._members[one]
        if more < 0.0:
            return self._members[other]
        return lighter(self._members[one], self._members[other], now)  # a score is NaN


def lighter(one: Member, other: Member, now: float) -> Member:
    """The one with the lower load, penalties included; the first of two that are alike."""
    if one is other:
        return one
    busy, busy_other = CELLS[one.node.cell] + 1.0, CELLS[other.node.cell] + 1.0
    more = CELLS[other.load.cell] - CELLS[one.load.cell] + log(busy_other / busy)
    if isnan(more):
        more = other.load.cost(now) * busy_other - one.load.cost(now) * busy
    return one if more >= 0.0 else other
