"""The context on the wire: what is read, what is left out and counted, and what is written."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshlib.context import Criticality, Scope
from meshlib.propagation import (
    BAGGAGE,
    BODY_DEADLINE_MS,
    CRITICALITY,
    DEADLINE_MS,
    ENVOY_TIMEOUT_MS,
    GRPC_TIMEOUT,
    INCOMING,
    MAX_TIMEOUT_S,
    Ignored,
    extract_trace,
    format_baggage,
    format_deadline_ms,
    inject_trace,
    outgoing_headers,
    parse_baggage,
    parse_body_deadline,
    parse_criticality,
    parse_deadline,
)

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example imports OpenTelemetry, and the machine may be busy: neither is what these tests are about."""

NOW = 1000.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "timeout_s"),
    [
        ({}, None),
        ({DEADLINE_MS: ["250"]}, 0.25),
        ({DEADLINE_MS: ["0"]}, 0.0),
        ({DEADLINE_MS: [" 250\t"]}, 0.25),
        ({DEADLINE_MS: ["000250"]}, 0.25),
        ({ENVOY_TIMEOUT_MS: ["1500"]}, 1.5),
        ({GRPC_TIMEOUT: ["2S"]}, 2.0),
        ({GRPC_TIMEOUT: ["1H"]}, 3600.0),
        ({GRPC_TIMEOUT: ["3M"]}, 180.0),
        ({GRPC_TIMEOUT: ["250m"]}, 0.25),
        ({GRPC_TIMEOUT: ["250000u"]}, 0.25),
        ({GRPC_TIMEOUT: ["99999999n"]}, 0.099999999),
        ({DEADLINE_MS: ["86400000"]}, MAX_TIMEOUT_S),
        ({DEADLINE_MS: ["250", "250"]}, 0.25),
        ({DEADLINE_MS: ["250, 250"]}, 0.25),
    ],
)
def test_a_deadline_is_what_is_left_from_now(headers: Mapping[str, Sequence[str]], timeout_s: float | None) -> None:
    ignored = Ignored()
    deadline = parse_deadline(headers, NOW, ignored)
    assert deadline == (None if timeout_s is None else pytest.approx(NOW + timeout_s))
    assert ignored.deadline == 0


def test_the_smallest_of_several_deadlines_holds() -> None:
    headers = {DEADLINE_MS: ["900"], ENVOY_TIMEOUT_MS: ["300"], GRPC_TIMEOUT: ["2S"]}
    assert parse_deadline(headers, NOW) == pytest.approx(NOW + 0.3)


def test_a_malformed_deadline_does_not_hide_a_valid_one() -> None:
    ignored = Ignored()
    assert parse_deadline({DEADLINE_MS: ["soon"], GRPC_TIMEOUT: ["2S"]}, NOW, ignored) == pytest.approx(NOW + 2)
    assert ignored.deadline == 1


@pytest.mark.parametrize(
    ("values", "deadline"),
    [
        (None, None),
        (["none"], math.inf),
        (["none, none"], math.inf),
        (["1500"], NOW + 1.5),
        ([" 0 "], NOW),
    ],
)
def test_the_body_has_a_deadline_of_its_own_or_none(values: list[str] | None, deadline: float | None) -> None:
    ignored = Ignored()
    assert parse_body_deadline({} if values is None else {BODY_DEADLINE_MS: values}, NOW, ignored) == deadline
    assert ignored.deadline == 0


@pytest.mark.parametrize(
    "values", [[""], ["-1"], ["None"], ["inf"], ["1", "none"], ["1, 2"], ["86400001"], ["9" * 5000], ["\u0663"]]
)
def test_a_malformed_deadline_of_the_body_says_nothing_and_is_counted(values: list[str]) -> None:
    ignored = Ignored()
    assert parse_body_deadline({BODY_DEADLINE_MS: values}, NOW, ignored) is None
    assert ignored.deadline == 1


