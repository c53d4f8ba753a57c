"""Whether a failed attempt is followed by another, and when.

In this order, the first "no" ends it, and its reason goes into the record:

1. the failure is one that the policy names (`RetryPolicy.on`, or a tenacity ``retry`` object);
2. repeating is safe: the method is idempotent, or the caller said so, or no byte of the request left this process, or
   the mesh of the service refused it before its application was called (``x-meshlib-refused: overload``); or the policy
   takes the risk (`RetryPolicy.unsafe`) and the caller did not forbid it;
3. the body can be produced again;
4. there are retries left (and tenacity's ``stop`` agrees);
5. the server did not ask to be left alone (``x-envoy-overloaded``, a long ``Retry-After`` with nowhere else to go), nor
   say that what the call has left is too little (``x-meshlib-refused: expired``, ``hopeless``, ``deadline``);
6. the budget is open;
7. the wait ends before the deadline.

Waits are those of `meshlib.policy.backoff`. To another endpoint after a ``Retry-After`` there is no wait; to the same
one it is 1 to 1.5 times what was asked, so that callers do not come back together. Where Envoy's rate-limited back-off
is configured, its rule holds instead: always as long as a reset header asks, up to half more; without one that can be
used, the usual back-off.

Which failures a policy names is in `meshlib.policy.retry_on`.
"""

from __future__ import annotations

from random import Random
from typing import Any

from meshlib.dataclass import dataclass
from meshlib.policy.backoff import backoff_s, lower_bound_s
from meshlib.policy.classify import Failure, ResponseHeaders, parse_reset
from meshlib.policy.retry_on import named_by
from meshlib.policy.retry_settings import RateLimitedBackoff, RetryPolicy

__all__ = [
    "IDEMPOTENT_METHODS",
    "NO_BUDGET",
    "OVERLOADED",
    "AttemptState",
    "Failure",
    "Verdict",
    "asked_by",
    "decide",
    "is_retryable",
]

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2."""


@dataclass(slots=True)
class Verdict:
    """The decision: retry after `delay_s`, or do not, because of `reason`."""

    retry: bool
    delay_s: float = 0.0
    reason: str = ""


NO_BUDGET = Verdict(False, reason="the retry budget of the service is used up")
OVERLOADED = Verdict(False, reason="the server is overloaded and asked not to be retried")


class _Outcome:
    """The part of tenacity's outcome (a Future) that its strategies read."""

    __slots__ = ("_error", "_result")

    def __init__(self, error: BaseException | None, result: Any) -> None:
        self._error = error
        self._result = result

    @property
    def failed(self) -> bool:
        return self._error is not None

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class AttemptState:
    """What tenacity's wait, stop and retry objects read of their ``RetryCallState``, without its loop."""

    __slots__ = (
        "args",
        "attempt_number",
        "fn",
        "idle_for",
        "kwargs",
        "next_action",
        "outcome",
        "outcome_timestamp",
        "retry_object",
        "seconds_since_start",
        "start_time",
        "upcoming_sleep",
    )

    def __init__(self, attempt_number: int, failure: Failure, seconds_since_start: float, idle_for: float) -> None:
        self.attempt_number = attempt_number
        self.outcome = _Outcome(failure.error, failure.response if failure.response is not None else failure.status)
        self.seconds_since_start = seconds_since_start
        self.idle_for = idle_for
        self.upcoming_sleep = 0.0
        self.start_time = 0.0
        self.outcome_timestamp = seconds_since_start
        self.next_action = self.retry_object = self.fn = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}


def is_retryable(policy: RetryPolicy, failure: Failure) -> bool:
    """Whether the policy names this failure, by `on` alone."""
    wanted = [(each.name, each.match) for each in policy.retriable_headers] if policy.retriable_headers else ()
    return named_by(policy.on, failure, statuses=policy.retriable_status_codes, headers=wanted) is not None


def asked_by(settings: RateLimitedBackoff, headers: ResponseHeaders, wall_clock_s: float) -> float | None:
    """The seconds that the first usable reset header asks for; None where the usual back-off is to be taken.

    Args:
        settings: which headers, and up to how long.
        headers: of the response.
        wall_clock_s: the time now, as seconds since the epoch.
    """
    answer = Failure(headers=headers)
    for header in settings.reset_headers:
        asked_s = parse_reset(answer.header(header.name), header.format == "unix_timestamp", wall_clock_s)
        if asked_s is not None and asked_s <= settings.max_interval_s:
            return asked_s
    return None


def decide(
    policy: RetryPolicy,
    failure: Failure,
    *,
    retries: int,
    safe: bool | None,
    replayable: bool,
    budget_open: bool,
    elsewhere: bool,
    elapsed_s: float,
    idle_s: float,
    left_s: float | None,
    rng: Random,
    before_s: float = 0.0,
) -> Verdict:
    """Decide on a failure that `is_retryable` (or a tenacity ``retry`` object) named.

    Args:
        policy: the settings.
        failure: what happened.
        retries: retries made so far.
        safe: whether the request may be repeated although it may have been processed; None if nobody said so.
        replayable: whether its body can be produced again.
        budget_open: whether the budget of the service allows a retry.
        elsewhere: whether there is an endpoint that this call has not tried.
        elapsed_s, idle_s: since the call began; spent waiting so far.
        left_s: until the deadline; None without one.
        rng: for the jitter.
        before_s: the wait before the last retry; 0 for the first.
    """
    if failure.sent and not failure.not_called and not safe and not (policy.unsafe and safe is None):
        return Verdict(False, reason="it may have been processed, and the request is not idempotent")
    if failure.sent and not replayable:
        return Verdict(False, reason="its body cannot be sent again")
    if retries >= policy.max_retries:
        return Verdict(
            False, reason=f"all {policy.max_retries} retries are used" if policy.max_retries else "retries are off"
        )
    if failure.overloaded:
        return OVERLOADED
    if failure.too_late is not None:
        return Verdict(False, reason=f"the service says that there is no time left for it ({failure.too_late})")

    state, reason = None, "backoff"
    asked = failure.retry_after_s if policy.rate_limited_backoff is None else failure.reset_s
    if policy.wait is not None:
        state = AttemptState(retries + 1, failure, elapsed_s, idle_s)
        delay = max(0.0, float(policy.wait(state)))
    elif asked is not None:
        reason = "retry-after"
        if policy.rate_limited_backoff is not None or (asked <= policy.retry_after_max_s and not elsewhere):
            delay = lower_bound_s(asked, rng)
        elif elsewhere:
            delay = 0.0
        else:
            return Verdict(False, reason=f"Retry-After of {asked:g}s, and no other endpoint to go to")
    else:
        base_s, max_s = policy.backoff_base_s, policy.backoff_max_s
        delay = backoff_s(policy.backoff_jitter, base_s, max_s, retries, before_s, rng)
    if policy.stop is not None:
        state = state or AttemptState(retries + 1, failure, elapsed_s, idle_s)
        state.upcoming_sleep = delay
        if policy.stop(state):
            return Verdict(False, reason="the stop strategy ended it")
    if not budget_open:
        return NO_BUDGET
    if left_s is not None and delay >= left_s:
        return Verdict(False, reason="the deadline would pass before the retry")
    return Verdict(True, delay, reason)
