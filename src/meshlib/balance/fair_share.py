"""Corrections to weights, bounded, and blind to what is mere chance: shares must hold while endpoints are alike."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balance.balancer import Member

__all__ = ["ClusterAverage", "FairShare"]

_MIN_REFRESH_PICKS = 16


class ClusterAverage:
    """Sums over all members, taken anew after as many picks as there are members, so that a pick costs the same
    whatever their number."""

    __slots__ = ("_left", "_members", "cost_s", "in_flight")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._left = 0
        self.in_flight = 0.0
        self.cost_s = 0.0

    def refresh(self, now: float) -> None:
        """To be called once per pick, under the caller's lock."""
        if self._left > 0:
            self._left -= 1
            return
        self._left = max(_MIN_REFRESH_PICKS, len(self._members))
        self.in_flight = float(sum(member.node.in_flight for member in self._members))
        costs = sorted(member.load.cost(now) for member in self._members)
        self.cost_s = costs[len(costs) // 2]


class FairShare:
    """How far a member's attempts in flight exceed what its weight entitles it to.

    Up to twice its share plus 2 there is no correction: below that the differences are those of chance, and correcting them
    would bend the shares that the weights ask for.
    """

    __slots__ = ("_total_weight",)

    def __init__(self, members: Sequence[Member]) -> None:
        self._total_weight = sum(member.weight for member in members)

    def excess(self, member: Member, in_flight: float) -> float:
        """1 within bounds, above 1 by how often the bound is exceeded; `in_flight` is that of all members."""
        bound = 2.0 * in_flight * member.weight / self._total_weight + 2.0
        return max(1.0, member.node.in_flight / bound)
