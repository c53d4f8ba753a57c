"""What is thought of an endpoint that joins a cluster, before it has answered."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from meshlib.balance.balancer import Member

__all__ = ["usual_mean_s"]

_SAMPLE = 1000


def usual_mean_s(members: Collection[Member], default_s: float) -> float:
    """What a newcomer is thought to take: as long as its fellows do, and no longer than the default.

    With the default alone, one that joins a cluster which answers in a millisecond would hardly be called for half a
    minute, and a deploy would leave the last of the old ones with everything. Of many fellows a sample is asked.
    """
    sample = islice(members, 0, None, 1 + len(members) // _SAMPLE)
    known = sorted(member.load.mean_s for member in sample if member.load.has_answered)
    return min(default_s, known[len(known) // 2]) if known else default_s
