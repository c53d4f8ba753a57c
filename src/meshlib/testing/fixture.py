"""MeshFixture: a mesh for tests. The same policies as in production, over services that live in the test."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from meshlib.adapters.httpx_library import Library
from meshlib.adapters.httpx_wire import AsyncStockTransport, StockTransport
from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.choose import read_settings
from meshlib.config.settings import MeshSettings, StaticSettings
from meshlib.discovery.registration import Registration
from meshlib.discovery.source import Instance as OwnInstance
from meshlib.durations import Duration, parse_duration
from meshlib.mesh import Mesh, MeshParts
from meshlib.testing.apps import as_app
from meshlib.testing.clock import SettableClock
from meshlib.testing.faults import Failure, Fault, FaultKind, check_failure
from meshlib.testing.outside import AsyncOutside, Hosts, Outside
from meshlib.testing.received import ReceivedRequest
from meshlib.testing.registration import InertRegistration
from meshlib.testing.replies import Reply, make_response
from meshlib.testing.services import Registry, Served, Which
from meshlib.testing.wire import AsyncFixtureWire, Loops, SyncFixtureWire

if TYPE_CHECKING:
    from meshlib.config.model import MeshConfig

__all__ = ["MeshFixture"]


class MeshFixture(Mesh):
    """A mesh for a test suite: no network, no threads, the same random numbers in each run, and time set by hand.

    Use it with ``with`` or ``async with``, or through the pytest fixture ``mesh``. It is configured as `Mesh` is, but
    without a configuration it takes the defaults and looks neither for a file nor at ``$MESHLIB_MODE`` and
    ``$MESHLIB_WIRE``. Discovery and endpoints of the configuration are replaced by what `serve` adds.

    Args:
        config: a path, a mapping, or a typed `meshlib.config.model.MeshConfig`; None for the defaults.
        seed: of all randomness.
        clock: one that several fixtures share; None for its own.
        network: let hosts that are neither services nor served be reached for real, or through respx and pytest-httpx.
        fields: the fields of the configuration, typed.

    Attributes:
        clock: the time: ``mesh.clock.advance("10s")``.

    Raises:
        ConfigError: if the configuration is wrong; it names every fault.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | MeshConfig | None = None,
        *,
        seed: int = 0,
        clock: SettableClock | None = None,
        network: bool = False,
        **fields: Any,
    ) -> None:
        plain = config is None and not fields
        settings = MeshSettings() if plain else read_settings(config, fields)
        self.clock = SettableClock() if clock is None else clock
        self._seed = seed
        self._rng = random.Random(seed)
        self._registry = Registry()
        self._published: set[str] = set()
        self._loops = Loops()
        self._declared = _declared(settings)
        sync_wire = SyncFixtureWire(self._registry, self.clock, self._loops)
        async_wire = AsyncFixtureWire(self._registry, self.clock)
        parts = MeshParts(self.clock, self._rng, sync_wire, async_wire, (), self._use, self._loops.beside)
        self._assemble(settings, parts)
        self._wires = sync_wire, async_wire
        self._network = network
        self._ways_outside: dict[Library, tuple[Outside, AsyncOutside]] = {}
        self._wiring.plane.outside = self._way_outside

    # Services

    def serve(
        self,
        service: str,
        app: Any,
        *,
        instances: int | None = None,
        metadata: Mapping[str, str] | None = None,
        weight: float | None = None,
        name: str | None = None,
        raise_errors: bool = True,
    ) -> Served:
        """Serve a service, or add instances to one that is served.

        Args:
            service: its logical name; or a host outside the mesh, such as ``api.example.com``.
            app: an ASGI application, a WSGI application, or a function of the request (a `ReceivedRequest`), sync or
                async, that returns an `httpx.Response`, a dict or list (JSON), text, bytes, a status, or
                ``(status, body)``. Anything of these that is no function is given as the answer to each request.
            instances: how many; 0 for a service that has none. By default one; or, where the configuration has
                endpoints for the service, one for each, with its weight and metadata.
            metadata: what subsets select by.
            weight: their share of calls relative to the others.
            name: of the instance; by default ``orders-0``, ``orders-1``, ...
            raise_errors: raise what the application raises at the caller, so that the test shows it. False answers 500,
                as a server would.

        Returns:
            A handle for these instances.

        Raises:
            TypeError: if `app` is none of these.
            ValueError: if the service has an instance of that name.
        """
        service = self._wiring.plane.locate(service, None) or service.lower()
        declared = self._declared.get(service, ())
        plain = instances is None and metadata is None and weight is None and name is None
        endpoints: list[Endpoint | None]
        if plain and declared and not self._registry.instances(service):
            endpoints = list(declared)
        else:
            endpoints = [None] * (1 if instances is None else instances)
        facts = {"metadata": dict(metadata or {}), "weight": 1.0 if weight is None else weight}
        added = self._registry.add(service, as_app(app), endpoints, name=name, raise_errors=raise_errors, **facts)
        self._publish(service)
        return Served(self, service, added)

    def calls(self, service: str | None = None, *, instance: Which = None) -> list[ReceivedRequest]:
        """The requests that arrived, in order: each attempt is one. What could not connect did not arrive.

        Args:
            service: to which; None for all.
            instance: to which of its instances: a number, a name, or what `serve` returned; None for all.

        Raises:
            LookupError: if there is no such service or instance.
        """
        if service is None:
            return list(self._registry.calls)
        service = self._name(service)
        if instance is None and service in self._wiring.settings.services:
            names = None
        else:
            names = {each.name for each in self._registry.pick(service, instance)}
        came = self._registry.calls
        return [call for call in came if call.service == service and (names is None or call.instance in names)]

    # Faults

    def fail_next(
        self,
        service: str,
        times: int | None = 1,
        *,
        status: int | None = None,
        error: Failure | None = None,
        body: Reply = "",
        retry_after: Duration | None = None,
        instance: Which = None,
    ) -> None:
        """Let the next attempts fail, without asking the application.

        Args:
            service: which.
            times: how many; None for all, until `reset`.
            status: what is answered; 503 if neither this nor `error` is given.
            error: how they fail instead, as a class or an object: `meshlib.ConnectFailed`, `meshlib.Reset`,
                `meshlib.AttemptTimeout`, ..., or the httpx error that it stands for. `meshlib.BodyBroken` lets the
                application answer, and cuts the body.
            body: of the answer: JSON, text or bytes.
            retry_after: asks the caller to come back then; rounded up to whole seconds, as HTTP has it.
            instance: which of its instances: a number, a name, or what `serve` returned; None for any.

        Raises:
            LookupError: if there is no such service or instance.
            TypeError: if both a status and an error are given, or an error that an attempt cannot end with.
        """
        if status is not None and error is not None:
            raise TypeError("give a status or an error, not both")
        response = None
        if error is None:
            headers = {} if retry_after is None else {"retry-after": str(math.ceil(parse_duration(retry_after)))}
            response = make_response((503 if status is None else status, body, headers))
        else:
            check_failure(error)
        self._add(service, instance, Fault(FaultKind.FAIL, None, times, response=response, error=error))

    def slow(self, service: str, by: Duration, *, times: int | None = None, instance: Which = None) -> None:
        """Let answers come later: ``mesh.slow("orders", "200ms")``. Nothing waits: the clock moves on. Where the caller
        gives up before, the application has done its work all the same.

        Args:
            service: which.
            by: how much; the newest holds, 0 ends it.
            times: how many attempts; None for all, until `reset`.
            instance: which of its instances; None for any.

        Raises:
            LookupError: if there is no such service or instance.
        """
        self._add(service, instance, Fault(FaultKind.SLOW, None, times, delay_s=parse_duration(by)))

    def hang(self, service: str, *, times: int | None = None, instance: Which = None) -> None:
        """Let attempts be accepted and never answered, until the caller's timeout.

        Args:
            service: which.
            times: how many attempts; None for all, until `reset`.
            instance: which of its instances; None for any.

        Raises:
            LookupError: if there is no such service or instance.
        """
        self._add(service, instance, Fault(FaultKind.HANG, None, times))

    def kill(self, service: str, *, instance: Which = None) -> None:
        """Let connections be refused. The instance stays in discovery, as a process that was just killed does.

        Args:
            service: which.
            instance: which of its instances; None for all.

        Raises:
            LookupError: if there is no such service or instance.
        """
        for each in self._registry.pick(self._name(service), instance):
            each.alive = False

    def revive(self, service: str, *, instance: Which = None) -> None:
        """Let connections be accepted again.

        Args:
            service: which.
            instance: which of its instances; None for all.

        Raises:
            LookupError: if there is no such service or instance.
        """
        for each in self._registry.pick(self._name(service), instance):
            each.alive = True

    def reset(self) -> None:
        """Start over: no faults, all instances alive, no calls recorded, nothing learned (ejections, circuits, budgets,
        latencies), random numbers from the seed. What is served and the time stay.
        """
        self._registry.forget()
        self._rng.seed(self._seed)
        for service in list(self._wiring.snapshots.current.services):
            self._wiring.snapshots.publish(service, None, Known.PENDING)
        self._published.clear()
        for service in self._registry.services:
            self._publish(service)

    def _add(self, service: str, which: Which, fault: Fault) -> None:
        service = self._name(service)
        picked = self._registry.pick(service, which)
        if which is not None:
            fault.instances = frozenset(instance.name for instance in picked)
        self._registry.faults(service).add(fault)

    def _name(self, service: str) -> str:
        return self._wiring.plane.locate(service, None) or service.lower()

    # In place of discovery

    def _use(self, service: str) -> None:
        if service not in self._published:
            self._publish(service)

    def _publish(self, service: str) -> None:
        self._published.add(service)
        served = service in self._registry.services
        endpoints = [instance.endpoint for instance in self._registry.instances(service)]
        detail = "" if served else f"{self._registry.described()}; mesh.serve({service!r}, ...) serves it"
        self._wiring.snapshots.publish(service, endpoints, Known.YES if served else Known.NO, detail)

    def _registration(self, instance: OwnInstance) -> Registration:
        return InertRegistration(instance)

    @property
    def registrations(self) -> list[Registration]:
        """What the code under test registered, in order; whether each holds is its `active`."""
        return list(self._registrations)

    # The way outside, which does not lead into the network

    def _way_outside(self, library: Library | Literal["requests", "aiohttp"]) -> Any:
        hosts, (sync_wire, async_wire) = Hosts(self._wiring.plane, self._registry), self._wires
        if library == "requests":
            from requests.adapters import HTTPAdapter

            from meshlib.testing.outside_requests import RequestsOutside

            return RequestsOutside(hosts, sync_wire, HTTPAdapter() if self._network else None)
        if library == "aiohttp":
            from meshlib.testing.outside_aiohttp import AiohttpOutside

            return AiohttpOutside(hosts, async_wire, network=self._network)
        ways = self._ways_outside.get(library)
        if ways is None:
            network = StockTransport(library) if self._network else None
            async_network = AsyncStockTransport(library) if self._network else None
            ways = (
                Outside(library, hosts, sync_wire, network),
                AsyncOutside(library, hosts, async_wire, async_network),
            )
            self._ways_outside[library] = ways
        return ways

    # Lifecycle

    async def ready(self, *services: str, timeout: Duration = "30s") -> None:
        """As `Mesh.ready`; the time to wait passes at once."""
        self.wait_ready(*services, timeout=timeout)

    def start(self) -> Self:
        """Begin: deadlines of `meshlib.timeout` and of the middleware go by this clock, until `close`."""
        self.clock.install()
        return super().start()

    def close(self) -> None:
        """End everything. Idempotent."""
        self.clock.uninstall()
        super().close()
        self._loops.close()
        for outside, _ in self._ways_outside.values():
            outside.close()

    async def aclose(self) -> None:
        """Do what `close` does, in an event loop."""
        for _, outside in self._ways_outside.values():
            await outside.aclose()
        self.close()


def _declared(settings: MeshSettings) -> dict[str, tuple[Endpoint, ...]]:
    """The endpoints that the configuration has."""
    static = (source for source in settings.discovery if isinstance(source, StaticSettings))
    return {service: endpoints for source in static for service, endpoints in source.services.items()}
