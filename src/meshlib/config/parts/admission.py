"""Whether a cluster takes a call, as it is written."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from meshlib.config.fields import Count, Interval, Part, Percent
from meshlib.policy.settings import BreakerSettings, LimitSettings

__all__ = ["CircuitBreaker", "Limits"]

_BREAKER = BreakerSettings()
_LIMITS = LimitSettings()


class CircuitBreaker(Part):
    """When a cluster is taken to be down.

    Attributes:
        failure_percent: the share of calls that fail.
        min_calls: of at least so many.
        window: within this time.
        open_for: how long it stays open the first time.
        max_open_for: how long at most, doubling.
    """

    compiles_to: ClassVar = BreakerSettings

    failure_percent: Percent = _BREAKER.failure_percent
    min_calls: Annotated[Count, Field(ge=1)] = _BREAKER.min_calls
    window: Interval = _BREAKER.window_s
    open_for: Interval = _BREAKER.open_for_s
    max_open_for: Interval = _BREAKER.max_open_for_s


class Limits(Part):
    """Calls to a cluster at once.

    Attributes:
        max_in_flight: null for no limit.
        max_pending: calls that wait for one of them to end; a further one fails at once.
    """

    compiles_to: ClassVar = LimitSettings

    max_in_flight: Annotated[Count, Field(ge=1)] | None = _LIMITS.max_in_flight
    max_pending: Annotated[Count, Field(ge=0)] = _LIMITS.max_pending
