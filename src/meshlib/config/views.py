"""What a call reads of services, and what of them outlasts the moment. `meshlib.config.snapshot` makes it.

Settings change while calls are under way. Each `Configuration` therefore keeps the newest snapshot under it, and a call
reads that of the one which it began with, to its end, whichever is in force by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from meshlib.balance.cluster import Cluster, ClusterState, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import MeshSettings, ServiceSettings
from meshlib.dataclass import dataclass
from meshlib.policy.budget import Budget, make_budget
from meshlib.policy.facts import CallFacts
from meshlib.policy.settings import HedgeSettings

if TYPE_CHECKING:
    from meshlib.config.snapshot import Snapshots
    from meshlib.policy.fault import ActiveFaults
    from meshlib.policy.hedge import Hedging

__all__ = ["Configuration", "EndpointsWaiter", "ServiceState", "ServiceView", "Snapshot"]


class ServiceState:
    """The live part of one service: what outlasts any change of its endpoints.

    Attributes:
        settings: compiled.
        under: the configuration that they belong to.
        budget, high_budget: of retries; the second is for calls of high priority, who share the first unless it counts
            what is under way.
        faults: calls that have an injected fault; None if none is to be injected.
        clusters: by subset; None is the whole service.
        hedgings: what the hedged calls of each route share, by its name.
        waiting: calls that wait until discovery has answered.
        kinds: what the calls of one kind have in common, as the data plane keeps it.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        clusters: Mapping[str | None, ClusterState],
        under: Configuration,
        before: ServiceState | None = None,
    ) -> None:
        """Begin.

        Args:
            settings: compiled.
            clusters: by subset; None is the whole service.
            under: the configuration that they belong to.
            before: the same service under the configuration before; what did not change is shared with it.
        """
        self.settings = settings
        self.under = under
        self.clusters = clusters
        self._busy: _Busy = _Busy() if before is None else before._busy
        self._busy.clusters = tuple(clusters.values())
        self.budget: Budget
        self.high_budget: Budget
        if before is not None and before.settings.budget == settings.budget:
            self.budget, self.high_budget = before.budget, before.high_budget
        else:
            self.budget = self.high_budget = make_budget(settings.budget, self._busy)
            if settings.budget.kind == "concurrency":
                self.high_budget = make_budget(settings.budget, self._busy)
        self.faults: ActiveFaults | None = None
        if any(route.policy.fault is not None for route in settings.routes):
            from meshlib.policy.fault import ActiveFaults

            self.faults = before.faults if before is not None and before.faults is not None else ActiveFaults()
        self.waiting: list[EndpointsWaiter] = []
        self.kinds: dict[tuple[object, ...], CallFacts] = {}
        self.hedgings: dict[tuple[str, HedgeSettings], Hedging] = {}
        if before is not None:
            own = {(route.name, route.policy.hedge) for route in settings.routes}
            self.hedgings.update((key, each) for key, each in list(before.hedgings.items()) if key in own)

    def hedging(self, route: str, settings: HedgeSettings) -> Hedging:
        """What the hedged calls of a route share; made at the first."""
        hedging = self.hedgings.get((route, settings))
        if hedging is None:
            from meshlib.policy.hedge import Hedging

            hedging = self.hedgings.setdefault((route, settings), Hedging(settings))
        return hedging


class _Busy:
    """Counts the calls of a service that are under way or in line, in all its clusters of now."""

    __slots__ = ("clusters",)

    def __init__(self) -> None:
        self.clusters: tuple[ClusterState, ...] = ()

    def __call__(self) -> int:
        return sum(state.limit.in_flight + state.limit.pending for state in self.clusters)


class EndpointsWaiter:
    """What a call waits on until discovery has answered for its services."""

    __slots__ = ("_callback", "_snapshots", "services", "states", "under")

    def __init__(self, snapshots: Snapshots, services: tuple[str, ...], under: Configuration | None = None) -> None:
        """Not waiting yet.

        Args:
            snapshots: where the services are.
            services: by name.
            under: the configuration that the call began with; None for the one in force.
        """
        self.services = services
        self.under = under
        self.states: list[ServiceState] = []
        self._snapshots = snapshots
        self._callback: Callable[[], None] | None = None

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, from any thread, when discovery has answered; at once, if it has."""
        self._callback = callback
        self._snapshots.wait(self)

    def leave(self) -> None:
        """Stop waiting."""
        self._callback = None
        self._snapshots.leave(self)

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


class Configuration:
    """One configuration, and what calls read that began with it.

    Attributes:
        settings: compiled.
        known: endpoints that need no discovery, by service.
        snapshot: the newest one under it.
    """

    __slots__ = ("known", "settings", "snapshot")

    def __init__(self, settings: MeshSettings, known: Mapping[str, tuple[Endpoint, ...]]) -> None:
        self.settings = settings
        self.known = known
        self.snapshot = Snapshot(settings, MappingProxyType({}))

    def service(self, name: str) -> ServiceSettings:
        """What it says of a service, declared or not."""
        return self.settings.services.get(name) or self.settings.fallback(name)
