"""The observable instruments about the requests that this process serves."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.telemetry.gauge import Gauge, Observed, Observing, Reading

__all__ = ["SERVING_GAUGES"]


def _in_flight(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    if serving is not None:
        yield (), serving.in_flight


def _requests(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    if serving is not None:
        for (outcome, reason), count in serving.outcomes.items():
            of = (("meshlib.server.outcome", outcome),)
            yield (*of, ("meshlib.server.reason", reason)) if reason else of, count


def _time(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    if serving is not None:
        yield (), serving.busy_s


def _untrusted(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    if serving is not None:
        yield (), serving.intake.counts.untrusted


SERVING_GAUGES = (
    Gauge("meshlib.server.in_flight", "{request}", "Requests that are being served.", "updown", _in_flight),
    Gauge("meshlib.server.requests", "{request}", "Requests, by how they ended.", "counter", _requests),
    Gauge("meshlib.server.time", "s", "Time that requests took, all together.", "counter", _time),
    Gauge(
        "meshlib.server.untrusted",
        "{request}",
        "Requests whose mesh headers were ignored because of where they came from.",
        "counter",
        _untrusted,
    ),
)
"""In the order of the documentation."""
