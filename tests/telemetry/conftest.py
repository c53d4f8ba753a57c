from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshlib.telemetry.observer import Observer

if TYPE_CHECKING:
    from meshlib.telemetry.gauges import Observed


class Sdk:
    """An SDK in memory. Not the global one, so that each test has its own."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def observer(self, observed: Observed | None = None, **options: Any) -> Observer:
        return Observer(observed, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order of their ends."""
        return list(self.exporter.get_finished_spans())

    def metrics(self, scope: str = "meshlib") -> dict[str, Any]:
        """Each metric by its name, as the reader collects it now."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scoped in resource.scope_metrics
            if scoped.scope.name == scope
            for metric in scoped.metrics
        }

    def points(self, name: str, scope: str = "meshlib") -> dict[frozenset[tuple[str, Any]], Any]:
        """The points of one metric: the value, or for a histogram the number of measurements, by their attributes."""
        metric = self.metrics(scope).get(name)
        if metric is None:
            return {}
        return {
            frozenset(point.attributes.items()): point.count if hasattr(point, "count") else point.value
            for point in metric.data.data_points
        }


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    made = Sdk()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()
