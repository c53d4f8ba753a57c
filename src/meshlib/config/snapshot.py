"""The snapshot: everything that a call reads, immutable, swapped whole.

`Snapshots` makes them. The control plane publishes a service's endpoints; each change makes new `Cluster` objects over
the live state of the service, and one new `Snapshot` in which only that service is replaced. A call reads
`Snapshots.current` once.

Other settings make a new `Configuration` (`meshlib.config.views`), in which all is shared with the one before that they
do not change (`Snapshots.reconfigure`).
"""

from __future__ import annotations

import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Any

from meshlib.balance.ahead import Steps, collected
from meshlib.balance.balancer import Member
from meshlib.balance.cluster import REMEMBER_S, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.load import EndpointNode
from meshlib.config.cluster_states import ClusterStates, here_of
from meshlib.config.gates import Fleet
from meshlib.config.membership import known_with, members_of
from meshlib.config.settings import ClusterSettings, MeshSettings
from meshlib.config.turn import Turn
from meshlib.config.views import Configuration, EndpointsWaiter, ServiceState, ServiceView
from meshlib.dataclass import replace

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
        self._on_left = on_left
        self._soon = soon
        self._later = later
        self._pause = pause
        self._states = ClusterStates(now, rng, target_of, self._node_of, self.refresh, on_ejection, fleet)
        self._refreshing: set[str] = set()
        self._calm_until: dict[str, float] = {}
        self._lock = threading.Lock()
        # Who makes clusters anew holds this one for as long as that takes, calls never do. Taken before the other.
        self._making = threading.Lock()
        self._nodes: dict[tuple[str, str, int], EndpointNode] = {}
        self._past: list[ServiceState] = []  # of configurations no longer in force, in which calls wait for endpoints
        self.configuration = Configuration(settings, known)
        self.current = self.configuration.snapshot

    def service(self, name: str, under: Configuration | None = None) -> ServiceView:
        """The service as it is now; one that was not called before begins with what needs no discovery.

        Args:
            name: of the service.
            under: a configuration that a call began with; None for the one in force.
        """
        view = (under or self.configuration).snapshot.services.get(name)
        return self._begin(name, under) if view is None else view

    def look(self, name: str, under: Configuration | None = None) -> ServiceView:
        """The service as it is now; of one that was not called before, what it would begin with, kept nowhere."""
        under = under or self.configuration
        view = under.snapshot.services.get(name)
        return self._first(name, Random(0), under) if view is None else view

    def publish(
        self,
        name: str,
        endpoints: Iterable[Endpoint] | None,
        known: Known,
        detail: str = "",
        *,
        written: bool = False,
    ) -> None:
        """Discovery says something new of a service; None for `endpoints` makes the mesh forget it.

        What is `written` in the configuration may have changed since it was read there: then that of now holds.
        """
        found = () if endpoints is None else tuple(endpoints)
        waiting: list[EndpointsWaiter] = []
        with self._making:
            if written:
                found = self.configuration.known.get(name, found)
            if endpoints is None:
                with self._lock:
                    old = self.current.services.get(name)
                    services = {key: view for key, view in self.current.services.items() if key != name}
                    self._put(self.configuration, services)
                    left = self._left(old, found)
            else:
                old = self.service(name)
                view = self._made(old.state, found, known, detail)
                with self._lock:
                    self._set(view)
                    waiting, view.state.waiting = view.state.waiting, []
                    left = self._left(old, found)
        for each in self.current.services.values():
            if name in each.settings.standbys:
                self._refresh(each.name)  # at once: calls may wait for just this
            elif name in each.settings.callers:
                self.refresh(each.name)
        for waiter in waiting:
            waiter.fire()
        if self._past:
            self._catch_up(name)
        self._tell_left(left)

    def _tell_left(self, left: Iterable[Endpoint]) -> None:
        if self._on_left is not None:
            for endpoint in left:
                self._on_left(endpoint)

    def reconfigure(
        self,
        settings: MeshSettings,
        known: Mapping[str, tuple[Endpoint, ...]] = MappingProxyType({}),
        fleet: Fleet | None = None,
    ) -> None:
        """Have new calls go by other settings; those under way end with what they began with.

        All at once: whoever reads `current` before sees the settings before, and whoever reads it after sees these. The
        state of what has not changed goes on; where a service had endpoints, it has them until discovery says
        otherwise.

        Args:
            settings: compiled.
            known: endpoints that need no discovery.
            fleet: what clusters share with other processes, from now on.
        """
        with self._making:
            with self._lock:
                turn = Turn(self.configuration, Configuration(settings, known), fleet is not self._states.fleet)
                self._states.fleet = fleet
            views: dict[str, ServiceView] = {}
            was = self.current.services
            beside: Mapping[str, ServiceView] = ChainMap(views, dict(was))
            # Those last that look at the endpoints of others, so that they see those of now.
            for view in sorted(was.values(), key=lambda view: bool(turn.looks_at(view.name))):
                with self._lock:
                    views[view.name], steps = self._turned(view, turn, beside)
                self._do(steps)
            left: list[Endpoint] = []
            with self._lock:
                for name, view in self.current.services.items():
                    if name not in views:  # first called meanwhile
                        views[name], _ = self._turned(view, turn, beside)
                    state = view.state
                    if views[name].state is not state and state.waiting and state not in self._past:
                        self._past.append(state)
                    if views[name].endpoints is not view.endpoints:
                        left += self._gone(view, views[name].endpoints)
                self._forget_nodes()
                self._put(turn.new, views)
                for view in views.values():
                    view.state.under = turn.new
                self.configuration, self.current = turn.new, turn.new.snapshot
        for name in {state.settings.name for state in self._past}:
            self._catch_up(name)
        self._tell_left(left)

    def _turned(
        self, view: ServiceView, turn: Turn, services: Mapping[str, ServiceView]
    ) -> tuple[ServiceView, list[Steps]]:
        """A service in use, under other settings; the same, where nothing changes for it.

        Args:
            view: of the service.
            turn: from which settings to which.
            services: all of them, some under the new settings already.
        """
        name, state, before = view.name, view.state, self.current.services
        if not turn.keeps(name):
            was, settings = view.settings, turn.new.service(name)
            clusters = {
                subset: self._states.make(cluster, was.clusters.get(subset), state.clusters.get(subset), turn.shares)
                for subset, cluster in settings.clusters.items()
            }
            state = ServiceState(settings, clusters, turn.new, state)
        endpoints = turn.new.known.get(name, view.endpoints)
        if endpoints == view.endpoints:
            endpoints = view.endpoints
            as_before = all(services.get(each) is before.get(each) for each in turn.looks_at(name))
            if state is view.state and as_before and not turn.moves(view.settings):
                return view, []
        known = Known.YES if name in turn.new.known else view.known
        return self._view(state, endpoints, known, view.detail, self._rng, turn.new, services)

    def _catch_up(self, name: str) -> None:
        """Tell calls that began under another configuration what discovery has told since."""
        waiting: list[EndpointsWaiter] = []
        with self._making:
            now = self.current.services.get(name)
            if now is None or now.known not in (Known.YES, Known.NO):
                return
            for state in [each for each in self._past if each.settings.name == name]:
                view = self._made(state, now.endpoints, now.known, now.detail)
                with self._lock:
                    self._set(view)
                    waiting += state.waiting
                    state.waiting = []
                    self._past.remove(state)
        for waiter in waiting:
            waiter.fire()

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
            view, steps = self._view(state, endpoints, known, detail, self._rng, state.under)
        self._do(steps)
        return view

    def _do(self, steps: Iterable[Steps]) -> None:
        for each in steps:
            for _ in each():
                self._pause()

    def wake_all(self) -> None:
        """Have every call that waits for endpoints look again: the mesh is closed."""
        with self._lock:
            states = [view.state for view in self.current.services.values()]
            waiting = [waiter for state in (*states, *self._past) for waiter in state.waiting]
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
        self._past.clear()
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
                state.load_balancing = self._states.seeded(view.settings.clusters[subset].load_balancing)
            for cluster in view.clusters.values():
                cluster.after_fork(self.now(), self._rng)
        for node in self._nodes.values():
            node.after_fork()

    def _begin(self, name: str, under: Configuration | None) -> ServiceView:
        with self._lock:
            under = under or self.configuration
            view = under.snapshot.services.get(name)
            if view is None:
                view = self._first(name, self._rng, under)
                self._set(view)
            return view

    def _first(self, name: str, rng: Random, under: Configuration) -> ServiceView:
        endpoints = under.known.get(name, ())
        state = self._state(name, under)
        view, _ = self._view(state, endpoints, Known.YES if endpoints else Known.PENDING, "", rng, under)
        return view

    def _set(self, view: ServiceView) -> None:
        under = view.state.under
        self._put(under, {**under.snapshot.services, view.name: view})

    def _put(self, under: Configuration, services: Mapping[str, ServiceView]) -> None:
        under.snapshot = replace(under.snapshot, services=MappingProxyType(dict(services)))
        if under is self.configuration:
            self.current = under.snapshot

    def _state(self, name: str, under: Configuration) -> ServiceState:
        settings = under.service(name)
        clusters = {subset: self._states.make(cluster) for subset, cluster in settings.clusters.items()}
        return ServiceState(settings, clusters, under)

    def _view(
        self,
        state: ServiceState,
        endpoints: tuple[Endpoint, ...],
        known: Known,
        detail: str,
        rng: Random,
        under: Configuration,
        services: Mapping[str, ServiceView] | None = None,
    ) -> tuple[ServiceView, list[Steps]]:
        """A view, and what is to be done before calls see it. What is not done, the first pick does."""
        clusters, services = {}, self.current.services if services is None else services
        now = self.now()
        with collected() as steps:
            for subset, settings in state.settings.clusters.items():
                chosen = members_of(settings, endpoints, services)
                state.clusters[subset].here = here_of(settings.load_balancing, under, services)
                shadow = state.clusters[subset].shadow
                if shadow is not None and shadow.load_balancing is not None:
                    shadow.here = here_of(shadow.load_balancing, under, services)
                clusters[subset] = state.clusters[subset].view(
                    chosen,
                    now,
                    rng,
                    known=known if chosen or not settings.failover_to else known_with(settings, known, services),
                    detail=detail,
                    target_of=lambda endpoint, settings=settings: self._target_of(settings, endpoint),  # type: ignore[misc]
                )
        return ServiceView(state.settings, state, MappingProxyType(clusters), endpoints, known, detail), steps

    def _node_of(self, endpoint: Endpoint) -> EndpointNode:
        node = self._nodes.get(endpoint.key)
        if node is None:
            node = self._nodes[endpoint.key] = EndpointNode()
        node.left_at = None
        return node

    def _left(self, old: ServiceView | None, found: tuple[Endpoint, ...]) -> list[Endpoint]:
        """The endpoints that are no longer there; the counts of those that are long gone are dropped."""
        left = self._gone(old, found)
        self._forget_nodes()
        return left

    def _gone(self, old: ServiceView | None, found: tuple[Endpoint, ...]) -> list[Endpoint]:
        now = self.now()
        present = {endpoint.key for endpoint in found}
        whole = old.clusters.get(None) if old is not None else None
        left = [member.endpoint for member in whole.members if member.endpoint.key not in present] if whole else []
        for endpoint in left:
            if (node := self._nodes.get(endpoint.key)) is not None:
                node.left_at = now
        return left

    def _forget_nodes(self) -> None:
        """Drop the counts of endpoints that are long gone."""
        now = self.now()
        for key, node in list(self._nodes.items()):
            if node.left_at is not None and now - node.left_at > REMEMBER_S and node.in_flight == 0:
                del self._nodes[key]

    def answered(self, services: tuple[str, ...], under: Configuration | None = None) -> bool:
        """Whether discovery has said what it knows of each of these services."""
        views = (under or self.configuration).snapshot.services
        return all(view is None or view.known in (Known.YES, Known.NO) for view in map(views.get, services))

    def wait(self, waiter: EndpointsWaiter) -> None:
        """Have `waiter` fired when discovery has told of its services; at once, if it has."""
        late: list[str] = []
        with self._lock:
            under = waiter.under or self.configuration
            answered = self.answered(waiter.services, under)
            if not answered:
                for name in waiter.services:
                    if (view := under.snapshot.services.get(name)) is not None:
                        view.state.waiting.append(waiter)
                        waiter.states.append(view.state)
                        if under is not self.configuration:
                            late.append(name)
                            if view.state not in self._past:
                                self._past.append(view.state)
        if answered:
            waiter.fire()
        for name in late:  # elsewhere, since a call waits here
            self._soon(partial(self._catch_up, name))

    def leave(self, waiter: EndpointsWaiter) -> None:
        """It waits no longer."""
        with self._lock:
            for state in waiter.states:
                if waiter in state.waiting:
                    state.waiting.remove(waiter)
            self._past = [state for state in self._past if state.waiting]
