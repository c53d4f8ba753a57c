"""``OutlierDetection``: Istio's defaults, which are Envoy's but for two: no success rate, and no panic.

Source: ``applyOutlierDetection`` in Istio's ``cluster_traffic_policy.go``.
"""

from __future__ import annotations

from typing import Any, Final

from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader

__all__ = ["read_outlier_detection"]

_CONSECUTIVE: Final = 5
_INTERVAL_S: Final = 10.0
_LEAST_INTERVAL_S: Final = 0.1
_BASE_S: Final = 30.0
_LONGEST_S: Final = 300.0
_MAX_PERCENT: Final = 10


def read_outlier_detection(reader: Reader) -> tuple[dict[str, Any], int]:
    """``outlier_detection`` in our words, and the percentage of healthy endpoints below which all are used."""
    five = reader.integer("consecutive5xxErrors")
    gateway = reader.integer("consecutiveGatewayErrors")
    split = bool(reader.flag("splitExternalLocalOriginErrors"))
    local = reader.integer("consecutiveLocalOriginFailures")
    interval_s = reader.duration("interval") or _INTERVAL_S
    base_s = reader.duration("baseEjectionTime") or _BASE_S
    percent = reader.integer("maxEjectionPercent") or _MAX_PERCENT
    healthy = reader.integer("minHealthPercent") or 0
    codes = "what counts is any status from 500, and 502, 503 and 504 for consecutiveGatewayErrors"
    reader.ignore("outlierDetectionHttpErrorCodes", codes)
    if interval_s < _LEAST_INTERVAL_S:
        interval_s = _LEAST_INTERVAL_S
        reader.different("interval", f"is taken for {written(interval_s)}, which is the least here")
    if reader.integer("consecutiveErrors"):
        reader.different("consecutiveErrors", "says nothing any more, as in Istio: see consecutive5xxErrors")
    if local and not split:
        reader.wrong("consecutiveLocalOriginFailures", "needs splitExternalLocalOriginErrors: true")
    reader.rest()
    native: dict[str, Any] = {
        "consecutive_5xx": _CONSECUTIVE if five is None else five,
        "consecutive_gateway_failure": gateway or 0,
        "success_rate": False,
        "interval": written(interval_s),
        "base_ejection": written(base_s),
        "max_ejection": written(max(base_s, _LONGEST_S)),
        "max_ejection_percent": percent,
    }
    if split:
        native["split_external_local_origin_errors"] = True
        native["consecutive_local_origin_failure"] = local or _CONSECUTIVE
    return native, healthy
