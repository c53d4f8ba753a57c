"""Mesh: puts the parts together, and their lifecycle.

Making a `Mesh` reads the configuration and nothing else: no thread is started and nothing is asked until the first call, or
`start`, `ready` or `register`. One `Mesh` serves threads and event loops at once, and a forked child.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from meshlib.adapters.clock import Clock, RealClock
from meshlib.adapters.exchange import make_destination
from meshlib.adapters.options import PolicyBlock
from meshlib.adapters.plan import Plan, make_plan
from meshlib.adapters.plane import DataPlane
from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.choose import MODES, choose_settings
from meshlib.config.settings import MeshSettings, Mode, RegisterSettings
from meshlib.config.snapshot import EndpointsWaiter, Snapshots
from meshlib.discovery.build import make_source
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.registration import Registration, find_registrar, make_instance
from meshlib.discovery.resolver import Resolution, ResolutionState
from meshlib.discovery.source import Source
from meshlib.discovery.watch import Directory
from meshlib.durations import Duration, parse_duration
from meshlib.errors import ConfigError, DeadlineExceeded
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import AsyncWire, SyncWire
from meshlib.status import MeshStatus, MeshView, make_status
from meshlib.telemetry import events
from meshlib.telemetry.bus import EventBus
from meshlib.telemetry.changes import Changes
from meshlib.telemetry.observer import Observer

if TYPE_CHECKING:
    import httpx

    from meshlib.config.model import MeshConfig, Retry

__all__ = ["Mesh", "MeshParts"]

T = TypeVar("T")
_HOUSEKEEPING_S = 1.0


@dataclass(frozen=True, slots=True)
class MeshParts:
    """Parts to use in place of the mesh's own, for tests and simulations.

    Attributes:
        clock: tells the time and waits.
        rng: the source of all randomness.
        sync_wire, async_wire: the last hop.
        sources: discovery, in the order in which it is asked; None for what the configuration says.
    """

    clock: Clock | None = None
    rng: random.Random | None = None
    sync_wire: SyncWire | None = None
    async_wire: AsyncWire | None = None
    sources: tuple[Source, ...] | None = None


class Mesh:
    """A service mesh for this process.

    Args:
        config: a path, a mapping as in a configuration file, or a typed `meshlib.config.model.MeshConfig`. Without it,
            and without `fields`: ``$MESHLIB_CONFIG``, else ``mesh.yaml`` (or ``.toml``, ``.json``) here, else defaults.
        parts: for tests.
        fields: the fields of the configuration, typed: ``service="checkout", services={"orders": Service(...)}``.

    Raises:
        ConfigError: if the configuration is wrong; it names every fault.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | MeshConfig | None = None,
        *,
        parts: MeshParts | None = None,
        **fields: Any,
    ) -> None:
        self._build(choose_settings(config, fields), parts or MeshParts())

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """A mesh configured by a YAML, TOML or JSON file.

        Raises:
            ConfigError: if the file is missing or wrong; it names every fault.
        """
        return cls(os.fspath(path))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """A mesh configured by a mapping of the same form as a file.

        Raises:
            ConfigError: if it is wrong; it names every fault.
        """
        return cls(dict(config))

    def _build(self, settings: MeshSettings, parts: MeshParts) -> None:
        clock = parts.clock or RealClock()
        self._settings = settings
        self._rng = parts.rng or random.Random()
        self._own_rng = parts.rng is None
        self._clock = clock
        self._closed = False
        self._keeping_house = False
        self._lock = threading.Lock()
        self._registrations: list[Registration] = []
        self._bus = EventBus(clock=clock.now)
        self._changes = Changes(self._bus, clock.now)
        self._control = ControlPlane()
        self._engine, self._async_engine = SyncEngine(), AsyncEngine()
        self._sources = parts.sources
        if self._sources is None:
            self._sources = tuple(make_source(each) for each in settings.discovery)
        self._directory = Directory(
            self._sources, self._control, self._publish, clock=clock.now, rng=parts.rng, on_event=self._discovered
        )
        self._snapshots = Snapshots(
            settings,
            now=clock.now,
            rng=self._rng,
            target_of=make_destination,
            on_ejection=self._changes.on_ejection,
            on_left=self._left,
        )
        observed = MeshView(self._snapshots, self._directory, self._engine, self._async_engine)
        self._view = observed
        self._observer = Observer(observed, changes=self._changes)
        sync_wire: SyncWire = parts.sync_wire or self._engine
        async_wire: AsyncWire = parts.async_wire or self._async_engine
        use = self._use
        if settings.wire == "stock" and parts.sync_wire is None:
            from meshlib.adapters.httpx_wire import stock_wires

            sync_wire, async_wire = stock_wires(clock.now)
            use = self._use_as_named
        self._plane = DataPlane(
            settings,
            self._snapshots,
            use=use,
            clock=clock,
            rng=self._rng,
            sync_wire=sync_wire,
            async_wire=async_wire,
            observer=self._observer,
        )
        _live.add(self)

    # Clients

    def client(self, service: str | None = None, **options: Any) -> httpx.Client:
        """An `httpx.Client` whose calls go through the mesh. Keep it for the life of the application, or make many: each
        is cheap, and connections belong to the mesh.

        Args:
            service: to which relative URLs go: ``mesh.client("orders").get("/orders/42")``; None for absolute URLs only.
            options: those of `httpx.Client`. ``timeout``: a number is the total of each call; the default is the
                configuration's. ``transport``: an `httpx.BaseTransport` to use as the wire beneath the mesh.

        Returns:
            The client.
        """
        from meshlib.adapters.httpx_clients import make_client

        return make_client(self._plane, service, options)

    def async_client(self, service: str | None = None, **options: Any) -> httpx.AsyncClient:
        """An `httpx.AsyncClient` whose calls go through the mesh; see `client`. It may be used by one event loop after
        another.
        """
        from meshlib.adapters.httpx_clients import make_async_client

        return make_async_client(self._plane, service, options)

    def transport(self, *, fallback: httpx.BaseTransport | None = None) -> httpx.BaseTransport:
        """A transport for an `httpx.Client` of one's own.

        Args:
            fallback: for hosts outside the mesh; None for a plain `httpx.HTTPTransport`.
        """
        from meshlib.adapters.httpx import MeshTransport

        return MeshTransport(self._plane, stock=fallback)

    def async_transport(self, *, fallback: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncBaseTransport:
        """A transport for an `httpx.AsyncClient` of one's own; see `transport`."""
        from meshlib.adapters.httpx import AsyncMeshTransport

        return AsyncMeshTransport(self._plane, stock=fallback)

    def attach(self, client: T) -> T:
        """Let the calls of an existing `httpx.Client` or `httpx.AsyncClient` go through the mesh; returns it.

        Raises:
            TypeError: if it is neither.
        """
        from meshlib.adapters.httpx import attach

        attach(self._plane, client)  # type: ignore[type-var]
        return client

    # Policy, planning, watching

    def policy(
        self, *, timeout: Duration | None = None, per_try_timeout: Duration | None = None, retry: Retry | None = None
    ) -> PolicyBlock:
        """Change the policy of every call made inside: ``with``, ``async with``, or a decorator, sync and async.

        Args:
            timeout: for each call as a whole.
            per_try_timeout: for each attempt.
            retry: fields that it sets replace the configuration's.

        Raises:
            ValueError: if a timeout is not a duration.
        """
        from meshlib.config.override import override_policy

        changes = {"timeout": timeout, "per_try_timeout": per_try_timeout, "retry": retry}
        return PolicyBlock(self._plane, lambda base: override_policy(base, **changes))  # type: ignore[arg-type]

    def plan(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Plan:
        """What would happen to a request, and why. No I/O; but a service that was never called has no endpoints yet.

        Args:
            method: of the request.
            url: absolute: ``http://orders/v2/x``.
            headers: of the request.

        Raises:
            ValueError: if `url` is not absolute.
        """
        return make_plan(self._plane, method, url, headers)

    async def ready(self, *services: str, timeout: Duration = "30s") -> None:
        """Wait until each of `services` (by default, each that the configuration names) has a healthy endpoint.

        Raises:
            DeadlineExceeded: if it takes longer than `timeout`; the message says what is missing.
        """
        await asyncio.to_thread(self.wait_ready, *services, timeout=timeout)

    def wait_ready(self, *services: str, timeout: Duration = "30s") -> None:
        """Do what `ready` does, in a thread."""
        deadline = self._clock.now() + parse_duration(timeout)
        for name in services or tuple(self._settings.services):
            while not self._is_ready(name):
                left = deadline - self._clock.now()
                if left <= 0:
                    view = self._snapshots.service(name)
                    detail = f": {view.detail}" if view.detail else ""
                    text = f"no healthy endpoint within {parse_duration(timeout):g}s (discovery: {view.known.value}{detail})"
                    raise DeadlineExceeded(text, service=name, limit="ready")
                # Endpoints may come, or turn healthy, by a change that no waiter is told of: look again soon.
                waiter, event = EndpointsWaiter(self._snapshots, (name,)), threading.Event()
                waiter.on_ready(event.set)
                event.wait(min(left, 0.05))
                waiter.leave()
                if event.is_set():
                    self._clock.sleep(min(left, 0.02))

    def _is_ready(self, name: str) -> bool:
        clusters = self._plane.service(name).clusters
        return bool(clusters[None].healthy)

    def on_event(self, function: Any) -> Any:
        """Have `function` called with each event (an ejection, an open circuit, stale discovery, ...), from whatever
        thread it happens in. Usable as a decorator; returns `function`.
        """
        self._bus.subscribe(function)
        return function

    def status(self) -> MeshStatus:
        """The state of everything, as plain data with a readable text."""
        return make_status(self._settings, self._plane, self._view)

    # Lifecycle

    @property
    def settings(self) -> MeshSettings:
        """The compiled configuration, with the mode of now."""
        return self._settings

    @property
    def mode(self) -> Mode:
        """``off``, ``observe`` or ``on``; assign to change it at once, for new calls."""
        return self._plane.mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self.set_mode(mode)

    def set_mode(self, mode: Mode, *, service: str | None = None) -> None:
        """Change the mode at once, for new calls: of the mesh, or of one service.

        Raises:
            ConfigError: if `mode` is none.
        """
        if mode not in MODES:
            raise ConfigError(f"mode is {mode!r}; it can be {', '.join(MODES)}")
        old = self._plane.mode if service is None else self._plane.mode_of(service)
        if service is not None:
            self._plane.service_modes[service] = mode
        else:
            self._settings = replace(self._settings, mode=mode)
            self._plane.mode = mode
        self._bus.emit(events.ModeChanged(service=service or "", old=old, new=mode))

    def register(
        self,
        port: int | None = None,
        *,
        service: str | None = None,
        host: str | None = None,
        weight: float = 1.0,
        metadata: Mapping[str, str] | None = None,
        check_path: str | None = None,
        check_interval: Duration = "5s",
    ) -> Registration:
        """Enter this process into the registry. Use the result with ``with`` or ``async with``, or `start` and `close` it.

        Args:
            port: where it serves; None for what the configuration says under ``register``.
            service: its name; None for the configuration's ``service``.
            host: the address that callers use; None for the one that reaches the registry.
            weight: its share of calls relative to the other instances'.
            metadata: what subsets select by.
            check_path: an HTTP path that is checked; None for a check of the TCP port.
            check_interval: between checks.

        Raises:
            ConfigError: if the name or the port is missing, or no source takes registrations.
        """
        if port is None:
            settings = self._settings.register
            if settings is None:
                raise ConfigError(
                    "to register, say on which port: mesh.register(port=8000), or `register:` in the file"
                )
        else:
            settings = RegisterSettings(
                port=port,
                service=service,
                host=host,
                weight=weight,
                metadata=dict(metadata or {}),
                check_path=check_path,
                check_interval_s=parse_duration(check_interval),
            )
        instance = make_instance(settings, self._settings.service)
        registration = Registration(self._control, find_registrar(self._sources), instance)
        self._registrations.append(registration)
        return registration

    def start(self) -> Self:
        """Begin to watch all services that the configuration names, rather than each at its first call."""
        for name in self._settings.services:
            self._plane.service(name)
        return self

    def close(self) -> None:
        """End everything: registrations, watches, connections. Calls made later raise `MeshClosed`. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = self._plane.closed = True
        for registration in self._registrations:
            registration.close()
        if self._control.started:
            self._directory.close()
        self._control.close()
        self._engine.close()
        self._async_engine.close()
        self._observer.close()
        _live.discard(self)

    async def aclose(self) -> None:
        """Do what `close` does, in an event loop."""
        await self._async_engine.aclose()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"mode {self._plane.mode}"
        name = self._settings.service or "unnamed"
        return f"<Mesh {name} [{state}, {len(self._snapshots.current.services)} services]>"

    # What the control plane tells

    def _publish(self, name: str, resolution: Resolution | None) -> None:
        if resolution is None:
            self._snapshots.publish(name, None, Known.PENDING)
            return
        self._snapshots.publish(name, resolution.endpoints, _KNOWN[resolution.state], resolution.error or "")

    def _use(self, name: str) -> None:
        """A service is needed: see that it is watched."""
        self._directory.use(name)
        if not self._keeping_house:
            self._keeping_house = True
            self._control.submit(self._keep_house)

    async def _keep_house(self) -> None:
        """What nobody waits for: idle connections are closed, and what changed without a call is told."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            now = self._clock.now()
            self._engine.reap(now)
            self._async_engine.reap(now)
            self._changes.look_at_all(self._view.clusters(), now)
            self._bus.flush()

    def _use_as_named(self, name: str) -> None:
        """With the stock wire a service is where its name says: the client's own transport finds it."""
        if not self._snapshots.service(name).clusters[None].members:
            self._snapshots.publish(name, [Endpoint(name, 80)], Known.YES)

    def _discovered(self, kind: str, service: str, detail: str) -> None:
        self._bus.emit(events.from_discovery(kind, service, detail))

    def _left(self, endpoint: Endpoint) -> None:
        self._engine.drain(endpoint.key)
        self._async_engine.drain(endpoint.key)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._keeping_house = False
        self._snapshots.renew_locks()
        self._bus.renew_lock()
        self._changes.renew_lock()
        self._observer.renew_lock()
        if self._own_rng:
            self._rng.seed()


_KNOWN = {
    ResolutionState.PENDING: Known.PENDING,
    ResolutionState.OK: Known.YES,
    ResolutionState.EMPTY: Known.YES,
    ResolutionState.STALE: Known.YES,
    ResolutionState.UNKNOWN: Known.NO,
    ResolutionState.UNWELL: Known.UNWELL,
}

_live: weakref.WeakSet[Mesh] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for mesh in list(_live):
        mesh._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
