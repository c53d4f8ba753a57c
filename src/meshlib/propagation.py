"""The context on the wire: deadline, criticality, baggage and trace, from headers and into headers.

Both directions stand here, so that caller and callee cannot drift apart. A deadline crosses the wire as the
milliseconds that are left, never as a point in time: the clocks of two machines need not agree.

What comes in was written by somebody else. A value that is not exactly what the format allows is left out and counted
in `Ignored`, never guessed at: a wrong deadline ends work that is wanted or keeps work alive that is not.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, unquote_to_bytes

from meshlib.context import Criticality, Scope

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import Getter, TextMapPropagator

T = TypeVar("T")

__all__ = [
    "BAGGAGE",
    "BODY_DEADLINE_MS",
    "CALLER",
    "CRITICALITY",
    "DEADLINE_MS",
    "ENVOY_TIMEOUT_MS",
    "GRPC_TIMEOUT",
    "IGNORED_KINDS",
    "INCOMING",
    "LOAD",
    "LOAD_PROBE",
    "MAX_TIMEOUT_S",
    "REFUSED",
    "Headers",
    "Ignored",
    "Names",
    "Values",
    "as_caller",
    "extract_trace",
    "format_baggage",
    "format_deadline_ms",
    "inject_trace",
    "outgoing_headers",
    "parse_baggage",
    "parse_body_deadline",
    "parse_criticality",
    "parse_deadline",
]

DEADLINE_MS: Final = "x-meshlib-deadline-ms"
BODY_DEADLINE_MS: Final = "x-meshlib-body-deadline-ms"
"""Beside a deadline that ends with the headers of the response: what is left for its body. ``none``: any time."""

ENVOY_TIMEOUT_MS: Final = "x-envoy-expected-rq-timeout-ms"
GRPC_TIMEOUT: Final = "grpc-timeout"
CRITICALITY: Final = "x-meshlib-criticality"
BAGGAGE: Final = "baggage"

CALLER: Final = "meshlib.caller"
"""Where the caller's trace stands in a context of OpenTelemetry's, if it is not that of a current span."""

REFUSED: Final = "x-meshlib-refused"
"""On a response that the service's mesh gave in the place of the service: why (``expired``)."""

LOAD: Final = "x-meshlib-load"
"""On a request: in which forms its caller reads how loaded the service is. On a response: what is in flight there."""

LOAD_PROBE: Final = "/.well-known/meshlib/load"
"""Where a middleware answers probes of load, ahead of all else but health; only to trusted peers that ask by the header
`LOAD`. Anybody else's request goes on to the application."""

INCOMING: Final = (DEADLINE_MS, BODY_DEADLINE_MS, ENVOY_TIMEOUT_MS, GRPC_TIMEOUT, CRITICALITY, BAGGAGE, LOAD)
"""The headers that this module reads by itself; those of the trace are the propagator's own matter."""

MAX_TIMEOUT_S: Final = 86_400.0
"""Nobody waits a day for an answer: a longer time is a fault or an attack, and means the same as none."""

MAX_BAGGAGE_BYTES: Final = 8192
MAX_BAGGAGE_MEMBERS_READ: Final = 180
MAX_BAGGAGE_MEMBERS: Final = 64
"""What W3C Baggage obliges everyone to pass on; more than 180, its older limit, is no honest header."""

Headers: TypeAlias = Mapping[str, Sequence[str]]
"""The values of each header, by its name in lower case, decoded as Latin-1."""
Values: TypeAlias = Callable[[str], Sequence[str]]
Names: TypeAlias = Callable[[], Iterable[str]]

_log = logging.getLogger("meshlib.propagation")

_LONGEST_MILLISECONDS = 12  # digits, which are 31 years
# `[0-9]` and not `\d`, which is also every other script's digits.
_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_W3C = frozenset({"traceparent", "tracestate", BAGGAGE})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OCTETS = re.compile(r"(?:%[0-9A-Fa-f]{2}|[!#$&-+\--:<-\[\]-~])*")
_UNQUOTED = "!#$&'()*+-./:<=>?@[]^_`{|}~"

_CRITICALITIES = {level.name.lower(): level for level in Criticality}

IGNORED_KINDS: Final = ("deadline", "criticality", "baggage", "trace", "override")
"""What `Ignored` counts."""


