"""OpenTelemetry as the application has set it up; seen for next to nothing while it has not.

An application may set its providers at any time, also after the first call. So each attempt asks anew, and the answer
has to be cheap: the API's own getters read the environment each time as long as no provider is set, which costs more
than all else that an attempt without an SDK does here. The variables behind them are read instead; where a version of
the API does not have them, the getters are asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

__all__ = ["SCOPE", "Providers"]

SCOPE = "meshlib"
"""The name of the instrumentation scope of all spans and metrics."""

_SCHEMA = "https://opentelemetry.io/schemas/1.27.0"


class Providers:
    """The tracer and the meter in force. Imports ``opentelemetry`` when it is made.

    Args:
        tracer_provider, meter_provider: instead of the global ones.

    Attributes:
        silent: tells whether nothing is set up, so that spans and measurements would go nowhere.
    """

    __slots__ = ("_meter", "_meter_of", "_read_meter", "_read_tracer", "_tracer", "_tracer_of", "silent")

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._read_tracer = _fixed(tracer_provider) if tracer_provider is not None else _global_tracer_provider()
        self._read_meter = _fixed(meter_provider) if meter_provider is not None else _global_meter_provider()
        given = tracer_provider is not None or meter_provider is not None
        self.silent = _never if given else _global_silence(self._read_tracer, self._read_meter)
        self._tracer: Tracer | None = None
        self._tracer_of: TracerProvider | None = None
        self._meter: Meter | None = None
        self._meter_of: MeterProvider | None = None

    def tracer(self) -> Tracer | None:
        """The tracer; None where spans would go nowhere."""
        provider = self._read_tracer()
        if provider is not self._tracer_of:
            self._tracer = None if provider is None else _tracer(provider)
            self._tracer_of = provider
        return self._tracer

    def meter(self) -> Meter | None:
        """The meter, the same one until the provider changes; None where measurements would go nowhere."""
        provider = self._read_meter()
        if provider is not self._meter_of:
            self._meter = None if provider is None else _meter(provider)
            self._meter_of = provider
        return self._meter


def _fixed(provider: Any) -> Callable[[], Any]:
    return lambda: provider


def _global_tracer_provider() -> Callable[[], Any]:
    from opentelemetry import trace

    # Once by the public way: it loads the provider that the environment names.
    trace.get_tracer_provider()
    if hasattr(trace, "_TRACER_PROVIDER"):
        return lambda: trace._TRACER_PROVIDER
    return _unless_proxy(trace.get_tracer_provider, "ProxyTracerProvider")


def _global_meter_provider() -> Callable[[], Any]:
    from opentelemetry import metrics
    from opentelemetry.metrics import _internal

    metrics.get_meter_provider()
    if hasattr(_internal, "_METER_PROVIDER"):
        return lambda: _internal._METER_PROVIDER
    return _unless_proxy(metrics.get_meter_provider, "_ProxyMeterProvider")


def _never() -> bool:
    return False


def _global_silence(read_tracer: Callable[[], Any], read_meter: Callable[[], Any]) -> Callable[[], bool]:
    from opentelemetry import trace
    from opentelemetry.metrics import _internal

    if hasattr(trace, "_TRACER_PROVIDER") and hasattr(_internal, "_METER_PROVIDER"):
        return lambda: trace._TRACER_PROVIDER is None and _internal._METER_PROVIDER is None
    return lambda: read_tracer() is None and read_meter() is None


def _unless_proxy(get: Callable[[], Any], proxy: str) -> Callable[[], Any]:
    def read() -> Any:
        provider = get()
        return None if type(provider).__name__ == proxy else provider

    return read


def _tracer(provider: TracerProvider) -> Tracer | None:
    from opentelemetry.trace import NoOpTracer

    from meshlib._version import __version__

    tracer = provider.get_tracer(SCOPE, __version__, _SCHEMA)
    return None if isinstance(tracer, NoOpTracer) else tracer


def _meter(provider: MeterProvider) -> Meter | None:
    from opentelemetry.metrics import NoOpMeter

    from meshlib._version import __version__

    meter = provider.get_meter(SCOPE, __version__, _SCHEMA)
    return None if isinstance(meter, NoOpMeter) else meter
