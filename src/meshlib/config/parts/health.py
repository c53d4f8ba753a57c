"""When a single endpoint is left out, as it is written: by how calls to it went, or by asking it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from meshlib.config import shown
from meshlib.config.fields import (
    Amount,
    Count,
    Flag,
    HeaderName,
    HeaderValue,
    Interval,
    Many,
    OrFalse,
    Part,
    Percent,
    Port,
    Span,
    reject,
)
from meshlib.dataclass import replace
from meshlib.policy import health_check as checks
from meshlib.policy.settings import AccrualSettings, FailurePercentageSettings, OutlierSettings, SuccessRateSettings

__all__ = [
    "Accrual",
    "FailurePercentage",
    "HealthCheck",
    "HttpCheck",
    "OutlierDetection",
    "SuccessRate",
    "TcpCheck",
]

_OUTLIER = OutlierSettings()
_SUCCESS_RATE = SuccessRateSettings()
_FAILURE_PERCENTAGE = FailurePercentageSettings()
_ACCRUAL = AccrualSettings()
_CHECK = checks.HealthCheckSettings()
_HTTP = checks.HttpCheck()

_ENVOY: Final[dict[str, Any]] = {
    "consecutive_errors": 0,
    "consecutive_5xx": 5,
    "consecutive_local_origin_failure": 5,
    "success_rate": _SUCCESS_RATE,
    "max_ejection_percent": 10.0,
    "always_eject_one_of": 0,
    "return_by": "sweep",
}
"""What Envoy does where nothing is written, and we do otherwise. What it detects and does not enforce is left out."""

_ENVOYS_WORDS: Final = frozenset(
    {
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "consecutive_local_origin_failure",
        "enforcing_consecutive_5xx_percent",
        "enforcing_consecutive_gateway_failure_percent",
        "enforcing_consecutive_local_origin_failure_percent",
        "failure_percentage",
        "split_external_local_origin_errors",
        "success_rate",
    }
)


class SuccessRate(Part):
    """Who is ejected for a success rate that is far below that of the others.

    Attributes:
        minimum_hosts: with fewer endpoints that had enough calls, nobody is.
        request_volume: so many calls in an interval are enough.
        stdev_factor: by how many standard deviations below the mean.
        enforcing_percent: how many of those found are ejected; the others are only counted.
        enforcing_local_origin_percent: the same, for failures on this side of the connection where they are split.
    """

    compiles_to: ClassVar = SuccessRateSettings

    minimum_hosts: Annotated[Count, Field(ge=1)] = _SUCCESS_RATE.minimum_hosts
    request_volume: Annotated[Count, Field(ge=1)] = _SUCCESS_RATE.request_volume
    stdev_factor: Amount = _SUCCESS_RATE.stdev_factor
    enforcing_percent: Percent = _SUCCESS_RATE.enforcing_percent
    enforcing_local_origin_percent: Percent = _SUCCESS_RATE.enforcing_local_origin_percent


class FailurePercentage(Part):
    """Who is ejected for failing in too many of its calls.

    Attributes:
        threshold_percent: of its calls.
        minimum_hosts: with fewer endpoints that had enough calls, nobody is.
        request_volume: so many calls in an interval are enough.
        enforcing_percent: how many of those found are ejected; the others are only counted.
        enforcing_local_origin_percent: the same, for failures on this side of the connection where they are split.
    """

    compiles_to: ClassVar = FailurePercentageSettings

    threshold_percent: Percent = _FAILURE_PERCENTAGE.threshold_percent
    minimum_hosts: Annotated[Count, Field(ge=1)] = _FAILURE_PERCENTAGE.minimum_hosts
    request_volume: Annotated[Count, Field(ge=1)] = _FAILURE_PERCENTAGE.request_volume
    enforcing_percent: Percent = _FAILURE_PERCENTAGE.enforcing_percent
    enforcing_local_origin_percent: Percent = _FAILURE_PERCENTAGE.enforcing_local_origin_percent


class Accrual(Part):
    """Who is ejected for a success rate of its own that is too low.

    Attributes:
        kind: ``ema``, a moving average as Finagle has it, or ``window``, exact counts as Linkerd has them.
        success_rate_percent: below it one is ejected.
        window: over which time; 30 s, and 10 s of ``window``.
        requests: over so many requests instead; of ``ema``.
        min_requests: with fewer in the window nobody is.
    """

    compiles_to: ClassVar = AccrualSettings

    kind: Literal["ema", "window"] = _ACCRUAL.kind
    success_rate_percent: Annotated[Percent, Field(gt=0)] = _ACCRUAL.success_rate_percent
    window: Annotated[Interval, Field(ge=0.01)] = _ACCRUAL.window_s
    requests: Annotated[Count, Field(ge=1)] | None = None
    min_requests: Annotated[Count, Field(ge=1)] = _ACCRUAL.min_requests

    def begins_with(self, base: AccrualSettings) -> AccrualSettings:
        """Another kind begins with its own defaults, and a window of time ends one of requests."""
        if "kind" in self.model_fields_set and self.kind != base.kind:
            base = AccrualSettings(self.kind, window_s=10.0 if self.kind == "window" else _ACCRUAL.window_s)
        return replace(base, requests=None) if "window" in self.model_fields_set else base


class OutlierDetection(Part):
    """When a single endpoint is left out for a while, by how calls to it went.

    As soon as one of Envoy's rules is written (`consecutive_5xx` to `failure_percentage`), what is not written is as
    Envoy has it, rather than as in this class.

    Attributes:
        consecutive_errors: failures in a row; 0 for no such rule.
        consecutive_5xx, consecutive_gateway_failure, consecutive_local_origin_failure: Envoy's rules; 0 for no such.
        enforcing_consecutive_5xx_percent and so on: how many of those found are ejected; the others are only counted.
        split_external_local_origin_errors: count failures on this side of the connection apart.
        success_rate, failure_percentage, accrual: see their classes; false or null for no such rule.
        interval: between sweeps, which look at rates.
        base_ejection: how long it is out the first time.
        max_ejection: how long at most.
        max_ejection_jitter: up to this is added.
        max_ejection_percent: of the endpoints, at once.
        always_eject_one_of: with so many endpoints one may be out whatever the percentage says; 0 for never.
        return_by: ``probe`` (one call, to see) or ``sweep`` (all of its share at once, as in Envoy).
        active_check_unejects: whether passing an active check brings it back.
    """

    compiles_to: ClassVar = OutlierSettings

    consecutive_errors: Annotated[Count, Field(ge=0)] = _OUTLIER.consecutive_errors
    consecutive_5xx: Annotated[Count, Field(ge=0)] = _OUTLIER.consecutive_5xx
    consecutive_gateway_failure: Annotated[Count, Field(ge=0)] = _OUTLIER.consecutive_gateway_failure
    consecutive_local_origin_failure: Annotated[Count, Field(ge=0)] = _OUTLIER.consecutive_local_origin_failure
    enforcing_consecutive_5xx_percent: Percent = 100.0
    enforcing_consecutive_gateway_failure_percent: Percent = 100.0
    enforcing_consecutive_local_origin_failure_percent: Percent = 100.0
    split_external_local_origin_errors: Flag = False
    success_rate: OrFalse[SuccessRate] | None = None
    failure_percentage: OrFalse[FailurePercentage] | None = None
    accrual: OrFalse[Accrual] | None = None
    interval: Annotated[Interval, Field(ge=0.1)] = _OUTLIER.interval_s
    base_ejection: Interval = _OUTLIER.base_ejection_s
    max_ejection: Interval = _OUTLIER.max_ejection_s
    max_ejection_jitter: Span = _OUTLIER.max_ejection_jitter_s
    max_ejection_percent: Percent = _OUTLIER.max_ejection_percent
    always_eject_one_of: Annotated[Count, Field(ge=0)] = _OUTLIER.always_eject_one_of
    return_by: Literal["probe", "sweep"] = _OUTLIER.return_by
    active_check_unejects: Flag = _OUTLIER.active_check_unejects

    def begins_with(self, base: OutlierSettings) -> OutlierSettings:
        """In Envoy's words it is Envoy's: what was not written before either has Envoy's default."""
        if not self.model_fields_set & _ENVOYS_WORDS:
            return base
        unsaid = {name: value for name, value in _ENVOY.items() if getattr(base, name) == getattr(_OUTLIER, name)}
        return replace(base, **unsaid)