class Ignored:
    """How many incoming values were left out because they were malformed, by kind. The numbers only grow.

    Attributes:
        deadline, criticality, baggage, trace: so many values (of baggage: members) were not what the format allows.
        override: so many were not believed.
    """

    __slots__ = ("_lock", "baggage", "criticality", "deadline", "override", "trace")

    def __init__(self) -> None:
        self.deadline = self.criticality = self.baggage = self.trace = self.override = 0
        self._lock = threading.Lock()

    def add(self, kind: str, count: int = 1) -> None:
        """Count what was left out, exactly, from any thread."""
        with self._lock:
            setattr(self, kind, getattr(self, kind) + count)

    def renew_lock(self) -> None:
        """After a fork, in the child: a thread may have held it that is not there any more."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return (
            f"<Ignored deadline={self.deadline} criticality={self.criticality} baggage={self.baggage}"
            f" trace={self.trace} override={self.override}>"
        )


# In


def parse_deadline(headers: Headers, now: float, ignored: Ignored | None = None) -> float | None:
    """By when the caller wants its answer, on the clock of `now`; None if it does not say.

    The smallest of the valid ones holds. A header that comes twice with different values says nothing.
    """
    told = headers.get(DEADLINE_MS)
    if told and len(told) == 1 and told == headers.get(ENVOY_TIMEOUT_MS) and GRPC_TIMEOUT not in headers:
        plain_s = _read_milliseconds(told[0])  # callers in the mesh say it twice, and nothing else
        if plain_s is not None:
            return now + plain_s
    smallest: float | None = None
    told = None
    for name, read in _TIMEOUTS:
        values = headers.get(name)
        if not values or (values == told and smallest is not None):
            continue
        told = values
        timeout_s = _only(values, read)
        if timeout_s is None:
            if ignored is not None:
                ignored.add("deadline")
        elif smallest is None or timeout_s < smallest:
            smallest = timeout_s
    return None if smallest is None else now + smallest


def parse_body_deadline(headers: Headers, now: float, ignored: Ignored | None = None) -> float | None:
    """By when a caller wants the body of a response that has begun, on the clock of `now`; infinite for at any time.

    It says something beside a deadline alone; None if it does not say, and that deadline holds for the body, too.
    """
    values = headers.get(BODY_DEADLINE_MS)
    if not values:
        return None
    timeout_s = _only(values, _read_body)
    if timeout_s is None:
        if ignored is not None:
            ignored.add("deadline")
        return None
    return now + timeout_s


def parse_criticality(headers: Headers, ignored: Ignored | None = None) -> Criticality | None:
    """How bad the caller finds it to lose this request; None if it does not say, or says nothing known."""
    values = headers.get(CRITICALITY)
    if not values:
        return None
    level = _CRITICALITIES.get(values[0]) if len(values) == 1 else None
    if level is None:
        level = _only(values, _read_criticality)
    if level is None and ignored is not None:
        ignored.add("criticality")
    return level


def parse_baggage(headers: Headers, ignored: Ignored | None = None) -> dict[str, str]:
    """The members of W3C ``baggage``, percent-decoded; of members with the same key the last holds.

    Malformed members, and well-formed ones beyond 64, are left out; a header beyond 8192 bytes or 180 members is left
    out whole. The properties of a member (``key=value;property``) are not kept.
    """
    values = headers.get(BAGGAGE)
    if not values:
        return {}
    text = values[0] if len(values) == 1 else ",".join(values)
    members = text.split(",") if len(text) <= MAX_BAGGAGE_BYTES else None
    if members is None or len(members) > MAX_BAGGAGE_MEMBERS_READ:
        if ignored is not None:
            ignored.add("baggage")
        return {}
    found: dict[str, str] = {}
    dropped = 0
    for member in members:
        if not member.strip(" \t"):
            continue  # an empty element of a list is allowed everywhere in HTTP
        pair = _read_member(member)
        if pair is None or (pair[0] not in found and len(found) == MAX_BAGGAGE_MEMBERS):
            dropped += 1
        else:
            found[pair[0]] = pair[1]
    if dropped and ignored is not None:
        ignored.add("baggage", dropped)
    return found


def extract_trace(values: Values, names: Names, ignored: Ignored | None = None) -> Context | None:
    """The caller's trace, by OpenTelemetry's global propagator (W3C unless the application chose another).

    To be asked where no span is current: one that is came from an instrumentation that read the same headers.

    Args:
        values: the values of the header of this name, in lower case.
        names: the names of all headers; some propagators look for a prefix.
        ignored: where a ``traceparent`` that says nothing is counted.

    Returns:
        The context to attach, or None where the headers name no trace.
    """
    propagate, trace, otel_context = _opentelemetry()
    # Asking the propagators costs more than all the rest of a request's intake, and most often there is nothing, or
    # one well-formed `traceparent`.
    reads_parent, others, is_w3c = _trace_headers(propagate.get_global_textmap())
    parents = values("traceparent")
    if not (parents and reads_parent) and not any(map(values, others)):
        return None
    if is_w3c and len(parents) == 1 and (match := _TRACEPARENT.fullmatch(parents[0])):
        trace_id, span_id = int(match[1], 16), int(match[2], 16)
        if trace_id and span_id and not values("tracestate") and not values(BAGGAGE):
            span = trace.SpanContext(trace_id, span_id, True, trace.TraceFlags(int(match[3], 16)))
            plain: Context = trace.set_span_in_context(trace.NonRecordingSpan(span), otel_context.get_current())
            return plain
    if len(set(parents)) <= 1:
        try:
            context: Context = propagate.extract((values, names), context=otel_context.get_current(), getter=_getter())
        except Exception:  # a propagator of the application's choice; a header must not be able to end a request
            _log.debug("the propagator failed on the headers of a request", exc_info=True)
        else:
            if trace.get_current_span(context).get_span_context().is_valid:
                return context
    if parents and ignored is not None:
        ignored.add("trace")
    return None


def as_caller(context: Context) -> Context:
    """The current context, with the trace of `context` as that of the caller, and not as a current span.

    For where an instrumentation of the framework is about to look whether it is the first: one that finds a span makes
    its own an internal one. Calls through the mesh take the caller's trace where there is no span.
    """
    from opentelemetry import context as otel_context
    from opentelemetry import trace

    return otel_context.set_value(CALLER, trace.get_current_span(context), otel_context.get_current())


@functools.cache
def _opentelemetry() -> tuple[Any, Any, Any]:
    # Imported when it is used; and the statement would cost as much as what is done with it.
    from opentelemetry import context, propagate, trace

    return propagate, trace, context


@functools.lru_cache(maxsize=4)
def _trace_headers(propagator: TextMapPropagator) -> tuple[bool, tuple[str, ...], bool]:
    """The headers that say whether there is a trace: ``traceparent``, others; and whether it is W3C Trace Context.

    What the fields of a propagator say is what it reads; a third-party one of the same fields would read the same.
    """
    fields = {name.lower() for name in propagator.fields}
    return "traceparent" in fields, tuple(sorted(fields - _W3C)), fields <= _W3C


def _readable(values: Sequence[str]) -> list[str]:
    """Baggage as it came, or what can be read of it: OpenTelemetry's propagator logs the rest, values and all."""
    ignored = Ignored()
    members = parse_baggage({BAGGAGE: values}, ignored)
    return [format_baggage(members)] if ignored.baggage else list(values)


