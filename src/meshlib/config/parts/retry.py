"""Retries and their budget, as they are written."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from meshlib.config.fields import (
    Amount,
    Code,
    Count,
    Flag,
    HeaderName,
    Interval,
    Many,
    Methods,
    Part,
    RetryConditions,
    Span,
)
from meshlib.config.parts.match import ValueMatch
from meshlib.policy import retry_settings as settings
from meshlib.policy.backoff import Jitter
from meshlib.policy.retry_settings import BudgetArithmetic, BudgetKind

__all__ = ["Backoff", "HeaderCondition", "RateLimitedBackoff", "ResetHeader", "Retry", "RetryBudget"]

_RETRY = settings.RetryPolicy()
_BUDGET = settings.BudgetSettings()
_RATE_LIMITED = settings.RateLimitedBackoff()
_DEFAULT_CONDITIONS: Any = _RETRY.on


class HeaderCondition(ValueMatch):
    """A condition on a header by its name; exactly one of its other fields, besides `invert`.

    Attributes:
        name: of the header.
        exact, prefix, suffix, regex, present, invert: see `ValueMatch`.
    """

    compiles_to: ClassVar = settings.HeaderCondition

    name: HeaderName


class ResetHeader(Part):
    """A header by which a server says when to come back.

    Attributes:
        name: of the header.
        format: ``seconds`` from now, or a ``unix_timestamp``.
    """

    compiles_to: ClassVar = settings.ResetHeader

    name: HeaderName
    format: Literal["seconds", "unix_timestamp"] = "seconds"


class RateLimitedBackoff(Part):
    """Back-off by what servers ask for, as Envoy has it: 1 to 1.5 times that.

    Attributes:
        reset_headers: the first of them that can be understood counts.
        max_interval: a header that asks for more is passed over.
    """

    compiles_to: ClassVar = settings.RateLimitedBackoff

    reset_headers: Annotated[Many[ResetHeader], Field(min_length=1)]
    max_interval: Interval = _RATE_LIMITED.max_interval_s


class Backoff(Part):
    """How long to wait before a retry, of ``v = min(max, base * 2**(retry - 1))``.

    Attributes:
        base: the upper end for the first retry.
        max: the upper end for any.
        jitter: ``full``, ``equal``, ``decorrelated``, ``additive`` or ``none``.
    """

    base: Span = _RETRY.backoff_base_s
    max: Span = _RETRY.backoff_max_s
    jitter: Jitter = _RETRY.backoff_jitter


_Status = Annotated[Count, Field(ge=100, le=599)]
_Statuses = Annotated[Many[_Status], AfterValidator(frozenset)]
_MethodSet = Annotated[Methods, AfterValidator(frozenset)]


class Retry(Part):
    """When a failed attempt is followed by another.

    Attributes:
        max_retries: attempts beyond the first.
        on: conditions, Envoy's and our own, or statuses.
        backoff: the wait between attempts.
        rate_limited_backoff: the wait where a server names one, as Envoy has it, instead of `retry_after_max`.
        retry_after_max: the longest ``Retry-After`` that is waited for.
        retriable_status_codes: what the condition ``retriable-status-codes`` stands for.
        retriable_headers: what the condition ``retriable-headers`` stands for.
        retriable_request_headers: only requests that bear one of them are retried.
        retriable_methods: only requests with one of them are retried.
        unsafe: retry requests that may have been processed even if they are not known to be safe to repeat.
        wait, stop, retry: tenacity strategy objects (or functions like them), in code only.
    """

    compiles_to: ClassVar = settings.RetryPolicy

    max_retries: Annotated[Count, Field(ge=0, le=100)] = _RETRY.max_retries
    on: RetryConditions = _DEFAULT_CONDITIONS
    backoff: Backoff = Backoff()
    rate_limited_backoff: RateLimitedBackoff | None = None
    retry_after_max: Span = _RETRY.retry_after_max_s
    retriable_status_codes: _Statuses = ()
    retriable_headers: Many[HeaderCondition] = ()
    retriable_request_headers: Many[HeaderCondition] = ()
    retriable_methods: _MethodSet = ()
    unsafe: Flag = _RETRY.unsafe
    wait: Code = None
    stop: Code = None
    retry: Code = None


class RetryBudget(Part):
    """The retry budget of a service, shared by its retries and hedges. Each kind has fields of its own.

    Attributes:
        kind: ``tokens`` (gRPC's), ``rate`` (Finagle's and Linkerd's) or ``concurrency`` (Envoy's).
        tokens: of ``tokens``: its size; retries go ahead while it is more than half full. A retryable failure costs 1.
        success_gain: of ``tokens``: what a success puts back.
        percent: of ``rate``: of the calls of late that may be retried; of ``concurrency``: of those under way.
        min_per_second: of ``rate``: retries allowed besides.
        ttl: of ``rate``: how long a call counts.
        arithmetic: of ``rate``: ``finagle``'s, or ``tower``'s, as in Linkerd, which rounds more.
        min_concurrency: of ``concurrency``: retries at once that are always allowed.
        max_retries: of ``concurrency``: so many retries at once, whatever is under way.
    """

    compiles_to: ClassVar = settings.BudgetSettings

    kind: BudgetKind = _BUDGET.kind
    tokens: Amount = _BUDGET.tokens
    success_gain: Amount = _BUDGET.success_gain
    percent: Annotated[Amount, Field(le=100_000)] = _BUDGET.percent
    min_per_second: Annotated[Amount, Field(le=1_000_000)] = _BUDGET.min_per_second
    ttl: Interval = _BUDGET.ttl_s
    arithmetic: BudgetArithmetic = _BUDGET.arithmetic
    min_concurrency: Annotated[Count, Field(ge=0)] = _BUDGET.min_concurrency
    max_retries: Annotated[Count, Field(ge=0)] | None = _BUDGET.max_retries
