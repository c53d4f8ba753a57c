"""The two histograms: how long each attempt took, and each call with all its attempts and waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.policy.call import Call
from meshlib.policy.facts import CallFacts
from meshlib.telemetry import semconv
from meshlib.telemetry.spans import reply_of

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.util.types import AttributeValue

__all__ = ["ATTEMPT_DURATION", "CALL_DURATION", "Durations"]

ATTEMPT_DURATION = "http.client.request.duration"
CALL_DURATION = "meshlib.client.call.duration"

_MAX_KNOWN = 4096


class Durations:
    """Measures attempts and calls. The sets of attributes are few, and made once for each kind of call."""

    __slots__ = ("_attempt", "_call")

    def __init__(self, meter: Meter) -> None:
        self._attempt = _histogram(meter, ATTEMPT_DURATION, "Duration of HTTP client requests.")
        what = "Duration of calls, as long as the caller waited for the response, with all attempts and waits."
        self._call = _histogram(meter, CALL_DURATION, what)

    def attempt(
        self, facts: CallFacts, duration_s: float, status: int | None, failure: str | None, http: str, zone: str = ""
    ) -> None:
        """An attempt is over; `zone` as of `semconv.zone_of`, empty where that is not told."""
        key = (status, failure, http, zone)
        attributes: dict[str, AttributeValue] | None = facts.told.get(key)
        if attributes is None:
            attributes = {
                semconv.METHOD: semconv.known_method(facts.method),
                semconv.SERVER_ADDRESS: facts.service,
                semconv.SERVER_PORT: facts.port or semconv.default_port(facts.scheme),
            }
            if http:
                attributes[semconv.PROTOCOL_VERSION] = http
            if zone:
                attributes[semconv.ZONE] = zone
            _keep(facts, key, attributes, status, failure)
        self._attempt.record(max(0.0, duration_s), attributes)

    def call(self, call: Call, now: float) -> None:
        """A call is over, as far as its caller's wait goes."""
        facts, journal = call.facts, call.journal
        status = journal.status
        failure: str | None = None
        if journal.error is not None:
            failure = semconv.error_type(journal.error)
        elif journal.outcome == "cancelled":
            failure = "cancelled"
        elif status is not None and status >= 400:
            failure = str(status)
        reply = None if facts.route.reply is None else reply_of(call)
        key = (status, failure) if reply is None else (status, failure, reply)
        attributes: dict[str, AttributeValue] | None = facts.told.get(key)
        if attributes is None:
            attributes = {
                semconv.METHOD: semconv.known_method(facts.method),
                semconv.SERVER_ADDRESS: facts.service,
                semconv.ROUTE: facts.route.name,
            }
            if reply is not None:
                attributes[semconv.REPLY] = reply
            _keep(facts, key, attributes, status, failure)
        began = now if journal.began is None else journal.began
        ended = now if journal.ended is None else journal.ended
        self._call.record(max(0.0, ended - began), attributes)


def _keep(
    facts: CallFacts,
    key: tuple[object, ...],
    attributes: dict[str, AttributeValue],
    status: int | None,
    failure: str | None,
) -> None:
    if status is not None:
        attributes[semconv.STATUS] = status
    if failure is not None:
        attributes[semconv.ERROR_TYPE] = failure
    if len(facts.told) >= _MAX_KNOWN:
        facts.told.clear()
    facts.told[key] = attributes


def _histogram(meter: Meter, name: str, description: str) -> Histogram:
    try:
        return meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS_S
        )
    except TypeError:  # the API before 1.30, where only a View of the application can set buckets
        return meter.create_histogram(name, "s", description)
