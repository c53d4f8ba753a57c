"""The trace on the wire: the headers that make the callee's spans children of an attempt's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from meshlib.propagation import BAGGAGE, CALLER, format_baggage, parse_baggage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, SpanContext

__all__ = ["TraceHeaders"]

_W3C = frozenset({"traceparent", "tracestate", BAGGAGE})
_BAGGAGE = BAGGAGE.encode()


class TraceHeaders:
    """Adds headers by the application's global propagator. OpenTelemetry's baggage is added to the mesh's own, which is
    among the headers already; where both know a key, the mesh's value holds.

    Nearly every application uses W3C Trace Context, where the headers are one line of formatting; anything else, B3 for
    one, goes through its propagator.

    Attributes:
        current_context: returns OpenTelemetry's context of here and now; mostly it is empty.
    """

    __slots__ = (
        "_all_baggage",
        "_current_span",
        "_get_propagator",
        "_inject",
        "_invalid",
        "_known",
        "_plain",
        "_sends_baggage",
        "_span",
        "_with_span",
        "current_context",
    )

    def __init__(self) -> None:
        from opentelemetry import baggage, propagate, trace

        self._all_baggage = baggage.get_all
        self.current_context = _context_reader()
        self._current_span = trace.get_current_span
        self._invalid = trace.INVALID_SPAN
        self._span = trace.Span
        self._with_span = trace.set_span_in_context
        self._get_propagator = propagate.get_global_textmap
        self._inject = propagate.inject
        self._known: TextMapPropagator | None = None
        self._plain = self._sends_baggage = False

    def current_span(self) -> Span:
        """The current span, perhaps an invalid one."""
        return self._current_span()

    def pass_on(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Add the current trace and baggage, if there are any, as they are."""
        context = self.current_context()
        if not context:
            return
        self._look_at_propagator()
        self._add_baggage(headers)
        current = self._current_span()
        if current is self._invalid:
            caller = context.get(CALLER)
            current = caller if isinstance(caller, self._span) else current
        if current is not self._invalid and current.get_span_context().is_valid:
            self._add(headers, current)

    def parent_in(self, context: Mapping[str, object]) -> Context | None:
        """The context for a span made in `context`, where its parent is the caller's span and no current one; or
        None.
        """
        caller = context.get(CALLER)
        if caller is None or not isinstance(caller, self._span) or self._current_span() is not self._invalid:
            return None
        return self._with_span(caller)

    def add(self, headers: list[tuple[bytes, bytes]], span: Span) -> None:
        """Add the trace with `span` as the parent of what the callee does, and the baggage."""
        self._look_at_propagator()
        if self.current_context():
            self._add_baggage(headers)
        self._add(headers, span)

    def _look_at_propagator(self) -> None:
        propagator = self._get_propagator()
        if propagator is not self._known:
            # What its fields say is what it writes; a third-party one of the same fields would write the same.
            self._plain = "traceparent" in propagator.fields and propagator.fields <= _W3C
            self._sends_baggage = BAGGAGE in propagator.fields
            self._known = propagator

    def _add_baggage(self, headers: list[tuple[bytes, bytes]]) -> None:
        theirs = self._all_baggage() if self._sends_baggage else None
        if not theirs:
            return
        ours: dict[str, str] = {}
        for i, (name, value) in enumerate(headers):
            if name == _BAGGAGE:
                ours = parse_baggage({BAGGAGE: [value.decode("ascii")]})
                del headers[i]
                break
        others = {key: str(value) for key, value in theirs.items() if key not in ours}
        if merged := format_baggage({**ours, **others}):  # ours first, since what comes last may not fit
            headers.append((_BAGGAGE, merged.encode("ascii")))

    def _add(self, headers: list[tuple[bytes, bytes]], span: Span) -> None:
        if self._plain:
            _add_w3c(headers, span.get_span_context())
            return
        carrier: dict[str, str] = {}
        self._inject(carrier, self._with_span(span))
        for name, value in carrier.items():
            if name.lower() != BAGGAGE:
                headers.append((name.encode("ascii"), value.encode("latin-1", "replace")))


def _context_reader() -> Callable[[], Mapping[str, object]]:
    """What returns the current context. The way through the API is five calls deep, and mostly there is nothing."""
    from opentelemetry import context

    variable = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return variable.get if isinstance(variable, ContextVar) else context.get_current


def _add_w3c(headers: list[tuple[bytes, bytes]], context: SpanContext) -> None:
    if not context.is_valid:
        return
    parent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)
    headers.append((b"traceparent", parent))
    if context.trace_state:
        headers.append((b"tracestate", context.trace_state.to_header().encode("ascii", "replace")))
