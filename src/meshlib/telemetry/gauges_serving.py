"""The observable instruments about the requests that this process serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshlib.telemetry.gauge import Gauge, Observed, Observing, Reading

if TYPE_CHECKING:
    from meshlib.policy.serving_queue import ServingQueue

__all__ = ["SERVING_GAUGES"]


def _in_flight(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    if serving is not None:
        yield (), serving.in_flight


def _backlog(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    backlog = None if serving is None else serving.backlog
    if backlog is not None:
        yield (), backlog.waiting


def _backlog_limit(_: Observing, observed: Observed) -> Iterator[Reading]:
    serving = observed.serving()
    backlog = None if serving is None else serving.backlog
    if backlog is not None:
        yield (), backlog.limit


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


def _queue(observed: Observed) -> ServingQueue | None:
    serving = observed.serving()
    admission = None if serving is None else serving.admission
    return None if admission is None else admission.queue


def _limit(_: Observing, observed: Observed) -> Iterator[Reading]:
    queue = _queue(observed)
    if queue is not None:
        yield (), queue.limit


def _pending(_: Observing, observed: Observed) -> Iterator[Reading]:
    queue = _queue(observed)
    if queue is not None:
        yield (), queue.pending


def _admitted(_: Observing, observed: Observed) -> Iterator[Reading]:
    queue = _queue(observed)
    if queue is not None:
        yield (("meshlib.server.waited", "no"),), queue.admitted - queue.waited
        yield (("meshlib.server.waited", "yes"),), queue.waited


def _wait_time(_: Observing, observed: Observed) -> Iterator[Reading]:
    queue = _queue(observed)
    if queue is not None:
        yield (), queue.waited_s


def _shed(_: Observing, observed: Observed) -> Iterator[Reading]:
    queue = _queue(observed)
    for (reason, criticality), count in () if queue is None else list(queue.shed.items()):
        yield (("meshlib.server.reason", reason), ("meshlib.criticality", criticality.name.lower())), count


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
    Gauge("meshlib.server.backlog", "{connection}", "Connections that wait to be accepted.", "gauge", _backlog, max),
    Gauge("meshlib.server.backlog.limit", "{connection}", "How many may.", "gauge", _backlog_limit, max),
    Gauge("meshlib.server.limit", "{request}", "Requests that may be served at once.", "updown", _limit),
    Gauge("meshlib.server.pending", "{request}", "Requests that wait for a place.", "updown", _pending),
    Gauge("meshlib.server.admitted", "{request}", "Requests that got a place.", "counter", _admitted),
    Gauge("meshlib.server.wait_time", "s", "Time that those waited, all together.", "counter", _wait_time),
    Gauge("meshlib.server.shed", "{request}", "Requests that got none, by reason and criticality.", "counter", _shed),
)
"""In the order of the documentation."""