@pytest.mark.parametrize("name", [DEADLINE_MS, ENVOY_TIMEOUT_MS, GRPC_TIMEOUT])
@pytest.mark.parametrize(
    "values",
    [
        [""],
        [" "],
        ["-1"],
        ["+1"],
        ["1.5"],
        ["1e3"],
        ["0x10"],
        ["1_000"],
        ["1 000"],
        ["nan"],
        ["inf"],
        ["250ms"],
        ["250\x00"],
        ["\u0662\u0665"],
        ["\xb2"],  # a digit to str.isdigit()
        ["86400001"],
        ["9" * 12],
        ["9" * 5000],
        ["100", "200"],
        ["100, 200"],
        ["100", ""],
        ["100,"],
        ["100S", "200S"],
        ["99999999H"],
        ["123456789S"],
        ["1s"],
        ["S"],
    ],
)
def test_a_hostile_deadline_is_left_out_and_counted(name: str, values: list[str]) -> None:
    ignored = Ignored()
    assert parse_deadline({name: values}, NOW, ignored) is None
    assert ignored.deadline == 1


def test_envoys_zero_means_no_timeout() -> None:
    assert parse_deadline({ENVOY_TIMEOUT_MS: ["0"]}, NOW) is None


@pytest.mark.parametrize("level", list(Criticality))
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_criticality_is_read_in_any_case(level: Criticality, spell: type[str]) -> None:
    assert parse_criticality({CRITICALITY: [spell(level.name)]}) is level


@pytest.mark.parametrize(
    "values", [[""], ["3"], ["most"], ["critical plus"], ["critical", "sheddable"], ["\u017fheddable"]]
)
def test_an_unknown_criticality_is_left_out_and_counted(values: list[str]) -> None:
    ignored = Ignored()
    assert parse_criticality({CRITICALITY: values}, ignored) is None
    assert ignored.criticality == 1


@pytest.mark.parametrize(
    ("values", "members", "dropped"),
    [
        (["user=alice"], {"user": "alice"}, 0),
        (["user=alice , tenant = t1"], {"user": "alice", "tenant": "t1"}, 0),
        (["user=alice", "tenant=t1"], {"user": "alice", "tenant": "t1"}, 0),
        (["user=alice;secret;ttl=3"], {"user": "alice"}, 0),
        (["name=Am%C3%A9lie%2C%20%25"], {"name": "Am\u00e9lie, %"}, 0),
        (["a=1,a=2"], {"a": "2"}, 0),
        (["eq=a=b"], {"eq": "a=b"}, 0),
        (["empty="], {"empty": ""}, 0),
        ([",, a=1 ,"], {"a": "1"}, 0),
        (['a=1,nothing,=x,sp ace=1,q="1",b=2'], {"a": "1", "b": "2"}, 4),
        (["a=%zz,b=%f,c=%ff,d=1"], {"d": "1"}, 3),
        (["a=\x00,b=\xe9,\xe9=1,c=a b,d=back\\slash"], {}, 5),
        ([",".join(f"k{n}=v" for n in range(181))], {}, 1),
        (["k=" + "v" * 8191], {}, 1),
        (["k=" + "v" * 8190], {"k": "v" * 8190}, 0),
    ],
)
def test_well_formed_baggage_is_kept_and_the_rest_counted(
    values: list[str], members: dict[str, str], dropped: int
) -> None:
    ignored = Ignored()
    assert parse_baggage({BAGGAGE: values}, ignored) == members
    assert ignored.baggage == dropped


def test_baggage_is_bounded_to_64_members() -> None:
    ignored = Ignored()
    found = parse_baggage({BAGGAGE: [",".join(f"k{n}=v" for n in range(100))]}, ignored)
    assert list(found) == [f"k{n}" for n in range(64)]
    assert ignored.baggage == 36


values_of_a_header = st.lists(
    st.one_of(
        st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
        st.text(alphabet="0123456789HMSmun,;=% \t\x00-+.", max_size=20),
        st.text(max_size=20),
    ),
    min_size=1,
    max_size=3,
)


