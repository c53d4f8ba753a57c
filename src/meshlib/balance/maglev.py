"""Maglev: a table of slots, each owned by an endpoint; a call's hash, modulo the table's size, says whose it is.

Each endpoint has a permutation of the slots, ``offset + n * skip mod size`` with ``offset = xxHash64(key) mod size``
and ``skip = xxHash64(key, 1) mod (size - 1) + 1``. In the order of their keys, round by round, each takes the next slot
of its permutation that is free, until all are taken. With weights, in round r an endpoint of weight w takes one only if
``r * w`` has reached its target, which then grows by the greatest weight: the heaviest takes one in each round.

Source: Eisenbud et al. 2016, "Maglev: A Fast and Reliable Software Network Load Balancer", listing 1; weights, keys and
the retry's hash are those of Envoy's ``maglev_lb.cc``, to the bit.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Generator, Iterator, Sequence
from itertools import cycle
from math import ceil
from random import Random

from meshlib.balance.balancer import Balancer, Member
from meshlib.balance.consistent_hash import ConsistentHash
from meshlib.balance.hashing import xxh64
from meshlib.balance.settings import LoadBalancing

__all__ = ["MaglevTable", "build_maglev", "maglev"]

_MASK = 0xFFFFFFFFFFFFFFFF
_STEP = 1024
"""After so many slots a build stops for a moment."""
_FEW = 256
"""With so few free slots left it is faster to look at each of them than to go through permutations (measured)."""
_NEVER = 1 << 62


def maglev(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By a Maglev table."""
    size = settings.table_size
    return ConsistentHash(members, settings, lambda keys, weights: build_maglev(keys, weights, size), ("maglev", size))


class MaglevTable:
    """A table that was built. Immutable.

    Attributes:
        owners: of each slot, the index of its endpoint.
    """

    __slots__ = ("__weakref__", "owners")

    def __init__(self, owners: array[int]) -> None:
        self.owners = owners

    def at(self, hash: int, attempt: int) -> int:
        """The index of the endpoint for this hash; of another one, mostly, for each further attempt.

        Args:
            hash: 64 bits.
            attempt: 0 for the first; the n-th further one looks up ``hash XOR -n``.
        """
        if attempt:
            hash ^= -attempt & _MASK
        return self.owners[hash % len(self.owners)]

    def __repr__(self) -> str:
        return f"<MaglevTable {len(self.owners)} slots>"


def build_maglev(keys: Sequence[bytes], weights: Sequence[float], size: int) -> Generator[None, None, MaglevTable]:
    """Build a table, in steps: between two of them other threads may run.

    Args:
        keys: one for each endpoint; at least one.
        weights: likewise, above 0.
        size: of the table, a prime.
    """
    count = len(keys)
    order = sorted(range(count), key=keys.__getitem__)
    if count == 1:
        return MaglevTable(array("I", [0]))
    at, skips = array("q"), array("q")
    for index in order:
        at.append(xxh64(keys[index]) % size)
        skips.append(xxh64(keys[index], 1) % (size - 1) + 1)
        if len(at) % _STEP == 0:
            yield
    turns = _turns([weights[index] for index in order])
    owners = array("i", [-1]) * size  # by place in the order; below 0 a slot is free
    for left in range(size, _FEW, -1):
        turn = next(turns)
        slot, skip = at[turn], skips[turn]
        while owners[slot] >= 0:
            slot += skip
            if slot >= size:
                slot -= size
        owners[slot] = turn
        at[turn] = slot
        if left % _STEP == 0:
            yield
    free = [slot for slot, owner in enumerate(owners) if owner < 0]
    while free:
        turn = next(turns)
        slot = _nearest(free, at[turn], skips[turn], size)
        owners[slot] = turn
        free.remove(slot)
    return MaglevTable(array("I", [order[owner] for owner in owners]))


def _nearest(free: Sequence[int], start: int, skip: int, size: int) -> int:
    """The first of these slots that a permutation comes to, from `start` on."""
    inverse = pow(skip, -1, size)
    return min(free, key=lambda slot: (slot - start) * inverse % size)


def _turns(weights: Sequence[float]) -> Iterator[int]:
    """Whose turn it is, slot by slot, without end."""
    most = max(weights)
    if min(weights) == most:
        yield from cycle(range(len(weights)))
    # Due in this round, by place in the order; both in one number, so that the earliest is the least.
    count = len(weights)
    targets = [0.0] * count
    due = [count + index for index in range(count)]
    while True:
        turn, index = divmod(due[0], count)
        yield index
        targets[index] += most
        heapq.heapreplace(due, _round_of(targets[index], weights[index], turn + 1) * count + index)


def _round_of(target: float, weight: float, first: int) -> int:
    """The first round from `first` on whose product with the weight is not below the target."""
    if target > weight * _NEVER:
        return _NEVER
    turn = max(first, ceil(target / weight))
    while turn > first and (turn - 1) * weight >= target:
        turn -= 1
    while turn * weight < target:
        turn += 1
    return turn
