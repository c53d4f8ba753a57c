"""Least request: of two endpoints drawn at random, the one with fewer attempts in flight from this process.

Power of two choices (Mitzenmacher 2001) comes close to the best of all at the cost of two looks. With unequal weights
the schedule is earliest deadline first, and a member whose share of what is in flight runs away from its weight is put
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member, Usable, pick_two
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.fair_share import ClusterAverage, FairShare

__all__ = ["LeastRequest"]


class LeastRequest:
    """Of two drawn at random, the one with fewer in flight; by weight where weights differ."""

    __slots__ = ("_average", "_fair", "_members", "_schedule")

    def __init__(self, members: Sequence[Member], now: float, rng: Random) -> None:
        self._members = members
        self._schedule: EdfSchedule | None = None
        if len({member.weight for member in members}) > 1:
            self._average = ClusterAverage(members, rng)
            self._fair = FairShare(members)
            self._schedule = EdfSchedule(members, rng, self._correction)

    def pick(self, now: float, rng: Random, usable: Usable | None) -> Member | None:
        if self._schedule is not None:
            return self._schedule.pick(now, usable)
        pair = pick_two(self._members, rng, usable)
        if pair is None:
            return None
        one, other = pair
        return one if one.node.in_flight <= other.node.in_flight else other

    def _correction(self, member: Member, now: float) -> float:
        self._average.refresh(now)
        return 1.0 / self._fair.excess(member, self._average.in_flight)
