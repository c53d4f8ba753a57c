"""Ring hash: endpoints lie at many points of a ring of 64-bit numbers, and a call goes to the first from its hash on.

An endpoint's points are the hashes of its key, an underscore, and 0, 1, 2 and so on. Of the weights, which sum up to 1,
the least one is to get a whole number of points: ``scale = min(ceil(least * min_size) / least, max_size)``. Endpoint by
endpoint the target grows by ``scale * weight``, and it gets points as long as there are fewer on the ring than that.

Source: Karger et al. 1997 and ketama; sizes, keys and the order of it all are those of Envoy's ``ring_hash_lb.cc``, to
the bit.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from math import ceil
from random import Random

from meshlib.balance.balancer import Balancer, Member
from meshlib.balance.consistent_hash import ConsistentHash
from meshlib.balance.hashing import hash_of, xxh64
from meshlib.balance.settings import LoadBalancing

__all__ = ["Ring", "build_ring", "ring_hash"]

_STEP = 1024
"""After so many points a build stops for a moment."""


def ring_hash(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By a ring."""
    ring = settings.ring

    def build(keys: Sequence[bytes], weights: Sequence[float]) -> Generator[None, None, Ring]:
        return build_ring(keys, weights, ring.min_size, ring.max_size, hash_of(ring.hash))

    return ConsistentHash(members, settings, build, ("ring_hash", ring))


class Ring:
    """A ring that was built. Immutable.

    Attributes:
        points: in ascending order.
        owners: of each point, the index of its endpoint.
    """

    __slots__ = ("__weakref__", "owners", "points")

    def __init__(self, points: array[int], owners: array[int]) -> None:
        self.points = points
        self.owners = owners

    def at(self, hash: int, attempt: int) -> int:
        """The index of the endpoint for this hash; for each further attempt, that of one point further on.

        Args:
            hash: 64 bits.
            attempt: 0 for the first.
        """
        return self.owners[(bisect_left(self.points, hash) + attempt) % len(self.owners)]

    def __repr__(self) -> str:
        return f"<Ring {len(self.points)} points>"


def build_ring(
    keys: Sequence[bytes],
    weights: Sequence[float],
    min_size: int = 1024,
    max_size: int = 8_388_608,
    hash_key: Callable[[bytes], int] = xxh64,
) -> Generator[None, None, Ring]:
    """Build a ring, in steps: between two of them other threads may run.

    Args:
        keys: one for each endpoint; at least one.
        weights: likewise, above 0; their sum is 1.
        min_size, max_size: of the ring, in points.
        hash_key: puts points on the ring.
    """
    least = min(weights)
    scale = min(ceil(least * min_size) / least, float(max_size)) if least > 0 else float(max_size)
    # By their first bits, so that there is no long time to sort them in; each with its owner behind it.
    parts: list[list[int]] = [[] for _ in range(256)]
    count, target = 0, 0.0
    for index, (key, weight) in enumerate(zip(keys, weights, strict=True)):
        target += scale * weight
        number = 0
        while count < target:
            point = hash_key(b"%b_%d" % (key, number))
            parts[point >> 56].append(point << 32 | index)
            number += 1
            count += 1
            if count % _STEP == 0:
                yield
    points, owners = array("Q"), array("I")
    for part in parts:
        part.sort()
        points.extend([both >> 32 for both in part])
        owners.extend([both & 0xFFFFFFFF for both in part])
        part.clear()
        yield
    return Ring(points, owners)