@functools.cache
def _getter() -> Getter[tuple[Values, Names]]:
    from opentelemetry.propagators.textmap import Getter

    class _Headers(Getter[tuple[Values, Names]]):
        def get(self, carrier: tuple[Values, Names], key: str) -> list[str] | None:
            found, name = carrier[0], key.lower()
            return (_readable(found(name)) if name == BAGGAGE else list(found(name))) or None

        def keys(self, carrier: tuple[Values, Names]) -> list[str]:
            return list(carrier[1]())

    return _Headers()


# Out


def outgoing_headers(scope: Scope, timeout_s: float | None) -> dict[str, str]:
    """The headers that carry `scope` to the next service. The trace is not among them: see `inject_trace`.

    Args:
        scope: what the call inherits.
        timeout_s: what is left for this attempt, in seconds; None for a call without limit.
    """
    headers: dict[str, str] = {}
    if timeout_s is not None and timeout_s <= MAX_TIMEOUT_S:
        headers[DEADLINE_MS] = headers[ENVOY_TIMEOUT_MS] = format_deadline_ms(timeout_s)
    if scope.criticality is not None:
        headers[CRITICALITY] = scope.criticality.name.lower()
    if scope.baggage:
        baggage = format_baggage(scope.baggage)
        if baggage:
            headers[BAGGAGE] = baggage
    return headers


