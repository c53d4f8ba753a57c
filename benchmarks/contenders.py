"""How each contender makes a call. All make the same one, read the whole body, and look at the status.

Every client has its own defaults and is given an absolute URL. (httpx keeps 20 idle connections. To let it keep all 32
would make it dearer, not cheaper: its pool looks over all that it has at each request.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.limit import LimitClient
from benchmarks.rounds import AsyncCall, SyncCall
from benchmarks.servers import PATH, REPLY, Peers
from meshlib import Mesh

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

MESHED_URL = f"http://orders{PATH}"


def make_mesh(peers: Peers) -> Mesh:
    """A mesh with all defaults, and one service of three endpoints."""
    endpoints = [f"127.0.0.1:{port}" for port in peers.ports]
    return Mesh.from_dict({"service": "bench", "services": {"orders": {"endpoints": endpoints}}})


def _check(status: int, body: bytes) -> None:
    if status != 200 or body != REPLY:
        raise RuntimeError(f"status {status} and {body[:100]!r}: the wrong reply")


@asynccontextmanager
async def meshed(peers: Peers) -> AsyncIterator[AsyncCall]:
    """`mesh.async_client()`."""
    mesh = make_mesh(peers)
    async with mesh, mesh.async_client("orders") as client:

        async def call() -> None:
            response = await client.get(MESHED_URL)
            _check(response.status_code, response.content)

        yield call


def _bare(module: Any, url: Callable[[Peers], str]) -> Callable[[Peers], AbstractAsyncContextManager[AsyncCall]]:
    @asynccontextmanager
    async def contender(peers: Peers) -> AsyncIterator[AsyncCall]:
        target = url(peers)
        async with module.AsyncClient() as client:

            async def call() -> None:
                response = await client.get(target)
                _check(response.status_code, response.content)

            yield call

    return contender


bare_httpx = _bare(httpx, lambda peers: peers.url)
through_envoy = _bare(httpx, lambda peers: f"http://127.0.0.1:{peers.envoy_port}{PATH}")


@asynccontextmanager
async def bare_httpx2(peers: Peers) -> AsyncIterator[AsyncCall]:
    """`httpx2.AsyncClient`."""
    import httpx2

    async with _bare(httpx2, lambda peers: peers.url)(peers) as call:
        yield call


@asynccontextmanager
async def bare_aiohttp(peers: Peers) -> AsyncIterator[AsyncCall]:
    """`aiohttp.ClientSession`."""
    import aiohttp

    url = peers.url
    async with aiohttp.ClientSession() as session:

        async def call() -> None:
            async with session.get(url) as response:
                _check(response.status, await response.read())

        yield call


@asynccontextmanager
async def limit(peers: Peers) -> AsyncIterator[AsyncCall]:
    """See `benchmarks.limit`."""
    client = LimitClient(peers.ports[0], PATH)

    async def call() -> None:
        _check(200, await client.get())

    try:
        yield call
    finally:
        client.close()


class _Unavailable(Exception):
    pass


@asynccontextmanager
async def handmade(peers: Peers) -> AsyncIterator[AsyncCall]:
    """What careful teams build today: retries, a breaker, traces and metrics around httpx. `trace_all` comes first."""
    import pybreaker
    import tenacity
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    url = peers.url
    breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=5)
    async with httpx.AsyncClient() as client:
        HTTPXClientInstrumentor.instrument_client(client)

        @tenacity.retry(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_random_exponential(multiplier=0.025, max=0.25),
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _Unavailable)),
            reraise=True,
        )
        async def call() -> None:
            with breaker.calling():
                response = await client.get(url)
                if response.status_code in (502, 503, 504):
                    raise _Unavailable(response.status_code)
            _check(response.status_code, response.content)

        yield call


@contextmanager
def trace_all() -> Iterator[None]:
    """An OpenTelemetry SDK for the whole process: every span is sampled, batched and dropped, every duration kept."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    tracers = TracerProvider(sampler=ALWAYS_ON)
    tracers.add_span_processor(BatchSpanProcessor(_nowhere(), max_queue_size=65536, schedule_delay_millis=200))
    meters = MeterProvider([InMemoryMetricReader()])
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    try:
        yield
    finally:
        tracers.shutdown()
        meters.shutdown()


def _nowhere() -> SpanExporter:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    return Nowhere()


@contextmanager
def meshed_sync(peers: Peers) -> Iterator[SyncCall]:
    """`mesh.client()`."""
    with make_mesh(peers) as mesh, mesh.client("orders") as client:

        def call() -> None:
            response = client.get(MESHED_URL)
            _check(response.status_code, response.content)

        yield call


@contextmanager
def bare_httpx_sync(peers: Peers) -> Iterator[SyncCall]:
    """`httpx.Client`."""
    url = peers.url
    with httpx.Client() as client:

        def call() -> None:
            response = client.get(url)
            _check(response.status_code, response.content)

        yield call


ASYNC: dict[str, Callable[[Peers], AbstractAsyncContextManager[AsyncCall]]] = {
    "mesh": meshed,
    "httpx": bare_httpx,
    "httpx2": bare_httpx2,
    "aiohttp": bare_aiohttp,
    "envoy": through_envoy,
    "limit": limit,
    "handmade": handmade,
}
SYNC: dict[str, Callable[[Peers], AbstractContextManager[SyncCall]]] = {
    "mesh": meshed_sync,
    "httpx": bare_httpx_sync,
}
