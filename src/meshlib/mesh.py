"""Mesh: puts the parts together, and their lifecycle.

Making a `Mesh` reads the configuration and nothing else: no thread is started and nothing is asked until the first
call, or `start`, `ready` or `register`. One `Mesh` serves threads and event loops at once, and a forked child. What a
first call does not need is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from meshlib.adapters.options import PolicyBlock
from meshlib.config.choose import MODES, reader_of, register_settings
from meshlib.config.settings import MeshSettings, Mode
from meshlib.discovery.living import living
from meshlib.durations import Duration, parse_duration
from meshlib.errors import ConfigError
from meshlib.wiring import MeshParts, Wiring

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.plan import Plan
    from meshlib.config.model import MeshConfig, Retry, Watch
    from meshlib.discovery.registration import Registration
    from meshlib.discovery.source import Instance
    from meshlib.propagation import Ignored
    from meshlib.server.lifecycle import Lifecycle
    from meshlib.server.serving import Serving
    from meshlib.status import MeshStatus
    from meshlib.telemetry.events import Event

__all__ = ["Mesh", "MeshParts"]

B = TypeVar("B")
T = TypeVar("T")
S = TypeVar("S", bound="Callable[[Event], object]")


class Mesh:
    """A service mesh for this process.

    Args:
        config: a path, a mapping as in a configuration file, or a typed `meshlib.config.model.MeshConfig`. Without it,
            and without `fields`: ``$MESHLIB_CONFIG``, else ``mesh.yaml`` (or ``.toml``, ``.json``) here, else defaults.
        parts: for tests.
        watch: whether to follow the files of the configuration, and read it again when they change; None for what it
            says itself (``watch:``), which is not to unless it does.
        fields: the fields of the configuration, typed: ``service="checkout", services={"orders": Service(...)}``.

    Raises:
        ConfigError: if the configuration is wrong; it names every fault.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | MeshConfig | None = None,
        *,
        parts: MeshParts | None = None,
        watch: bool | Watch | Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        if watch is not None and not isinstance(watch, bool):
            fields["watch"], watch = watch, None
        seen: set[str] = set()
        read = reader_of(config, fields)
        self._assemble(read(seen), parts or MeshParts())
        self._wiring.reloading.read_by(read, seen, watch)

    def _assemble(self, settings: MeshSettings, parts: MeshParts) -> None:
        self._wiring = Wiring(settings, parts)
        self._registrations: list[Registration] = []
        self._callee: dict[str, Any] = {}  # of two threads that make the same, both get one
        living.add(self)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, watch: bool | None = None) -> Self:
        """A mesh configured by a YAML, TOML or JSON file.

        Args:
            path: of the file.
            watch: whether to follow it; see `Mesh`.

        Raises:
            ConfigError: if the file is missing or wrong; it names every fault.
        """
        return cls(os.fspath(path)) if watch is None else cls(os.fspath(path), watch=watch)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """A mesh configured by a mapping of the same form as a file.

        Raises:
            ConfigError: if it is wrong; it names every fault.
            TypeError: if it is the path of a file.
        """
        if isinstance(config, (str, os.PathLike)):
            raise TypeError(f"a map is expected, not {config!r}; Mesh.from_file() reads a file")
        return cls(dict(config))

    # Clients

    def client(self, service: str | None = None, **options: Any) -> httpx.Client:
        """An `httpx.Client` whose calls go through the mesh.

        Keep it for the life of the application, or make many: each is cheap, and connections belong to the mesh.

        Args:
            service: to which relative URLs go, as in ``mesh.client("orders").get("/orders/42")``; None for none.
            options: those of `httpx.Client`. ``timeout``: a number is the total of each call; the default is the
                configuration's. ``transport``: an `httpx.BaseTransport` to use as the wire beneath the mesh. Those of
                connections (``verify``, ``cert``, ``http2``, ``limits``) hold for hosts outside the mesh; of a service
                ``tls``, ``http2`` and ``pool`` in the configuration take their place.

        Returns:
            The client.

        Raises:
            ValueError: if `service` cannot be a name.
        """
        from meshlib.adapters.httpx import MeshClient
        from meshlib.adapters.httpx_clients import make_client

        return make_client(MeshClient, self._wiring.plane, service, options)

    def async_client(self, service: str | None = None, **options: Any) -> httpx.AsyncClient:
        """An `httpx.AsyncClient` whose calls go through the mesh; see `client`. It may be used by one event loop after
        another.
        """
        from meshlib.adapters.httpx import AsyncMeshClient
        from meshlib.adapters.httpx_clients import make_client

        return make_client(AsyncMeshClient, self._wiring.plane, service, options)

    def transport(self, *, fallback: httpx.BaseTransport | None = None) -> httpx.BaseTransport:
        """A transport for an `httpx.Client` of one's own.

        Args:
            fallback: for hosts outside the mesh; None for a plain `httpx.HTTPTransport`.
        """
        from meshlib.adapters.httpx import MeshTransport

        return MeshTransport(self._wiring.plane, stock=fallback)

    def async_transport(self, *, fallback: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncBaseTransport:
        """A transport for an `httpx.AsyncClient` of one's own; see `transport`."""
        from meshlib.adapters.httpx import AsyncMeshTransport

        return AsyncMeshTransport(self._wiring.plane, stock=fallback)

    def attach(self, client: T) -> T:
        """Let the calls of an existing client or session of httpx, httpx2, requests or aiohttp go through the mesh;
        returns it.

        Raises:
            TypeError: if it is no client of a library that the mesh knows.
        """
        from meshlib.adapters.attach import attach

        return attach(self._wiring.plane, client)

    def bind(
        self,
        shape: Callable[..., B],
        service: str,
        *,
        prefix: str = "",
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
        timeout: Duration | None = None,
        follow_redirects: bool = False,
    ) -> B:
        """An object of a class whose methods are declared as calls; see `meshlib.adapters.declarative`.

        Make it once, and keep it: it may be used by all threads and event loops.

        Args:
            shape: the class: a Protocol, an abstract class, or any other; of a generic one, ``Crud[Order]``.
            service: that is called.
            prefix: of all paths: ``/v2``.
            headers: that each call has.
            auth: of httpx.
            timeout: of each call as a whole; None for the configuration's.
            follow_redirects: whether redirects are followed.

        Raises:
            TypeError, ValueError: if a call cannot be made of a method; the message names class, method and parameter.
        """
        from meshlib.adapters.declarative.binding import Clients, bind

        options: dict[str, Any] = {"headers": headers, "auth": auth, "follow_redirects": follow_redirects}
        if timeout is not None:
            options["timeout"] = parse_duration(timeout)
        made: B = bind(shape, Clients(self.client, self.async_client, service, prefix, options))
        return made

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
            TypeError: if `retry` is no `Retry`.
        """
        from meshlib.config.override import override_policy

        override = override_policy(timeout=timeout, per_try_timeout=per_try_timeout, retry=retry)
        return PolicyBlock(self._wiring.plane, override)

    def plan(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Plan:
        """What would happen to a request, and why. No I/O; but a service that was never called has no endpoints yet.

        Args:
            method: of the request.
            url: absolute: ``http://orders/v2/x``.
            headers: of the request.

        Raises:
            ValueError: if `url` is not absolute.
            TypeError: if what is given is no method, no URL or no headers.
        """
        from meshlib.adapters.plan import make_plan

        return make_plan(self._wiring.plane, method, url, headers)

    async def ready(self, *services: str, timeout: Duration = "30s") -> None:
        """Wait until each of `services` (by default, each that the configuration names) has a healthy endpoint, or who
        its routes lead to.

        Raises:
            DeadlineExceeded: if it takes longer than `timeout`; the message says what is missing.
            ValueError: if `timeout` is not a duration.
            TypeError: if one of `services` is no name.
        """
        import asyncio

        await asyncio.to_thread(self.wait_ready, *services, timeout=timeout)

    def wait_ready(self, *services: str, timeout: Duration = "30s") -> None:
        """Do what `ready` does, in a thread."""
        from meshlib.adapters.readiness import wait_until_ready

        wait_until_ready(self._wiring.plane, services or tuple(self._wiring.settings.services), parse_duration(timeout))

    def on_event(self, function: S) -> S:
        """Have `function` called with each event: an ejection, an open circuit, stale discovery, a change of mode, ...

        It is called in whatever thread the event happens, and must not block. Usable as a decorator.

        Raises:
            TypeError: if it is no function, or an async one, which nobody would await.
        """
        self._wiring.bus.subscribe(function)
        return function

    def status(self) -> MeshStatus:
        """The state of everything, as plain data with a readable text."""
        from meshlib.status import make_status

        return make_status(self._wiring.settings, self._wiring.plane, self._wiring.view, self._registrations)

    @property
    def serving(self) -> Serving:
        """What this process serves: the requests in flight and how they ended, for all middlewares of this mesh."""
        serving: Serving | None = self._callee.get("serving")
        if serving is None:
            from meshlib.server.serving import Serving

            made = Serving(self, tell=self._wiring.bus.emit, look_for_meter=self._wiring.look_for_meter)
            serving = self._wiring.view.requests = self._callee.setdefault("serving", made)
        return serving

    @property
    def lifecycle(self) -> Lifecycle:
        """How this process comes and goes: in the registry while its port answers, and drained before it ends."""
        lifecycle: Lifecycle | None = self._callee.get("lifecycle")
        if lifecycle is None:
            from meshlib.server.lifecycle import Lifecycle

            wiring, entries = self._wiring, self._registrations
            made = Lifecycle(self.serving, wiring.control, wiring.bus.emit, self._register_as_written, entries)
            lifecycle = self._callee.setdefault("lifecycle", made)
        return lifecycle

    def report_ignored(self, counts: Ignored) -> None:
        """Have telemetry report what a middleware of this mesh leaves out of incoming headers; the middleware asks."""
        self._wiring.view.served.append(counts)

    # Lifecycle

    @property
    def settings(self) -> MeshSettings:
        """The compiled configuration, with the mode of now."""
        return self._wiring.settings

    @property
    def mode(self) -> Mode:
        """``off``, ``observe`` or ``on``; assign to change it at once, for new calls."""
        return self._wiring.plane.mode

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
        self._wiring.set_mode(mode, service)

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
        """Enter this process into the registry: use the result with ``with`` or ``async with``, or `start` it.

        Args:
            port: where it serves; None for what the configuration says under ``register``.
            service: its name; None for the configuration's ``service``.
            host: the address that callers use; None for the one that reaches the registry.
            weight: its share of calls relative to the other instances'.
            metadata: what subsets select by.
            check_path: an HTTP path that is checked; None for a check of the TCP port.
            check_interval: between checks.

        Raises:
            ConfigError: if the name or the port is missing, a value is wrong, or no source takes registrations.
        """
        from meshlib.discovery.registration import make_instance

        if port is None:
            settings = self._wiring.settings.register
            if settings is None:
                raise ConfigError(
                    "to register, say on which port: mesh.register(port=8000), or `register:` in the file"
                )
        else:
            settings = register_settings(
                port=port,
                service=service or self._wiring.settings.service or None,
                host=host,
                weight=weight,
                metadata=dict(metadata or {}),
                check_path=check_path,
                check_interval=check_interval,
            )
        registration = self._registration(make_instance(settings, self._wiring.settings.service))
        self._registrations.append(registration)
        return registration

    def _register_as_written(self) -> Registration | None:
        return None if self._wiring.settings.register is None else self.register()

    def _registration(self, instance: Instance) -> Registration:
        from meshlib.discovery.registration import Registration, find_registrar

        registrar = find_registrar(self._wiring.sources)
        self._wiring.held += [source for source in self._wiring.sources if id(source) == id(registrar)]
        return Registration(self._wiring.control, registrar, instance, tell=self._wiring.bus.emit)

    def reload(self, config: str | os.PathLike[str] | Mapping[str, Any] | MeshConfig | None = None) -> tuple[str, ...]:
        """Read the configuration again, its files and the environment's variables, and go by it.

        New calls go by it at once; those under way end with what they began with. The state of what has not changed
        (loads, ejections, circuits, budgets, connections) goes on.

        Args:
            config: take this one instead, now and at later times; None for that which the mesh was made with.

        Returns:
            What is different, a sentence each; empty if nothing is.

        Raises:
            ConfigError: if it is wrong, or changes what cannot be changed in a mesh that runs; it names every fault,
                and the configuration before it stays in force.
            MeshClosed: if the mesh was closed.
        """
        return self._wiring.reloading.reload(None if config is None else reader_of(config, {}))

    async def areload(
        self, config: str | os.PathLike[str] | Mapping[str, Any] | MeshConfig | None = None
    ) -> tuple[str, ...]:
        """Do what `reload` does, in an event loop, which goes on meanwhile."""
        import asyncio

        return await asyncio.to_thread(self.reload, config)

    def start(self) -> Self:
        """Begin to watch all services that the configuration names, rather than each at its first call."""
        self._wiring.start()
        return self

    def close(self) -> None:
        """End everything: registrations, watches, connections. Calls made later raise `MeshClosed`. Idempotent."""
        living.discard(self)
        for registration in self._registrations:
            registration.close()
        self._wiring.close()

    async def aclose(self) -> None:
        """Do what `close` does, in an event loop."""
        import asyncio

        await self._wiring.aclose_here()
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
        state = "closed" if self._wiring.closed else f"mode {self._wiring.plane.mode}"
        settings = self._wiring.settings
        services = len({*settings.services, *self._wiring.snapshots.current.services})
        return f"<Mesh {settings.service or 'unnamed'} [{state}, {services} service{'s' * (services != 1)}]>"