def format_deadline_ms(timeout_s: float) -> str:
    """What is left, in whole milliseconds: rounded down, since the callee must not have more than the caller.

    Never 0, which Envoy takes for no limit at all; a callee refuses 1 as expired by default.
    """
    return str(max(1, math.floor(timeout_s * 1000.0)))


def format_baggage(baggage: Mapping[str, str]) -> str:
    """A W3C ``baggage`` value. What cannot be sent (a key that is no token, more than 64 or 8192 bytes) is left out."""
    members: list[str] = []
    length = -1  # the first member has no comma before it
    for key, value in baggage.items():
        if len(members) == MAX_BAGGAGE_MEMBERS:
            break
        try:
            member = f"{key}={quote(value, safe=_UNQUOTED)}"
        except UnicodeEncodeError:  # a lone surrogate has no encoding
            continue
        if _TOKEN.fullmatch(key) and length + 1 + len(member) <= MAX_BAGGAGE_BYTES:
            members.append(member)
            length += 1 + len(member)
    return ",".join(members)


def inject_trace(headers: dict[str, str], context: Context | None = None) -> None:
    """Add the trace of `context`, by default the current one, by OpenTelemetry's global propagator.

    Its baggage and the mesh's travel in the same header; where both know a key, the mesh's value holds.
    """
    from opentelemetry import context as otel_context
    from opentelemetry import propagate, trace

    ours = headers.get(BAGGAGE)
    caller = otel_context.get_value(CALLER, context)
    if isinstance(caller, trace.Span) and trace.get_current_span(context) is trace.INVALID_SPAN:
        context = trace.set_span_in_context(caller, context)
    propagate.inject(headers, context=context)
    theirs = headers.get(BAGGAGE)
    if ours is not None and theirs is not None and theirs != ours:
        kept = parse_baggage({BAGGAGE: [ours]})  # first, since what comes last may not fit
        headers[BAGGAGE] = format_baggage({**kept, **parse_baggage({BAGGAGE: [theirs]}), **kept})


# The values of each header


def _only(values: Sequence[str], read: Callable[[str], T | None]) -> T | None:
    """What all `values` say; None if one is malformed or two differ. A WSGI server joins repeated headers by commas."""
    if len(values) == 1 and "," not in values[0]:
        return read(values[0].strip(" \t"))
    results = {read(text.strip(" \t")) for value in values for text in value.split(",")}
    return results.pop() if len(results) == 1 else None


def _read_milliseconds(text: str) -> float | None:
    if not (text.isdecimal() and text.isascii() and len(text) <= _LONGEST_MILLISECONDS):
        return None
    return _bounded(int(text) / 1000.0)


def _read_body(text: str) -> float | None:
    return math.inf if text == "none" else _read_milliseconds(text)


def _read_envoy(text: str) -> float | None:
    # Envoy means "no timeout" where it says 0, and sends none then.
    return _read_milliseconds(text) or None


def _read_grpc(text: str) -> float | None:
    match = _GRPC.fullmatch(text)
    return _bounded(int(match[1]) * _GRPC_UNITS_S[match[2]]) if match else None


def _bounded(timeout_s: float) -> float | None:
    return timeout_s if timeout_s <= MAX_TIMEOUT_S else None


def _read_criticality(text: str) -> Criticality | None:
    return _CRITICALITIES.get(text.lower()) if text.isascii() else None


def _read_member(member: str) -> tuple[str, str] | None:
    key, equals, value = member.partition(";")[0].partition("=")
    key, value = key.strip(" \t"), value.strip(" \t")
    if not equals or not _TOKEN.fullmatch(key) or not _OCTETS.fullmatch(value):
        return None
    if "%" not in value:
        return key, value
    try:
        return key, unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return None


_TIMEOUTS: Final = (
    (DEADLINE_MS, _read_milliseconds),
    (ENVOY_TIMEOUT_MS, _read_envoy),
    (GRPC_TIMEOUT, _read_grpc),
)
