"""Retries and their budget, as they are written."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from meshlib.config.fields import Amount, Code, Count, Part, RetryConditions, Span
from meshlib.policy.settings import BudgetSettings, RetryPolicy

__all__ = ["Backoff", "Retry", "RetryBudget"]

_RETRY = RetryPolicy()
_BUDGET = BudgetSettings()
_DEFAULT_CONDITIONS: Any = _RETRY.on


class Backoff(Part):
    """How long to wait before a retry: full jitter over ``min(max, base * 2**(retry - 1))``.

    Attributes:
        base: the upper end for the first retry.
        max: the upper end for any.
    """

    base: Span = _RETRY.backoff_base_s
    max: Span = _RETRY.backoff_max_s


class Retry(Part):
    """When a failed attempt is followed by another.

    Attributes:
        max_retries: attempts beyond the first.
        on: ``connect-failure``, ``reset``, ``5xx``, ``retry-after``, or statuses.
        backoff: the wait between attempts.
        retry_after_max: the longest ``Retry-After`` that is waited for.
        wait, stop, retry: tenacity strategy objects (or functions like them), in code only.
    """

    compiles_to: ClassVar = RetryPolicy

    max_retries: Annotated[Count, Field(ge=0, le=100)] = _RETRY.max_retries
    on: RetryConditions = _DEFAULT_CONDITIONS
    backoff: Backoff = Backoff()
    retry_after_max: Span = _RETRY.retry_after_max_s
    wait: Code = None
    stop: Code = None
    retry: Code = None


class RetryBudget(Part):
    """The retry budget of a service; retries go ahead only while it is more than half full.

    Attributes:
        tokens: its size. A retryable failure costs 1.
        success_gain: what a success puts back.
    """

    compiles_to: ClassVar = BudgetSettings

    tokens: Amount = _BUDGET.tokens
    success_gain: Amount = _BUDGET.success_gain
