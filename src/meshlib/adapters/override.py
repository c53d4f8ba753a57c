"""What an override makes of a call: its route with another backend.

The route that the service has for the request stays what it is (timeouts, retries, header edits, rewrite). Only where
it leads is replaced, as Finagle's Dtab replaces what a name is bound to and not the client's stack. An overridden call
is not mirrored: a developer's experiment is nothing to compare with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from meshlib.balance.cluster import Cluster, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.views import EndpointsWaiter
from meshlib.context import Override
from meshlib.dataclass import dataclass, replace
from meshlib.routing.override import address_of, permits
from meshlib.routing.override_settings import OverrideSettings
from meshlib.routing.route import Backend, Route

if TYPE_CHECKING:
    from meshlib.adapters.plane import DataPlane
    from meshlib.config.views import Configuration, ServiceView

__all__ = ["MAX_TARGETS", "Replacement", "Replacements", "is_over"]

MAX_TARGETS: Final = 64
"""How many replacements there may be at once in one process. Each is a service that is watched, and who sends requests
names them."""

FORGET_S: Final = 600.0
"""A replacement that nobody has asked for in this time makes room for another."""

_MAX_KEPT = 256


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """What takes the place of a route.

    Attributes:
        name: what the service was replaced by.
        route: where it leads instead.
        clusters: reads the clusters of its backends.
        endpoints_ready: gives what to wait on until discovery has answered for them.
        instead: the route that is replaced.
        under: the configuration that it belongs to.
    """

    name: str
    route: Route
    clusters: Callable[[], Sequence[Cluster]]
    endpoints_ready: Callable[[], EndpointsWaiter]
    instead: Route
    under: Configuration


class Replacements:
    """Replaces routes, and keeps what it made of them: calls of one kind share what they have in common.

    Attributes:
        counts: calls by service and outcome: ``replaced``; ``missing``, so that the service itself was called;
            ``refused``, by what this mesh allows. The numbers only grow.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._kept: dict[tuple[int, str], Replacement] = {}
        self._targets: dict[str, float] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def of(self, view: ServiceView, route: Route, override: Override) -> tuple[str | None, Replacement | None]:
        """What takes the place of a route for one call; nothing where the override does not concern it.

        Args:
            view: the service that is called.
            route: that it takes.
            override: of the work that the call is part of.

        Returns:
            What the record is to say, and the replacement.
        """
        settings = self._plane.settings.overrides
        if settings is None:
            return None, None
        for service, target in self._concerning(view, route, override):
            found = self._target(settings, service, target)
            if found is None or not self._makes_room(found):
                self._count(service, "refused")
                continue
            self._watch(found)
            cluster = self._plane.snapshots.service(found, view.state.under).clusters[None]
            if _is_missing(settings, cluster):
                self._count(service, "missing")
                return f"{target} (missing)", None
            self._count(service, "replaced")
            return target, self._replacement(settings, view, route, service, found)
        return None, None

    def look(self, view: ServiceView, route: Route, override: Override) -> tuple[str | None, Route]:
        """The same for a call that is not made: what the record would say, and the route. Changes nothing."""
        settings = self._plane.settings.overrides
        if settings is not None:
            for service, target in self._concerning(view, route, override):
                found = self._target(settings, service, target)
                if found is None:
                    continue
                if _is_missing(settings, self._plane.snapshots.look(found, view.state.under).clusters[None]):
                    return f"{target} (missing)", route
                return target, self._make(settings, view, route, service, found).route
        return None, route

    def _concerning(self, view: ServiceView, route: Route, override: Override) -> Iterator[tuple[str, str]]:
        """The pairs that are about a call, that about the service itself first."""
        if route.reply is not None or is_over(self._plane, override):
            return
        name = view.settings.name
        concerned = {name, *(backend.service for backend in route.backends)}
        for service, target in sorted(override.pairs, key=lambda pair: pair[0] != name):
            # A replacement that calls what it replaces means the real one: else it would call itself for ever.
            if service in concerned and target not in (service, self._plane.settings.service):
                yield service, target

    def _target(self, settings: OverrideSettings, service: str, target: str) -> str | None:
        """The service that stands for the target; None if it may not be called, or is none of the mesh."""
        if not permits(settings, service, target):
            return None
        return target if address_of(target) is not None else self._plane.locate(target, None)

    def _watch(self, name: str) -> None:
        plane, address = self._plane, address_of(name)
        if address is None:
            plane.service(name)
        elif not plane.snapshots.service(name).clusters[None].members:
            plane.snapshots.publish(name, (Endpoint(*address),), Known.YES)

    def _makes_room(self, name: str) -> bool:
        now = self._plane.clock.now()
        with self._lock:
            if name not in self._targets and len(self._targets) >= MAX_TARGETS:
                old = [each for each, at in self._targets.items() if not 0.0 <= now - at < FORGET_S]
                for each in old:
                    del self._targets[each]
                if not old:
                    return False
            self._targets[name] = now
            return True

    def _replacement(
        self, settings: OverrideSettings, view: ServiceView, route: Route, service: str, target: str
    ) -> Replacement:
        # What is kept holds the route, so its id stays its own.
        key = id(route), f"{service}={target}"
        kept = self._kept.get(key)
        if kept is not None and kept.instead is route and kept.under is view.state.under:
            return kept
        made = self._make(settings, view, route, service, target)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[key] = made
        return made

    def _make(
        self, settings: OverrideSettings, view: ServiceView, route: Route, service: str, target: str
    ) -> Replacement:
        plane, snapshots, under = self._plane, self._plane.snapshots, view.state.under
        if service == view.settings.name:
            real: tuple[Backend, ...] = (max(route.backends, key=lambda backend: backend.weight),)
            backends: tuple[Backend, ...] = (Backend(target),)
        else:
            real = route.backends
            backends = tuple(
                Backend(target, None, each.weight, each.request_edits, each.response_edits)
                if each.service == service
                else each
                for each in real
            )

        def look(backend: Backend) -> Cluster:
            return snapshots.service(backend.service, under).clusters[backend.subset]

        def clusters() -> Sequence[Cluster]:
            found = [look(backend) for backend in backends]
            for index, cluster in enumerate(found):
                if backends[index] is real[index] or cluster.members or cluster.known is Known.PENDING:
                    continue
                if settings.missing == "fallback":
                    found[index] = look(real[index])
                elif cluster.known is Known.NO:
                    # That nobody knows the replacement does not make the service one outside the mesh.
                    found[index] = Cluster(
                        cluster.state, (), plane.clock.now(), plane.rng, detail="an override names it"
                    )
            return found

        names = tuple({each.service for each in (*backends, *real)})
        return Replacement(
            target,
            replace(route, backends=backends, mirrors=()),
            clusters,
            lambda: EndpointsWaiter(snapshots, names, under),
            route,
            under,
        )

    def _count(self, service: str, outcome: str) -> None:
        with self._lock:
            key = service, outcome
            self._counts[key] = self._counts.get(key, 0) + 1

    def passed_on(self, override: Override) -> list[tuple[bytes, bytes]]:
        """The header by which an override travels on; none where it does not."""
        settings = self._plane.settings.overrides
        if settings is None or is_over(self._plane, override):
            return []
        return [(settings.header.encode("ascii"), override.text.encode("ascii"))]

    def read(self) -> dict[tuple[str, str], int]:
        """How many calls were overridden, by service and outcome."""
        with self._lock:
            return dict(self._counts)

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()


def _is_missing(settings: OverrideSettings, cluster: Cluster) -> bool:
    """Whether nobody serves the replacement, as far as is known, and the service itself is to be called then."""
    return settings.missing == "fallback" and not cluster.members and cluster.known is not Known.PENDING


def is_over(plane: DataPlane, override: Override) -> bool:
    """Whether the time of an override is up."""
    return override.expires_at is not None and override.expires_at <= plane.clock.wall()
