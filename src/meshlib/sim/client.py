"""A simulated client that is configured as a mesh is: the same words, checked and compiled by the same code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from meshlib.adapters.options import CallOptions
from meshlib.adapters.plane import DataPlane, RequestFacts
from meshlib.balance.cluster import Cluster, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.choose import read_settings
from meshlib.config.snapshot import Snapshots
from meshlib.config.views import ServiceState
from meshlib.context import Criticality, scoped
from meshlib.dataclass import replace
from meshlib.policy.call import Call
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Network
from meshlib.sim.run import Caller
from meshlib.telemetry.observer import NullObserver

if TYPE_CHECKING:
    from meshlib.sim.probes import SimProbes

__all__ = ["Client"]

_OPTIONS = {safe: CallOptions(idempotent=safe) for safe in (False, True)}


class _Now:
    """The virtual clock, as the data plane reads it. Nothing here waits on it."""

    __slots__ = ("_clock",)

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now

    def wall(self) -> float:
        return self._clock.now

    def sleep(self, delay_s: float) -> None:
        raise NotImplementedError("a simulation does not sleep")

    async def asleep(self, delay_s: float) -> None:
        raise NotImplementedError("a simulation does not sleep")


class Client(Caller):
    """Calls to one service.

    Attributes:
        service: its name.
        snapshots: what its calls read.
    """

    def __init__(
        self,
        network: Network,
        endpoints: Iterable[Endpoint],
        *,
        clock: VirtualClock,
        rng: Random,
        service: Mapping[str, Any] = MappingProxyType({}),
        mesh: Mapping[str, Any] = MappingProxyType({}),
        name: str = "orders",
        **kept: Any,
    ) -> None:
        """A client that has made no call.

        Args:
            network: what is at the addresses.
            endpoints: of the service, as discovery would report them.
            clock, rng: all time and all chance.
            service: what ``mesh.yaml`` says of the service: ``{"timeout": "2s", "retry": {"max_retries": 1}}``.
            mesh: what else it says: ``{"locality": {"zone": "a"}}``.
            name: of the service.
            kept: see `Caller`.

        Raises:
            ConfigError: if the configuration is wrong.
        """
        super().__init__(network, clock=clock, rng=rng, **kept)
        self.service = name
        settings = read_settings(None, {"discovery": [], **mesh, "services": {name: dict(service)}})
        now = _Now(clock)
        self.snapshots = Snapshots(
            settings,
            now=now.now,
            rng=rng,
            target_of=lambda cluster, endpoint: None,
            soon=lambda work: clock.after(0.0, work),
        )
        self._plane = DataPlane(
            settings,
            self.snapshots,
            use=lambda service: None,
            clock=now,
            rng=rng,
            sync_wire=None,  # type: ignore[arg-type]
            async_wire=lambda: None,  # type: ignore[arg-type, return-value]
            observer=NullObserver(),
        )
        self._probes: SimProbes | None = None
        self.publish(endpoints)

    def publish(self, endpoints: Iterable[Endpoint], known: Known = Known.YES) -> None:
        """Discovery reports these endpoints from now on."""
        self.snapshots.publish(self.service, tuple(endpoints), known)
        if self.cluster.state.load_balancing.policy == "prequal":
            if self._probes is None:
                from meshlib.sim.probes import SimProbes

                self._probes = SimProbes(self.network, self.clock, self.rng)
            self._probes.follow(self.snapshots.current.services)

    @property
    def clusters(self) -> Sequence[Cluster]:
        return tuple(self.snapshots.service(self.service).clusters.values())

    @property
    def cluster(self) -> Cluster:
        """That of the whole service."""
        return self.snapshots.service(self.service).clusters[None]

    @property
    def state(self) -> ServiceState:
        """What outlasts any change of endpoints."""
        return self.snapshots.service(self.service).state

    def make(self, path: str, safe: bool, criticality: Criticality | None) -> Call:
        method = "GET" if safe else "POST"
        request = RequestFacts(method, "http", self.service, None, path, "", MappingProxyType({}))
        scope = nullcontext() if criticality is None else scoped(lambda scope: replace(scope, criticality=criticality))
        with scope:
            view = self._plane.service(self.service)
            return self._plane.call(view, self._plane.route(view, request), request, _OPTIONS[safe])
