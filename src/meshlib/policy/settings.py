"""What each policy is set to: frozen, plain, validated before. Times are in seconds; shares are percentages.

Defaults are those of a mesh without configuration, and the reason stands beside each that is not obvious.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from meshlib.dataclass import dataclass

__all__ = [
    "BreakerSettings",
    "BudgetSettings",
    "CallPolicy",
    "LimitSettings",
    "OutlierSettings",
    "RetryCondition",
    "RetryPolicy",
]

RetryCondition: TypeAlias = Literal["connect-failure", "reset", "5xx", "retry-after"] | int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is followed by another.

    Attributes:
        max_retries: attempts beyond the first.
        on: the conditions. ``connect-failure``: no connection, so nothing was sent. ``reset``: the endpoint closed,
            broke the protocol, or let the per-try timeout pass. ``5xx``: any status from 500. A number: that status.
            ``retry-after``: a 429 or 503 that names a time, see `retry_after_max_s`.
        backoff_base_s, backoff_max_s: full jitter over ``min(max, base * 2**(retry - 1))``.
        retry_after_max_s: a ``Retry-After`` up to this is waited for (jittered to 1-1.5 of it); a longer one is
            obeyed by going to another endpoint, or delivered.
        wait, stop, retry: tenacity strategy objects (or callables like them), in code only. `wait` replaces the
            back-off, `stop` ends retries besides `max_retries`, `retry` decides what is retryable instead of `on`.
    """

    max_retries: int = 2
    on: frozenset[RetryCondition] = frozenset({"connect-failure", "reset", "retry-after", 502, 503, 504})
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25
    retry_after_max_s: float = 1.0
    wait: Any = None
    stop: Any = None
    retry: Any = None


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """The retry budget of a service, after gRPC A6: a ratio alone does not recover from sustained failure.

    Attributes:
        tokens: the bucket's size. Retries and hedges go ahead only while it is more than half full.
        success_gain: what a success puts back. A retryable failure and a hedge cost 1 each.
    """

    tokens: float = 20.0
    success_gain: float = 0.1


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """The circuit breaker of a cluster; see `meshlib.policy.breaker`."""

    failure_percent: float = 50.0
    min_calls: int = 20
    window_s: float = 10.0
    open_for_s: float = 5.0
    max_open_for_s: float = 60.0


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """Ejection of single endpoints; see `meshlib.policy.outlier`."""

    consecutive_errors: int = 5
    base_ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_ejection_percent: float = 50.0


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Calls in flight to a cluster, and calls that wait for one of them to end; None is no limit."""

    max_in_flight: int | None = None
    max_pending: int = 100


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How one call is made.

    Attributes:
        timeout_s: for the call, attempts and waits together, up to the end of its body, or to its headers if the
            caller streams it; None for none.
        per_try_timeout_s: for one attempt, up to the headers; None for none.
        body_idle_s: for each read of a response's body; None for none.
        retry: when to try again.
        endpoint_wait_s: how long a call waits for the first endpoints of its service.
    """

    timeout_s: float | None = 30.0
    per_try_timeout_s: float | None = 10.0
    body_idle_s: float | None = 300.0
    retry: RetryPolicy = RetryPolicy()
    endpoint_wait_s: float = 5.0
