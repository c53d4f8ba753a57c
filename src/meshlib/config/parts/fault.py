"""Injected faults, as they are written."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from meshlib.config.fields import Count, Flag, Interval, Part, Percent, reject
from meshlib.policy.fault import AbortSettings, DelaySettings, FaultSettings

__all__ = ["Fault", "FaultAbort", "FaultDelay"]


class FaultDelay(Part):
    """Calls that are delayed.

    Attributes:
        fixed: for how long.
        percent: of the calls; not given, none.
    """

    compiles_to: ClassVar = DelaySettings

    fixed: Interval | None = None
    percent: Percent = 0.0


class FaultAbort(Part):
    """Calls that are answered instead of being sent; at most one of `status`, `grpc_status` and `reset`.

    Attributes:
        status: the HTTP status to answer with.
        grpc_status: the gRPC status.
        reset: true: fail as if the endpoint had reset the connection.
        percent: of the calls; not given, none.
    """

    compiles_to: ClassVar = AbortSettings

    status: Annotated[Count, Field(ge=200, le=599)] | None = None
    grpc_status: Annotated[Count, Field(ge=0, le=16)] | None = None
    reset: Flag = False
    percent: Percent = 0.0

    @model_validator(mode="after")
    def _one_kind(self) -> FaultAbort:
        kinds = ("status", "grpc_status", "reset")
        given = [kind for kind in kinds if getattr(self, kind) not in (None, False)]
        if len(given) > 1:
            reject(f"has {' and '.join(given)}: at most one of {', '.join(kinds)} is expected")
        return self


class Fault(Part):
    """Faults to inject, to see what callers make of them.

    Attributes:
        delay: before a call is let in.
        abort: instead of the call, after the delay.
        max_active: calls that have a fault at once; null for no limit.
        headers: whether a request may ask for faults by ``x-envoy-fault-*`` headers.
    """

    compiles_to: ClassVar = FaultSettings

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    max_active: Annotated[Count, Field(ge=0)] | None = None
    headers: Flag = False
