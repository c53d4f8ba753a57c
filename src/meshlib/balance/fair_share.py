"""Corrections to weights, bounded, and blind to what is mere chance: shares must hold while endpoints are alike."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member

__all__ = ["ClusterAverage", "FairShare"]

_SAMPLE = 32
_ALIKE = 1.5
_LEAST = 0.01


class ClusterAverage:
    """What is usual in a cluster, taken anew every `_SAMPLE` picks from at most as many members.

    So a pick costs the same, on average and at its worst, whatever their number.

    Attributes:
        in_flight: attempts under way at all members together.
        cost_s: the median of what a call costs; of an even number the lower one, so that of two endpoints the broken
            one does not set the measure.
    """

    __slots__ = ("_left", "_members", "_rng", "cost_s", "in_flight")

    def __init__(self, members: Sequence[Member], rng: Random) -> None:
        self._members = members
        self._rng = rng
        self._left = 0
        self.in_flight = 0.0
        self.cost_s = 0.0

    def refresh(self, now: float) -> None:
        """To be called once per pick, under the caller's lock."""
        if self._left > 0:
            self._left -= 1
            return
        self._left = _SAMPLE
        members = self._members
        sample = members if len(members) <= _SAMPLE else self._rng.choices(members, k=_SAMPLE)
        self.in_flight = sum(member.node.in_flight for member in sample) * len(members) / len(sample)
        costs = sorted(member.load.plain_cost(now) for member in sample)
        self.cost_s = costs[(len(costs) - 1) // 2]


class FairShare:
    """The weight of a member, corrected where its attempts in flight or its cost exceed what the weight entitles it to.

    In flight there may be twice its share, and 2 more, and it may cost up to one and a half times the median: below
    that the differences are those of chance, and correcting them would bend the shares that the weights ask for.
    Beyond, the correction is in proportion, down to a hundredth. A fast one gets no more than its weight: who gives
    weights means them.

    Attributes:
        average: of the cluster, as of some of the last picks.
    """

    __slots__ = ("_total_weight", "average")

    def __init__(self, members: Sequence[Member], rng: Random) -> None:
        self.average = ClusterAverage(members, rng)
        self._total_weight = sum(member.weight for member in members)

    def __call__(self, member: Member, now: float) -> float:
        """Its weight, corrected. To be called once per pick, under the caller's lock."""
        average = self.average
        average.refresh(now)
        weight, busy = member.weight, member.node.in_flight
        factor, bound = 1.0, 2.0 * average.in_flight * weight / self._total_weight + 2.0
        if busy > bound:
            factor = bound / busy
        cost, bound = member.load.plain_cost(now), average.cost_s * _ALIKE
        if cost > bound:
            factor *= bound / cost
        return weight * max(factor, _LEAST)
