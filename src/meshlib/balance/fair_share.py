"""Corrections to weights, bounded, and blind to what is mere chance: shares must hold while endpoints are alike."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member

__all__ = ["ClusterAverage", "FairShare"]

_SAMPLE = 32


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
    """Corrects a member's weight by how far its attempts in flight exceed what the weight entitles it to.

    Up to twice its share plus 2 there is no correction: below that the differences are those of chance, and correcting
    them would bend the shares that the weights ask for.

    Attributes:
        average: of the cluster, as of some of the last picks.
    """

    __slots__ = ("_total_weight", "average")

    def __init__(self, members: Sequence[Member], rng: Random) -> None:
        self.average = ClusterAverage(members, rng)
        self._total_weight = sum(member.weight for member in members)

    def __call__(self, member: Member, now: float) -> float:
        """Its weight, corrected. To be called once per pick, under the caller's lock."""
        return member.weight * self.factor(member, now)

    def factor(self, member: Member, now: float) -> float:
        """What its weight is multiplied by, above 0, at most 1."""
        self.average.refresh(now)
        bound = 2.0 * self.average.in_flight * member.weight / self._total_weight + 2.0
        return min(1.0, bound / max(1, member.node.in_flight))
