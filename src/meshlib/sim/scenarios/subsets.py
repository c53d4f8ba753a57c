"""Large fleets: how evenly servers are shared out among clients of which each knows a few.

300 clients and 300 servers, as in chapter 20 of Google's SRE book, "Load Balancing in the Datacenter": with subsets by
chance of 30 % the least connected server has 63 % of the mean and the most connected one 121 %, of 10 % it is 50 and
150 %; dealt out in rounds, all have as many. Twitter's deterministic aperture (2019) gives each server the same share
of the ring exactly, whatever the numbers of clients and servers are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from meshlib.balance.aperture import arcs, in_order, width
from meshlib.balance.balancer import Member
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.subsetting import random_subset, round_subset
from meshlib.dataclass import dataclass
from meshlib.sim.table import Table

__all__ = ["Spread", "aperture", "random", "rounds", "servers", "table"]

CLIENTS, SERVERS = 300, 300
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Spread:
    """How it is shared out.

    Attributes:
        connections: of each server: how many clients know it.
        shares: of the load, which each server gets if all clients call alike; all together 1.
    """

    connections: Sequence[int]
    shares: Sequence[float]

    @property
    def least_percent(self) -> float:
        """The smallest share, of the mean."""
        return 100.0 * min(self.shares) * len(self.shares)

    @property
    def most_percent(self) -> float:
        """The largest share, of the mean."""
        return 100.0 * max(self.shares) * len(self.shares)


def servers(count: int) -> Sequence[Member]:
    """So many servers, as members of a cluster."""
    endpoints = [Endpoint(f"10.0.{at >> 8}.{at & 255}", 80) for at in range(count)]
    return ClusterState("orders", now=0.0).view(endpoints, 0.0, Random(1)).members


def _spread(members: Sequence[Member], clients: int, chosen: Callable[[int], list[Member]]) -> Spread:
    connections = {id(member): 0 for member in members}
    shares = {id(member): 0.0 for member in members}
    for client in range(clients):
        subset = chosen(client)
        for member in subset:
            connections[id(member)] += 1
            shares[id(member)] += 1.0 / len(subset) / clients
    return Spread(list(connections.values()), list(shares.values()))


def random(size: int, clients: int = CLIENTS, count: int = SERVERS) -> Spread:
    """By chance: each client has a seed of its own."""
    members = servers(count)
    return _spread(members, clients, lambda client: random_subset(members, size, client))


def rounds(size: int, clients: int = CLIENTS, count: int = SERVERS) -> Spread:
    """Dealt out in rounds: each client has a number of its own."""
    members = servers(count)
    return _spread(members, clients, lambda client: round_subset(members, size, client))


def aperture(size: int, clients: int = CLIENTS, count: int = SERVERS) -> Spread:
    """Slices of a ring: each client knows its number, and how many clients there are."""
    members = in_order(servers(count))
    length = width(clients, count, size)
    connections, shares = [0] * count, [0.0] * count
    for client in range(clients):
        for at, arc in enumerate(arcs([member.weight for member in members], client / clients, length)):
            connections[at] += arc > _ROUNDING
            shares[at] += arc / length / clients
    return Spread(connections, shares)


def table() -> Table:
    """Connections of the least and the most connected server, and shares of the load."""
    found = {
        "by chance, 90 of 300": random(90),
        "by chance, 30 of 300": random(30),
        "in rounds, 90 of 300": rounds(90),
        "in rounds, 30 of 300": rounds(30),
        "deterministic aperture, 30 of 300": aperture(30),
        "deterministic aperture, 12 of 70, 41 clients": aperture(12, 41, 70),
    }
    return Table(
        ["subsets", "connections of a server", "load of a server, of the mean"],
        [
            [
                name,
                f"{min(spread.connections)} to {max(spread.connections)}",
                f"{spread.least_percent:.1f} to {spread.most_percent:.1f} %",
            ]
            for name, spread in found.items()
        ],
    )
