"""Retries in the life of a call: what names a failure, how long it waits, and what each kind of budget makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity as t
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import ConnectFailed, Reset
from meshlib.policy.actions import Deliver, Start
from meshlib.policy.budget import Budget, make_budget
from meshlib.policy.call import Call
from meshlib.policy.hedge import Hedging
from meshlib.policy.retry import NO_BUDGET, Failure, asked_by, decide
from meshlib.policy.retry_settings import (
    BudgetSettings,
    HeaderCondition,
    RateLimitedBackoff,
    ResetHeader,
    RetryPolicy,
)
from meshlib.policy.settings import HedgeSettings
from meshlib.policy.traits import read_traits, readers_of
from meshlib.routing.match import RequestView
from tests.core import NOW, Bench, failure_of, start_of
from tests.policy.test_backoff import Chance

AT_ONCE = {"backoff_base_s": 0.0}


def policy(*on: Any, **settings: Any) -> RetryPolicy:
    return RetryPolicy(on=frozenset(on), **{**AT_ONCE, **settings})


def is_retried(retry: RetryPolicy, status: int, answer: dict[str, str] | None = None, **facts: Any) -> bool:
    call = Bench(retry=retry, **facts).call
    start_of(call.begin(NOW))
    headers = [(name.encode(), value.encode()) for name, value in (answer or {}).items()]
    return any(isinstance(action, Start) for action in call.headers(NOW, 1, status, answer=headers))


@pytest.mark.parametrize(
    ("retry", "status", "answer", "retried"),
    [
        (policy("unavailable"), 200, {"grpc-status": "14"}, True),
        (policy("unavailable"), 200, {"grpc-status": "0"}, False),
        (policy("retriable-4xx"), 409, {}, True),
        (policy(404), 404, {}, True),
        (policy("retriable-status-codes", retriable_status_codes=frozenset({202})), 202, {}, True),
        (policy("5xx"), 500, {"x-envoy-ratelimited": "true"}, False),
        (policy("envoy-ratelimited"), 429, {"x-envoy-ratelimited": "true"}, True),
        (
            policy("retriable-headers", retriable_headers=(HeaderCondition("x-verdict", exact="again"),)),
            200,
            {"X-Verdict": "again"},
            True,
        ),
        (
            policy("retriable-headers", retriable_headers=(HeaderCondition("x-verdict", exact="again"),)),
            200,
            {"X-Verdict": "fine"},
            False,
        ),
    ],
)
def test_a_call_obeys_the_conditions(retry: RetryPolicy, status: int, answer: dict[str, str], retried: bool) -> None:
    assert is_retried(retry, status, answer) is retried
    assert not is_retried(retry, status, answer, safe=False), "safety stands above all conditions"


def test_reset_before_request_means_the_attempt_and_safety_the_call() -> None:
    bench = Bench(retry=policy("reset-before-request", 503), safe=False)
    bench.call.begin(NOW)
    start_of(bench.call.error(NOW, 1, Reset("x"), "write"))
    bench.call.bytes_written(NOW, 2)
    assert isinstance(failure_of(bench.call.error(NOW, 2, Reset("x"), "headers")), Reset)


@pytest.mark.parametrize(
    ("limits", "method", "headers", "retried"),
    [
        ({"retriable_methods": frozenset({"GET", "HEAD"})}, "GET", {}, True),
        ({"retriable_methods": frozenset({"GET", "HEAD"})}, "PUT", {}, False),
        ({"retriable_request_headers": (HeaderCondition("x-again"),)}, "GET", {"x-again": "1"}, True),
        ({"retriable_request_headers": (HeaderCondition("x-again"),)}, "GET", {}, False),
        (
            {"retriable_methods": frozenset({"GET"}), "retriable_request_headers": (HeaderCondition("x-again"),)},
            "GET",
            {},
            False,
        ),
    ],
)
def test_requests_that_may_be_retried_can_be_limited(
    limits: dict[str, Any], method: str, headers: dict[str, str], retried: bool
) -> None:
    bench = Bench(retry=policy(503, **limits))
    readers = readers_of(bench.policy, [], bench.rng)
    bench.call.traits = read_traits(readers, RequestView(method, "/", headers=headers))
    bench.call.begin(NOW)
    actions = bench.call.headers(NOW, 1, 503)
    assert any(isinstance(action, Start) for action in actions) is retried


# Reset headers

RATE_LIMITED = RateLimitedBackoff(
    (ResetHeader("retry-after"), ResetHeader("x-ratelimit-reset", "unix_timestamp")), max_interval_s=300
)
WALL = 1_700_000_000.7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"Retry-After", b"2")], 2.0),
        ([(b"X-RateLimit-Reset", b"1700000003")], 3.0),
        ([(b"Retry-After", b"2"), (b"X-RateLimit-Reset", b"1700000003")], 2.0),
        ([(b"Retry-After", b"soon"), (b"X-RateLimit-Reset", b"1700000003")], 3.0),
        ([(b"Retry-After", b"301"), (b"X-RateLimit-Reset", b"1700000003")], 3.0),
        ([(b"Retry-After", b"300")], 300.0),
        ([(b"Retry-After", b"301")], None),
        ([(b"Retry-After", b"-2")], None),
        ([(b"Retry-After", b"Tue, 14 Nov 2023 22:13:30 GMT")], None),
        ([(b"X-RateLimit-Reset", b"1700000000")], None),
        ([(b"X-RateLimit-Reset", b"1600000000")], None),
        ([], None),
    ],
)
def test_the_first_usable_reset_header_counts(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert asked_by(RATE_LIMITED, headers, WALL) == seconds


def verdict(retry: RetryPolicy, failure: Failure, **facts: Any) -> Any:
    settings: dict[str, Any] = {"retries": 0, "safe": True, "replayable": True, "budget_open": True}
    settings |= {"elsewhere": True, "elapsed_s": 0.0, "idle_s": 0.0, "left_s": None, "rng": Chance(0.5), **facts}
    return decide(retry, failure, **settings)


def test_what_a_reset_header_asks_for_is_waited_for_even_if_there_is_another_endpoint() -> None:
    retry = RetryPolicy(rate_limited_backoff=RATE_LIMITED)
    said = verdict(retry, Failure(429, retry_after_s=2.0, reset_s=2.0))
    assert (said.retry, said.delay_s, said.reason) == (True, 2.5, "retry-after")


def test_without_a_usable_one_the_back_off_is_the_usual_one() -> None:
    retry = RetryPolicy(rate_limited_backoff=RATE_LIMITED)
    said = verdict(retry, Failure(429, retry_after_s=900.0))
    assert (said.retry, said.delay_s, said.reason) == (True, 0.0125, "backoff")


def test_decorrelated_jitter_goes_on_from_the_wait_before() -> None:
    retry = RetryPolicy(max_retries=3, backoff_jitter="decorrelated", backoff_base_s=0.1, backoff_max_s=10.0)
    bench = Bench(retry=retry)
    bench.call._rng = Chance(0.5)
    now, waits = NOW, []
    bench.call.begin(now)
    for n in (1, 2, 3):
        bench.call.headers(now, n, 503)
        wake_at = bench.call.next_wakeup
        assert wake_at is not None
        waits.append(wake_at - now)
        bench.call.timer(now := wake_at)
    assert waits == pytest.approx([0.2, 0.35, 0.575])


# Budgets

EVENTS = ["go on", "go on", "503", "503", "200", "error", "body end", "give up"]


def calls(budget: Budget, count: int) -> list[Call]:
    bench = Bench(retry=policy(503, "connect-failure", max_retries=2))
    made = [bench.another(budget=budget) for _ in range(count)]
    for call in made:
        call.begin(NOW)
    return made


def test_a_concurrency_budget_counts_retries_until_their_call_is_decided() -> None:
    budget = make_budget(BudgetSettings("concurrency", max_retries=2))
    first, second, third, fourth = calls(budget, 4)
    for call in (first, second):
        start_of(call.headers(NOW, 1, 503))
    assert not budget.may_retry(NOW)
    (deliver,) = third.headers(NOW, 1, 503)
    assert isinstance(deliver, Deliver)
    assert third.record(NOW).no_retry == NO_BUDGET.reason
    assert budget.refused == 1
    second.headers(NOW, 2, 200)  # an answer: its body is nobody's retry
    assert budget.left(NOW) == 1
    first.headers(NOW, 2, 503)  # a second retry takes the place of the first
    assert budget.left(NOW) == 1
    start_of(fourth.error(NOW, 1, ConnectFailed("x"), "connect"))
    assert budget.left(NOW) == 0
    first.headers(NOW, 3, 503)
    fourth.cancelled(NOW)
    assert budget.left(NOW) == 2


def test_a_retry_that_waits_is_under_way_and_is_over_when_its_caller_gives_up() -> None:
    budget = make_budget(BudgetSettings("concurrency", max_retries=1))
    bench = Bench(retry=RetryPolicy(backoff_base_s=1.0, backoff_max_s=1.0), budget=budget)
    bench.call.begin(NOW)
    bench.call.headers(NOW, 1, 503)
    assert not budget.may_retry(NOW)
    bench.call.cancelled(NOW + 0.1)
    assert budget.may_retry(NOW)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(EVENTS), st.integers(0, 9)), max_size=60),
    st.integers(0, 2**16),
    st.sampled_from([None, HedgeSettings(0.02, 100.0), HedgeSettings(None, 100.0, True)]),
)
def test_whatever_happens_a_concurrency_budget_gets_back_what_it_gave(
    events: list[tuple[int, str, int]], seed: int, hedge: HedgeSettings | None
) -> None:
    budget = make_budget(BudgetSettings("concurrency", max_retries=2))
    facts = {"hedging": None if hedge is None else Hedging(hedge), "complete_body": bool(seed % 2)}
    retry = RetryPolicy(max_retries=3)
    bench = Bench(retry=retry, budget=budget, seed=seed, per_try_timeout_s=0.05, **facts)
    made, now = [bench.another() for _ in range(2)], NOW
    for call in made:
        call.may_hedge()
    for which, event, late in events:
        call = made[which]
        now += 0.01
        n = max(0, len(call.attempts) - late % 3)
        if event == "go on":
            call.begin(now)
            now = max(now, now if call.next_wakeup is None else call.next_wakeup)
            call.timer(now)
        elif event == "give up":
            call.cancelled(now)
        elif n and event == "error":
            call.error(now, n, Reset("x"), "headers")
        elif n and event == "body end":
            call.body_end(now, n)
        elif n and event.isdigit():
            call.headers(now, n, int(event))
        assert 0 <= budget.left(now) <= 2
    for call in made:
        call.cancelled(now)
    assert budget.left(now) == 2


def test_a_retry_that_was_decided_on_beside_an_attempt_is_given_back_when_that_one_answers() -> None:
    budget = make_budget(BudgetSettings("concurrency", max_retries=1))
    hedging = Hedging(HedgeSettings(on_per_try_timeout=True))
    bench = Bench(retry=RetryPolicy(backoff_jitter="none"), budget=budget, per_try_timeout_s=0.05, hedging=hedging)
    bench.call.may_hedge()
    bench.call.begin(NOW)
    bench.call.timer(NOW + 0.05)
    assert not budget.may_retry(NOW)
    bench.call.headers(NOW + 0.06, 1, 200)
    assert budget.may_retry(NOW)


def test_a_rate_budget_allows_a_share_of_the_calls_of_late() -> None:
    budget = make_budget(BudgetSettings("rate", percent=20, min_per_second=0))
    retried = 0
    for number in range(1000):
        (call,) = calls(budget, 1)
        now = NOW + number / 1000
        if number % 2 == 0:
            call.headers(now, 1, 200)
        elif any(isinstance(action, Start) for action in call.headers(now, 1, 503)):
            retried += 1
            call.headers(now, 2, 503)
    assert retried == 100


def test_each_kind_of_budget_recovers_by_its_own_rule() -> None:
    tokens, rate = make_budget(BudgetSettings(tokens=2)), make_budget(BudgetSettings("rate", min_per_second=1, ttl_s=1))
    for budget in (tokens, rate):
        (call,) = calls(budget, 1)
        call.headers(NOW, 1, 503)
        (call,) = calls(budget, 1)
        call.headers(NOW, 1, 503)
        assert call.record(NOW).no_retry == NO_BUDGET.reason
    assert rate.may_retry(NOW + 1.1)
    assert not tokens.may_retry(NOW + 1.1)
    for _ in range(11):
        tokens.succeeded(NOW)
    assert tokens.may_retry(NOW)


# tenacity


@pytest.mark.parametrize(
    ("wait", "delays"),
    [
        (t.wait_combine(t.wait_fixed(1), t.wait_incrementing(0, 2)), [1, 3, 5]),
        (t.wait_chain(*[t.wait_fixed(1)] * 2, t.wait_fixed(9)), [1, 1, 9]),
        (t.wait_exponential(multiplier=0.5, exp_base=3, max=4), [0.5, 1.5, 4]),
        (lambda state: state.attempt_number * 2.0, [2, 4, 6]),
        (lambda state: -1.0, [0, 0, 0]),
        (lambda state: 1.0 if state.outcome.failed else 7.0, [7, 7, 7]),
    ],
)
def test_waits_of_any_make_are_waited_for(wait: Any, delays: list[float]) -> None:
    bench = Bench(retry=RetryPolicy(max_retries=3, wait=wait), timeout_s=None)
    now, found = NOW, []
    bench.call.begin(now)
    for n in (1, 2, 3):
        if bench.call.headers(now, n, 503) and bench.call.attempts[-1].n > n:
            found.append(0.0)
            continue
        assert bench.call.next_wakeup is not None
        found.append(bench.call.next_wakeup - now)
        bench.call.timer(now := bench.call.next_wakeup)
    assert found == delays


def test_a_random_exponential_wait_stays_in_its_span() -> None:
    for n in range(1, 8):
        said = verdict(RetryPolicy(99, wait=t.wait_random_exponential(multiplier=0.1, max=2)), Failure(503), retries=n)
        assert 0 <= said.delay_s <= min(2, 0.1 * 2**n)


@pytest.mark.parametrize(
    ("retry", "status", "retried"),
    [
        (t.retry_if_result(lambda status: status == 200), 200, True),
        (t.retry_all(t.retry_if_result(bool), t.retry_if_not_result(lambda status: status == 503)), 503, False),
        (t.retry_all(t.retry_if_result(bool), t.retry_if_not_result(lambda status: status == 503)), 500, True),
        (t.retry_any(t.retry_if_exception_type(Reset), t.retry_if_result(lambda status: status == 418)), 418, True),
        (t.retry_unless_exception_type(Reset), 503, True),
        (lambda state: state.attempt_number < 2, 404, True),
        (t.retry_never, 503, False),
    ],
)
def test_a_retry_object_of_any_make_says_what_is_retried(retry: Any, status: int, retried: bool) -> None:
    assert is_retried(RetryPolicy(retry=retry, **AT_ONCE), status) is retried


@pytest.mark.parametrize(
    ("stop", "attempts"),
    [
        (t.stop_after_attempt(2), 2),
        (t.stop_any(t.stop_after_attempt(9), t.stop_after_delay(2)), 3),
        (t.stop_all(t.stop_after_attempt(2), t.stop_after_delay(100)), 5),
        (lambda state: state.attempt_number >= 3, 3),
        (t.stop_never, 5),
    ],
)
def test_a_stop_object_of_any_make_ends_retries_and_max_retries_holds_besides(stop: Any, attempts: int) -> None:
    bench = Bench(6, retry=RetryPolicy(max_retries=4, wait=t.wait_fixed(1), stop=stop))
    now = NOW
    bench.call.begin(now)
    while bench.call.attempts[-1].open:
        bench.call.headers(now, len(bench.call.attempts), 503)
        if bench.call.wait_on is None and bench.call.next_wakeup is not None:
            bench.call.timer(now := bench.call.next_wakeup)
        else:
            break
    assert len(bench.call.attempts) == attempts
