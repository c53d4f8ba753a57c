"""Random: each by chance, in proportion to its weight."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import RESAMPLES, Balancer, Member, Usable, is_even, pick_uniform
from meshlib.balance.settings import LoadBalancing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["RandomChoice", "WeightedChoice", "random_choice"]


def random_choice(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By chance, in proportion to weights where they differ."""
    return RandomChoice(members) if is_even(members) else WeightedChoice(members)


class RandomChoice:
    """Each member as likely as any other."""

    __slots__ = ("_members",)

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        return pick_uniform(self._members, rng, usable)


class WeightedChoice:
    """Each member with a probability in proportion to its weight."""

    __slots__ = ("_cumulative", "_last", "_members", "_total")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._cumulative = list(accumulate(member.weight for member in members))
        self._total = self._cumulative[-1]
        self._last = len(members) - 1

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        for _ in range(1 if usable is None else min(len(self._members), RESAMPLES)):
            member = self._members[min(bisect(self._cumulative, rng.random() * self._total), self._last)]
            if usable is None or usable(member):
                return member
        left = [member for member in self._members if usable is None or usable(member)]
        return rng.choices(left, [member.weight for member in left])[0] if left else None
