"""Least request: of some endpoints drawn at random, the one with the fewest attempts in flight from this process.

Two choices come close to the best of all at the cost of two looks (Mitzenmacher 2001). Draws are independent, so one
endpoint may be drawn twice; of equal ones the first drawn is picked. A full scan looks at all; of equal ones each is as
likely. With unequal weights the schedule is earliest deadline first, by

    weight / (in flight + 1) ** active_request_bias

as it is when an endpoint has been picked. Source: Envoy's ``least_request_lb.cc``.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, Member, Usable, is_even, pick_uniform
from meshlib.balance.cells import CELLS
from meshlib.balance.edf import EdfSchedule, Weigh
from meshlib.balance.settings import LoadBalancing
from meshlib.balance.slow_start import starting

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["FullScan", "LeastRequest", "least_request"]


def least_request(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By attempts in flight, or by corrected weight where weights differ."""
    own = settings.least_request
    slowly = starting(members, settings.slow_start, now)
    if slowly is not None or not is_even(members):
        weigh = _weigh(own.active_request_bias, slowly)
        return EdfSchedule(members, now, rng.getrandbits(32), weigh)
    return FullScan(members) if own.selection == "full_scan" else LeastRequest(members, own.choice_count)


def _weigh(bias: float, slowly: Weigh | None) -> Weigh:
    def weigh(member: Member, now: float) -> float:
        weight = member.weight if slowly is None else slowly(member, now)
        busy = member.node.in_flight + 1
        # The power may be too large for a number, and the weight too small for one.
        return max(weight / (busy if bias == 1.0 else float(busy) ** bias), _LEAST)

    return weigh


_LEAST = 1e-12


class LeastRequest:
    """Of some drawn at random, the one with the fewest in flight."""

    __slots__ = ("_cells", "_count", "_further", "_members")

    def __init__(self, members: Sequence[Member], choices: int = 2) -> None:
        self._members = members
        self._count = len(members)
        self._further = choices - 1
        self._cells = array("i", [member.node.cell for member in members])

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        if usable is not None:
            return self._pick_among(rng, usable)
        draw, count, cells = rng.random, self._count, self._cells
        best = int(draw() * count)
        least = CELLS[cells[best]]
        for _ in range(self._further):
            other = int(draw() * count)
            busy = CELLS[cells[other]]
            if busy < least:
                best, least = other, busy
        return self._members[best]

    def _pick_among(self, rng: Random, usable: Usable) -> Member | None:
        best = pick_uniform(self._members, rng, usable)
        if best is not None:
            for _ in range(self._further):
                other = pick_uniform(self._members, rng, usable)
                if other is not None and other.node.in_flight < best.node.in_flight:
                    best = other
        return best


class FullScan:
    """Of all, one of those with the fewest in flight. Takes longer the more there are."""

    __slots__ = ("_cells", "_members")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._cells = array("i", [member.node.cell for member in members])

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        members = self._members
        if usable is None:
            busy = [CELLS[cell] for cell in self._cells]
        else:
            members = [member for member in members if usable(member)]
            busy = [CELLS[member.node.cell] for member in members]
        if not busy:
            return None
        least = min(busy)
        best = [index for index, each in enumerate(busy) if each == least]
        return members[best[int(rng.random() * len(best))]]
