"""The span of each attempt, name by name as the semantic conventions have it."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.propagators.textmap import TextMapPropagator, default_setter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from meshlib.balance.endpoint import Endpoint
from meshlib.errors import ConnectFailed
from meshlib.policy.settings import CallPolicy
from meshlib.policy.traits import Traits
from meshlib.propagation import as_caller
from meshlib.routing.actions import DirectResponse, Redirect
from meshlib.routing.answer import answer_of
from meshlib.routing.match import RequestView
from meshlib.routing.route import Backend, Route
from meshlib.telemetry import semconv
from meshlib.telemetry.observer import Observer
from meshlib.telemetry.trace_headers import TraceHeaders
from tests.telemetry.calls import Drive, a_call, a_cluster, a_route
from tests.telemetry.conftest import Sdk

ONE = (Endpoint("10.0.0.1", 8080),)


def test_an_attempt_that_succeeds_has_exactly_these_attributes(sdk: Sdk) -> None:
    cluster = a_cluster(endpoints=ONE)

    Drive(sdk.observer(), a_call(cluster, port=8000, query="a=1"), [200])

    (span,) = sdk.spans()
    assert span.name == "GET"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "meshlib"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "server.address": "orders",
        "server.port": 8000,
        "url.full": "http://orders:8000/orders/42?a=1",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 8080,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "meshlib.route": "all",
        "meshlib.cluster": "orders",
    }


def test_a_unix_socket_is_a_peer_with_a_path_and_no_port(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(a_cluster(endpoints=(Endpoint("unix:/run/orders.sock", 0),))), [200])

    (span,) = sdk.spans()
    attributes = {name: value for name, value in (span.attributes or {}).items() if name.startswith("network.")}
    assert attributes == {
        "network.peer.address": "/run/orders.sock",
        "network.transport": "unix",
        "network.protocol.version": "1.1",
    }


def test_each_resend_is_a_span_of_its_own_that_says_which_it_is(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(), [503, ConnectFailed("refused", endpoint="10.0.0.2:8080"), 200])

    first, second, third = sdk.spans()
    assert [span.attributes and span.attributes.get("http.request.resend_count") for span in sdk.spans()] == [
        None,
        1,
        2,
    ]
    assert first.attributes
    assert first.attributes["error.type"] == "503"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description is None  # the status code says it
    assert second.attributes
    assert second.attributes["error.type"] == "ConnectFailed"
    assert "http.response.status_code" not in second.attributes
    assert second.status.status_code is StatusCode.ERROR
    assert second.status.description == "refused"
    assert third.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("status", "expected"), [(302, StatusCode.UNSET), (404, StatusCode.ERROR), (500, StatusCode.ERROR)]
)
def test_a_client_calls_4xx_and_5xx_an_error(sdk: Sdk, status: int, expected: StatusCode) -> None:
    Drive(sdk.observer(), a_call(), [status])

    (span,) = sdk.spans()
    assert span.status.status_code is expected
    assert span.attributes is not None
    assert span.attributes.get("error.type") == (str(status) if status >= 400 else None)


def test_an_attempt_that_the_caller_gave_up_is_no_error(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(), [asyncio.CancelledError])

    (span,) = sdk.spans()
    assert span.attributes
    assert span.attributes["error.type"] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET


def test_the_template_names_the_span_and_what_the_caller_says_names_it_better(sdk: Sdk) -> None:
    route = a_route("order", template="/orders/{id}")

    Drive(sdk.observer(), a_call(route=route), [200])
    Drive(sdk.observer(), a_call(route=route, operation="/orders/{order_id}"), [200])

    assert [span.name for span in sdk.spans()] == ["GET /orders/{id}", "GET /orders/{order_id}"]
    assert [span.attributes and span.attributes["url.template"] for span in sdk.spans()] == [
        "/orders/{id}",
        "/orders/{order_id}",
    ]


def test_a_method_that_anybody_can_make_up_does_not_become_a_name(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(method="FROBNICATE"), [200])

    (span,) = sdk.spans()
    assert span.name == "HTTP"
    assert span.attributes is not None
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "FROBNICATE"


@pytest.mark.parametrize(
    ("scheme", "host", "port", "url", "server_port"),
    [
        ("http", "orders", None, "http://orders/orders/42", 80),
        ("https", "orders.internal", None, "https://orders.internal/orders/42", 443),
        ("http", "::1", 8080, "http://[::1]:8080/orders/42", 8080),
        ("http", "", None, "http://orders/orders/42", 80),
    ],
)
def test_the_url_is_the_callers(sdk: Sdk, scheme: str, host: str, port: int | None, url: str, server_port: int) -> None:
    Drive(sdk.observer(), a_call(scheme=scheme, host=host, port=port), [200])

    (span,) = sdk.spans()
    assert span.attributes is not None
    assert span.attributes["url.full"] == url
    assert span.attributes["server.port"] == server_port
    assert span.attributes["server.address"] == "orders"


def test_signatures_and_keys_do_not_get_into_a_span(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(query="AWSAccessKeyId=AK&x=1&Signature=s&sig=t&X-Goog-Signature=u&flag"), [200])

    (span,) = sdk.spans()
    assert span.attributes is not None
    assert span.attributes["url.full"] == (
        "http://orders/orders/42?AWSAccessKeyId=REDACTED&x=1&Signature=REDACTED&sig=REDACTED"
        "&X-Goog-Signature=REDACTED&flag"
    )


def test_what_only_looks_like_a_signature_is_left() -> None:
    assert semconv.redact_query("sig=1") == "sig=REDACTED"
    assert semconv.redact_query("design=1&Sig=2&sig") == "design=1&Sig=2&sig"


def test_an_attempt_carries_its_own_trace(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("app")

    with tracer.start_as_current_span("handler") as parent:
        drive = Drive(sdk.observer(), a_call(), [503, 200])

    first, second, handler = sdk.spans()
    assert {span.parent and span.parent.span_id for span in (first, second)} == {parent.get_span_context().span_id}
    for span, headers in zip((first, second), drive.sent, strict=True):
        assert span.context is not None
        ((name, value),) = headers
        assert name == b"traceparent"
        assert value.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-".encode())
        assert is_sampled(value)
    assert handler.name == "handler"


def test_an_attempt_lies_beneath_the_caller_unless_a_span_is_current(sdk: Sdk) -> None:
    caller = propagate.extract({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    token = otel_context.attach(as_caller(caller))
    try:
        Drive(sdk.observer(), a_call(), [200])
        with sdk.tracers.get_tracer("app").start_as_current_span("handler", context=caller) as handler:
            Drive(sdk.observer(), a_call(), [200])
    finally:
        otel_context.detach(token)

    first, second, _ = sdk.spans()
    assert first.parent is not None
    assert f"{first.parent.trace_id:032x}-{first.parent.span_id:016x}" == f"{'a' * 32}-{'b' * 16}"
    assert second.parent is not None
    assert second.parent.span_id == handler.get_span_context().span_id


def is_sampled(traceparent: bytes) -> bool:
    return bool(int(traceparent.rpartition(b"-")[2], 16) & 1)


def test_attempts_do_not_become_the_current_span(sdk: Sdk) -> None:
    before = trace.get_current_span()

    Drive(sdk.observer(), a_call(), [200], around=lambda _: _same(before))


def _same(span: trace.Span) -> None:
    assert trace.get_current_span() is span


def test_spans_can_be_off_while_the_trace_is_passed_on(sdk: Sdk) -> None:
    with sdk.tracers.get_tracer("app").start_as_current_span("handler") as parent:
        drive = Drive(sdk.observer(spans="off"), a_call(), [200])

    assert [span.name for span in sdk.spans()] == ["handler"]
    (headers,) = drive.sent
    assert f"{parent.get_span_context().span_id:016x}" in dict(headers)[b"traceparent"].decode()


@pytest.mark.parametrize("spans", ["attempts", "off"])
def test_baggage_of_opentelemetrys_goes_out(sdk: Sdk, spans: Literal["attempts", "off"]) -> None:
    token = otel_context.attach(baggage.set_baggage("tenant", "a b"))
    try:
        drive = Drive(sdk.observer(spans=spans), a_call(), [200])
    finally:
        otel_context.detach(token)

    assert dict(drive.sent[0])[b"baggage"] == b"tenant=a%20b"


def test_the_meshs_baggage_comes_before_opentelemetrys() -> None:
    headers = [(b"baggage", b"tenant=ours"), (b"x-meshlib-criticality", b"critical")]
    token = otel_context.attach(baggage.set_baggage("flag", "on", baggage.set_baggage("tenant", "theirs")))
    try:
        TraceHeaders().pass_on(headers)
    finally:
        otel_context.detach(token)

    assert headers == [(b"x-meshlib-criticality", b"critical"), (b"baggage", b"tenant=ours,flag=on")]


def test_what_is_not_sampled_is_passed_on_as_such() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    drive = Drive(Observer(tracer_provider=provider), a_call(), [200])

    assert not exporter.get_finished_spans()
    assert not is_sampled(dict(drive.sent[0])[b"traceparent"])


def test_another_propagator_than_w3cs_is_used_as_it_is(sdk: Sdk) -> None:
    class Legacy(TextMapPropagator):
        fields = {"x-trace"}  # noqa: RUF012 - what the interface asks for

        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
            return context

        def inject(self, carrier: Any, context: Any = None, setter: Any = default_setter) -> None:
            setter.set(carrier, "x-trace", f"{trace.get_current_span(context).get_span_context().span_id:x}")

    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Legacy())
    try:
        drive = Drive(sdk.observer(), a_call(), [200])
    finally:
        propagate.set_global_textmap(before)

    (span,) = sdk.spans()
    assert span.context is not None
    assert drive.sent == [[(b"x-trace", f"{span.context.span_id:x}".encode())]]


def test_an_unknown_way_to_make_spans_is_refused() -> None:
    with pytest.raises(ValueError, match="'attempts' or 'off'"):
        Observer(spans="calls")  # type: ignore[arg-type]


def test_an_answer_of_the_route_has_a_span_without_a_peer(sdk: Sdk) -> None:
    policy = CallPolicy()
    for status, reply in ((301, Redirect(host="new")), (503, DirectResponse(503))):
        call = a_call(route=Route("all", (Backend("orders"),), policy, reply=reply), query="a=1")
        call.traits = Traits()
        call.traits.answer = answer_of(reply, RequestView("GET", "/orders/42", host="orders"), None)
        call.begin(1.0)
        sdk.observer().call_ended(call, 2.0)
        span = sdk.spans()[-1]
        kind = "redirect" if status == 301 else "direct_response"
        failed = {"error.type": "503"} if status == 503 else {}
        assert dict(span.attributes or {}) == {
            "http.request.method": "GET",
            "server.address": "orders",
            "server.port": 80,
            "url.full": "http://orders/orders/42?a=1",
            "meshlib.route": "all",
            "meshlib.reply": kind,
            "http.response.status_code": status,
            **failed,
        }
        assert (span.status.status_code is StatusCode.ERROR) is (status == 503)
        measured = [dict(attributes) for attributes in sdk.points("meshlib.client.call.duration")]
        assert [each["http.response.status_code"] for each in measured if each["meshlib.reply"] == kind] == [status]


def test_a_rewritten_path_is_told_beside_the_url_that_was_asked_for(sdk: Sdk) -> None:
    call = a_call(a_cluster(endpoints=ONE))
    call.traits = Traits()
    call.traits.rewritten = "/42"
    Drive(sdk.observer(), call, [200])
    attributes = sdk.spans()[0].attributes or {}
    assert (attributes["url.full"], attributes["meshlib.path.sent"]) == ("http://orders/orders/42", "/42")
