"""Peak EWMA, the default: of two endpoints drawn at random, the one that costs less, in time, to call.

``load = cost * (in flight + 1)``, with the cost of `meshlib.balance.load`. Source: Finagle's and Linkerd's balancer of
this name.

With unequal weights the schedule is earliest deadline first, the weight corrected by cost: not at all while a member
costs up to one and a half times the cluster's median, so that shares hold while latencies are alike; beyond, in
proportion, down to a hundredth. A fast one gets no more than its weight: who gives weights means them.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member, Usable, pick_two
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.fair_share import ClusterAverage, FairShare

__all__ = ["PeakEwma"]

_ALIKE = 1.5
_LEAST = 0.01


class PeakEwma:
    """Of two drawn at random, the one with the lower load; by corrected weight where weights differ."""

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
        if one is other:
            return one
        one_load = one.load.cost(now) * (one.node.in_flight + 1)
        other_load = other.load.cost(now) * (other.node.in_flight + 1)
        return one if one_load <= other_load else other

    def _correction(self, member: Member, now: float) -> float:
        self._average.refresh(now)
        factor = 1.0 / self._fair.excess(member, self._average.in_flight)
        cost, bound = member.load.plain_cost(now), self._average.cost_s * _ALIKE
        if cost > bound:
            factor *= bound / cost
        return max(factor, _LEAST)