@patient
@given(st.dictionaries(st.sampled_from(INCOMING), values_of_a_header))
def test_no_bytes_crash_the_readers_or_extend_work(headers: dict[str, list[str]]) -> None:
    deadline = parse_deadline(headers, NOW)
    assert deadline is None or NOW <= deadline <= NOW + MAX_TIMEOUT_S
    assert parse_criticality(headers) in (None, *Criticality)
    assert len(parse_baggage(headers)) <= 64


@patient
@given(values_of_a_header, values_of_a_header)
def test_no_bytes_crash_the_reader_of_the_trace(parents: list[str], states: list[str]) -> None:
    ignored = Ignored()
    assert _extract({"traceparent": parents, "tracestate": states}, ignored) is None
    assert ignored.trace == 1


@patient
@given(st.integers(1, int(MAX_TIMEOUT_S * 1000)))
def test_whole_milliseconds_survive_the_wire(milliseconds: int) -> None:
    sent = outgoing_headers(Scope(), milliseconds / 1000)
    assert parse_deadline(_arrived(sent), NOW) == pytest.approx(NOW + milliseconds / 1000, abs=1.1e-3)


@patient
@given(st.floats(0, MAX_TIMEOUT_S, allow_nan=False))
def test_the_callee_never_has_more_than_the_caller(timeout_s: float) -> None:
    deadline = parse_deadline(_arrived(outgoing_headers(Scope(), timeout_s)), 0.0)
    assert deadline is not None
    assert deadline <= max(timeout_s, 0.001)


@pytest.mark.parametrize(
    ("timeout_s", "text"), [(2.0, "2000"), (0.2509, "250"), (0.0004, "1"), (0.0, "1"), (-3.0, "1")]
)
def test_a_deadline_is_rounded_down_and_never_zero(timeout_s: float, text: str) -> None:
    assert format_deadline_ms(timeout_s) == text


def test_a_time_beyond_a_day_is_not_sent() -> None:
    assert outgoing_headers(Scope(), float("inf")) == {}
    assert outgoing_headers(Scope(), MAX_TIMEOUT_S + 1) == {}


tokens = st.text(alphabet="abcXYZ019!#$&'*+-.^_`|~", min_size=1, max_size=10)


@patient
@given(st.dictionaries(tokens, st.text(st.characters(codec="utf-8"), max_size=20), max_size=20))
def test_baggage_survives_the_wire(members: dict[str, str]) -> None:
    sent = format_baggage(members)
    assert sent.isascii()
    assert sent.isprintable()
    assert parse_baggage({BAGGAGE: [sent]}) == members


def test_what_baggage_cannot_carry_is_left_out() -> None:
    members = {"ok": "1", "no token": "2", "": "3", "lone": "\ud800", "line\nfeed": "4", "big": "v" * 9000, "last": "5"}
    assert format_baggage(members) == "ok=1,last=5"
    many = {f"k{n}": "v" for n in range(100)}
    assert format_baggage(many).count(",") == 63


def test_all_of_a_scope_is_sent() -> None:
    scope = Scope(criticality=Criticality.CRITICAL_PLUS, baggage={"tenant": "a b"})
    assert outgoing_headers(scope, 0.3) == {
        DEADLINE_MS: "300",
        ENVOY_TIMEOUT_MS: "300",
        CRITICALITY: "critical_plus",
        BAGGAGE: "tenant=a%20b",
    }
    assert outgoing_headers(Scope(), None) == {}


def test_counts_are_exact_across_threads() -> None:
    ignored = Ignored()

    def count() -> None:
        for _ in range(2_000):
            ignored.add("deadline")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ignored.deadline == 8_000
    assert "deadline=8000" in repr(ignored)


def test_a_trace_is_read() -> None:
    context = _extract({"traceparent": [TRACEPARENT], "tracestate": ["a=1"]})
    assert context is not None
    span = trace.get_current_span(context).get_span_context()
    assert span.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert span.is_remote
    assert span.trace_state.to_header() == "a=1"


