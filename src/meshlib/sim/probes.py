"""Probes of load in virtual time: what sends them in production, with a clock and servers that are simulated."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from random import Random
from typing import Any

from meshlib.balance.balancer import Member
from meshlib.balance.reported import write_in_flight
from meshlib.config.views import ServiceView
from meshlib.discovery.load_probes import LoadProbes
from meshlib.net.wire import Headers
from meshlib.sim.clock import Timer, VirtualClock
from meshlib.sim.network import Network
from meshlib.sim.server import Server

__all__ = ["SimProbes"]


class SimProbes:
    """The probes of one client. An answer takes no time.

    Args:
        network: what is at the addresses.
        clock, rng: all time and all chance.
    """

    def __init__(self, network: Network, clock: VirtualClock, rng: Random) -> None:
        self.sent = 0
        self._network = network
        self._clock = clock
        self._probes = LoadProbes(
            _VirtualControl(clock), self._ask, clock=lambda: clock.now, rng=rng, tell=lambda *_: None
        )

    def follow(self, views: Mapping[str, ServiceView]) -> None:
        """The services in use are these now."""
        self._probes.follow(views)

    async def _ask(self, service: str, member: Member, timeout_s: float) -> Headers | None:
        self.sent += 1
        server = self._network.endpoints.get(member.endpoint.address)
        if not isinstance(server, Server) or not server.reports:
            return []
        return [(b"x-meshlib-load", write_in_flight(*server.load(self._clock.now)))]


class _VirtualControl:
    """The control plane of a simulation. What it runs does not wait."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def call_soon(self, function: Callable[[], object]) -> None:
        self._clock.after(0.0, function)

    def call_later(self, delay_s: float, function: Callable[[], object]) -> Timer:
        return self._clock.after(delay_s, function)

    def submit(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with suppress(StopIteration):
            work().send(None)
            raise RuntimeError("a simulation does not wait")
