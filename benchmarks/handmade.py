"""What careful teams build by hand today: retries, a breaker, traces and metrics around httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.loads import Load
from benchmarks.rounds import AsyncCall
from benchmarks.servers import Peers, checker

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


class _Unavailable(Exception):
    pass


@asynccontextmanager
async def handmade(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """The contender. `trace_all` comes first."""
    import pybreaker
    import tenacity
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    urls, check = peers.urls(load), checker(load)
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
                response = await client.get(next(urls))
                if response.status_code in (502, 503, 504):
                    raise _Unavailable(response.status_code)
            check(response.status_code, response.content)

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
