"""One CLIENT span per attempt, whatever else traces the same request: with the real instrumentation of httpx."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from meshlib.telemetry.observer import Observer
from meshlib.telemetry.spans import quiet
from tests.telemetry.calls import Answer, Drive, Pairs, a_call
from tests.telemetry.conftest import Sdk


class MeshTransport(httpx.BaseTransport):
    """Stands for the mesh's transport: a `BaseTransport` that goes through nothing of httpx below."""

    def __init__(self, observer: Observer, *answers: Answer) -> None:
        self.observer = observer
        self.answers = answers
        self.sent: list[dict[bytes, bytes]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        drive = Drive(self.observer, a_call(path=request.url.path), self.answers)
        self.sent = [dict([*_lower(request.headers.raw), *headers]) for headers in drive.sent]
        assert drive.status is not None
        return httpx.Response(drive.status)


class AsyncMeshTransport(httpx.AsyncBaseTransport):
    def __init__(self, observer: Observer, *answers: Answer) -> None:
        self.sync = MeshTransport(observer, *answers)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.sync.handle_request(request)


def _lower(headers: Pairs) -> Pairs:
    return [(name.lower(), value) for name, value in headers]


def clients(sdk: Sdk) -> list[ReadableSpan]:
    return [span for span in sdk.spans() if span.kind is SpanKind.CLIENT]


@pytest.fixture
def instrumented(sdk: Sdk) -> Iterator[HTTPXClientInstrumentor]:
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=sdk.tracers, meter_provider=sdk.meters)
    yield instrumentor
    instrumentor.uninstrument()


