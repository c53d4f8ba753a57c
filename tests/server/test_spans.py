"""Traces through the middleware: one server span at most, and never one of the mesh's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import httpx
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiInstrumentation
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiInstrumentation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshlib.errors import NoEndpoint
from meshlib.propagation import DEADLINE_MS
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.wsgi import MeshMiddleware as WSGIMiddleware
from tests.server.standin import StandInMesh, headers_of_a_call

pytestmark = pytest.mark.anyio

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {
    "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01",
    "tracestate": "vendor=1",
    DEADLINE_MS: "5000",
    "x-meshlib-criticality": "sheddable",
}


class Tracing:
    """An SDK of its own, so that nothing is set for the whole process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def server_spans(self) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


def instrumented_by_fastapi(tracing: Tracing) -> Any:
    app = FastAPI(
        telemetry={
            "tracer_provider": tracing.provider,
            "operation_spans": False,  # internal spans beneath the server's
            "metrics": False,
            "logs": False,
        }
    )
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())

    @app.get("/")
    async def handler() -> dict[str, str]:
        return headers_of_a_call()

    @app.get("/fails")
    async def fails() -> None:
        raise NoEndpoint("none left", service="orders")

    return app


async def report(request: Request) -> JSONResponse:
    return JSONResponse(headers_of_a_call())


async def fail(request: Request) -> JSONResponse:
    raise NoEndpoint("none left", service="orders")


def starlette_app() -> Starlette:
    return Starlette(routes=[Route("/", report), Route("/fails", fail)])


def instrumented_outside(tracing: Tracing) -> Any:
    app = starlette_app()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=tracing.provider)
    return app


def instrumented_inside(tracing: Tracing) -> Any:
    app = starlette_app()
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=tracing.provider)
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())
    return app


def instrumented_outside_by_contrib(tracing: Tracing) -> Any:
    app = starlette_app()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())
    return AsgiInstrumentation(app, tracer_provider=tracing.provider, exclude_spans=["send", "receive"])


def instrumented_inside_by_contrib(tracing: Tracing) -> Any:
    app = starlette_app()
    inside = AsgiInstrumentation(app, tracer_provider=tracing.provider, exclude_spans=["send", "receive"])
    return MeshMiddleware(inside, StandInMesh())


def client(app: Any, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(peer, 1), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://callee")


@pytest.mark.parametrize(
    "make",
    [
        instrumented_by_fastapi,
        instrumented_outside,
        instrumented_inside,
        instrumented_outside_by_contrib,
        instrumented_inside_by_contrib,
    ],
)
async def test_there_is_one_server_span_and_calls_lie_beneath_it(make: Any, tracing: Tracing) -> None:
    async with client(make(tracing)) as http:
        sent = (await http.get("/", headers=CALLER)).json()
    (span,) = tracing.server_spans
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert span.context is not None
    assert sent["traceparent"] == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"


@pytest.mark.parametrize("make", [instrumented_by_fastapi, instrumented_outside])
async def test_the_frameworks_span_says_what_the_request_came_with(make: Any, tracing: Tracing) -> None:
    async with client(make(tracing)) as http:
        await http.get("/", headers=CALLER)
        await http.get("/", headers={DEADLINE_MS: "0"})
        await http.get("/fails")
    served, refused, failed = tracing.server_spans
    assert served.attributes is not None
    assert refused.attributes is not None
    assert served.attributes["meshlib.deadline.remaining_ms"] == 5000
    assert served.attributes["meshlib.criticality"] == "sheddable"
    assert refused.attributes["meshlib.refused"] == "expired"
    assert refused.attributes["http.response.status_code"] == 504
    assert [event.name for event in failed.events] == ["exception"]


async def test_without_instrumentation_the_callers_trace_is_passed_on_and_no_span_made(tracing: Tracing) -> None:
    app = starlette_app()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())
    async with client(app) as http:
        sent = (await http.get("/", headers=CALLER)).json()
        assert sent["traceparent"] == CALLER["traceparent"]
        assert sent["tracestate"] == CALLER["tracestate"]
        assert "traceparent" not in (await http.get("/")).json()
    assert tracing.server_spans == []
    assert not trace.get_current_span().get_span_context().is_valid


async def test_the_trace_of_a_stranger_is_not_taken_in() -> None:
    app = starlette_app()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())
    async with client(app, peer="203.0.113.9") as http:
        assert "traceparent" not in (await http.get("/", headers=CALLER)).json()


async def test_a_trace_that_is_none_is_counted_and_harmless() -> None:
    middleware = MeshMiddleware(starlette_app())
    async with client(middleware) as http:
        for hostile in ("", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-x", "\xe9" * 40):
            answer = await http.get("/", headers=[(b"traceparent", hostile.encode("latin-1"))])
            assert "traceparent" not in answer.json()
    assert middleware.counts.trace == 4


async def test_a_streamed_body_lies_in_the_callers_trace() -> None:
    async def chunks() -> Any:
        for _ in range(2):
            yield headers_of_a_call()["traceparent"] + "\n"

    async def handler(request: Request) -> StreamingResponse:
        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", handler)])
    app.add_middleware(MeshMiddleware)
    async with client(app) as http:
        assert (await http.get("/", headers=CALLER)).text.split() == [CALLER["traceparent"]] * 2


# WSGI


def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    for _ in range(2):
        yield headers_of_a_call().get("traceparent", "none").encode() + b"\n"


def wsgi_client(app: WSGIApplication) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(app, remote_addr="127.0.0.1"), base_url="http://callee")


