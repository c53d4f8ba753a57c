"""One probe of one endpoint's load: a small request, beside the calls and over connections like theirs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from meshlib.adapters.exchange import Destination
from meshlib.balance.balancer import Member
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWire, Headers, Progress, WireLimits, WireRequest
from meshlib.propagation import LOAD, LOAD_PROBE

if TYPE_CHECKING:
    from meshlib.adapters.plane import DataPlane
    from meshlib.config.views import ServiceView
    from meshlib.discovery.control import ControlPlane
    from meshlib.discovery.load_probes import LoadProbes, Tell

__all__ = ["LoadFollower", "ask_load"]

_PATH = LOAD_PROBE.encode()
_HEADERS: Final = [
    (b"user-agent", b"meshlib-load-probe"),
    (b"accept", b"*/*"),
    (LOAD.encode(), b"in-flight"),
]
_LONGEST = 65_536
_FAILED = 500


async def ask_load(wire: AsyncWire, service: str, member: Member, timeout_s: float) -> Headers | None:
    """The headers of the answer; None if there is none in time, or from 500.

    Args:
        wire: the last hop, in the running loop.
        service: for the ``Host`` header, where the configuration has no other.
        member: whom to ask.
        timeout_s: for how long.
    """
    destination = member.target
    if not isinstance(destination, Destination):
        return None
    deadline = time.monotonic() + timeout_s
    limits = WireLimits(deadline=deadline, connect_s=timeout_s, body_deadline=deadline)
    host = destination.host or service.encode("latin-1", "replace")
    request = WireRequest(b"GET", _PATH, [(b"host", host), *_HEADERS], resendable=True)
    try:
        response = await wire.send(destination.target, request, limits, Progress())
        if response.content is None:
            try:
                size = 0
                async for chunk in response.body:
                    size += len(chunk)
                    if size > _LONGEST:
                        break
            finally:
                await response.aclose()
    except (MeshError, OSError, TimeoutError):
        return None
    return response.headers if response.status < _FAILED else None


class LoadFollower:
    """Has endpoints of services in use probed where ``prequal`` balances them; until one does, this is nothing.

    Args:
        plane: of the mesh.
        control: where probes run.
        tell: see `LoadProbes`.
    """

    def __init__(self, plane: DataPlane, control: ControlPlane, tell: Tell) -> None:
        self._plane = plane
        self._control = control
        self._tell = tell
        self._probes: LoadProbes | None = None

    def look(self) -> None:
        """See which services are in use by now. On the control thread."""
        views = self._plane.snapshots.current.services
        probes = self._probes
        if probes is None:
            # With the stock wire requests go where their URLs say, and probes have none.
            if self._plane.settings.wire == "stock" or not any(map(_wants_probes, views.values())):
                return
            from meshlib.discovery.load_probes import LoadProbes

            plane = self._plane
            probes = LoadProbes(self._control, self._ask, clock=plane.clock.now, rng=plane.rng, tell=self._tell)
            self._probes = probes
        probes.follow(views)

    async def _ask(self, service: str, member: Member, timeout_s: float) -> Headers | None:
        if self._plane.mode_of(service) != "on":
            return None
        return await ask_load(self._plane.async_wire, service, member, timeout_s)


def _wants_probes(view: ServiceView) -> bool:
    return any(cluster.state.load_balancing.policy == "prequal" for cluster in view.clusters.values())
