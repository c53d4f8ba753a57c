"""Deterministic aperture: each client of a large fleet calls a few of the servers, and all together call all alike.

Servers and clients lie on one ring, each server on an arc as long as its share of the weights, each client at
``instance / of``. A client calls those on its slice of the ring:

    unit = 1 / of;  logical = min(size, servers);  laps = ceil(logical / servers / unit)
    width = min(1, laps * unit);  slice = [instance * unit, instance * unit + width)

The width is a whole number of units, so the slices of all clients together cover the ring ``laps`` times, everywhere
alike: whatever the numbers, each server gets exactly its share. One at an edge of the slice counts with the part of its
arc that lies in it. Of two servers drawn by these weights the one with the lower load per weight is picked, the first
one if they are alike. Source: Finagle's ``DeterministicAperture.scala``, ``WeightedAperture.scala`` and
``WeightedP2CPick.scala``.

The load is the attempts in flight; or, with ``peak_ewma``, ``cost * (in flight / weight + 1)``. There Finagle has
``cost * (in flight + 1) / weight``, by which a client with little in flight would leave its lighter servers idle.

All clients must see the servers in one order. It is that of a hash of their addresses, so that neighbours in the
network are none on the ring, and does not depend on what discovery does. While discovery tells some clients other
servers than others, shares are less even, and nothing else is wrong.

Where none of the slice may be used, one of the others is: of two, drawn at random, the one that costs less.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from math import ceil
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import RESAMPLES, Balancer, Member, Usable, pick_two
from meshlib.balance.peak_ewma import lighter
from meshlib.balance.settings import ApertureSettings, LoadBalancing
from meshlib.balance.subsetting import shuffled

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["Aperture", "aperture", "arcs", "in_order", "width"]

_DRAWS = 5
_ALIKE = 1e-4


def width(of: int, servers: int, size: int) -> float:
    """How much of the ring a client's slice is, above 0, at most 1."""
    unit = 1.0 / of
    laps = ceil(min(size, servers) * (1.0 / servers) / unit)
    return min(1.0, laps * unit)


def arcs(weights: Sequence[float], start: float, length: float) -> list[float]:
    """How much of each server's arc lies in a slice; all together `length`.

    Args:
        weights: of the servers, in order, each above 0.
        start: of the slice, in [0, 1).
        length: of the slice, in (0, 1].
    """
    total, end = sum(weights), start + length
    found = [0.0] * len(weights)
    position, index = 0.0, 0
    while position < end:
        arc = weights[index] / total
        if position < start:
            # Of the first one what lies beyond the start, which may be more than the slice.
            if position + arc >= start:
                found[index] += min(length, position + arc - start)
        else:
            found[index] += min(arc, end - position)
        position += arc
        index = index + 1 if index + 1 < len(weights) else 0
    return found


def in_order(members: Sequence[Member]) -> list[Member]:
    """The members in the order that they have for every client."""
    return shuffled(members, 0)


def aperture(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """Over this client's slice of the members."""
    return Aperture(members, settings.aperture)


class Aperture:
    """Of two drawn by weight out of the slice, the one with the lower load per weight.

    Attributes:
        members: those in the slice.
        weights: how much of the ring each has there; 1 is the arc of a server of average weight.
    """

    __slots__ = ("_by_cost", "_cumulative", "_others", "members", "weights")

    def __init__(self, members: Sequence[Member], settings: ApertureSettings) -> None:
        ordered, count = in_order(members), len(members)
        clients = settings.of or 1
        length = width(clients, count, settings.size)
        found = arcs([member.weight for member in ordered], (settings.instance or 0) / clients % 1.0, length)
        # What rounding leaves of a server beyond the edge is none.
        inside = [arc * count > _ALIKE for arc in found]
        self.members = [member for member, is_in in zip(ordered, inside, strict=True) if is_in]
        self.weights = [arc * count for arc, is_in in zip(found, inside, strict=True) if is_in]
        self._others = [member for member, is_in in zip(ordered, inside, strict=True) if not is_in]
        self._cumulative = list(accumulate(self.weights))
        self._by_cost = settings.load == "peak_ewma"

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        one = self._draw(rng, usable)
        if one is None:
            pair = pick_two(self._others, rng, usable) if self._others else None
            return None if pair is None else lighter(*pair, now)
        other: int | None = one
        for _ in range(_DRAWS):
            other = self._draw(rng, usable)
            if other != one:
                break
        members, weights = self.members, self.weights
        first, second = members[one], members[one if other is None else other]
        if first is second:
            return first
        weight, weight_other = weights[one], weights[one if other is None else other]
        if abs(weight - weight_other) < _ALIKE:
            weight = weight_other = 1.0
        load, load_other = first.node.in_flight / weight, second.node.in_flight / weight_other
        if self._by_cost:
            load, load_other = first.load.cost(now) * (load + 1.0), second.load.cost(now) * (load_other + 1.0)
        return first if load <= load_other else second

    @property
    def size(self) -> int:
        """How many members are in the slice."""
        return len(self.members)

    def holds(self, member: Member) -> bool:
        """Whether a member is in the slice."""
        return member in self.members

    def _draw(self, rng: Random, usable: Usable | None) -> int | None:
        cumulative, last = self._cumulative, len(self.members) - 1
        for _ in range(1 if usable is None else min(last + 1, RESAMPLES)):
            index = min(bisect(cumulative, rng.random() * cumulative[-1]), last)
            if usable is None or usable(self.members[index]):
                return index
        left = [index for index in range(last + 1) if usable is None or usable(self.members[index])]
        return rng.choices(left, [self.weights[index] for index in left])[0] if left else None
