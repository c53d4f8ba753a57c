"""Retries: what is repeated, when, and what tenacity's own objects say."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tenacity as t
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import AttemptTimeout, BodyBroken, ConnectFailed, MeshError, PoolTimeout, ProtocolError, Reset
from meshlib.policy.classify import FAILURE_STATUSES, is_to_blame, parse_retry_after
from meshlib.policy.retry import AttemptState, Failure, Verdict, decide, is_retryable
from meshlib.policy.settings import RetryPolicy
from tests.core import NOW, Bench, start_of

ENVOY = json.loads((Path(__file__).parents[1] / "data" / "envoy_retry_backoff.json").read_text())


class Chance(Random):
    """Always the same number."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def verdict(policy: RetryPolicy = RetryPolicy(), failure: Failure | None = None, **facts: Any) -> Verdict:
    settings: dict[str, Any] = {
        "retries": 0,
        "safe": True,
        "replayable": True,
        "budget_open": True,
        "elsewhere": False,
        "elapsed_s": 0.0,
        "idle_s": 0.0,
        "left_s": None,
        "rng": Chance(0.5),
        **facts,
    }
    return decide(policy, Failure(status=503) if failure is None else failure, **settings)


def test_backoff_doubles_from_base_to_max_as_in_envoy() -> None:
    policy = RetryPolicy(max_retries=9, backoff_base_s=ENVOY["base_ms"] / 1000, backoff_max_s=ENVOY["max_ms"] / 1000)
    almost_one = 1 - 1e-12
    spans = [verdict(policy, retries=n, rng=Chance(almost_one)).delay_s * 1000 for n in range(6)]
    assert spans == pytest.approx([25, 50, 100, 200, 250, 250])
    assert [ENVOY["random"] % round(span) for span in spans[:3]] == ENVOY["delays_ms"]


@pytest.mark.parametrize(("safe", "retried"), [(True, True), (None, True), (False, False)])
def test_an_unsafe_policy_repeats_what_nobody_forbade(safe: bool | None, retried: bool) -> None:
    sent = Failure(status=503, sent=True)
    assert verdict(RetryPolicy(unsafe=True), sent, safe=safe).retry is retried
    assert verdict(RetryPolicy(), sent, safe=safe).retry is (safe is True)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(retries: int, chance: float) -> None:
    delay = verdict(RetryPolicy(max_retries=10**6), retries=retries, rng=Chance(chance)).delay_s
    assert 0 <= delay <= 0.25


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"safe": False}, "idempotent"),
        ({"replayable": False}, "sent again"),
        ({"retries": 2}, "are used"),
        ({"budget_open": False}, "budget"),
        ({"left_s": 0.0}, "deadline"),
        ({"left_s": 0.0125}, "deadline"),
    ],
)
def test_each_no_has_its_reason(facts: dict[str, Any], word: str) -> None:
    assert verdict().retry
    no = verdict(**facts)
    assert not no.retry
    assert word in no.reason


@pytest.mark.parametrize(
    ("failure", "retried"),
    [
        (Failure(error=ConnectFailed("x")), True),
        (Failure(error=Reset("x")), True),
        (Failure(error=ProtocolError("x")), True),
        (Failure(error=AttemptTimeout("x")), True),
        (Failure(error=BodyBroken("x")), True),
        (Failure(error=PoolTimeout("x")), False),
        (Failure(error=MeshError("x")), False),
        (Failure(status=500), False),
        (Failure(status=501), False),
        (Failure(status=502), True),
        (Failure(status=503), True),
        (Failure(status=504), True),
        (Failure(status=429), False),
        (Failure(status=429, retry_after_s=0.0), True),
        (Failure(status=500, retry_after_s=1.0), False),
        (Failure(status=200), False),
        (Failure(), False),
    ],
)
def test_what_is_retried_by_default(failure: Failure, retried: bool) -> None:
    assert is_retryable(RetryPolicy(), failure) is retried


def test_conditions_can_be_chosen() -> None:
    assert is_retryable(RetryPolicy(on=frozenset({"5xx"})), Failure(status=500))
    assert is_retryable(RetryPolicy(on=frozenset({"5xx"})), Failure(error=Reset("x")))
    assert is_retryable(RetryPolicy(on=frozenset({404})), Failure(status=404))


