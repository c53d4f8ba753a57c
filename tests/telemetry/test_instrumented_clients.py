"""One CLIENT span per attempt with every client, whatever instrumentation lies around the mesh or beneath it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import httpx2
import pytest
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from meshlib import Mesh
from meshlib.adapters import httpx2 as meshed_httpx2
from tests.adapters.support import Origin, address, ok
from tests.clients.driving import DRIVERS, Answer, ByHttpx, Driver
from tests.net.wire_servers import RawServer, serving
from tests.telemetry.conftest import Sdk

BUSY = ok(b"busy", "503 Busy")


@contextmanager
def instrumented(sdk: Sdk, *instrumentors: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for instrumentor in instrumentors:
            instrumentor.instrument(tracer_provider=sdk.tracers, meter_provider=sdk.meters)
            stack.callback(instrumentor.uninstrument)
        yield


@pytest.fixture(scope="module")
def orders() -> Iterator[RawServer]:
    origin = Origin(lambda seen, number: BUSY if seen.header("x-envoy-attempt-count") == "1" else ok(b"fine"))
    with serving(origin) as server:
        yield server


def call(sdk: Sdk, driver: Driver, orders: RawServer, wire: str) -> list[ReadableSpan]:
    """The CLIENT spans of a call with two attempts."""
    at = address(orders)
    service = {"endpoints": [at], "hosts": [at], "retry": {"backoff": {"base": "1ms", "max": "1ms"}}}
    mesh = Mesh({"discovery": [], "wire": wire, "services": {"orders": service}})
    mesh._wiring.plane.observer = sdk.observer()
    url = f"http://{at}/orders/42"

    async def acall() -> Answer:
        async with mesh:
            return await driver.acall(mesh, "GET", url)

    if driver.is_async:
        answer = asyncio.run(acall())
    else:
        with mesh:
            answer = driver.call(mesh, "GET", url)
    assert (answer.status, [each.status for each in answer.record.attempts]) == (200, [503, 200])
    return [span for span in sdk.spans() if span.kind is SpanKind.CLIENT]


def scopes(spans: list[ReadableSpan]) -> list[str]:
    return [span.instrumentation_scope.name for span in spans if span.instrumentation_scope is not None]


BENEATH: dict[str, Callable[[], Any]] = {"httpx": HTTPXClientInstrumentor, "httpx2": HTTPX2ClientInstrumentor}


@pytest.mark.parametrize("wire", ["native", "stock"])
@pytest.mark.parametrize("name", ["httpx", "httpx async", "httpx2", "httpx2 async"])
def test_what_traces_all_transports_of_a_library_adds_no_span(
    name: str, wire: str, sdk: Sdk, orders: RawServer
) -> None:
    with instrumented(sdk, BENEATH[name.split()[0]]()):
        spans = call(sdk, DRIVERS[name], orders, wire)
    assert scopes(spans) == ["meshlib"] * 2


@pytest.mark.parametrize("wire", ["native", "stock"])
@pytest.mark.parametrize("name", ["requests", "requests mounted", "requests attached"])
def test_the_span_of_requests_is_the_only_one(name: str, wire: str, sdk: Sdk, orders: RawServer) -> None:
    with instrumented(sdk, RequestsInstrumentor()):
        spans = call(sdk, DRIVERS[name], orders, wire)
    assert scopes(spans) == ["opentelemetry.instrumentation.requests"]
    assert spans[0].attributes is not None
    assert spans[0].attributes["meshlib.cluster"] == "orders"
    assert [event.name for event in spans[0].events] == ["meshlib.attempt.failed"]


AROUND: dict[str, tuple[Any, Callable[[Mesh], Any]]] = {
    "httpx": (httpx, lambda mesh: mesh.client("orders")),
    "httpx of one's own": (httpx, lambda mesh: httpx.Client(transport=mesh.transport())),
    "httpx2": (httpx2, lambda mesh: meshed_httpx2.client(mesh, "orders")),
    "httpx2 of one's own": (httpx2, lambda mesh: httpx2.Client(transport=meshed_httpx2.transport(mesh))),
}


@pytest.mark.parametrize("name", AROUND)
def test_the_span_around_an_instrumented_client_is_that_of_the_first_attempt(
    name: str, sdk: Sdk, orders: RawServer
) -> None:
    library, make = AROUND[name]
    instrumentor = BENEATH[library.__name__]()

    def instrumented_client(mesh: Mesh) -> Any:
        client = make(mesh)
        instrumentor.instrument_client(client, tracer_provider=sdk.tracers, meter_provider=sdk.meters)
        return client

    second, first = scopes(call(sdk, ByHttpx(library, instrumented_client), orders, "native"))
    assert (first, second) == ("opentelemetry.instrumentation.httpx", "meshlib")
