"""One CLIENT span per attempt, by the semantic conventions, and never two.

Others may trace the same request. What really happens with ``opentelemetry-instrumentation-httpx``:

- ``HTTPXClientInstrumentor().instrument()`` patches httpx's own transport classes. The mesh does not go through them,
  so there are our spans alone. (Where it does, with ``wire: stock``, `quiet` keeps theirs away.)
- ``instrument_client(client)`` wraps the transport of that client, ours, so that one CLIENT span of theirs lies around
  the whole call. It can be neither prevented nor turned into something else, and the user asked for it, with hooks
  perhaps. So it is *adopted*: it is the span of the first attempt, and gets our attributes; only further attempts get
  spans of their own. A failure of the first attempt, which the outer span's own status hides when a retry saves the
  call, becomes an event on it.
- ``opentelemetry-instrumentation-requests`` does the same around a session, and suppresses what lies beneath it: its
  span is adopted, and there are no others. ``opentelemetry-instrumentation-aiohttp-client`` does it around a session's
  calls, too, and suppresses nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from meshlib.policy.actions import Start
from meshlib.policy.attempt import Attempt
from meshlib.policy.call import Call
from meshlib.policy.facts import CallFacts
from meshlib.routing.actions import Redirect
from meshlib.telemetry import semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

__all__ = ["Spans", "fate_of", "is_suppressed", "quiet", "reply_of"]

_CANCELLED = "cancelled"
EVENT_FAILED = "meshlib.attempt.failed"


class _Shape:
    """What all spans of calls of one kind have in common."""

    __slots__ = ("attributes", "base", "name")

    def __init__(self, facts: CallFacts) -> None:
        method = semconv.known_method(facts.method)
        template = facts.operation or facts.route.template
        shown = "HTTP" if method == semconv.OTHER else method
        self.name = f"{shown} {template}" if template else shown
        host = facts.host or facts.service
        origin = f"[{host}]" if ":" in host else host
        self.base = f"{facts.scheme}://{origin}" if facts.port is None else f"{facts.scheme}://{origin}:{facts.port}"
        self.attributes: dict[str, AttributeValue] = {
            semconv.METHOD: method,
            semconv.SERVER_ADDRESS: facts.service,
            semconv.SERVER_PORT: facts.port or semconv.default_port(facts.scheme),
            semconv.ROUTE: facts.route.name,
        }
        if method == semconv.OTHER:
            self.attributes[semconv.METHOD_ORIGINAL] = facts.method
        if template:
            self.attributes[semconv.URL_TEMPLATE] = template


class Spans:
    """Starts and ends the spans of attempts."""

    __slots__ = ("_client", "_error", "_status", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracer = tracer
        self._client = SpanKind.CLIENT
        self._status = Status
        self._error = StatusCode.ERROR

    def start(self, call: Call, start: Start, zone: str = "", parent: Context | None = None) -> Span:
        """The span of an attempt, a child of the current one, or of that in `parent`; not made current.

        `zone` is as of `semconv.zone_of`.
        """
        shape, attributes = self._described(call)
        if call.traits is not None and call.traits.rewritten is not None:
            attributes[semconv.SENT_PATH] = call.traits.rewritten
        attributes.update(semconv.peer_attributes(start.member.endpoint))
        attributes[semconv.CLUSTER] = start.cluster
        if zone:
            attributes[semconv.ZONE] = zone
        if start.n > 1:
            attributes[semconv.RESEND_COUNT] = start.n - 1
            if call.attempts[start.n - 1].hedge:
                attributes[semconv.HEDGE] = True
        return self._tracer.start_span(shape.name, parent, kind=self._client, attributes=attributes)

    def reply(self, call: Call) -> None:
        """The span of an answer that the route gave itself: it has no attempt that could have one."""
        shape, attributes = self._described(call)
        kind, status = reply_of(call), call.journal.status
        if kind is None or status is None:
            return
        attributes[semconv.REPLY] = kind
        attributes[semconv.STATUS] = status
        span = self._tracer.start_span(shape.name, kind=self._client, attributes=attributes)
        self.end(span, status, str(status) if status >= 400 else None, None, "")

    def _described(self, call: Call) -> tuple[_Shape, dict[str, AttributeValue]]:
        """What all spans of calls of its kind have in common, and the attributes of one of this call."""
        facts = call.facts
        shape: _Shape | None = facts.told.get(_Shape)
        if shape is None:
            shape = facts.told[_Shape] = _Shape(facts)
        # All of it at the start, since a sampler may look at it.
        attributes = shape.attributes.copy()
        query = semconv.redact_query(call.query)
        path = call.path or "/"
        attributes[semconv.URL_FULL] = f"{shape.base}{path}?{query}" if query else f"{shape.base}{path}"
        if call.journal.override is not None:
            attributes[semconv.OVERRIDE] = call.journal.override
        return shape, attributes

    def adoptable(self, span: Any) -> bool:
        """Whether `span`, the current one, is somebody else's CLIENT span of this same request."""
        if getattr(span, "kind", None) is not self._client or not span.is_recording():
            return False
        attributes = getattr(span, "attributes", None) or {}
        # The cluster is what adoption leaves behind: a span stands for one attempt only.
        traced = semconv.METHOD in attributes or "http.method" in attributes
        return traced and semconv.CLUSTER not in attributes

    def adopt(self, span: Span, call: Call, start: Start, zone: str = "") -> None:
        """Make somebody else's span that of the first attempt."""
        span.set_attributes(
            {
                **dict(semconv.peer_attributes(start.member.endpoint)),
                semconv.ROUTE: call.facts.route.name,
                semconv.CLUSTER: start.cluster,
                **({semconv.ZONE: zone} if zone else {}),
            }
        )

    def end(self, span: Span, status: int | None, failure: str | None, error: BaseException | None, http: str) -> None:
        """End the span of an attempt; `failure` is its ``error.type``."""
        if span.is_recording():
            attributes: dict[str, AttributeValue] = {}
            if status is not None:
                attributes[semconv.STATUS] = status
            if http:
                attributes[semconv.PROTOCOL_VERSION] = http
            if failure is not None:
                attributes[semconv.ERROR_TYPE] = failure
                # Who gives up an attempt, for a better one or altogether, has found no fault with it.
                if failure != _CANCELLED:
                    # A status explains itself; for the rest the description says what the type does not.
                    text = None if error is None or failure == str(status) else str(error)
                    span.set_status(self._status(self._error, text))
            span.set_attributes(attributes)
        span.end()

    def end_adopted(self, span: Span, status: int | None, failure: str | None) -> None:
        """Note on somebody else's span that the first attempt failed; it ends when its owner says so."""
        if failure is None or not span.is_recording():
            return
        attributes: dict[str, AttributeValue] = {semconv.ERROR_TYPE: failure}
        if status is not None:
            attributes[semconv.STATUS] = status
        span.add_event(EVENT_FAILED, attributes)


