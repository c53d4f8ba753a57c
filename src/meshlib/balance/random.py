"""Random: each by chance, in proportion to its weight."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from meshlib.balance.balancer import RESAMPLES, Member, Usable, pick_uniform

__all__ = ["RandomChoice"]


class RandomChoice:
    """Each member with a probability in proportion to its weight."""

    __slots__ = ("_cumulative", "_last", "_members", "_total")

    def __init__(self, members: Sequence[Member], now: float, rng: Random) -> None:
        self._members = members
        self._cumulative: list[float] | None = None
        if len({member.weight for member in members}) > 1:
            self._cumulative = list(accumulate(member.weight for member in members))
            self._total = self._cumulative[-1]
            self._last = len(members) - 1

    def pick(self, now: float, rng: Random, usable: Usable | None) -> Member | None:
        if self._cumulative is None:
            return pick_uniform(self._members, rng, usable)
        for _ in range(1 if usable is None else min(len(self._members), RESAMPLES)):
            member = self._members[min(bisect(self._cumulative, rng.random() * self._total), self._last)]
            if usable is None or usable(member):
                return member
        left = [member for member in self._members if usable is None or usable(member)]
        return rng.choices(left, [member.weight for member in left])[0] if left else None
