"""What is usual in a cluster: the measure for who joins it, and for what a failure costs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from random import Random

from meshlib.balance.balancer import Member

__all__ = ["usual_cost_s", "usual_mean_s"]

_MEANS = 1000
_COSTS = 15


def usual_mean_s(members: Collection[Member], default_s: float) -> float:
    """What a newcomer is thought to take: as long as its fellows do, and no longer than the default.

    With the default alone, one that joins a cluster which answers in a millisecond would hardly be called for half a
    minute, and a deploy would leave the last of the old ones with everything. Of many fellows a sample is asked.
    """
    sample = islice(members, 0, None, 1 + len(members) // _MEANS)
    known = sorted(member.load.mean_s for member in sample if member.load.has_answered)
    return min(default_s, known[len(known) // 2]) if known else default_s


def usual_cost_s(members: Sequence[Member], without: Member, default_s: float, rng: Random) -> float:
    """The median of what the other members cost at their last answers, in seconds, from a sample of at most 15.

    The member that is asked for is left out, and so is time: of two endpoints the broken one must not set the measure
    for itself, and in a quiet cluster estimates decay towards zero, which says nothing of latency.
    """
    sample = members if len(members) <= _COSTS else rng.choices(members, k=_COSTS)
    costs = sorted(member.load.cost_s for member in sample if member.load is not without.load)
    return costs[(len(costs) - 1) // 2] if costs else default_s
