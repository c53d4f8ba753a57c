"""Consistent hashing with bounded loads: an endpoint that has more than its share in flight passes calls on.

Its share is ``max(ceil(total * weight), 1)``, with the weights summing up to 1, and
``total = ((in flight in the cluster + 1) * percent + 99) / 100``, rounded down. It is overloaded with more than that in
flight. Then the others are asked in an order that is shuffled with the call's hash as the seed, so that a hash always
meets the same ones: the first that is not overloaded gets the call; if there is none, the least overloaded.

Source: Mirrokni et al. 2016, arXiv:1608.01350; the jump to another at random instead of the next, so that overload does
not spread along the ring, Chen et al. 2019, arXiv:1908.08762. Formula, generator (MT19937) and order are those of
Envoy's ``thread_aware_lb_impl.cc`` with ``hash_balance_factor``, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil
from random import Random

__all__ = ["share", "spread", "total_share"]

_WORDS = 624


def total_share(in_flight: int, percent: int) -> int:
    """How many attempts a cluster with so many in flight may have."""
    return ((in_flight + 1) * percent + 99) // 100


def share(total: int, weight: float) -> int:
    """How many of the total an endpoint may have.

    Args:
        total: of the cluster; see `total_share`.
        weight: of the endpoint; those of all sum up to 1.
    """
    return max(ceil(total * weight), 1)


def spread(hash: int, first: int, count: int, overload: Callable[[int], float]) -> int:
    """The index of the endpoint that gets the call.

    Args:
        hash: of the call, 64 bits.
        first: the index of the endpoint that the hash stands for.
        count: of the endpoints.
        overload: what an endpoint has in flight, as a multiple of its share.
    """
    least = overload(first)
    if least <= 1.0:
        return first
    best = first
    for other in shuffled(count, hash):
        if other == first:
            continue
        factor = overload(other)
        if factor <= 1.0:
            return other
        if factor < least:
            best, least = other, factor
    return best


def shuffled(count: int, seed: int) -> Iterator[int]:
    """The indexes below `count` in the order of this seed, worked out as far as they are asked for."""
    generator = Random(0)
    generator.setstate((3, _seeded(seed & 0xFFFFFFFF), None))
    moved: dict[int, int] = {}  # of a list of all, what is not at its own place
    for index in range(count):
        left = count - index
        width = (1 << 32) // left
        step = left
        while step >= left:
            step = generator.getrandbits(32) // width
        other = index + step
        yield moved.get(other, other)
        moved[other] = moved.pop(index, index)


@lru_cache(maxsize=64)
def _seeded(seed: int) -> tuple[int, ...]:
    """The state of an MT19937 seeded as in C++, where Python seeds it in another way. Hot keys come again and again."""
    words = [seed]
    for index in range(1, _WORDS):
        seed = (1812433253 * (seed ^ (seed >> 30)) + index) & 0xFFFFFFFF
        words.append(seed)
    return (*words, _WORDS)