@given(st.floats(0, 2), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_at_once_elsewhere_or_jittered_or_too_long(asked: float, elsewhere: bool, chance: float) -> None:
    said = verdict(failure=Failure(429, retry_after_s=asked), elsewhere=elsewhere, rng=Chance(chance))
    if elsewhere:
        assert (said.retry, said.delay_s) == (True, 0.0)
    elif asked <= 1.0:
        assert said.retry
        assert asked <= said.delay_s <= 1.5 * asked
        assert said.reason == "retry-after"
    else:
        assert not said.retry


def test_statuses_that_fail_an_attempt() -> None:
    assert [status for status in range(100, 600) if status in FAILURE_STATUSES] == [502, 503, 504]


def test_whom_an_error_blames() -> None:
    assert is_to_blame(Reset("x"))
    assert not is_to_blame(PoolTimeout("x"))
    assert not is_to_blame(MeshError("x"))


# Retry-After

EPOCH = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (b"12", 12.0),
        (" 120 ", 120.0),
        ("100000", 300.0),
        ("9" * 400, 300.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:30 -0000", 10.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("Tuesday, 14-Nov-23 22:13:30 GMT", 10.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0661", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | bytes | None, seconds: float | None) -> None:
    assert parse_retry_after(value, EPOCH) == seconds


def test_a_date_means_nothing_without_a_clock() -> None:
    assert parse_retry_after("Tue, 14 Nov 2023 22:13:30 GMT") is None


@given(st.one_of(st.text(), st.binary(), st.integers().map(str), st.datetimes().map(lambda d: d.ctime())))
def test_any_retry_after_is_within_bounds_or_nothing(value: str | bytes) -> None:
    seconds = parse_retry_after(value, EPOCH)
    assert seconds is None or 0.0 <= seconds <= 300.0


@given(st.integers(0, 10**12))
def test_whole_seconds_are_understood(seconds: int) -> None:
    assert parse_retry_after(str(seconds)) == min(seconds, 300)


# tenacity


def test_tenacity_waits_replace_the_backoff() -> None:
    def delays(wait: Any) -> list[float]:
        policy = RetryPolicy(max_retries=9, wait=wait)
        return [verdict(policy, retries=n).delay_s for n in range(4)]

    assert delays(t.wait_fixed(3)) == [3, 3, 3, 3]
    assert delays(t.wait_exponential(multiplier=1, max=5)) == [1, 2, 4, 5]
    assert delays(t.wait_incrementing(start=1, increment=2)) == [1, 3, 5, 7]
    assert delays(t.wait_chain(t.wait_fixed(1), t.wait_fixed(7))) == [1, 7, 7, 7]
    assert delays(t.wait_fixed(1) + t.wait_fixed(2)) == [3, 3, 3, 3]
    assert delays(t.wait_none()) == [0, 0, 0, 0]
    for n, delay in enumerate(delays(t.wait_random_exponential(multiplier=1, max=5))):
        assert 0 <= delay <= min(5, 2**n)


def test_a_tenacity_wait_goes_before_retry_after() -> None:
    policy = RetryPolicy(wait=t.wait_fixed(3))
    assert verdict(policy, Failure(429, retry_after_s=100.0)).delay_s == 3


@pytest.mark.parametrize(
    ("stop", "facts", "stopped"),
    [
        (t.stop_after_attempt(2), {"retries": 0}, False),
        (t.stop_after_attempt(2), {"retries": 1}, True),
        (t.stop_after_delay(10), {"elapsed_s": 9.9}, False),
        (t.stop_after_delay(10), {"elapsed_s": 10.0}, True),
        (t.stop_before_delay(10), {"elapsed_s": 6.9}, False),
        (t.stop_before_delay(10), {"elapsed_s": 7.0}, True),
        (t.stop_after_attempt(9) | t.stop_after_delay(1), {"elapsed_s": 2.0}, True),
        (t.stop_after_attempt(9) & t.stop_after_delay(1), {"elapsed_s": 2.0}, False),
        (t.stop_never, {"elapsed_s": 1e9}, False),
    ],
)
def test_tenacity_stops_end_retries(stop: Any, facts: dict[str, Any], stopped: bool) -> None:
    policy = RetryPolicy(max_retries=9, wait=t.wait_fixed(3), stop=stop)
    said = verdict(policy, **facts)
    assert said.retry is not stopped
    assert ("stop strategy" in said.reason) is stopped


@pytest.mark.parametrize(
    ("retry", "failure", "wanted"),
    [
        (t.retry_if_exception_type(Reset), Failure(error=Reset("x")), True),
        (t.retry_if_exception_type(Reset), Failure(error=ConnectFailed("x")), False),
        (t.retry_if_exception_type(ConnectionError), Failure(error=ConnectFailed("x")), True),
        (t.retry_if_not_exception_type(Reset), Failure(error=ConnectFailed("x")), True),
        (t.retry_if_exception(lambda error: "x" in str(error)), Failure(error=Reset("x")), True),
        (t.retry_if_exception_message(match=".*boom"), Failure(error=Reset("boom")), True),
        (t.retry_if_result(lambda status: status == 418), Failure(status=418), True),
        (t.retry_if_result(lambda status: status == 418), Failure(status=200), False),
        (t.retry_if_result(lambda response: response == "late"), Failure(status=200, response="late"), True),
        (t.retry_if_not_result(lambda status: status == 200), Failure(status=200), False),
        (t.retry_any(t.retry_if_exception_type(Reset), t.retry_if_result(bool)), Failure(error=Reset("x")), True),
        (t.retry_if_exception_type(Reset) & t.retry_if_exception_message("y"), Failure(error=Reset("x")), False),
        (t.retry_if_exception_type(Reset) | t.retry_if_exception_message("y"), Failure(error=Reset("x")), True),
        (t.retry_never, Failure(error=Reset("x")), False),
        (t.retry_always, Failure(status=200), True),
    ],
)
def test_tenacity_retry_objects_decide_what_is_retried(retry: Any, failure: Failure, wanted: bool) -> None:
    assert retry(AttemptState(1, failure, 0.0, 0.0)) is wanted


def test_a_call_obeys_tenacity_objects_and_keeps_its_own_bounds() -> None:
    policy = RetryPolicy(
        max_retries=2,
        wait=t.wait_fixed(1),
        retry=t.retry_if_result(lambda status: status == 200),
    )
    bench = Bench(retry=policy)
    start_of(bench.call.begin(NOW))
    bench.call.headers(NOW, 1, 200)
    assert bench.call.next_wakeup == NOW + 1
    start_of(bench.call.timer(NOW + 1))
    bench.call.headers(NOW + 1, 2, 200)
    start_of(bench.call.timer(NOW + 2))
    assert bench.call.headers(NOW + 2, 3, 200) != []
    assert bench.call.record(NOW + 2).status == 200
    assert [attempt.outcome for attempt in bench.call.record(NOW + 2).attempts] == ["success"] * 3
    assert bench.budget.tokens == 17