_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")


def _statuses(value: Any) -> tuple[int, int]:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and (found := _RANGE.fullmatch(text.strip())):
        first, last = int(found[1]), int(found[2] or found[1])
        if first <= last:
            return first, last
    reject("is not a status such as 204, or a range of them such as 200-299")


_Statuses = Annotated[str | int, PlainValidator(_statuses), shown.STATUSES]


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        reject("is not text; bytes are written in hexadecimal, as hex:0d0a", kind="type")
    if not value.startswith("hex:"):
        return value.encode()
    try:
        return bytes.fromhex(value.removeprefix("hex:"))
    except ValueError:
        reject("is not hexadecimal; bytes are written like hex:0d0a")


_Bytes = Annotated[str | bytes, PlainValidator(_bytes), shown.BYTES]


def _path_and_query(value: str) -> str:
    if not value.startswith("/") or not value.isascii() or not value.isprintable() or " " in value or "#" in value:
        reject("is not a path such as /health, with a query or without", nearest=f"/{value}" if value else None)
    return value


_PathAndQuery = Annotated[str, AfterValidator(_path_and_query)]


class HttpCheck(Part):
    """A request that an endpoint has to answer to be well.

    Attributes:
        path: what is asked for.
        method: ``GET``, ``HEAD``, ``OPTIONS`` or ``POST`` (with no body).
        host: the Host header; the one that calls have unless given.
        headers: further ones.
        expected_statuses: what an endpoint that is well answers: 200, or ranges such as 200-299.
        retriable_statuses: other answers that count only after `unhealthy_threshold` in a row.
        port: to ask at; the endpoint's own unless given.
    """

    compiles_to: ClassVar = checks.HttpCheck

    path: _PathAndQuery = _HTTP.path
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    host: Annotated[HeaderValue, Field(min_length=1)] | None = None
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    expected_statuses: Annotated[Many[_Statuses], Field(min_length=1)] = _HTTP.expected_statuses  # type: ignore[assignment]
    retriable_statuses: Many[_Statuses] = ()
    port: Port | None = None