@pytest.fixture(params=["old", "http"])
def conventions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which names the instrumentation of httpx uses: it goes by the environment, which it reads once."""
    stability = _OpenTelemetrySemanticConventionStability
    chosen: str = request.param
    monkeypatch.setattr(stability, "_initialized", False)
    monkeypatch.setattr(stability, "_OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING", {})
    if chosen == "http":
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    return chosen


@pytest.mark.usefixtures("instrumented")
def test_instrumenting_all_of_httpx_does_not_reach_the_mesh(sdk: Sdk) -> None:
    with httpx.Client(transport=MeshTransport(sdk.observer(), 503, 200)) as client:
        client.get("http://orders/a")

    assert [span.instrumentation_scope and span.instrumentation_scope.name for span in clients(sdk)] == ["meshlib"] * 2


def test_the_span_of_an_instrumented_client_is_that_of_the_first_attempt(sdk: Sdk, conventions: str) -> None:
    transport = MeshTransport(sdk.observer(), 200)
    with httpx.Client(transport=transport) as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=sdk.tracers, meter_provider=sdk.meters)
        client.get("http://orders/a")

    (span,) = clients(sdk)
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "opentelemetry.instrumentation.httpx"
    assert span.attributes is not None
    assert span.attributes["meshlib.cluster"] == "orders"
    assert span.attributes["meshlib.route"] == "all"
    assert str(span.attributes["network.peer.address"]).startswith("10.0.0.")
    assert not span.events
    assert span.context is not None
    assert f"{span.context.span_id:016x}".encode() in transport.sent[0][b"traceparent"]
    # And one measurement of each attempt by the stable name, whoever makes it.
    theirs = sdk.points("http.client.request.duration", "opentelemetry.instrumentation.httpx")
    ours = sdk.points("http.client.request.duration")
    assert sum(theirs.values()) + sum(ours.values()) == 1
    assert bool(theirs) == (conventions == "http")
    assert sum(sdk.points("meshlib.client.call.duration").values()) == 1


def test_under_an_instrumented_client_further_attempts_have_spans_of_their_own(sdk: Sdk, conventions: str) -> None:
    transport = MeshTransport(sdk.observer(), 503, 502, 200)
    with httpx.Client(transport=transport) as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=sdk.tracers, meter_provider=sdk.meters)
        client.get("http://orders/a")

    second, third, first = clients(sdk)
    assert [
        span.attributes and span.attributes.get("http.request.resend_count") for span in (first, second, third)
    ] == [
        None,
        1,
        2,
    ]
    assert first.context is not None
    assert second.parent is not None
    assert third.parent is not None
    assert second.parent.span_id == third.parent.span_id == first.context.span_id
    # The call was saved, so the outer span says 200; that its own attempt failed is an event on it.
    assert first.status.status_code is StatusCode.UNSET
    (event,) = first.events
    assert event.name == "meshlib.attempt.failed"
    assert dict(event.attributes or {}) == {"error.type": "503", "http.response.status_code": 503}
    for span, headers in zip((first, second, third), transport.sent, strict=True):
        assert span.context is not None
        assert f"{span.context.span_id:016x}".encode() in headers[b"traceparent"]
    theirs = sdk.points("http.client.request.duration", "opentelemetry.instrumentation.httpx")
    assert sum(theirs.values()) + sum(sdk.points("http.client.request.duration").values()) == 3
    assert conventions in ("old", "http")


async def _get(client: httpx.AsyncClient) -> None:
    async with client:
        await client.get("http://orders/a")


def test_it_is_the_same_for_an_async_client(sdk: Sdk) -> None:
    import asyncio

    client = httpx.AsyncClient(transport=AsyncMeshTransport(sdk.observer(), 503, 200))
    HTTPXClientInstrumentor.instrument_client(client, tracer_provider=sdk.tracers, meter_provider=sdk.meters)
    asyncio.run(_get(client))

    assert len(clients(sdk)) == 2


def test_a_span_is_adopted_once(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("app")
    outer = {"http.request.method": "GET"}
    with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=outer):
        Drive(sdk.observer(), a_call(), [200])
        Drive(sdk.observer(), a_call(), [200])

    assert [span.instrumentation_scope and span.instrumentation_scope.name for span in clients(sdk)] == [
        "meshlib",
        "app",
    ]


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT])
def test_a_span_of_something_else_is_not_adopted(sdk: Sdk, kind: SpanKind) -> None:
    attributes = {} if kind is SpanKind.CLIENT else {"http.request.method": "GET"}
    with sdk.tracers.get_tracer("app").start_as_current_span("x", kind=kind, attributes=attributes):
        Drive(sdk.observer(), a_call(), [200])

    ours, outer = sdk.spans()
    assert ours.name == "GET"
    assert outer.attributes is not None
    assert "meshlib.cluster" not in outer.attributes


def test_suppression_is_honoured(sdk: Sdk) -> None:
    for suppress in (suppress_instrumentation, suppress_http_instrumentation):
        with suppress():
            drive = Drive(sdk.observer(), a_call(), [503, 200])
        assert drive.sent == [[], []]

    assert not sdk.spans()
    assert not sdk.points("http.client.request.duration")
    assert sum(sdk.points("meshlib.client.call.duration").values()) == 2


def test_under_a_client_that_suppresses_what_lies_beneath_there_is_its_span_alone(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("opentelemetry.instrumentation.requests")
    outer = {"http.method": "GET"}
    with (
        tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=outer),
        suppress_http_instrumentation(),
    ):
        Drive(sdk.observer(), a_call(), [503, 200])

    (span,) = clients(sdk)
    assert span.attributes is not None
    assert span.attributes["meshlib.cluster"] == "orders"
    assert [event.name for event in span.events] == ["meshlib.attempt.failed"]


@pytest.mark.usefixtures("instrumented")
def test_a_wire_that_goes_through_httpx_is_kept_quiet(sdk: Sdk) -> None:
    def over_httpx(headers: Pairs) -> None:
        with quiet(), httpx.Client(transport=httpx.HTTPTransport()) as inner, pytest.raises(httpx.ConnectError):
            inner.get("http://127.0.0.1:1/", headers=headers)

    Drive(sdk.observer(), a_call(), [200], around=over_httpx)

    assert [span.instrumentation_scope and span.instrumentation_scope.name for span in clients(sdk)] == ["meshlib"]
