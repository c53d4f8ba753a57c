"""The snapshot: everything that a call reads, immutable, swapped whole.

`Snapshots` makes them. The control plane publishes a service's endpoints; each change makes new `Cluster` objects over
the live state of the service, and one new `Snapshot` in which only that service is replaced. A call reads
`Snapshots.current` once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from meshlib.balance.ahead import Steps, collected
from meshlib.balance.balancer import Member
from meshlib.balance.cluster import REMEMBER_S, ClusterState, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.load import EndpointNode
from meshlib.balance.settings import LoadBalancing
from meshlib.config.gates import Fleet, gates_of
from meshlib.config.settings import ClusterSettings, MeshSettings
from meshlib.config.views import EndpointsWaiter, ServiceState, ServiceView, Snapshot
from meshlib.dataclass import replace
from meshlib.policy.settings import BreakerSettings

if TYPE_CHECKING:
    from meshlib.balance.tiers import Here

__all__ = ["Snapshots"]

_LITTLE_S = 0.005
_CALM = 9.0
"""How many times as long as it took to make clusters anew is waited before the next time, where it is no little."""
_CALM_MOST_S = 2.0


class Snapshots:
    """Makes snapshots. Publishing is safe from any thread; reading `current` needs no lock."""

    def __init__(
        self,
        settings: MeshSettings,
        *,
        now: Callable[[], float],
        rng: Random,
        target_of: Callable[[ClusterSettings, Endpoint], Any],
        known: Mapping[str, tuple[Endpoint, ...]] = MappingProxyType({}),
        on_ejection: Callable[[str], Callable[[Member, bool], None]] | None = None,
        on_left: Callable[[Endpoint], None] | None = None,
        soon: Callable[[Callable[[], None]], object] = lambda work: work(),
        later: Callable[[float, Callable[[], None]], object] = lambda delay_s, work: work(),
        pause: Callable[[], object] = lambda: None,
        fleet: Fleet | None = None,
    ) -> None:
        """Start with an empty snapshot.

        Args:
            settings: compiled.
            now: the monotonic clock.
            rng: for the balancers' starting points.
            target_of: what the wire needs to send to an endpoint of a cluster.
            known: endpoints that need no discovery: those written in the configuration. Other services begin without.
            on_ejection: gives, for the name of a cluster, what is called with a member and whether it was ejected
                (or is back).
            on_left: called with each endpoint that has left its service.
            soon: does what takes longer than a call should wait for, elsewhere; by default at once.
            later: does it in so many seconds.
            pause: lets others run; called now and then in work that takes long.
            fleet: what clusters share with other processes; None for nothing.
        """
        self.now = now
        self._rng = rng
        self._target_of = target_of
        self._known = known
        self._on_ejection = on_ejection
        self._on_left = on_left
        self._soon = soon
        self._later = later
        self._pause = pause
        self._fleet = fleet
        self._refreshing: set[str] = set()
        self._calm_until: dict[str, float] = {}
        self._lock = threading.Lock()
        # Who makes clusters anew holds this one for as long as that takes, calls never do. Taken before the other.
        self._making = threading.Lock()
        self._nodes: dict[tuple[str, str, int], EndpointNode] = {}
        self.current = Snapshot(settings, MappingProxyType({}))

    def service(self, name: str) -> ServiceView:
        """The service as it is now; one that was not called before begins with what needs no discovery."""
        view = self.current.services.get(name)
        return self._begin(name) if view is None else view

    def look(self, name: str) -> ServiceView:
        """The service as it is now; of one that was not called before, what it would begin with, kept nowhere."""
        view = self.current.services.get(name)
        return self._first(name, Random(0)) if view is None else view

    def publish(self, name: str, endpoints: Iterable[Endpoint] | None, known: Known, detail: str = "") -> None:
        """Discovery says something new of a service; None for `endpoints` makes the mesh forget it."""
        found = () if endpoints is None else tuple(endpoints)
        waiting: list[EndpointsWaiter] = []
        with self._making:
            if endpoints is None:
                with self._lock:
                    old = self.current.services.get(name)
                    services = {key: view for key, view in self.current.services.items() if key != name}
                    self.current = replace(self.current, services=MappingProxyType(services))
                    left = self._left(old, found)
            else:
                old = self.service(name)
                view = self._made(old.state, found, known, detail)
                with self._lock:
                    self._set(view)
                    waiting, view.state.waiting = view.state.waiting, []
                    left = self._left(old, found)
        for each in self.current.services.values():
            if name in each.settings.callers:
                self.refresh(each.name)
        for waiter in waiting:
            waiter.fire()
        if self._on_left is not None:
            for endpoint in left:
                self._on_left(endpoint)

    def refresh(self, name: str) -> None:
        """Make the clusters of a service anew, soon: the health of an endpoint has changed, and they depend on it."""
        if name not in self._refreshing:
            self._refreshing.add(name)
            self._soon(lambda: self._refresh_if_calm(name))

    def _refresh_if_calm(self, name: str) -> None:
        """Not again and again while the endpoints of a large service go and come: that would take all the time."""
        began = self.now()
        wait_s = self._calm_until.get(name, began) - began
        if 0.0 < wait_s <= _CALM_MOST_S:  # more only if the clock went back
            self._later(wait_s, lambda: self._refresh(name))
            return
        self._refresh(name)

    def _refresh(self, name: str) -> None:
        self._refreshing.discard(name)
        began = self.now()
        with self._making:
            view = self.current.services.get(name)
            if view is not None:
                view = self._made(view.state, view.endpoints, view.known, view.detail)
                with self._lock:
                    self._set(view)
        took_s = self.now() - began
        if took_s > _LITTLE_S:
            self._calm_until[name] = began + took_s + min(_CALM * took_s, _CALM_MOST_S)

    def _made(self, state: ServiceState, endpoints: tuple[Endpoint, ...], known: Known, detail: str) -> ServiceView:
        """A new view, with all that takes long to make: that is done without the lock that calls may need."""
        with self._lock:
            view, steps = self._view(state, endpoints, known, detail, self._rng)
        for each in steps:
            for _ in each():
                self._pause()
        return view

    def wake_all(self) -> None:
        """Have every call that waits for endpoints look again: the mesh is closed."""
        with self._lock:
            waiting = [waiter for view in self.current.services.values() for waiter in view.state.waiting]
        for waiter in waiting:
            waiter.fire()

    def nodes(self) -> dict[tuple[str, str, int], EndpointNode]:
        """What is counted per endpoint, by its key."""
        with self._lock:
            return dict(self._nodes)

    def renew_locks(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._refreshing.clear()
        for view in self.current.services.values():
            view.state.waiting.clear()
            view.state.budget.renew_lock()
            view.state.high_budget.renew_lock()
            for hedging in view.state.hedgings.values():
                hedging.renew_lock()
            if view.state.faults is not None:
                view.state.faults.renew_lock()
            for subset, state in view.state.clusters.items():
                state.renew_locks()
                # Children of one process are clients of their own, with other subsets of a large fleet.
                state.load_balancing = self._seeded(view.settings.clusters[subset].load_balancing)
            for cluster in view.clusters.values():
                cluster.after_fork(self.now(), self._rng)
        for node in self._nodes.values():
            node.after_fork()

    def _begin(self, name: str) -> ServiceView:
        with self._lock:
            view = self.current.services.get(name)
            if view is None:
                view = self._first(name, self._rng)
                self._set(view)
            return view

    def _first(self, name: str, rng: Random) -> ServiceView:
        endpoints = self._known.get(name, ())
        view, _ = self._view(self._state(name), endpoints, Known.YES if endpoints else Known.PENDING, "", rng)
        return view

    def _set(self, view: ServiceView) -> None:
        services = {**self.current.services, view.name: view}
        self.current = replace(self.current, services=MappingProxyType(services))

    def _state(self, name: str) -> ServiceState:
        mesh = self.current.settings
        settings = mesh.services.get(name) or mesh.fallback(name)
        clusters = {subset: self._cluster_state(cluster) for subset, cluster in settings.clusters.items()}
        return ServiceState(settings, clusters)

    def _cluster_state(self, settings: ClusterSettings) -> ClusterState:
        breaker, gates = settings.breaker, gates_of(settings, self.now(), self._rng, self._fleet)
        state: Callable[..., ClusterState] = ClusterState
        if settings.shadow is not None:
            from meshlib.config.shadow import shadowed

            state, gates = shadowed(settings, gates, self.now())
        return state(
            settings.name,
            now=self.now(),
            load_balancing=self._seeded(settings.load_balancing),
            breaker=breaker if isinstance(breaker, BreakerSettings) else None,
            outlier=settings.outlier,
            checked=settings.health_check is not None,
            limit=gates.limit,
            before=gates.before,
            after=gates.after,
            node_of=self._node_of,
            on_ejection=self._on_ejection(settings.name) if self._on_ejection is not None else None,
            on_change=lambda: self.refresh(settings.service),
        )

    def _seeded(self, balancing: LoadBalancing) -> LoadBalancing:
        if balancing.subsetting is None:
            return balancing
        from meshlib.balance.subsetting import with_seed

        return with_seed(balancing, self._rng)

    def _view(
        self, state: ServiceState, endpoints: tuple[Endpoint, ...], known: Known, detail: str, rng: Random
    ) -> tuple[ServiceView, list[Steps]]:
        """A view, and what is to be done before calls see it. What is not done, the first pick does."""
        clusters = {}
        now = self.now()
        with collected() as steps:
            for subset, settings in state.settings.clusters.items():
                chosen = endpoints
                if settings.selector:
                    chosen = _selected(endpoints, settings.selector)
                    if not chosen and settings.otherwise is not None:
                        chosen = _selected(endpoints, settings.otherwise)
                state.clusters[subset].here = self._here(settings.load_balancing)
                shadow = state.clusters[subset].shadow
                if shadow is not None and shadow.load_balancing is not None:
                    shadow.here = self._here(shadow.load_balancing)
                clusters[subset] = state.clusters[subset].view(
                    chosen,
                    now,
                    rng,
                    known=known,
                    detail=detail,
                    target_of=lambda endpoint, settings=settings: self._target_of(settings, endpoint),  # type: ignore[misc]
                )
        return ServiceView(state.settings, state, MappingProxyType(clusters), endpoints, known, detail), steps

    def _here(self, balancing: LoadBalancing) -> Here | None:
        """What the endpoints of a cluster are compared with; None where places do not count."""
        mesh = self.current.settings
        by_place = balancing.failover or balancing.failover_priority or balancing.distribute
        if not by_place and balancing.zone_aware is None and not balancing.locality_weights:
            return None
        from meshlib.balance.tiers import Here
        from meshlib.balance.zone_aware import Callers

        callers: Callers | None = None
        if balancing.zone_aware is not None:
            callers = Callers.given(balancing.zone_aware.local_counts)
            name = balancing.zone_aware.local_service or ""
            local = self.current.services.get(name)
            endpoints = self._known.get(name, ()) if local is None else local.endpoints
            callers = Callers.count(endpoints) if endpoints else callers
        labels = {} if mesh.register is None else mesh.register.metadata
        return Here(mesh.locality, tuple(labels.items()), callers)

    def _node_of(self, endpoint: Endpoint) -> EndpointNode:
        node = self._nodes.get(endpoint.key)
        if node is None:
            node = self._nodes[endpoint.key] = EndpointNode()
        node.left_at = None
        return node

    def _left(self, old: ServiceView | None, found: tuple[Endpoint, ...]) -> list[Endpoint]:
        """The endpoints that are no longer there; the counts of those that are long gone are dropped."""
        now = self.now()
        present = {endpoint.key for endpoint in found}
        whole = old.clusters.get(None) if old is not None else None
        left = [member.endpoint for member in whole.members if member.endpoint.key not in present] if whole else []
        for endpoint in left:
            if (node := self._nodes.get(endpoint.key)) is not None:
                node.left_at = now
        for key, node in list(self._nodes.items()):
            if node.left_at is not None and now - node.left_at > REMEMBER_S and node.in_flight == 0:
                del self._nodes[key]
        return left

    def answered(self, services: tuple[str, ...]) -> bool:
        """Whether discovery has said what it knows of each of these services."""
        views = [self.current.services.get(name) for name in services]
        return all(view is None or view.known in (Known.YES, Known.NO) for view in views)

    def _wait(self, waiter: EndpointsWaiter, services: tuple[str, ...]) -> None:
        with self._lock:
            answered = self.answered(services)
            if not answered:
                for name in services:
                    if (view := self.current.services.get(name)) is not None:
                        view.state.waiting.append(waiter)
        if answered:
            waiter.fire()

    def _leave(self, waiter: EndpointsWaiter, services: tuple[str, ...]) -> None:
        with self._lock:
            for name in services:
                view = self.current.services.get(name)
                if view is not None and waiter in view.state.waiting:
                    view.state.waiting.remove(waiter)


def _selected(endpoints: tuple[Endpoint, ...], selector: tuple[tuple[str, str], ...]) -> tuple[Endpoint, ...]:
    return tuple(
        endpoint for endpoint in endpoints if all(endpoint.metadata.get(key) == value for key, value in selector)
    )