class TcpCheck(Part):
    """A connection that has to open for an endpoint to be well.

    Attributes:
        send: what to write: text, or bytes such as hex:0d0a.
        receive: pieces that the answer has to have, in their order.
        port: to connect to; the endpoint's own unless given.
    """

    compiles_to: ClassVar = checks.TcpCheck

    send: _Bytes = ""
    receive: Annotated[
        Many[_Bytes],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        shown.Also({"type": "string"}),
    ] = ()
    port: Port | None = None


class HealthCheck(Part):
    """Active checks: each endpoint is asked now and then, and left out while it does not answer as it should.

    Attributes:
        http, tcp: what is asked; one of them.
        interval: between checks.
        timeout: for one check.
        healthy_threshold: so many passed in a row bring one back; the very first one does by itself.
        unhealthy_threshold: so many without an answer in a row leave one out; a wrong answer does at once.
        unhealthy_interval: between checks of one that is left out; `interval` unless given.
        unhealthy_edge_interval: between failures that are not enough yet; `unhealthy_interval` unless given.
        healthy_edge_interval: between passes that are not enough yet; `interval` unless given.
        no_traffic_interval: between checks as long as no call was made.
        no_traffic_healthy_interval: the same for those that are well; `no_traffic_interval` unless given.
        initial_jitter: the first check comes within this time.
        interval_jitter, interval_jitter_percent: up to this is added to each interval.
        reuse_connection: keep the connection between checks.
        initial: what an endpoint is thought to be before its first check: ``failed`` or ``passed``.
        max_concurrent: checks under way at once.
    """

    compiles_to: ClassVar = checks.HealthCheckSettings

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    interval: Interval = _CHECK.interval_s
    timeout: Interval = _CHECK.timeout_s
    healthy_threshold: Annotated[Count, Field(ge=1)] = _CHECK.healthy_threshold
    unhealthy_threshold: Annotated[Count, Field(ge=1)] = _CHECK.unhealthy_threshold
    unhealthy_interval: Interval | None = None
    unhealthy_edge_interval: Interval | None = None
    healthy_edge_interval: Interval | None = None
    no_traffic_interval: Interval = _CHECK.no_traffic_interval_s
    no_traffic_healthy_interval: Interval | None = None
    initial_jitter: Span = _CHECK.initial_jitter_s
    interval_jitter: Span = _CHECK.interval_jitter_s
    interval_jitter_percent: Percent = _CHECK.interval_jitter_percent
    reuse_connection: Flag = _CHECK.reuse_connection
    initial: Literal["failed", "passed"] = _CHECK.initial
    max_concurrent: Annotated[Count, Field(ge=1)] = _CHECK.max_concurrent

    def begins_with(self, base: checks.HealthCheckSettings) -> checks.HealthCheckSettings:
        """Who asks in one way does not ask in the other, which was inherited."""
        if self.http is not None and self.tcp is None:
            return replace(base, tcp=None)
        if self.tcp is not None and self.http is None:
            return replace(base, http=None)
        return base
