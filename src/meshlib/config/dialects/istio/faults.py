"""``HTTPFaultInjection``: a delay, then an abort, each for its share of the calls; without a percentage for none.

Source: ``TranslateFault`` in Istio's ``route.go``.
"""

from __future__ import annotations

from typing import Any, Final

from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.values import percentage_of

__all__ = ["read_fault"]

_GRPC: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's status codes, in their order."""


def read_fault(reader: Reader) -> dict[str, Any]:
    """``fault`` in our words; empty for none."""
    fault: dict[str, Any] = {}
    delay, abort = reader.map("delay"), reader.map("abort")
    if delay is not None and (found := _delay(delay)):
        fault["delay"] = found
    if abort is not None and (found := _abort(abort)):
        fault["abort"] = found
    reader.rest()
    return fault


def _delay(reader: Reader) -> dict[str, Any]:
    percent = percentage_of(reader, "percentage")
    old = reader.integer("percent")
    fixed_s = reader.duration("fixedDelay")
    reader.ignore("exponentialDelay", "delays are fixed, as in Istio itself")
    reader.rest()
    if not fixed_s:
        return {}
    return {"fixed": written(fixed_s), "percent": percent if percent is not None else old or 0}


def _abort(reader: Reader) -> dict[str, Any]:
    percent = percentage_of(reader, "percentage") or 0
    status, grpc = reader.integer("httpStatus"), reader.text("grpcStatus")
    reader.ignore("http2Error", "an abort is a status, as in Istio itself")
    reader.rest()
    if status is not None and grpc is not None:
        reader.wrong(None, "has an httpStatus and a grpcStatus: one of them is expected")
    elif status is not None:
        return {"status": status, "percent": percent}
    elif grpc is not None:
        if grpc in _GRPC:
            return {"grpc_status": _GRPC.index(grpc), "percent": percent}
        reader.wrong("grpcStatus", f"is no status of gRPC: {', '.join(_GRPC)}")
    return {}
