"""Round robin: each in turn; with unequal weights, each as often as its weight says (earliest deadline first)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member, Usable, pick_uniform
from meshlib.balance.edf import EdfSchedule

__all__ = ["RoundRobin"]


class RoundRobin:
    """Each member in turn, starting at a random one."""

    __slots__ = ("_count", "_members", "_next", "_schedule")

    def __init__(self, members: Sequence[Member], now: float, rng: Random) -> None:
        self._members = members
        self._count = len(members)
        even = len({member.weight for member in members}) == 1
        self._schedule = None if even else EdfSchedule(members, rng)
        # next() of a count is atomic, so that threads need no lock here.
        self._next = itertools.count(int(rng.random() * self._count)).__next__

    def pick(self, now: float, rng: Random, usable: Usable | None) -> Member | None:
        if self._schedule is not None:
            return self._schedule.pick(now, usable)
        member = self._members[self._next() % self._count]
        if usable is None or usable(member):
            return member
        # Going on to the next one would give it the turns of all that are out before it, besides its own.
        return pick_uniform(self._members, rng, usable)
