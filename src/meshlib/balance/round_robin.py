"""Round robin: each in turn; with unequal weights, each as often as its weight says (earliest deadline first)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, Member, Usable, is_even, pick_uniform
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.settings import LoadBalancing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["RoundRobin", "round_robin"]


def round_robin(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """In turn, or by weight where weights differ."""
    return RoundRobin(members, rng) if is_even(members) else EdfSchedule(members, rng)


class RoundRobin:
    """Each member in turn, starting at a random one."""

    __slots__ = ("_count", "_members", "_next")

    def __init__(self, members: Sequence[Member], rng: Random) -> None:
        self._members = members
        self._count = len(members)
        # next() of a count is atomic, so that threads need no lock here.
        self._next = itertools.count(int(rng.random() * self._count)).__next__

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        member = self._members[self._next() % self._count]
        if usable is None or usable(member):
            return member
        # Going on to the next one would give it the turns of all that are out before it, besides its own.
        return pick_uniform(self._members, rng, usable)
