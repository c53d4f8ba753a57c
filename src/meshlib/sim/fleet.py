"""Servers and their clients on one clock: the stage of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

from meshlib.balance.endpoint import Endpoint
from meshlib.sim.client import Client
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Network, Serves
from meshlib.sim.run import arrivals
from meshlib.sim.tally import Tally

__all__ = ["NO_POLICIES", "Fleet"]

NO_POLICIES: Final[Mapping[str, Any]] = {
    "per_try_timeout": None,
    "retry": {"max_retries": 0},
    "load_balancing": {"policy": "round_robin"},
    "circuit_breaker": False,
    "outlier_detection": False,
}
"""What to say of a service so that nothing but its total timeout is left."""


class Fleet:
    """Servers at ``10.0.0.1:80`` and up, and clients of them. All chance comes from one seed.

    Attributes:
        clock, rng, network: what clients and servers share; time begins at 0.
        servers: in the order of their addresses; `endpoints` are those addresses.
        clients: those made.
        tally: of all clients together.
    """

    def __init__(self, servers: Sequence[Serves], *, weights: Sequence[float] | None = None, seed: int = 1) -> None:
        """No client, and nothing to do yet.

        Args:
            servers: in the order of their addresses.
            weights: of the servers, as discovery reports them; None for equal ones.
            seed: of all chance.
        """
        self.clock = VirtualClock(0.0)
        self.rng = Random(seed)
        self.servers = list(servers)
        self.endpoints = [
            Endpoint(
                f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", 80, weight=1.0 if weights is None else weights[at - 1]
            )
            for at in range(1, len(servers) + 1)
        ]
        self.network = Network(
            {endpoint.address: server for endpoint, server in zip(self.endpoints, servers, strict=True)}
        )
        self.clients: list[Client] = []
        self.tally = Tally()

    def client(self, *, keep_records: bool = False, mesh: Mapping[str, Any] | None = None, **service: Any) -> Client:
        """A client of all servers, with a state of its own.

        Args:
            keep_records: whether to make a record of each call.
            mesh: what ``mesh.yaml`` says besides the service.
            service: what it says of the service: ``client(timeout="2s", retry={"max_retries": 1})``.
        """
        client = Client(
            self.network,
            self.endpoints,
            clock=self.clock,
            rng=self.rng,
            service=service,
            mesh=mesh or {},
            tally=self.tally,
            keep_records=keep_records,
        )
        self.clients.append(client)
        return client

    def plain_client(self, **service: Any) -> Client:
        """A client with a timeout of 30 s and no other policy: each server in turn, no retries, nothing left out."""
        return self.client(**{**NO_POLICIES, **service})

    def load(self, per_second: float, for_s: float, start: Callable[[], object] | None = None) -> None:
        """Have the clients, drawn by chance, begin so many calls a second together; nothing runs yet."""
        clients = self.clients
        if start is None:
            start = clients[0].call if len(clients) == 1 else lambda: self.rng.choice(clients).call()
        arrivals(self.clock, self.rng, per_second, for_s, start)

    def run(self, until: float | None = None) -> None:
        """Let time pass, up to `until`; without it, until all is through."""
        self.clock.run(until)

    @property
    def in_flight(self) -> int:
        """What is still counted as under way anywhere at the clients: calls, their places, and attempts."""
        return sum(client.in_flight for client in self.clients)
