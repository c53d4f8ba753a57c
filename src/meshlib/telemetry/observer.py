"""What the drivers tell of each call, and what becomes of it: spans, measurements, and events of change.

`Observer` speaks OpenTelemetry, `NullObserver` does not. With an `Observer` and no SDK a call costs two reads of a
variable and a look at whether a trace is to be passed on.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from meshlib.net.wire import Progress, Target
from meshlib.policy.actions import Start
from meshlib.policy.call import Call
from meshlib.telemetry import semconv
from meshlib.telemetry.changes import Changes
from meshlib.telemetry.spans import Spans, fate_of, is_suppressed, quiet

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from meshlib.balance.balancer import Member
    from meshlib.telemetry.durations import Durations
    from meshlib.telemetry.gauge import Observed
    from meshlib.telemetry.providers import Providers
    from meshlib.telemetry.trace_headers import TraceHeaders

__all__ = ["NullObserver", "Observer", "SpanMode", "hushed"]

SpanMode = Literal["attempts", "off"]

_PROVIDER_VARIABLES = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")
"""By these the environment names providers, which OpenTelemetry loads when it is first asked for them."""


class NullObserver:
    """Telemetry is off: no spans and no metrics. Changes of state are still told of, if `changes` is given."""

    __slots__ = ("_changes",)

    def __init__(self, changes: Changes | None = None) -> None:
        self._changes = changes

    def attempt_started(self, call: Call, start: Start, headers: list[tuple[bytes, bytes]]) -> object | None:
        """Do nothing."""
        return None

    def attempt_ended(
        self,
        handle: object | None,
        call: Call,
        n: int,
        status: int | None,
        error: BaseException | None,
        progress: Progress | None,
    ) -> None:
        """Do nothing."""

    def call_ended(self, call: Call, now: float) -> None:
        """Look for changes of state."""
        if self._changes is not None:
            self._changes.call_ended(call, now)

    def close(self) -> None:
        """Do nothing."""


class _Attempt:
    """An attempt under observation: its span, whose span it is, and whether to measure it."""

    __slots__ = ("adopted", "measured", "span")

    def __init__(self, span: Span | None, adopted: bool, measured: bool) -> None:
        self.span = span
        self.adopted = adopted
        self.measured = measured


def hushed(handle: object | None) -> AbstractContextManager[None]:
    """`quiet`, for an attempt that has a span already; else nothing.

    Args:
        handle: of the attempt; see `Observer.attempt_started`.
    """
    return quiet() if isinstance(handle, _Attempt) and handle.span is not None else nullcontext()


class Observer:
    """Traces and measures calls through the OpenTelemetry API.

    Args:
        observed: what the observable instruments read; None for histograms and spans alone.
        spans: ``attempts`` for one CLIENT span each; ``off`` for none, while traces are still passed on.
        changes: told of each call that ended.
        tracer_provider, meter_provider: instead of the global ones.
    """

    def __init__(
        self,
        observed: Observed | None = None,
        *,
        spans: SpanMode = "attempts",
        changes: Changes | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if spans not in ("attempts", "off"):
            raise ValueError(f"spans: 'attempts' or 'off', not {spans!r}")
        self.observed = observed
        self._spans_off = spans == "off"
        self._changes = changes
        self._given = (tracer_provider, meter_provider)
        self._providers: Providers | None = None
        self._wanted = self._given != (None, None) or any(map(os.environ.get, _PROVIDER_VARIABLES))
        self._trace_headers: TraceHeaders
        self._spans: tuple[Tracer, Spans] | None = None
        self._durations: tuple[Meter, Durations] | None = None
        self._retries: dict[str, int] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Observer{' without spans' if self._spans_off else ''}>"

    def attempt_started(self, call: Call, start: Start, headers: list[tuple[bytes, bytes]]) -> object | None:
        """Start the span of an attempt, and append the trace's headers to `headers`.

        Returns:
            What to give to `attempt_ended`; None if the attempt is not observed.
        """
        if start.n > 1 and not call.attempts[start.n - 1].hedge:
            self._count_retry(start.cluster)
        providers = self._providers
        if providers is None:
            if not self._wanted and "opentelemetry" not in sys.modules:
                return None  # who has not imported it has neither set a provider nor begun a trace
            providers = self._load()
        if providers.silent():
            self._trace_headers.pass_on(headers)
            return None
        tracer, durations = providers.tracer(), self._measuring(providers)
        if tracer is None and durations is None:
            self._trace_headers.pass_on(headers)
            return None
        return self._observe(call, start, headers, tracer, durations is not None)

    def attempt_ended(
        self,
        handle: object | None,
        call: Call,
        n: int,
        status: int | None,
        error: BaseException | None,
        progress: Progress | None,
    ) -> None:
        """End what `attempt_started` began; with None it does nothing.

        Args:
            handle: what `attempt_started` returned.
            call: told of the attempt's end before.
            n: the attempt's number.
            status: of the response, if its headers came.
            error: how it failed, or was given up (`asyncio.CancelledError` and the like); None if it did not.
            progress: how far it came.
        """
        if not isinstance(handle, _Attempt):
            return
        attempt = call.attempts[n - 1]
        failure = fate_of(call, attempt, status, error)
        http = _protocol(attempt.member.target, status, progress)
        span, spans = handle.span, self._spans
        if span is not None and spans is not None:
            if handle.adopted:
                spans[1].end_adopted(span, status, failure)
            else:
                spans[1].end(span, status, failure, error, http)
        durations = self._durations
        if handle.measured and durations is not None:
            ended = attempt.headers_at if attempt.headers_at is not None else attempt.finished_at
            if ended is not None:
                zone = self._zone(attempt.member)
                durations[1].attempt(call.facts, ended - attempt.started_at, status, failure, http, zone)

    def call_ended(self, call: Call, now: float) -> None:
        """A call delivered its headers, failed, or was cancelled. Once per call."""
        providers = self._providers
        if providers is None and (self._wanted or "opentelemetry" in sys.modules):
            providers = self._load()
        if providers is not None and not providers.silent():
            if (durations := self._measuring(providers)) is not None:
                durations.call(call, now)
            if call.facts.route.reply is not None:
                self._trace_reply(call, providers.tracer())
        if self._changes is not None:
            self._changes.call_ended(call, now)

    def _trace_reply(self, call: Call, tracer: Tracer | None) -> None:
        """An answer that the route gave itself has a span of its own, unless somebody else's is around it."""
        if tracer is None or self._spans_off:
            return
        known = self._spans_of(tracer)
        context = self._trace_headers.current_context()
        if context and (is_suppressed(context) or known.adoptable(self._trace_headers.current_span())):
            return
        known.reply(call)

    def _spans_of(self, tracer: Tracer) -> Spans:
        known = self._spans
        if known is None or known[0] is not tracer:
            known = self._spans = (tracer, Spans(tracer))
        return known[1]

    def retries(self) -> dict[str, int]:
        """Attempts beyond the first of their call, without hedges, by cluster. The numbers only grow."""
        with self._lock:
            return dict(self._retries)

    def look_for_meter(self) -> None:
        """Have the observable instruments read from now on, if there is a meter by now. Calls do so by themselves: this
        is for a process that makes none.
        """
        providers = self._providers
        if providers is None and (self._wanted or "opentelemetry.metrics" in sys.modules):
            providers = self._load()
        if providers is not None and not providers.silent():
            self._measuring(providers)

    def close(self) -> None:
        """Report nothing more through observable instruments."""
        if self._durations is not None:
            from meshlib.telemetry.gauges import unwatch

            unwatch(self)

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _zone(self, member: Member) -> str:
        """Whether a member is in this process's zone; empty where nobody said which that is."""
        here = None if self.observed is None else self.observed.locality()
        return "" if here is None else semconv.zone_of(here, member.endpoint.locality)

    def _count_retry(self, cluster: str) -> None:
        with self._lock:
            self._retries[cluster] = self._retries.get(cluster, 0) + 1

    def _load(self) -> Providers:
        from meshlib.telemetry.providers import Providers
        from meshlib.telemetry.trace_headers import TraceHeaders

        self._trace_headers = TraceHeaders()
        providers = self._providers = Providers(*self._given)
        return providers

    def _measuring(self, providers: Providers) -> Durations | None:
        meter = providers.meter()
        if meter is None:
            return None
        known = self._durations
        if known is None or known[0] is not meter:
            from meshlib.telemetry.durations import Durations

            # Two threads may come here at once: instruments of the same name are one, and `watch` counts us once.
            known = self._durations = (meter, Durations(meter))
            if self.observed is not None:
                from meshlib.telemetry.gauges import watch

                watch(meter, self)
        return known[1]

    def _observe(
        self, call: Call, start: Start, headers: list[tuple[bytes, bytes]], tracer: Tracer | None, measured: bool
    ) -> _Attempt | None:
        context = self._trace_headers.current_context()
        suppressed = bool(context) and is_suppressed(context)
        span: Span | None = None
        adopted = False
        if tracer is not None and not self._spans_off:
            spans = self._spans_of(tracer)
            if context and start.n == 1:
                current = self._trace_headers.current_span()
                adopted = spans.adoptable(current)
                if adopted:
                    # Its owner measures the same request by the same name, unless it still uses the old conventions.
                    measured = measured and "http.method" in (getattr(current, "attributes", None) or {})
                    spans.adopt(current, call, start, self._zone(start.member))
                    span = current
            if span is None and not suppressed:
                parent = self._trace_headers.parent_in(context) if context else None
                span = spans.start(call, start, self._zone(start.member), parent)
        if suppressed and not adopted:
            return None
        if span is None:
            self._trace_headers.pass_on(headers)
        else:
            self._trace_headers.add(headers, span)
        return _Attempt(span, adopted, measured and not suppressed)


def _protocol(target: object, status: int | None, progress: Progress | None) -> str:
    """The version of HTTP that was spoken; empty if that is not known."""
    told = getattr(progress, "http_version", b"")
    if told == b"HTTP/1.1":
        return "1.1"
    if told:
        return (told.decode("ascii", "replace") if isinstance(told, bytes) else str(told)).removeprefix("HTTP/")
    if status is None:
        return ""
    wire = getattr(target, "target", target)
    return "" if isinstance(wire, Target) and wire.http2 else "1.1"
