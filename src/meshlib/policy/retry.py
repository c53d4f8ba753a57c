"""Whether a failed attempt is followed by another, and when.

In this order, the first "no" ends it, and its reason goes into the record:

1. the failure is one that the policy names (`RetryPolicy.on`, or a tenacity ``retry`` object);
2. repeating is safe: the method is idempotent, or the caller said so, or no byte of the request left this process;
3. the body can be produced again;
4. there are retries left (and tenacity's ``stop`` agrees);
5. the server did not ask to be left alone (``x-envoy-overloaded``, a long ``Retry-After`` with nowhere else to go);
6. the budget is open;
7. the wait ends before the deadline.

Waits are full jitter: uniform over ``[0, min(max, base * 2**(retry - 1)))`` (Brooker, "Exponential Backoff And
Jitter"). To another endpoint after a ``Retry-After`` there is no wait; to the same one it is 1 to 1.5 times what was
asked, so that callers do not come back together.
"""

from __future__ import annotations

from random import Random
from typing import Any

from meshlib.dataclass import dataclass
from meshlib.policy.classify import Failure
from meshlib.policy.retry_on import named_by
from meshlib.policy.settings import RetryPolicy

__all__ = ["IDEMPOTENT_METHODS", "AttemptState", "Failure", "Verdict", "decide", "is_retryable"]

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2."""


@dataclass(slots=True)
class Verdict:
    """The decision: retry after `delay_s`, or do not, because of `reason`."""

    retry: bool
    delay_s: float = 0.0
    reason: str = ""


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
    return named_by(policy.on, failure) is not None


def decide(
    policy: RetryPolicy,
    failure: Failure,
    *,
    retries: int,
    safe: bool,
    replayable: bool,
    budget_open: bool,
    elsewhere: bool,
    elapsed_s: float,
    idle_s: float,
    left_s: float | None,
    rng: Random,
) -> Verdict:
    """Decide on a failure that `is_retryable` (or a tenacity ``retry`` object) named.

    Args:
        policy: the settings.
        failure: what happened.
        retries: retries made so far.
        safe: whether the request may be repeated although it may have been processed.
        replayable: whether its body can be produced again.
        budget_open: whether the budget of the service allows a retry.
        elsewhere: whether there is an endpoint that this call has not tried.
        elapsed_s, idle_s: since the call began; spent waiting so far.
        left_s: until the deadline; None without one.
        rng: for the jitter.
    """
    if failure.sent and not safe:
        return Verdict(False, reason="it may have been processed, and the request is not idempotent")
    if failure.sent and not replayable:
        return Verdict(False, reason="its body cannot be sent again")
    if retries >= policy.max_retries:
        return Verdict(
            False, reason=f"all {policy.max_retries} retries are used" if policy.max_retries else "retries are off"
        )
    if failure.overloaded:
        return Verdict(False, reason="the server is overloaded and asked not to be retried")

    asked = failure.retry_after_s
    state = None
    if asked is not None and policy.wait is None:
        if elsewhere:
            delay = 0.0
        elif asked <= policy.retry_after_max_s:
            delay = asked * (1.0 + rng.random() / 2)
        else:
            return Verdict(False, reason=f"Retry-After of {asked:g}s, and no other endpoint to go to")
    elif policy.wait is not None:
        state = AttemptState(retries + 1, failure, elapsed_s, idle_s)
        delay = max(0.0, float(policy.wait(state)))
    else:
        delay = rng.random() * min(policy.backoff_max_s, policy.backoff_base_s * 2.0 ** min(retries, 30))
    if policy.stop is not None:
        state = state or AttemptState(retries + 1, failure, elapsed_s, idle_s)
        state.upcoming_sleep = delay
        if policy.stop(state):
            return Verdict(False, reason="the stop strategy ended it")
    if not budget_open:
        return Verdict(False, reason="the retry budget of the service is used up")
    if left_s is not None and delay >= left_s:
        return Verdict(False, reason="the deadline would pass before the retry")
    return Verdict(True, delay, "retry-after" if asked is not None and policy.wait is None else "backoff")
