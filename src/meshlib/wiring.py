"""The parts of one mesh, wired together. `meshlib.mesh.Mesh` is their public face."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.adapters.clock import Clock, RealClock
from meshlib.adapters.exchange import Caps, Destination, make_destination
from meshlib.adapters.load_probe import LoadFollower
from meshlib.adapters.plane import DataPlane
from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.nearest import nearest_of
from meshlib.config.settings import MeshSettings, Mode
from meshlib.config.snapshot import Snapshots
from meshlib.dataclass import dataclass
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.resolver import Resolution, ResolutionState
from meshlib.discovery.source import Source
from meshlib.discovery.static import StaticSource
from meshlib.discovery.watch import Directory
from meshlib.net.connect import connect_async, connect_steps, connect_sync
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import AsyncWire, SyncWire
from meshlib.reloading import Laid, Reloading, fleet_of, written_endpoints
from meshlib.status import MeshView
from meshlib.telemetry import events
from meshlib.telemetry.bus import EventBus
from meshlib.telemetry.changes import Changes
from meshlib.telemetry.observer import Observer

if TYPE_CHECKING:
    from meshlib.adapters.httpx_wire import MirrorStockWire
    from meshlib.adapters.mirror import Mirrors
    from meshlib.balance.balancer import Member
    from meshlib.discovery.health_checks import HealthChecks
    from meshlib.net.async_engine import AsyncEngine
    from meshlib.net.framing import Framing
    from meshlib.net.health_probe import HealthProbe
    from meshlib.policy.health_check import HealthCheckSettings

__all__ = ["MeshParts", "Wiring"]

_log = logging.getLogger("meshlib")
_HOUSEKEEPING_S = 1.0
_MOMENT_S = 50e-6

_KNOWN = {
    ResolutionState.PENDING: Known.PENDING,
    ResolutionState.OK: Known.YES,
    ResolutionState.EMPTY: Known.YES,
    ResolutionState.STALE: Known.YES,
    ResolutionState.UNKNOWN: Known.NO,
    ResolutionState.UNWELL: Known.UNWELL,
}


@dataclass(frozen=True, slots=True)
class MeshParts:
    """Parts to use in place of the mesh's own, for tests and simulations.

    Attributes:
        clock: tells the time and waits.
        rng: the source of all randomness.
        sync_wire, async_wire: the last hop.
        sources: discovery, in the order in which it is asked; None for what the configuration says.
        background: runs what calls leave behind (copies for mirrors); None for the control plane.
        use: called with the name of a service when a call needs it; None to have the control plane watch it.
    """

    clock: Clock | None = None
    rng: random.Random | None = None
    sync_wire: SyncWire | None = None
    async_wire: AsyncWire | None = None
    sources: tuple[Source, ...] | None = None
    use: Callable[[str], None] | None = None
    background: Callable[[Callable[[], Coroutine[Any, Any, None]]], object] | None = None


class Wiring:
    """The parts of one mesh.

    Attributes:
        settings: compiled; replaced when they change.
        plane: what makes calls.
        snapshots: what a call reads.
        control: where watches and registrations run.
        sources: discovery, in the order in which it is asked.
        directory: which endpoints discovery finds.
        fleet: what clusters share with other processes; None for nothing.
        held: those of them that registrations use.
        reloading: changes the settings.
        bus: hands events on.
        view: what telemetry and the status read.
        look_for_meter: has telemetry read on collection, for who makes no calls.
        engines: connections; those of event loops from the first of their calls on.
        closed: whether the mesh was closed.
        eager: whether all services that the configuration names are watched, called or not.
    """

    def __init__(self, settings: MeshSettings, parts: MeshParts) -> None:
        clock = parts.clock or RealClock()
        rng = parts.rng or random.Random()
        self.settings = settings
        self.closed = False
        self.eager = False
        self.clock = clock
        self._mirrors: Mirrors | None = None
        self._own_rng = rng if parts.rng is None else None
        self._keeping_house = False
        self._lock = threading.Lock()
        self.control = ControlPlane()
        self._background = parts.background or self.control.submit
        # A slow subscriber delays the control loop rather than the call that an event happens in.
        self.bus = EventBus(clock=clock.now, deliver=self.control.call_soon)
        self._changes = Changes(self.bus, clock.now)
        framing = _framing(settings)
        engine = SyncEngine(
            connect=partial(connect_sync, framing=framing), connect_steps=partial(connect_steps, framing=framing)
        )
        self.engines: list[SyncEngine | AsyncEngine] = [engine]
        self._async_engine: AsyncEngine | None = None
        # Who brings sources, endpoints or a wire of his own has no use for what is written of them.
        own_endpoints = parts.sources is None and parts.use is None
        self.reloading = Reloading(self, settings, parts.sources is None, own_endpoints, fleet=parts.sync_wire is None)
        self.sources = self.reloading.sources_of(settings) if parts.sources is None else parts.sources
        self.held: list[Source] = []
        self.directory = Directory(
            self.sources, self.control, self._publish, clock=clock.now, rng=parts.rng, on_event=self._discovered
        )
        # Who brings a wire of his own (a test, a simulation) wants no network.
        self._own_wire = parts.sync_wire is None
        self.fleet = None if parts.sync_wire is not None else fleet_of(settings, self.fleet_changed)
        self.snapshots = Snapshots(
            settings,
            now=clock.now,
            rng=rng,
            target_of=partial(make_destination, caps=Caps()),
            known=written_endpoints(settings) if own_endpoints else {},
            on_ejection=self._changes.on_ejection,
            on_left=self.drain,
            soon=self.soon,
            later=self.later,
            pause=_let_others_run,
            fleet=self.fleet,
        )
        self.view = MeshView(self.snapshots, self.directory, self.engines)
        self._observer = Observer(self.view, changes=self._changes)
        self.look_for_meter = self._observer.look_for_meter
        self._rng = rng
        self._checks: HealthChecks | None = None
        sync_wire: SyncWire = parts.sync_wire or engine
        async_wire = parts.async_wire
        use = parts.use or self._use
        self._mirror_stock: MirrorStockWire | None = None
        stock = settings.wire == "stock" and parts.sync_wire is None
        if stock:
            use = self._use_as_named
        self.plane = DataPlane(
            settings,
            self.snapshots,
            use=use,
            clock=clock,
            rng=rng,
            sync_wire=sync_wire,
            async_wire=self._open_async_engine if async_wire is None else lambda: async_wire,
            observer=self._observer,
        )
        self.plane.mirrors = self._open_mirrors
        self._loads = LoadFollower(self.plane, self.control, self._changes.on_load)
        self.plane.stock = {} if stock else None
        self.view.copied, self.view.replaced = self._copied, self.plane.replaced
        _live.add(self)

    def set_mode(self, mode: Mode, service: str | None) -> None:
        """Change the mode of the mesh, or of one service, for new calls."""
        old = self.plane.mode if service is None else self.plane.mode_of(service)
        if service is None:
            self.reloading.set_mode(mode)
        else:
            self._warn_of_stranger(service, mode)
            self.plane.service_modes[service] = mode
        self.bus.emit(events.ModeChanged(service=service or "", old=old, new=mode))

    def _warn_of_stranger(self, service: str, mode: Mode) -> None:
        """A mode for a name that nobody uses is most likely a slip, and a kill switch that does nothing must say so."""
        names = [*self.settings.services, *self.snapshots.current.services]
        if service not in names:
            hint = nearest_of(service, names)
            _log.warning("mode %s for %r, which is neither configured nor in use%s", mode, service, hint)

    def configure_service(self, name: str, settings: Laid | None) -> None:
        """Lay what a control plane says of a service over what is written of it; None takes it away.

        It takes effect for new calls, and stays over a reload. Where it depends on what is written, it is a function of
        that, called anew at each reload. `Reloading.configure_services` does so for several services at once.

        Raises:
            ConfigError: if a route of it leads to a subset that is not there; then nothing changes.
            MeshClosed: if the mesh was closed.
        """
        self.reloading.configure_services({name: settings})

    def start(self) -> None:
        """Begin to watch all services that the configuration names, now and after each change of it."""
        self.eager = True
        self.reloading.follow()
        for name in self.settings.services:
            self.plane.service(name)

    def follow_checks(self) -> None:
        """Check the endpoints of all services as their settings say by now. On the control thread."""
        for view in self.snapshots.current.services.values():
            if self._checks is not None or view.settings.clusters[None].health_check is not None:
                self._health_checks().follow(view)

    def close(self) -> None:
        """End watches and connections. Idempotent."""
        with self._lock:
            if self.closed:
                return
            self.closed = self.plane.closed = True
        self.snapshots.wake_all()
        if self._checks is not None and self.control.started:
            self.soon(self._checks.close)
        if self.control.started:
            self.directory.close()
        if self._mirror_stock is not None:
            with suppress(Exception):  # it is closed by the loop's end, if not by itself
                self.control.run_sync(self._mirror_stock.aclose, 1.0)
        self.control.close()
        if self._mirrors is not None:
            self._mirrors.close()
        if self.fleet is not None:
            self.fleet.close()
        for engine in self.engines:
            engine.close()
        for sync_wire, _ in (self.plane.stock or {}).values():
            sync_wire.close()
        self._observer.close()
        _live.discard(self)

    async def aclose_here(self) -> None:
        """Close the connections of the running event loop."""
        if self._async_engine is not None:
            await self._async_engine.aclose()
        for _, async_wire in (self.plane.stock or {}).values():
            await async_wire.aclose()

    # What the control plane tells

    def _publish(self, name: str, resolution: Resolution | None) -> None:
        if resolution is None:
            self.snapshots.publish(name, None, Known.PENDING)
            if self._checks is not None:
                self._checks.forget(name)
            return
        known = _KNOWN[resolution.state]
        sources = ", ".join(source.name for source in self.sources) or "nobody"
        asked = f"asked: {sources}{nearest_of(name, self.settings.services)}" if known is Known.NO else ""
        written = resolution.source == StaticSource.name
        self.snapshots.publish(name, resolution.endpoints, known, resolution.error or asked, written=written)
        self._use_callers()
        view = self.snapshots.current.services.get(name)
        if view is not None and view.settings.clusters[None].health_check is not None:
            self._health_checks().follow(view)

    def _health_checks(self) -> HealthChecks:
        """The active checks, from the first service on that has any. On the control thread."""
        if self._checks is None:
            from meshlib.discovery.health_checks import HealthChecks

            tell, now = self._changes.on_check, self.clock.now
            self._checks = HealthChecks(self.control, self._probe_of, clock=now, rng=self._rng, tell=tell)
        return self._checks

    def _probe_of(self, service: str, member: Member, settings: HealthCheckSettings) -> HealthProbe:
        from meshlib.net.health_probe import HealthProbe

        destination = member.target
        assert isinstance(destination, Destination)
        host = destination.host or service.encode("latin-1", "replace")
        return HealthProbe(destination.target, settings, host, _framing(self.settings))

    def soon(self, work: Callable[[], None]) -> None:
        try:
            self.control.call_soon(work)
        except RuntimeError:  # the control thread does not run: nobody watches anything, so nobody waits long
            work()

    def later(self, delay_s: float, work: Callable[[], None]) -> None:
        if self.control.started:
            self.control.call_later(delay_s, work)
        else:
            work()

    def fleet_changed(self, well: bool, detail: str) -> None:
        self.bus.emit(events.FleetWell() if well else events.FleetUnwell(detail=detail))

    def _discovered(self, kind: str, service: str, detail: str) -> None:
        self.bus.emit(events.from_discovery(kind, service, detail))

    def drain(self, endpoint: Endpoint) -> None:
        """Close the connections to an endpoint that has left; busy ones when they are done."""
        for engine in self.engines:
            engine.drain(endpoint.key)

    # What calls ask for

    def _open_async_engine(self) -> AsyncEngine:
        # Loaded here, not above: a program of threads alone has no use for it.
        from meshlib.net.async_engine import AsyncEngine

        with self._lock:
            if self._async_engine is None:
                self._async_engine = AsyncEngine(connect=partial(connect_async, framing=_framing(self.settings)))
                self.engines.append(self._async_engine)
                if self.closed:
                    self._async_engine.close()
            return self._async_engine

    def _open_mirrors(self) -> Mirrors:
        # Loaded here, not above: few routes have mirrors.
        from meshlib.adapters.mirror import Mirrors

        with self._lock:
            if self._mirrors is None:
                self._mirrors = Mirrors(self.plane, run=self._background, wire=self._mirror_wire)
                if self.closed:
                    self._mirrors.close()
            return self._mirrors

    def _copied(self) -> Mapping[tuple[str, str], int]:
        return {} if self._mirrors is None else self._mirrors.counts.read()

    def _mirror_wire(self) -> AsyncWire:
        """The last hop of copies, which go where the mesh says and not where the caller's URL does."""
        if self.plane.stock is None:
            return self.plane.async_wire
        if self._mirror_stock is None:
            from importlib import import_module

            from meshlib.adapters.httpx_wire import MirrorStockWire

            name = "httpx2" if "httpx2" in self.plane.stock and "httpx" not in self.plane.stock else "httpx"
            self._mirror_stock = MirrorStockWire(import_module(f"meshlib.adapters.{name}").LIBRARY, self.clock.now)
        return self._mirror_stock

    def _use(self, name: str) -> None:
        """See that a service is watched."""
        self.directory.use(name)
        if not self._keeping_house:
            self._keeping_house = True
            self.reloading.follow()
            self.control.call_every(_HOUSEKEEPING_S, self._keep_house)
            if self._own_wire and self.settings.sidecar == "warn" and os.environ.get("KUBERNETES_SERVICE_HOST"):
                self.control.submit(self._look_for_sidecar)  # of a pod; elsewhere what looks is not even loaded

    async def _look_for_sidecar(self) -> None:
        from meshlib.discovery.sidecar import until, wait_for_sidecar

        if (found := await wait_for_sidecar()) is not None:
            self.view.sidecar = found.proxy
            await until(lambda: self.plane.mode == "on")  # in another mode nothing is done twice
            self.bus.emit(events.SidecarFound(proxy=found.proxy, evidence=found.evidence))

    def _use_callers(self) -> None:
        """See that services are watched whose endpoints say where the callers of others are."""
        for view in self.snapshots.current.services.values():
            for name in view.settings.callers | view.settings.standbys:
                self.directory.use(name)

    def _use_as_named(self, name: str) -> None:
        """With the stock wire a service is where its name says: the client's own transport finds it."""
        if not self._keeping_house:
            self._keeping_house = True
            self.reloading.follow()
        if not self.snapshots.service(name).clusters[None].members:
            self.snapshots.publish(name, [Endpoint(name, 80)], Known.YES)

    def _keep_house(self) -> None:
        """What nobody waits for: idle connections are closed, and what changed without a call is told."""
        now = self.clock.now()
        for engine in self.engines:
            engine.reap(now)
        self.plane.settle()
        for cluster in self.view.clusters():
            if cluster.state.outlier is not None:
                cluster.state.outlier.sweep(now)
        if self._checks is not None:
            self._checks.look()
        self._loads.look()
        self._use_callers()
        self._changes.look_at_all(self.view.clusters(), now)
        self.bus.flush()

    def after_fork(self) -> None:
        """In the child: what threads of the parent held or did is not ours."""
        self._keeping_house = False
        self._lock = threading.Lock()
        if self._own_rng is not None:
            self._own_rng.seed()  # before the balancers draw their starting points again
        self.snapshots.renew_locks()
        settings = self.snapshots.current.settings
        if self.plane.settings is not settings:  # in the middle of a change
            self.plane.configure(settings)
            self.settings = settings
        self.reloading.after_fork()
        self.bus.renew_lock()
        self._changes.renew_lock()
        self._observer.renew_lock()
        self.plane.renew_locks()
        if self._mirrors is not None:
            self._mirrors.after_fork()


def _let_others_run() -> None:
    """For a moment: calls that wait for the interpreter get it now, and not only when it is taken from this thread."""
    time.sleep(_MOMENT_S)


def _framing(settings: MeshSettings) -> Callable[[], Framing] | None:
    """What parses HTTP/1.1; None for the default."""
    if settings.wire != "h11":
        return None
    from meshlib.net.http1_h11 import H11Framing

    return H11Framing


_live: weakref.WeakSet[Wiring] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for wiring in list(_live):
        wiring.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
