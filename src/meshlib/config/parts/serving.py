"""What becomes of the requests that come in, as it is written under ``server``: admission, health."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator

from meshlib.config import shown
from meshlib.config.fields import TOKEN, Count, Interval, Many, Name, OrFalse, Part, Percent, UrlPath, closest, reject
from meshlib.config.health_settings import HealthSettings
from meshlib.config.parts.admission import Adaptive
from meshlib.policy.admission_settings import KeySource
from meshlib.policy.serving_settings import AdmissionSettings, SharesSettings

__all__ = ["Admission", "AdmissionShares", "Health"]

_ADMISSION = AdmissionSettings()
_SHARES = SharesSettings()
_HEALTH = HealthSettings()

_Share = Annotated[Percent, Field(gt=0)]


def _caller(value: Any) -> KeySource:
    if isinstance(value, KeySource):
        return value
    if isinstance(value, str):
        kind, _, name = value.partition(":")
        if kind == "header" and TOKEN.fullmatch(name):
            return KeySource("header", name.lower())
        if value == "peer":
            return KeySource("peer")
    near = closest(value, ("peer", "header:x-client")) if isinstance(value, str) else None
    reject("does not name a caller: peer, or a header such as header:x-client, is expected", nearest=near)


class AdmissionShares(Part):
    """How much of the limit may be in use for a request to get in, while more critical ones come.

    Attributes:
        critical_percent: for critical ones, while there are some that are critical-plus.
        sheddable_plus_percent, sheddable_percent: for those.
    """

    compiles_to: ClassVar = SharesSettings

    critical_percent: _Share = _SHARES.critical_percent
    sheddable_plus_percent: _Share = _SHARES.sheddable_plus_percent
    sheddable_percent: _Share = _SHARES.sheddable_percent


class Admission(Part):
    """How many requests are served at once, and what becomes of the others.

    Attributes:
        max_in_flight: requests that are served at once; with `adaptive`, the most that it may find.
        adaptive: how that limit finds itself; null or false for not at all.
        max_pending: requests that wait in the queue before it; 0 for none.
        order: who gets a place that falls free: ``fifo``, ``lifo``, or ``adaptive``, which is the last that came while
            the queue stands, else the first.
        interval: a queue that was not empty for so long stands; and how long a request may wait while it does not.
        target: how long a request may wait while it does.
        shares: what is kept free for the more critical.
        fair_by: what names the caller: ``peer`` or ``header:x-client``; null: callers are not told apart.
        retries_percent: with such a share of retries among the requests, those refused are not to be repeated.
    """

    compiles_to: ClassVar = AdmissionSettings

    max_in_flight: Annotated[Count, Field(ge=1)] | None = _ADMISSION.max_in_flight
    adaptive: OrFalse[Adaptive] | None = None
    max_pending: Annotated[Count, Field(ge=0)] = _ADMISSION.max_pending
    order: Literal["adaptive", "fifo", "lifo"] = _ADMISSION.order
    interval: Interval = _ADMISSION.interval_s
    target: Interval = _ADMISSION.target_s
    shares: AdmissionShares = AdmissionShares()
    fair_by: Annotated[Any, PlainValidator(_caller), shown.SENDERS] | None = None
    retries_percent: _Share = _ADMISSION.retries_percent


class Health(Part):
    """Endpoints by which others ask how this process is, answered in the place of the application.

    Attributes:
        live: the path that says whether it answers at all; null for none.
        ready: the path that says whether it is to get requests; null for none.
        services: that discovery must know, each with a healthy endpoint, before it is ready.
        stuck_for: all places of ``admission`` are taken, and no request has ended for so long: not ready; null for
            never.
        overloaded_for: critical requests are refused for so long: not ready; null for never.
        check_timeout: how long a check of your own may take.
    """

    compiles_to: ClassVar = HealthSettings

    live: UrlPath | None = _HEALTH.live
    ready: UrlPath | None = _HEALTH.ready
    services: Many[Name] = _HEALTH.services
    stuck_for: Interval | None = _HEALTH.stuck_for_s
    overloaded_for: Interval | None = _HEALTH.overloaded_for_s
    check_timeout: Interval = _HEALTH.check_timeout_s
