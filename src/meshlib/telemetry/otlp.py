"""``meshlib.telemetry.setup()``: an OpenTelemetry SDK that sends by OTLP, in one line.

For applications that have none. What is set is left alone: the mesh reports to whatever provider the application uses,
and an application that knows its way around OpenTelemetry never needs this module.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from meshlib.durations import Duration, parse_duration

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Protocol", "Telemetry", "setup"]

Protocol = Literal["http/protobuf", "grpc"]

_HINT = 'to send telemetry, the OpenTelemetry SDK is needed: pip install "meshlib-http[otel]"'
_EXPORTERS = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}

_log = logging.getLogger("meshlib")


class Telemetry:
    """What `setup` started. A context manager: it is shut down at the end, and at the latest when the process exits.

    Attributes:
        tracer_provider, meter_provider: those that `setup` made; None where one was set already, or not wanted.
    """

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self._down = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        made = [name for name, each in (("traces", self.tracer_provider), ("metrics", self.meter_provider)) if each]
        return f"<Telemetry {' and '.join(made) or 'of the application'}>"

    def flush(self, timeout: Duration = "5s") -> bool:
        """Send what there is. Whether all of it was sent in time."""
        timeout_ms = int(parse_duration(timeout) * 1000)
        providers = [each for each in (self.tracer_provider, self.meter_provider) if each is not None]
        sent = [each.force_flush(timeout_ms) for each in providers]  # each, even if one fails
        return all(sent)

    def shutdown(self) -> None:
        """Send what there is, and stop. Calling it again does nothing; providers that were set before are untouched."""
        with self._lock:
            if self._down:
                return
            self._down = True
        for provider in (self.tracer_provider, self.meter_provider):
            if provider is not None:
                try:
                    provider.shutdown()
                except Exception:
                    _log.warning("telemetry could not be shut down in order", exc_info=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.shutdown()


def setup(
    service_name: str | None = None,
    endpoint: str | None = None,
    *,
    protocol: Protocol | None = None,
    headers: Mapping[str, str] | None = None,
    traces: bool = True,
    metrics: bool = True,
    metric_interval: Duration | None = None,
    resource_attributes: Mapping[str, str] | None = None,
) -> Telemetry:
    """Send traces and metrics by OTLP. Needs the extra ``otel``.

    A provider that is set already is never replaced, and nothing is added to it. What is not given here comes from
    OpenTelemetry's own environment variables (``OTEL_SERVICE_NAME``, ``OTEL_EXPORTER_OTLP_ENDPOINT``, samplers, and so
    on).

    Call it once, early; before the fork is early enough: the SDK starts its threads anew in a forked child.

    Args:
        service_name: of this process.
        endpoint: the collector's base URL, ``http://127.0.0.1:4318``.
        protocol: ``http/protobuf``, the default, or ``grpc``.
        headers: sent along to the collector: a token, for one.
        traces: whether to send traces. ``OTEL_TRACES_EXPORTER=none`` also says no.
        metrics: whether to send metrics. ``OTEL_METRICS_EXPORTER=none`` also says no.
        metric_interval: how often metrics are sent; seconds, or ``"15s"``.
        resource_attributes: what else describes this process.

    Returns:
        What was started: ``shutdown()``, or ``with``. Leaving it alone is fine; all is sent at exit.

    Raises:
        ImportError: if the SDK, or the exporter for this protocol, is not installed.
        ValueError: if `protocol` is neither of the two, or `metric_interval` is no duration.
    """
    interval_ms = None if metric_interval is None else int(parse_duration(metric_interval) * 1000)
    chosen = protocol or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    if chosen not in _EXPORTERS:
        raise ValueError(f"protocol: 'http/protobuf' or 'grpc', not {chosen!r}")
    traces = traces and os.environ.get("OTEL_TRACES_EXPORTER") != "none"
    metrics = metrics and os.environ.get("OTEL_METRICS_EXPORTER") != "none"
    try:
        from opentelemetry.sdk.resources import Resource
    except ImportError as error:
        raise ImportError(_HINT) from error
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        _log.info("telemetry: OTEL_SDK_DISABLED is set, so nothing is sent")
        return Telemetry(None, None)
    described = dict(resource_attributes or {})
    if service_name is not None:
        described["service.name"] = service_name
    resource = Resource.create(dict(described))
    tracer_provider = _start_traces(resource, _exporter(chosen, "trace", endpoint, headers)) if traces else None
    meter_provider = (
        _start_metrics(resource, _exporter(chosen, "metric", endpoint, headers), interval_ms) if metrics else None
    )
    return Telemetry(tracer_provider, meter_provider)


def _exporter(protocol: str, signal: str, endpoint: str | None, headers: Mapping[str, str] | None) -> Callable[[], Any]:
    """A function that makes the exporter of one signal. The import is tried here, so that what is missing is told."""
    package = _EXPORTERS[protocol]
    try:
        module = import_module(f"{package}.{signal}_exporter")
    except ImportError as error:
        missing = f"{_HINT} (no OTLP exporter for {protocol}: {error})"
        raise ImportError(missing) from error
    make = module.OTLPSpanExporter if signal == "trace" else module.OTLPMetricExporter
    given: dict[str, Any] = {}
    if endpoint is not None:
        path = {"trace": "/v1/traces", "metric": "/v1/metrics"}[signal]
        given["endpoint"] = endpoint if protocol == "grpc" else endpoint.rstrip("/") + path
    if headers is not None:
        given["headers"] = dict(headers)
    return lambda: make(**given)


def _start_traces(resource: Resource, exporter: Callable[[], Any]) -> TracerProvider | None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _log.info("telemetry: a tracer provider is set already, so spans go there")
        return None
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)
    return provider


def _start_metrics(resource: Resource, exporter: Callable[[], Any], interval_ms: int | None) -> MeterProvider | None:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    # The proxy's class has no public name.
    if type(metrics.get_meter_provider()).__name__ != "_ProxyMeterProvider":
        _log.info("telemetry: a meter provider is set already, so measurements go there")
        return None
    reader = PeriodicExportingMetricReader(exporter(), export_interval_millis=interval_ms)
    provider = MeterProvider(metric_readers=[reader], resource=resource)
    metrics.set_meter_provider(provider)
    return provider
