"""Subsetting: each client of a large fleet knows a few of the servers, and any balancer chooses among these.

A fleet of 1 000 clients and 1 000 servers has a million connections, most of them idle; with subsets of 20 it has
20 000. Two ways to choose a subset:

- *random* (gRPC A68): the `size` servers with the smallest ``xxHash64(address, seed)``, the seed the client's own. When
  a server comes or goes at most one place of each subset changes. How many clients a server has is a matter of chance:
  of 300 clients with 90 of 300 servers each, the least has 63 % of the average and the most 121 % (SRE book, chapter
  20).
- *rounds* (SRE book, chapter 20, "deterministic subsetting"): ``servers // size`` clients in turn make a round, for
  which the servers are shuffled and dealt out, `size` to each; what is left over stays out of this round. So how many
  clients servers have differs by one per round at the most; but when one comes or goes, most subsets change. The
  shuffle is the order by ``xxHash64(address, round)``, alike for all clients.

A subset may be down as a whole while others are well. Then, and for a retry of a call that has tried all of it, one of
the servers outside is used: of two, drawn at random, the one that costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, MakeBalancer, Member, Usable, pick_two
from meshlib.balance.hashing import xxh64
from meshlib.balance.peak_ewma import lighter
from meshlib.balance.settings import LoadBalancing
from meshlib.dataclass import replace

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["Subset", "random_subset", "round_subset", "shuffled", "subset", "with_seed"]


def with_seed(settings: LoadBalancing, rng: Random) -> LoadBalancing:
    """The settings with a seed of this client's own, where none is written: else each change draws another subset."""
    chosen = settings.subsetting
    if chosen is None or chosen.kind != "random" or chosen.seed is not None:
        return settings
    return replace(settings, subsetting=replace(chosen, seed=rng.getrandbits(64)))


def random_subset(members: Sequence[Member], size: int, seed: int) -> list[Member]:
    """The members with the smallest hashes."""
    return shuffled(members, seed)[:size]


def round_subset(members: Sequence[Member], size: int, instance: int) -> list[Member]:
    """The members that are dealt to this client in its round."""
    per_round = len(members) // size
    if per_round < 1:
        return list(members)
    number, place = divmod(instance, per_round)
    return shuffled(members, number)[place * size : (place + 1) * size]


def shuffled(members: Sequence[Member], seed: int) -> list[Member]:
    """The members in the order of a hash of their addresses: the same for every client with this seed."""

    def place(member: Member) -> tuple[int, str, str]:
        address = member.endpoint.address
        return xxh64(address.encode(), seed), address, member.endpoint.instance_id

    return sorted(members, key=place)


def subset(make: MakeBalancer, members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """A balancer, made by `make`, over this client's subset of the members."""
    chosen = settings.subsetting
    if chosen is None or chosen.size >= len(members):
        return make(members, settings, now, rng)
    if chosen.kind == "random":
        mine = random_subset(members, chosen.size, rng.getrandbits(64) if chosen.seed is None else chosen.seed)
    else:
        mine = round_subset(members, chosen.size, chosen.instance or 0)
    known = set(map(id, mine))
    return Subset(make(mine, settings, now, rng), mine, [member for member in members if id(member) not in known])


class Subset:
    """A balancer over a subset, and what is outside it, for when none of the subset may be used."""

    __slots__ = ("_mine", "_others", "inside")

    def __init__(self, inside: Balancer, mine: Sequence[Member], others: Sequence[Member]) -> None:
        self.inside = inside
        self._mine = mine
        self._others = others

    @property
    def size(self) -> int:
        """How many members are in the subset."""
        return len(self._mine)

    def holds(self, member: Member) -> bool:
        """Whether a member is in the subset."""
        return member in self._mine

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        picked = self.inside.pick(now, rng, usable, traits)
        if picked is not None or not self._others:
            return picked
        pair = pick_two(self._others, rng, usable)
        return None if pair is None else lighter(*pair, now)
