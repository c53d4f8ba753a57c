"""Round robin: each in turn; with unequal weights, each as often as its weight says (earliest deadline first).

Where members start slowly (`meshlib.balance.slow_start`), a newcomer's weight grows meanwhile. Source: Envoy's
``round_robin_lb.h``. As there, weights are looked at anew whenever the list of members changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, Member, Usable, is_even, pick_uniform
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.settings import LoadBalancing
from meshlib.balance.slow_start import starting

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["RoundRobin", "round_robin"]


def round_robin(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """In turn, or by weight where weights differ."""
    slowly = starting(members, settings.slow_start, now)
    if slowly is not None or not is_even(members):
        return EdfSchedule(members, now, rng.getrandbits(32), slowly)
    return RoundRobin(members, rng)


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