def test_baggage_that_cannot_be_read_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    for sent, read in (
        ("good=1;p=q,bad value=secret,=secret,secret", {"good": "1"}),
        ("good=" + "secret" * 2000, {}),
        ("a=1;p=q", {"a": "1;p=q"}),
    ):
        context = _extract({"traceparent": [TRACEPARENT], "baggage": [sent]})
        assert context is not None
        assert otel_baggage.get_all(context) == read
    assert "secret" not in caplog.text


def test_two_different_traces_say_nothing() -> None:
    ignored = Ignored()
    assert _extract({"traceparent": [TRACEPARENT, TRACEPARENT[:-1] + "0"]}, ignored) is None
    assert ignored.trace == 1
    assert _extract({}, ignored) is None
    assert ignored.trace == 1


class OneHeader(TextMapPropagator):
    """A propagator with a format of its own, as an application may set one."""

    def extract(
        self,
        carrier: CarrierT,
        context: otel_context.Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> otel_context.Context:
        (ids,) = getter.get(carrier, "X-Ids") or ["0-0"]
        assert "x-ids" in getter.keys(carrier)
        trace_id, span_id = (int(part, 16) for part in ids.split("-"))
        span = NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True))
        return trace.set_span_in_context(span, context)

    def inject(
        self,
        carrier: CarrierT,
        context: otel_context.Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        setter.set(carrier, "x-ids", "1-2")

    @property
    def fields(self) -> set[str]:
        return {"X-Ids"}


def test_the_propagator_is_the_applications_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opentelemetry.propagate.get_global_textmap", OneHeader)
    monkeypatch.setattr("opentelemetry.propagate.propagator", OneHeader())
    context = _extract({"x-ids": ["a-b"]})
    assert context is not None
    assert trace.get_current_span(context).get_span_context().trace_id == 0xA
    assert _extract({"traceparent": [TRACEPARENT]}) is None
    headers: dict[str, str] = {}
    inject_trace(headers)
    assert headers == {"x-ids": "1-2"}


def test_a_propagator_that_fails_ends_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a propagator of somebody's own")

    monkeypatch.setattr("opentelemetry.propagate.extract", fail)
    ignored = Ignored()
    assert _extract({"traceparent": [TRACEPARENT], "tracestate": ["a=1"]}, ignored) is None
    assert ignored.trace == 1


@given(
    st.one_of(
        st.from_regex(r"[ \t]?[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}[ \t]?", fullmatch=True),
        st.from_regex(r"00-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-fA-F]{16})-[0-9a-f]{2}(-x)?", fullmatch=True),
    )
)
def test_a_plain_trace_is_read_as_the_propagator_reads_it(parent: str) -> None:
    theirs = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": parent}))
    context = _extract({"traceparent": [parent]})
    ours = trace.INVALID_SPAN if context is None else trace.get_current_span(context)
    assert ours.get_span_context() == theirs.get_span_context()


@pytest.fixture
def span_in_context() -> Iterator[SpanContext]:
    span = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(span)))
    yield span
    otel_context.detach(token)


def test_the_current_trace_is_sent(span_in_context: SpanContext) -> None:
    headers = outgoing_headers(Scope(baggage={"tenant": "t1"}), None)
    inject_trace(headers)
    assert headers == {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01", "baggage": "tenant=t1"}


def test_baggage_of_opentelemetry_and_of_the_mesh_share_the_header(span_in_context: SpanContext) -> None:
    context = otel_baggage.set_baggage("tenant", "theirs", otel_baggage.set_baggage("flag", "on"))
    headers = outgoing_headers(Scope(baggage={"tenant": "ours"}), None)
    inject_trace(headers, context)
    assert parse_baggage({BAGGAGE: [headers["baggage"]]}) == {"tenant": "ours", "flag": "on"}


def _arrived(headers: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in headers.items()}


def _extract(headers: Mapping[str, Sequence[str]], ignored: Ignored | None = None) -> otel_context.Context | None:
    return extract_trace(lambda name: headers.get(name, ()), lambda: headers, ignored)
