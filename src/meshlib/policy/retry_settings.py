"""What retries and their budget are set to: frozen, plain, validated before. Times are in seconds.

Part of `meshlib.policy.settings`, which has the names that most need.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from meshlib.dataclass import dataclass, field
from meshlib.policy.backoff import Jitter
from meshlib.policy.retry_on import HEADER_CONDITIONS, RetryCondition
from meshlib.routing.match import StringMatch, string_match

__all__ = [
    "BudgetArithmetic",
    "BudgetKind",
    "BudgetSettings",
    "HeaderCondition",
    "RateLimitedBackoff",
    "ResetHeader",
    "RetryPolicy",
]

BudgetKind: TypeAlias = Literal["tokens", "rate", "concurrency"]
BudgetArithmetic: TypeAlias = Literal["finagle", "tower"]


@dataclass(frozen=True, slots=True)
class HeaderCondition:
    """A condition on a header: one of `exact`, `prefix`, `suffix`, `contains`, `regex` and `range`, else `present`.

    Attributes:
        name: in lower case.
        present: whether it is to be there.
        invert: matches where the rest does not.
        ignore_case, absent_as_empty: see `StringMatch`.
        match: the same, ready to be asked.
    """

    name: str = ""
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    regex: str | None = None
    range: tuple[int, int] | None = None
    present: bool = True
    invert: bool = False
    ignore_case: bool = False
    absent_as_empty: bool = False
    match: StringMatch = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "match", string_match(self))


@dataclass(frozen=True, slots=True)
class ResetHeader:
    """A header by which a server says when to come back: in `format` ``seconds``, or at a ``unix_timestamp``."""

    name: str = "retry-after"
    format: Literal["seconds", "unix_timestamp"] = "seconds"


@dataclass(frozen=True, slots=True)
class RateLimitedBackoff:
    """Back-off by what servers ask for, after Envoy's ``rate_limited_retry_back_off``.

    Attributes:
        reset_headers: the first of them that can be understood, and asks for no more than `max_interval_s`, counts.
        max_interval_s: what asks for more is passed over, and the back-off is the usual one.
    """

    reset_headers: tuple[ResetHeader, ...] = ()
    max_interval_s: float = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is followed by another.

    Attributes:
        max_retries: attempts beyond the first.
        on: the conditions; see `meshlib.policy.retry_on`.
        retriable_status_codes: what ``retriable-status-codes`` stands for.
        retriable_headers: what ``retriable-headers`` stands for: any of them, on the response.
        retriable_request_headers: only requests that bear one of them are retried; empty for all.
        retriable_methods: only requests with one of them are retried; empty for all.
        backoff_base_s, backoff_max_s, backoff_jitter: see `meshlib.policy.backoff`.
        rate_limited_backoff: instead of `retry_after_max_s`, what Envoy makes of such headers; None for ours.
        unsafe: whether requests are retried that may have been processed and are not known to be safe to repeat.
        retry_after_max_s: a ``Retry-After`` up to this is waited for (jittered to 1-1.5 of it); a longer one is
            obeyed by going to another endpoint, or delivered.
        wait, stop, retry: tenacity strategy objects (or callables like them), in code only. `wait` replaces the
            back-off, `stop` ends retries besides `max_retries`, `retry` decides what is retryable instead of `on`.
        looks_closely: whether it judges responses by more than a status from 400; worked out.
    """

    max_retries: int = 2
    on: frozenset[RetryCondition] = frozenset({"connect-failure", "reset", "retry-after", 502, 503, 504})
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25
    retry_after_max_s: float = 1.0
    wait: Any = None
    stop: Any = None
    retry: Any = None
    retriable_status_codes: frozenset[int] = frozenset()
    retriable_headers: tuple[HeaderCondition, ...] = ()
    retriable_request_headers: tuple[HeaderCondition, ...] = ()
    retriable_methods: frozenset[str] = frozenset()
    backoff_jitter: Jitter = "full"
    rate_limited_backoff: RateLimitedBackoff | None = None
    unsafe: bool = False
    looks_closely: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        closely = (
            self.retry is not None
            or self.rate_limited_backoff is not None
            or not HEADER_CONDITIONS.isdisjoint(self.on)
            or "retriable-4xx" in self.on
            or any(isinstance(condition, int) and condition < 429 for condition in self.on)
            or any(status < 429 for status in self.retriable_status_codes)
        )
        object.__setattr__(self, "looks_closely", closely)


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """The retry budget of a service. By default gRPC's: a ratio alone does not recover from sustained failure.

    Attributes:
        kind: which of `meshlib.policy.budget`; the other fields are those of one kind each.
        tokens: ``tokens``: the bucket's size. Retries and hedges go ahead only while it is more than half full.
        success_gain: ``tokens``: what a success puts back. A retryable failure and a hedge cost 1 each.
        percent: ``rate``: of the calls of late that may be retried. ``concurrency``: of the calls under way.
        min_per_second: ``rate``: retries allowed besides.
        ttl_s: ``rate``: how long a call counts.
        arithmetic: ``rate``: ``finagle``'s, or ``tower``'s, which is Linkerd's and rounds more.
        min_concurrency: ``concurrency``: retries at once that are always allowed.
        max_retries: ``concurrency``: a fixed number of retries at once, instead of the share; None for the share.
    """

    kind: BudgetKind = "tokens"
    tokens: float = 20.0
    success_gain: float = 0.1
    percent: float = 20.0
    min_per_second: float = 10.0
    ttl_s: float = 10.0
    arithmetic: BudgetArithmetic = "finagle"
    min_concurrency: int = 3
    max_retries: int | None = None