def test_wsgi_passes_the_callers_trace_on_in_each_chunk() -> None:
    with wsgi_client(WSGIMiddleware(wsgi_app)) as http:
        assert http.get("/", headers=CALLER).text.split() == [CALLER["traceparent"]] * 2
        assert http.get("/").text.split() == ["none"] * 2
    assert not trace.get_current_span().get_span_context().is_valid


def test_wsgi_makes_no_second_server_span(tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("instrumentation")
    meshed = WSGIMiddleware(wsgi_app)

    def instrumented(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        parent = propagate.extract({"traceparent": environ["HTTP_TRACEPARENT"]})
        with tracer.start_as_current_span("GET", context=parent, kind=SpanKind.SERVER):
            return list(meshed(environ, start_response))

    with wsgi_client(instrumented) as http:
        sent = http.get("/", headers=CALLER).text.split()
    (span,) = tracing.server_spans
    assert span.context is not None
    assert sent == [f"00-{TRACE_ID}-{span.context.span_id:016x}-01"] * 2
    assert span.attributes is not None
    assert span.attributes["meshlib.deadline.remaining_ms"] == 5000


def test_a_span_that_a_streamed_response_keeps_open_is_current_in_its_next_chunk_alone(tracing: Tracing) -> None:
    tracer = tracing.provider.get_tracer("application")
    current: list[str] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        with tracer.start_as_current_span("page"):
            for _ in range(2):
                current.append(getattr(trace.get_current_span(), "name", "none"))
                yield b"x"

    def server(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for chunk in WSGIMiddleware(app)(environ, start_response):
            assert not trace.get_current_span().get_span_context().is_valid
            yield chunk

    with wsgi_client(server) as http:
        assert http.get("/", headers=CALLER).text == "xx"
    assert current == ["page", "page"]


def test_an_instrumentation_inside_of_wsgi_still_makes_the_server_span(tracing: Tracing) -> None:
    app = WSGIMiddleware(WsgiInstrumentation(wsgi_app, tracer_provider=tracing.provider))
    with wsgi_client(app) as http:
        sent = http.get("/", headers=CALLER).text.split()
    check_one_server_span(tracing, sent[0])


def check_one_server_span(tracing: Tracing, sent: str) -> None:
    (span,) = tracing.server_spans
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert sent == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"


async def test_where_an_instrumentation_leaves_a_request_out_calls_have_the_callers_trace(tracing: Tracing) -> None:
    inside = AsgiInstrumentation(starlette_app(), tracer_provider=tracing.provider, excluded_urls="callee")
    async with client(MeshMiddleware(inside, StandInMesh())) as http:
        sent = (await http.get("/", headers=CALLER)).json()
    assert (sent["traceparent"], sent["tracestate"]) == (CALLER["traceparent"], CALLER["tracestate"])
    assert tracing.server_spans == []


# Django


@pytest.fixture
def instrumented_django(tracing: Tracing) -> Iterator[list[str]]:
    """Django's middlewares, with that of the instrumentation first, as it puts itself."""
    from tests.server import django_project  # it has to be configured by then

    assert django_project.urlpatterns
    DjangoInstrumentor().instrument(tracer_provider=tracing.provider)
    yield list(settings.MIDDLEWARE)
    DjangoInstrumentor().uninstrument()


@pytest.mark.parametrize("around", [False, True], ids=["middleware", "around the application"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
async def test_django_has_one_server_span(
    tracing: Tracing, instrumented_django: list[str], interface: str, around: bool
) -> None:
    mesh = StandInMesh()
    with override_settings(MIDDLEWARE=instrumented_django, MESHLIB_MESH=mesh):
        if interface == "wsgi":
            app: Any = WSGIMiddleware(WSGIHandler(), mesh) if around else WSGIHandler()
            with wsgi_client(app) as http:
                sent = http.get("/trace", headers=CALLER).json()
        else:
            app = MeshMiddleware(ASGIHandler(), mesh) if around else ASGIHandler()
            async with client(app) as asked:
                sent = (await asked.get("/trace", headers=CALLER)).json()
    check_one_server_span(tracing, sent["traceparent"])


def test_django_without_instrumentation_passes_the_callers_trace_on(tracing: Tracing) -> None:
    from tests.server import django_project

    with override_settings(MESHLIB_MESH=django_project.MESH), wsgi_client(WSGIHandler()) as http:
        sent = http.get("/trace", headers=CALLER).json()
        assert "traceparent" not in http.get("/trace").json()
    assert (sent["traceparent"], sent["tracestate"]) == (CALLER["traceparent"], CALLER["tracestate"])
    assert not trace.get_current_span().get_span_context().is_valid