def fate_of(call: Call, attempt: Attempt, status: int | None, error: BaseException | None) -> str | None:
    """The ``error.type`` of an attempt that is over; None if it went well.

    One that was given up is ``cancelled``, unless the call's own time was up: then that is what happened to it.
    """
    if isinstance(error, Exception):
        return semconv.error_type(error)
    if status is not None:
        return str(status) if status >= 400 else None
    cause = call.journal.error
    if error is None and attempt.error is not None:
        cause = attempt.error
    return _CANCELLED if error is not None or cause is None else semconv.error_type(cause)


def reply_of(call: Call) -> str | None:
    """What the call's route answered itself: ``redirect`` or ``direct_response``; None if it did not."""
    traits, reply = call.traits, call.facts.route.reply
    if traits is None or not traits.replied:
        return None
    return "redirect" if isinstance(reply, Redirect) else "direct_response"


def is_suppressed(context: Mapping[str, object]) -> bool:
    """Whether instrumentation, or that of HTTP, is suppressed in a context of OpenTelemetry's."""
    return any(map(context.get, _suppression_keys()))


@functools.cache
def _context() -> ModuleType:
    from opentelemetry import context

    return context


@functools.cache
def _suppression_keys() -> tuple[str, ...]:
    # The API keeps these names to itself, but it is where instrumentations agree on them.
    names = ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")
    return (*(getattr(_context(), name) for name in names if hasattr(_context(), name)), "suppress_instrumentation")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep instrumentations of HTTP libraries from tracing what happens inside: the attempt has its span already.

    For wires that go through another HTTP library. Do not leave it open over a yield to somebody else's code.
    """
    context = _context()
    key = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")
    token = context.attach(context.set_value(key, True))
    try:
        yield
    finally:
        context.detach(token)
