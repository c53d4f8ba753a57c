"""Local rate limits: the letter of GCRA and of the token bucket, and whose calls are counted together."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from meshlib.policy.admission_settings import BucketSettings, GcraSettings, KeySource, RateLimitSettings
from meshlib.policy.gcra import Gcra
from meshlib.policy.rate_limit import RateLimit, TooFast, Turn
from meshlib.policy.token_bucket import TokenBucket


def limit_of(**settings: object) -> RateLimit:
    return RateLimit(RateLimitSettings(**settings), 0.0)  # type: ignore[arg-type]


def test_the_sequence_of_linkerds_local_rate_limit_tests() -> None:
    # linkerd2-proxy, linkerd/proxy/server-policy/src/local_rate_limit/tests.rs, check_rate_limits
    limit = limit_of(
        total=GcraSettings(35, 35),
        by=KeySource("header", "client"),
        each=GcraSettings(5, 5),
        overrides={"client-3": GcraSettings(10, 10), "client-4": GcraSettings(15, 15)},
    )
    for now in range(5):
        for _ in range(5):
            for client in ("client-1", "client-3", "client-4"):
                assert limit.ask(now, client) is None
        assert _says(limit.ask(now, "client-1"), "5 calls per second, 5 at once each")
        for _ in range(5):
            assert limit.ask(now, "client-3") is None
            assert limit.ask(now, "client-4") is None
        assert _says(limit.ask(now, "client-3"), "10 calls per second, 10 at once each")
        for _ in range(5):
            assert limit.ask(now, "client-4") is None
        assert _says(limit.ask(now, "client-4"), "15 calls per second, 15 at once each")
        for _ in range(2):
            assert limit.ask(now, "client-2") is None
        assert _says(limit.ask(now, "client-2"), "35 calls per second, 35 at once in all")
    assert limit.rejected == 20


def _says(answer: object, text: str) -> bool:
    return isinstance(answer, TooFast) and answer.limit == text


def test_gcra_spreads_calls_evenly_after_the_burst() -> None:
    meter = Gcra(GcraSettings(10, 3), 100.0)
    assert [meter.take(100.0, 0.0)[0] for _ in range(4)] == [True, True, True, False]
    passed, retry_after_s = meter.take(100.0, 0.0)
    assert (passed, retry_after_s) == (False, pytest.approx(0.1))
    assert meter.take(100.1, 0.0) == (True, 0.0)
    assert not meter.take(100.15, 0.0)[0]
    assert sum(meter.take(101.0 + index / 1000, 0.0)[0] for index in range(1000)) == 12  # 3 at once, then 9 more


def test_a_token_bucket_is_filled_in_steps_and_never_overflows() -> None:
    bucket = TokenBucket(BucketSettings(max_tokens=4, tokens_per_fill=2, fill_interval_s=0.5), 10.0)
    assert [bucket.take(10.0, 0.0)[0] for _ in range(5)] == [True] * 4 + [False]
    assert bucket.take(10.2, 0.0) == (False, pytest.approx(0.3))
    assert [bucket.take(10.5, 0.0)[0] for _ in range(3)] == [True, True, False]
    assert [bucket.take(99.0, 0.0)[0] for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize("rate", [GcraSettings(10, 1), BucketSettings(1, 1, 0.1)])
def test_calls_may_wait_for_their_turn_up_to_a_bound(rate: GcraSettings | BucketSettings) -> None:
    limit = limit_of(total=rate, max_wait_s=0.25)
    answers = [limit.ask(0.0, None) for _ in range(4)]
    assert answers[0] is None
    waits = [answer.wait_s for answer in answers[1:3] if isinstance(answer, Turn)]
    assert waits == pytest.approx([0.1, 0.2])
    assert isinstance(answers[3], TooFast)
    assert answers[3].retry_after_s == pytest.approx(0.3)
    assert isinstance(limit.ask(0.0, None, left_s=0.05), TooFast)
    assert isinstance(answers[2], Turn)
    answers[2].give_back()
    answers[2].give_back()
    again = limit.ask(0.0, None)
    assert isinstance(again, Turn)
    assert again.wait_s == pytest.approx(0.2)
    assert isinstance(limit.ask(0.0, None), TooFast)


def test_a_turn_of_the_limit_for_all_is_free_again_if_the_callers_own_limit_refuses() -> None:
    limit = limit_of(total=GcraSettings(10, 1), by=KeySource("hash_key"), each=GcraSettings(1, 1), max_wait_s=0.5)
    assert limit.ask(0.0, "a") is None
    assert _says(limit.ask(0.0, "a"), "1 calls per second, 1 at once each")
    other = limit.ask(0.0, "b")
    assert isinstance(other, Turn)
    assert other.wait_s == pytest.approx(0.1)


def test_the_caller_that_was_silent_longest_is_forgotten_first() -> None:
    limit = limit_of(by=KeySource("header", "user"), each=GcraSettings(1, 1), max_keys=2)
    assert limit.ask(0.0, "a") is None
    assert limit.ask(0.0, "b") is None
    assert isinstance(limit.ask(0.1, "a"), TooFast)
    assert limit.ask(0.1, "c") is None  # in the place of b
    assert limit.keys == 2
    assert isinstance(limit.ask(0.1, "a"), TooFast)
    assert limit.ask(0.1, "b") is None


def test_keys_however_long_take_little_memory_and_are_told_apart() -> None:
    limit = limit_of(by=KeySource("header", "user"), each=GcraSettings(1, 1))
    tracemalloc.start()
    try:
        for user in range(20):
            assert limit.ask(0.0, f"{user}\ud800" + "x" * 1_000_000) is None
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert limit.keys == 20
    assert isinstance(limit.ask(0.0, "7\ud800" + "x" * 1_000_000), TooFast)


def test_callers_without_a_key_share_one_limit() -> None:
    limit = limit_of(by=KeySource("header", "user"), each=GcraSettings(1, 1))
    assert limit.ask(0.0, None) is None
    assert isinstance(limit.ask(0.0, ""), TooFast)


@pytest.mark.parametrize("rate", [GcraSettings(10, 5), BucketSettings(5, 5, 0.5)])
def test_a_clock_that_goes_back_keeps_nobody_out_for_long(rate: GcraSettings | BucketSettings) -> None:
    limit = limit_of(total=rate)
    for _ in range(6):
        limit.ask(1000.0, None)
    answer = limit.ask(0.0, None)
    assert isinstance(answer, TooFast)
    assert answer.retry_after_s <= 0.51
    assert limit.ask(0.6, None) is None


@pytest.mark.parametrize("rate", [GcraSettings(1e-6, 100), BucketSettings(100, 1, 1e6)])
def test_counts_are_exact_under_sixteen_threads(rate: GcraSettings | BucketSettings) -> None:
    limit = limit_of(total=rate)
    passed: list[int] = []

    def work() -> None:
        passed.append(sum(limit.ask(0.0, None) is None for _ in range(100)))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(passed), limit.rejected) == (100, 1500)
