"""What a call makes of a response that the mesh of the service gave in the place of its application."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.errors import DeadlineExceeded, Reset
from meshlib.policy.actions import Action, Deliver, Start
from meshlib.policy.breaker import BreakerState
from meshlib.policy.call import Call
from meshlib.policy.classify import refused_by
from meshlib.policy.retry import NO_BUDGET, OVERLOADED
from meshlib.policy.settings import RetryPolicy
from tests.core import NOW, Bench, failure_of, start_of

AT_ONCE = RetryPolicy(backoff_base_s=0.0)
POST: dict[str, Any] = {"method": "POST", "safe": None}


def refused(call: Call, reason: str, n: int = 1, status: int = 503, now: float = NOW, **facts: Any) -> list[Action]:
    """Attempt `n` is refused, as a service with the mesh's middleware does it."""
    call.bytes_written(now, n)
    return call.headers(now, n, status, answer=[(b"X-Meshlib-Refused", reason.encode())], **facts)


def is_retried(actions: list[Action]) -> bool:
    return any(isinstance(action, Start) for action in actions)


def begun(retry: RetryPolicy = AT_ONCE, count: int = 3, **facts: Any) -> tuple[Bench, Call]:
    bench = Bench(count, retry=retry, **{**POST, **facts})
    start_of(bench.call.begin(NOW))
    return bench, bench.call


@pytest.mark.parametrize("safe", [None, False, True])
def test_a_refused_post_goes_to_another_endpoint(safe: bool | None) -> None:
    _, call = begun(safe=safe)
    start = start_of(refused(call, "overload", retry_after_s=1.0))
    assert start.member is not call.attempts[0].member
    call.bytes_written(NOW, 2)
    (deliver,) = call.headers(NOW, 2, 201)
    assert isinstance(deliver, Deliver)
    first, second = call.record(NOW).attempts
    assert (first.refused, first.sent, second.refused, second.status) == ("overload", True, None, 201)
    assert "503 (refused: overload)" in str(call.record(NOW))


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("", 503),
        ("elsewhere", 503),
        ("expired", 503),
        ("overload", 502),
        ("overload", 500),
        ("overload, overload", 503),
    ],
)
def test_a_503_without_the_reason_is_no_promise(reason: str, status: int) -> None:
    _, call = begun()
    assert not is_retried(refused(call, reason, status=status))
    assert call.record(NOW).attempts[0].refused is None


def test_a_reason_that_stands_there_twice_says_nothing() -> None:
    assert refused_by(503, [(b"x-meshlib-refused", b"overload")]) == "overload"
    assert refused_by(503, [(b"x-meshlib-refused", b"overload")] * 2) is None
    assert refused_by(200, [(b"x-meshlib-refused", b"overload")]) is None


def test_what_reached_the_application_once_is_not_repeated_for_a_later_refusal() -> None:
    _, call = begun()
    start_of(refused(call, "overload"))
    call.bytes_written(NOW, 2)
    assert isinstance(failure_of(call.error(NOW, 2, Reset("gone"), "headers")), Reset)
    assert "idempotent" in (call.record(NOW).no_retry or "")


def test_a_failure_to_connect_after_a_refusal_is_retried() -> None:
    _, call = begun()
    start_of(refused(call, "overload"))
    start_of(call.error(NOW, 2, Reset("gone"), "write"))


def test_all_other_rules_hold() -> None:
    _, call = begun(replayable=False)
    assert not is_retried(refused(call, "overload"))
    assert "cannot be sent again" in (call.record(NOW).no_retry or "")

    _, call = begun()
    assert not is_retried(refused(call, "overload", overloaded=True))
    assert call.record(NOW).no_retry == OVERLOADED.reason

    bench, call = begun()
    bench.budget.failed(NOW, 20)
    assert not is_retried(refused(call, "overload"))
    assert call.record(NOW).no_retry == NO_BUDGET.reason

    _, call = begun(RetryPolicy(on=frozenset({"connect-failure"})))
    assert not is_retried(refused(call, "overload"))

    _, call = begun(count=1)
    assert not is_retried(refused(call, "overload", retry_after_s=3.0))
    assert "Retry-After of 3s" in (call.record(NOW).no_retry or "")

    _, call = begun(count=1)
    assert not is_retried(refused(call, "overload", retry_after_s=1.0))
    assert call.next_wakeup is not None and 1.0 <= call.next_wakeup - NOW <= 1.5


@pytest.mark.parametrize("reason", ["expired", "hopeless", "deadline"])
@pytest.mark.parametrize("inherited", [False, True])
def test_what_the_call_has_no_time_for_is_not_repeated(reason: str, inherited: bool) -> None:
    facts: dict[str, Any] = {"deadline": NOW + 0.5} if inherited else {"timeout_s": 0.5}
    _, call = begun(method="GET", safe=True, **facts)
    (deliver,) = refused(call, reason, status=504, now=NOW + 0.1)
    assert isinstance(deliver, Deliver)
    record = call.record(NOW + 0.1)
    assert record.no_retry == f"the service says that there is no time left for it ({reason})"
    assert record.attempts[0].refused == reason


@pytest.mark.parametrize("reason", ["expired", "hopeless", "deadline"])
def test_what_one_attempt_had_no_time_for_is_as_cut_by_the_per_try_timeout(reason: str) -> None:
    for safe, again in ((True, True), (None, False)):
        _, call = begun(safe=safe, per_try_timeout_s=0.2)
        assert is_retried(refused(call, reason, status=504, now=NOW + 0.1)) is again


@pytest.mark.parametrize("reason", ["expired", "hopeless", "deadline"])
@pytest.mark.parametrize("left_s", [0.4, 0.001])
def test_a_deadline_of_the_callers_is_no_failure_of_the_endpoint_that_tells_of_it(reason: str, left_s: float) -> None:
    bench = Bench(3, deadline=NOW + 0.5)
    for _ in range(30):
        call = bench.another()
        start_of(call.begin(NOW))
        actions = refused(call, reason, status=504, now=NOW + 0.5 - left_s)
        if left_s > 0.02:
            assert isinstance(actions[-1], Deliver)
            call.body_end(NOW + 0.5, 1)
        else:
            assert isinstance(failure_of(actions), DeadlineExceeded), "as if the caller had been first"
        attempt = call.record(NOW + 0.5).attempts[0]
        assert (attempt.outcome, attempt.status, attempt.refused) == ("cancelled", 504, reason)
    breaker, outlier = bench.states[0].breaker, bench.states[0].outlier
    assert breaker is not None and breaker.state is BreakerState.CLOSED
    assert outlier is not None and not outlier.ejected
    assert bench.in_flight == 0


def test_an_endpoint_that_kept_a_call_for_the_services_own_timeout_is_to_blame() -> None:
    bench = Bench(3, timeout_s=0.5)
    call = bench.another()
    start_of(call.begin(NOW))
    assert isinstance(failure_of(refused(call, "deadline", status=504, now=NOW + 0.499)), DeadlineExceeded)
    assert call.record(NOW + 0.5).attempts[0].outcome == "failure"
