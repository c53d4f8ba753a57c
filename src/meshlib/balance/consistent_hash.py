"""Consistent hashing: a call's hash says which endpoint it goes to, and stays with it as others come and go.

The balancer over a table (`meshlib.balance.ring_hash`, `meshlib.balance.maglev`). A call without a hash has a random
one. Where the endpoint may not be used, the table is asked for the next attempt, and the next, as Envoy does for
retries; after some dozens of them, for few are left then, the hash counts along those that may be used.

A table takes long to make, so that is done ahead of the first pick, in steps (`meshlib.balance.ahead`). Tables are
immutable; two clusters over the same endpoints share one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakValueDictionary

from meshlib.balance.ahead import ahead
from meshlib.balance.balancer import RESAMPLES, Member, Usable
from meshlib.balance.bounded_load import share, spread, total_share
from meshlib.balance.cells import CELLS
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.settings import LoadBalancing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["ConsistentHash", "Table", "finished", "hash_key", "normalized"]

T = TypeVar("T")

_COUNTED = 256
"""Of larger clusters what is in flight is not counted at each pick, but so often that a pick looks at this many."""


class Table(Protocol):
    """Says which endpoint a hash stands for."""

    def at(self, hash: int, attempt: int) -> int:
        """The index of the endpoint for a hash of 64 bits, or of another one for each further attempt."""
        ...


Build = Callable[[Sequence[bytes], Sequence[float]], Generator[None, None, Table]]
"""Makes a table, in steps, of keys and of weights that sum up to 1."""

_tables: WeakValueDictionary[object, Table] = WeakValueDictionary()


def finished(steps: Generator[None, None, T]) -> T:
    """The result of all steps, done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def hash_key(endpoint: Endpoint, settings: LoadBalancing) -> bytes:
    """What is hashed of an endpoint: its metadata ``hash_key`` where it has one, as in Envoy."""
    key = endpoint.metadata.get("hash_key")
    if not key:
        key = endpoint.host if settings.hash_key == "hostname" else endpoint.address
    return key.encode(errors="surrogatepass")


def normalized(weights: Sequence[float]) -> list[float]:
    """Weights as parts of 1."""
    total = sum(weights)
    if abs(total - 1.0) < 1e-9:  # they are, and to divide them once more could move what is at the edge of rounding
        return list(weights)
    if total > 1e308:  # it would be infinite
        return normalized([weight * 1e-16 for weight in weights])
    return [weight / total for weight in weights]


class ConsistentHash:
    """A balancer over a table."""

    __slots__ = ("_build", "_cells", "_in_flight", "_key", "_left", "_members", "_percent", "_table", "_weights")

    def __init__(self, members: Sequence[Member], settings: LoadBalancing, build: Build, kind: object) -> None:
        """Begin without a table.

        Args:
            members: of which there is at least one.
            settings: of the cluster.
            build: makes the table.
            kind: tells tables of different sizes and sorts apart.
        """
        keys = tuple(hash_key(member.endpoint, settings) for member in members)
        self._members = members
        self._weights = tuple(normalized([member.weight for member in members]))
        self._key = (kind, keys, self._weights)
        self._build = build
        self._table = _tables.get(self._key)
        self._percent = settings.hash_balance_percent
        self._cells = array("i", [member.node.cell for member in members])
        self._in_flight = self._left = 0
        if self._table is None:
            ahead(self.prepare)

    def prepare(self) -> Iterator[None]:
        """Make the table, in steps: between two of them others may run."""
        if self._table is None:
            _, keys, weights = self._key
            table = yield from self._build(keys, weights)
            self._table = _tables[self._key] = table

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        table = self._table
        if table is None:
            for _ in self.prepare():
                pass
            table = self._table
            assert table is not None
        hash = None if traits is None else traits.hash
        if hash is None:
            hash = rng.getrandbits(64)
        members = self._members
        for attempt in range(RESAMPLES):
            index = table.at(hash, attempt)
            if self._percent is not None:
                index = spread(hash, index, len(members), self._overload(self._percent))
            member = members[index]
            if usable is None or usable(member):
                return member
        left = [member for member in members if usable is None or usable(member)]
        return left[hash % len(left)] if left else None

    def _overload(self, percent: int) -> Callable[[int], float]:
        """What an endpoint has in flight, as a multiple of its share."""
        members, weights = self._members, self._weights
        if self._left <= 0:
            self._in_flight = int(sum(map(CELLS.__getitem__, self._cells)))
            self._left = len(members) // _COUNTED
        else:
            self._left -= 1
        total = total_share(self._in_flight, percent)
        return lambda index: members[index].node.in_flight / share(total, weights[index])

    def __repr__(self) -> str:
        return f"<ConsistentHash {self._table} over {len(self._members)} endpoints>"
