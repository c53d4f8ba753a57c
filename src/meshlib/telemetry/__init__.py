"""Traces, metrics, events and log lines.

`setup` sends traces and metrics by OTLP, for applications that have no OpenTelemetry SDK of their own. Everything else
reports to whatever the application has set up. Importing this package imports no OpenTelemetry.

    observer                    what the drivers tell of each call, and what becomes of it:
    spans, trace_headers        a span for each attempt; the trace on the wire
    durations                   the two histograms
    changes, bus                changes of state that are noticed; where events go
    event, events               what events have in common; those of calls and their services, and in
                                `serving_events` and `lifecycle_events` those of what this process serves
    gauge, gauges               an instrument that is read; all of them, with `gauges_members` and `gauges_serving`
    semconv, providers          the names of OpenTelemetry; what the application has set up of it
    otlp                        `setup`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.telemetry.bus import EventBus as EventBus
    from meshlib.telemetry.changes import Changes as Changes
    from meshlib.telemetry.events import Event as Event
    from meshlib.telemetry.gauges import Observed as Observed
    from meshlib.telemetry.observer import NullObserver as NullObserver
    from meshlib.telemetry.observer import Observer as Observer
    from meshlib.telemetry.otlp import Telemetry as Telemetry
    from meshlib.telemetry.otlp import setup as setup
    from meshlib.telemetry.spans import quiet as quiet

_HOME = {
    "Changes": "changes",
    "Event": "events",
    "EventBus": "bus",
    "NullObserver": "observer",
    "Observed": "gauges",
    "Observer": "observer",
    "Telemetry": "otlp",
    "quiet": "spans",
    "setup": "otlp",
}

__all__ = [
    "Changes",
    "Event",
    "EventBus",
    "NullObserver",
    "Observed",
    "Observer",
    "Telemetry",
    "quiet",
    "setup",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
