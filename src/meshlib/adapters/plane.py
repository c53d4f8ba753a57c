"""The data plane: all that an adapter needs to make calls. A `Mesh` makes one and lends it to its clients."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from meshlib.adapters.clock import Clock
from meshlib.adapters.options import CallOptions, in_force
from meshlib.balance.cluster import Cluster, Known
from meshlib.config.settings import MeshSettings, Mode
from meshlib.config.snapshot import Snapshots
from meshlib.config.views import EndpointsWaiter, ServiceView
from meshlib.context import current_scope
from meshlib.dataclass import dataclass, field, replace
from meshlib.errors import MeshClosed
from meshlib.net.wire import AsyncWire, SyncWire
from meshlib.policy.call import Call
from meshlib.policy.facts import CallFacts
from meshlib.policy.retry import IDEMPOTENT_METHODS
from meshlib.policy.settings import CallPolicy
from meshlib.policy.traits import read_traits, readers_of
from meshlib.routing.hosts import HostTable
from meshlib.routing.match import RequestView
from meshlib.routing.route import Route, find_route
from meshlib.telemetry.observer import NullObserver, Observer

if TYPE_CHECKING:
    from meshlib.adapters.mirror import Mirrors
    from meshlib.adapters.override import Replacements
    from meshlib.config.own_hosts import OwnHosts

__all__ = ["DEFAULT_PORTS", "DataPlane", "RequestFacts", "by_metadata"]

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_log = logging.getLogger("meshlib")

MAX_OWN = 1000
"""So many hosts that are services by themselves are called at a time; unused ones are forgotten after a while."""

_MAX_KINDS = 1024
"""How many kinds of calls are remembered of a service. They are few, but some timeouts are as many as the calls."""


@dataclass(slots=True)
class RequestFacts:
    """One request, as every client library can tell it.

    Attributes:
        method: in upper case.
        scheme, host, port: of the URL as the caller wrote it; None for the scheme's own port.
        path, query: as sent, percent-encoded.
        headers: with names in lower case; see `HeaderFields`.
        replayable: whether its body can be produced again.
        client_timeout_s: a total given through the client for this request; None for none.
    """

    method: str
    scheme: str
    host: str
    port: int | None
    path: str
    query: str
    headers: Mapping[str, str]
    replayable: bool = True
    client_timeout_s: float | None = None
    _view: RequestView | None = field(default=None, init=False, repr=False, compare=False)

    def view(self, random: Callable[[], float] | None = None) -> RequestView:
        """What routing looks at, made once: what is drawn by chance (from `random`) is the same for all who look."""
        view = self._view
        if view is None:
            view = self._view = RequestView(
                self.method,
                self.path,
                self.query,
                self.headers,
                scheme=self.scheme,
                host=self.host.lower(),
                port=self.port,
                random=random,
            )
        return view


class DataPlane:
    """What a call needs, at hand.

    Attributes:
        settings: compiled.
        snapshots: what a call reads.
        clock: tells the time and waits.
        rng: all randomness of the calls.
        mode: ``off``, ``observe`` or ``on``; may be changed at any time.
        sync_wire: the last hop of calls from threads.
        observer: spans and metrics.
        closed: whether the mesh was closed.
        hosts: another object whenever hosts mean other services.
        mirrors: sends copies of requests; None where nothing is mirrored.
        amends: whether requests are changed before any route is looked at: their path, or what overrides them.
        stock: with ``wire: stock``, the wires (for threads, for event loops) that go through a client library's own
            transport, by the library's name: each adapter adds its own, the mesh closes them. None without.
        outside: gives what sends the requests of a client library (its `Library`, or its name) to hosts outside the
            mesh, in place of its own: a fixture has no network. None for its own.
        abandoned: calls whose response nobody read or closed before it was collected; see `settle`.
    """

    def __init__(
        self,
        settings: MeshSettings,
        snapshots: Snapshots,
        *,
        use: Callable[[str], None],
        clock: Clock,
        rng: Random,
        sync_wire: SyncWire,
        async_wire: Callable[[], AsyncWire],
        observer: Observer | NullObserver,
    ) -> None:
        """Put the parts together.

        Args:
            settings: compiled.
            snapshots: what a call reads.
            use: says that a service is needed; starts its watch. Cheap when it runs already.
            clock: tells the time and waits.
            rng: for all randomness of the calls.
            sync_wire: the last hop of calls from threads.
            async_wire: gives the last hop of calls from event loops, when there is the first.
            observer: spans and metrics.
        """
        self.settings = settings
        self.snapshots = snapshots
        self.clock = clock
        self.rng = rng
        self.mode: Mode = settings.mode
        self.service_modes: dict[str, Mode] = {}
        self.sync_wire = sync_wire
        self._async_wire = async_wire
        self.observer = observer
        self.closed = False
        self.mirrors: Callable[[], Mirrors] | None = None
        self.stock: dict[str, tuple[Any, Any]] | None = None
        self.outside: Callable[[Any], Any] | None = None
        self._crowded: set[str] = set()
        self.abandoned: deque[tuple[Call, int]] = deque()
        self._use = use
        self.hosts: object = None
        self._located: tuple[HostTable[str], OwnHosts | None] = HostTable(()), None
        self.configure(settings)

    def configure(self, settings: MeshSettings) -> None:
        """Go by other settings from now on."""
        services = settings.services.values()
        hosts = HostTable((host, each.name) for each in services for host in (each.name, *each.hosts))
        own = None
        if any(each.each_host for each in services):
            from meshlib.config.own_hosts import OwnHosts

            own = OwnHosts.among(services)
        self.settings, self.mode = settings, settings.mode
        # Together, and before who remembers what hosts mean is told that they mean others.
        self._located = hosts, own
        self.hosts = hosts
        # Discovery may tell routes as well: then those of a service are not known before its endpoints are.
        self._routes_follow = settings.overlay is not None
        self._refusing: dict[str, Route] = {}
        self.amends = settings.overrides is not None or settings.path_normalization != "none"

    @property
    def replacements(self) -> Replacements:
        """What overrides make of calls; made, and loaded, with the first of them."""
        made: Replacements | None = vars(self).get("_replacements")
        if made is None:
            from meshlib.adapters.override import Replacements

            made = vars(self).setdefault("_replacements", Replacements(self))  # of several threads, the first's
        return made

    def replaced(self) -> Mapping[tuple[str, str], int]:
        """How many calls were overridden, by service and outcome."""
        made: Replacements | None = vars(self).get("_replacements")
        return {} if made is None else made.read()

    def renew_locks(self) -> None:
        """After a fork, in the child."""
        made: Replacements | None = vars(self).get("_replacements")
        if made is not None:
            made.renew_lock()

    @property
    def async_wire(self) -> AsyncWire:
        """The last hop of calls from event loops."""
        return self._async_wire()

    def locate(self, host: str, port: int | None) -> str | None:
        """The service that a URL's host means; None if the host is outside the mesh. Asks nobody.

        A declared service or one of its `hosts` (with or without the port; of those with wildcards the longest), a name
        that `domains` matches, or a single label. Whether anybody serves the name is another question.

        Args:
            host: in any case.
            port: that of the URL, or its scheme's own.
        """
        name = host.lower()
        hosts, own = self._located
        service = hosts.find(name, port)
        if service is not None:
            return service if own is None else self._own_service(own, service, name.removesuffix("."), port)
        if "." not in name:
            return name if name and ":" not in name and name != "localhost" else None
        if any(fnmatchcase(name, pattern) for pattern in self.settings.domains):
            return name
        return None

    def _own_service(self, own: OwnHosts, service: str, host: str, port: int | None) -> str | None:
        """The service that a host is by itself, if `service` says so; None where there are too many of them."""
        name = own.name_of(service, host, port)
        if name is None:
            return service
        services = self.snapshots.current.services
        if name in services or len(services) < len(self.settings.services) + MAX_OWN:
            return name
        if service not in self._crowded:  # who sends requests names the hosts, and is not to fill the log
            self._crowded.add(service)
            text = "%s, as any other from now on, is taken for a host outside the mesh: %d hosts of %s are called"
            _log.warning(text, host, MAX_OWN, service)
        return None

    def mode_of(self, service: str) -> Mode:
        """What to do with calls to a service: ``off``, ``observe`` or ``on``. The mesh's ``off`` overrides all."""
        if self.mode == "off":
            return "off"
        live = self.service_modes.get(service)
        if live is not None:
            return live
        settings = self.settings.services.get(service)
        if settings is None and (own := self._located[1]) is not None:
            settings = own.origin_of(service)
        return self.mode if settings is None or settings.mode is None else settings.mode

    def service(self, name: str) -> ServiceView:
        """The service as it is now; starts watching it.

        Raises:
            MeshClosed: if the mesh was closed.
        """
        if self.closed:
            self._check_open(name)
        if self.abandoned:
            self.settle()
        view = self.snapshots.current.services.get(name) or self.snapshots.service(name)
        self._use(name)
        return view

    def _check_open(self, service: str) -> None:
        if self.closed:
            raise MeshClosed("the mesh was closed; make a new one", service=service)

    def settle(self) -> None:
        """End the calls whose responses were collected unread, so that nothing stays in flight for ever."""
        while self.abandoned:
            try:
                call, n = self.abandoned.popleft()
            except IndexError:  # another thread was faster
                return
            call.cancelled(self.clock.now(), n)

    def route(self, view: ServiceView, request: RequestFacts, *, draws: bool = True) -> Route:
        """The route that the request takes. Without `draws` one that takes a share of requests by chance takes it."""
        if self.amends:
            refused = self._normalize(view, request)
            if refused is not None:
                return refused
        routes = view.settings.routes
        if len(routes) == 1 and not routes[0].matches:
            return routes[0]
        return find_route(routes, request.view(self.rng.random if draws else None)) or routes[-1]

    def _normalize(self, view: ServiceView, request: RequestFacts) -> Route | None:
        """Give the request's path its normal form; a path that has none is answered by the route returned."""
        how = self.settings.path_normalization
        if how == "none":
            return None
        from meshlib.routing.normalize import normalize_path, refusing

        path = normalize_path(request.path, how)
        if path is not None:
            request.path = path
            return None
        name = view.settings.name
        if name not in self._refusing:
            self._refusing[name] = refusing(view.settings.routes[-1])
        return self._refusing[name]

    def call(
        self, view: ServiceView, route: Route, request: RequestFacts, options: CallOptions, *, observe: bool = False
    ) -> Call:
        """A call, not yet begun."""
        method, name, scope = request.method, view.settings.name, current_scope()
        overridden = replacement = None
        if scope.override is not None:
            overridden, replacement = self.replacements.of(view, route, scope.override)
            if replacement is not None:
                route = replacement.route
        policy, options = in_force(self, route, options)
        safe = options.idempotent
        if safe is None:
            safe = method in IDEMPOTENT_METHODS or "idempotency-key" in request.headers or None
        timeout_s = options.timeout_s
        if request.client_timeout_s is not None:
            timeout_s = request.client_timeout_s if timeout_s is None else min(timeout_s, request.client_timeout_s)
        # An observed call is judged by its headers; the body belongs to the caller alone.
        complete_body = options.complete_body and not observe
        # By identity: to hash a route is to hash its policy. What is kept holds the route, so the id stays its own.
        key = (
            id(route),
            method,
            request.scheme,
            request.host,
            request.port,
            safe,
            timeout_s,
            options.route,
            complete_body,
            observe,
            options.metadata_match,
        )
        kinds = view.state.kinds
        facts = kinds.get(key)
        if facts is None or policy is not route.policy:
            own = policy if timeout_s is None else with_timeout(policy, timeout_s)
            clusters, ready = self._clusters(view, route), self._endpoints_ready(view, route)
            if replacement is not None:
                clusters, ready = replacement.clusters, replacement.endpoints_ready
            clusters = by_metadata(clusters, own, options.metadata_match)
            again = None
            if self._routes_follow and view.known in (Known.PENDING, Known.UNWELL):
                again = partial(self._again, name, request, options)
            facts = CallFacts(
                name,
                method,
                route,
                own,
                clusters,
                view.state.budget if own.priority == "default" else view.state.high_budget,
                ready,
                "timeout" if timeout_s is None else "client",
                safe,
                complete_body,
                observe,
                request.scheme,
                request.host,
                request.port,
                options.route,
                readers_of(own, [cluster.state for cluster in clusters()], self.rng, route),
                hedging=None if own.hedge is None else view.state.hedging(route.name, own.hedge),
                faults=view.state.faults,
                again=again,
            )
            for standby in view.settings.standbys:
                self._use(standby)
            if policy is route.policy and again is None:
                if len(kinds) >= _MAX_KINDS:
                    kinds.clear()
                kinds[key] = facts
        for backend in route.backends:
            # Of a replacement it was seen to already; of one that is an address discovery knows nothing.
            if backend.service != name and backend.service != overridden:
                self.service(backend.service)
        call = Call(facts, self.rng, request.path, request.query, scope.deadline, request.replayable)
        if overridden is not None:
            call.journal.override = overridden
        if facts.readers:
            call.traits = read_traits(facts.readers, request.view(), options.hash_key)
        if options.explain:
            from meshlib.adapters.reasons import explain, explain_traits

            call.why = explain(view.settings.routes, route, request.view(), facts.clusters(), self.clock.now())
            if call.traits is not None:
                call.why += explain_traits(call.traits)
        return call

    def _again(self, name: str, request: RequestFacts, options: CallOptions) -> Call | None:
        """A call anew, by the routes that discovery has told since; None if it has not."""
        view = self.service(name)
        if view.known in (Known.PENDING, Known.UNWELL):
            return None
        return self.call(view, self.route(view, request), request, options)

    def _clusters(self, view: ServiceView, route: Route) -> Callable[[], Sequence[Cluster]]:
        """What reads the clusters of a route's backends, as they are at that moment under the route's configuration."""
        name, state, backends = view.settings.name, view.state, route.backends

        def only() -> Sequence[Cluster]:
            if self.closed:
                self._check_open(name)
            view = state.under.snapshot.services.get(name) or self.snapshots.service(name, state.under)
            return (view.clusters[subset],)

        def each() -> Sequence[Cluster]:
            self._check_open(name)
            under, service = state.under, self.snapshots.service
            return [service(backend.service, under).clusters[backend.subset] for backend in backends]

        subset = backends[0].subset
        return only if len(backends) == 1 and backends[0].service == name else each

    def _endpoints_ready(self, view: ServiceView, route: Route) -> Callable[[], EndpointsWaiter]:
        def services() -> tuple[str, ...]:
            views = [self.snapshots.service(name, state.under) for name in names]
            return tuple(names.union(*(each.settings.standbys for each in views)))

        names, state = {backend.service for backend in route.backends}, view.state  # the view itself is of this moment
        return lambda: EndpointsWaiter(self.snapshots, services(), state.under)


def by_metadata(
    read: Callable[[], Sequence[Cluster]], policy: CallPolicy, match: tuple[tuple[str, str], ...] = ()
) -> Callable[[], Sequence[Cluster]]:
    """What reads, of each cluster, the part for a call's metadata, where these make subsets."""
    if all(cluster.state.load_balancing.subset is None for cluster in read()):
        return read
    from meshlib.balance.subset import chosen

    wanted = tuple(sorted({**policy.metadata_match, **dict(match)}.items()))
    return lambda: [chosen(cluster, wanted) for cluster in read()]


def with_timeout(policy: CallPolicy, timeout_s: float) -> CallPolicy:
    """The policy with another total timeout."""
    return replace(policy, timeout_s=timeout_s)
