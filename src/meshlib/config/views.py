"""What a call reads of services, and what of them outlasts the moment. `meshlib.config.snapshot` makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from meshlib.balance.cluster import Cluster, ClusterState, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import MeshSettings, ServiceSettings
from meshlib.dataclass import dataclass
from meshlib.policy.budget import make_budget
from meshlib.policy.facts import CallFacts
from meshlib.policy.settings import HedgeSettings

if TYPE_CHECKING:
    from meshlib.config.snapshot import Snapshots
    from meshlib.policy.fault import ActiveFaults
    from meshlib.policy.hedge import Hedging

__all__ = ["EndpointsWaiter", "ServiceState", "ServiceView", "Snapshot"]


class ServiceState:
    """The live part of one service: what outlasts any change of its endpoints.

    Attributes:
        settings: compiled.
        budget, high_budget: of retries; the second is for calls of high priority, who share the first unless it counts
            what is under way.
        faults: calls that have an injected fault; None if none is to be injected.
        clusters: by subset; None is the whole service.
        hedgings: what the hedged calls of each route share, by its name.
        kinds: what the calls of one kind have in common, as the data plane keeps it.
    """

    def __init__(self, settings: ServiceSettings, clusters: Mapping[str | None, ClusterState]) -> None:
        self.settings = settings
        self.budget = self.high_budget = make_budget(settings.budget, self._under_way)
        if settings.budget.kind == "concurrency":
            self.high_budget = make_budget(settings.budget, self._under_way)
        self.clusters = clusters
        self.faults: ActiveFaults | None = None
        if any(route.policy.fault is not None for route in settings.routes):
            from meshlib.policy.fault import ActiveFaults

            self.faults = ActiveFaults()
        self.waiting: list[EndpointsWaiter] = []
        self.kinds: dict[tuple[object, ...], CallFacts] = {}
        self.hedgings: dict[tuple[str, HedgeSettings], Hedging] = {}

    def hedging(self, route: str, settings: HedgeSettings) -> Hedging:
        """What the hedged calls of a route share; made at the first."""
        hedging = self.hedgings.get((route, settings))
        if hedging is None:
            from meshlib.policy.hedge import Hedging

            hedging = self.hedgings.setdefault((route, settings), Hedging(settings))
        return hedging

    def _under_way(self) -> int:
        """Calls under way or in line, in all clusters."""
        return sum(state.limit.in_flight + state.limit.pending for state in self.clusters.values())


class EndpointsWaiter:
    """What a call waits on until discovery has answered for its services."""

    __slots__ = ("_callback", "_services", "_snapshots")

    def __init__(self, snapshots: Snapshots, services: tuple[str, ...]) -> None:
        self._snapshots = snapshots
        self._services = services
        self._callback: Callable[[], None] | None = None

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, from any thread, when discovery has answered; at once, if it has."""
        self._callback = callback
        self._snapshots._wait(self, self._services)

    def leave(self) -> None:
        """Stop waiting."""
        self._callback = None
        self._snapshots._leave(self, self._services)

    def fire(self) -> None:
        """Something about one of the services has changed."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service at one moment.

    Attributes:
        settings: compiled.
        state: what outlasts this moment.
        clusters: by subset; None is the whole service.
        endpoints: as discovery reports them.
        known: what discovery knows of it.
        detail: what is wrong with discovery, in words; empty if nothing is.
    """

    settings: ServiceSettings
    state: ServiceState
    clusters: Mapping[str | None, Cluster]
    endpoints: tuple[Endpoint, ...]
    known: Known
    detail: str = ""

    @property
    def name(self) -> str:
        """The logical name."""
        return self.settings.name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole mesh at one moment."""

    settings: MeshSettings
    services: Mapping[str, ServiceView]
