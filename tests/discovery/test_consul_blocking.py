"""The rules of Consul's blocking queries, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.discovery.consul_blocking import BlockingQuery, TokenBucket


def test_the_first_query_does_not_block() -> None:
    ask = BlockingQuery(60.0).next(0.0)
    assert (ask.params, ask.timeout_s, ask.delay_s) == ({}, 5.0, 0.0)


def test_the_next_one_blocks_at_the_index_of_the_answer() -> None:
    query = BlockingQuery(60.0)
    assert query.answered("42", b"[]")
    assert query.next(0.0).params == {"index": "42", "wait": "60000ms"}


def test_the_client_waits_longer_than_the_server_may_with_its_jitter() -> None:
    query = BlockingQuery(300.0)
    query.answered("42", b"[]")
    assert query.next(0.0).timeout_s > 300.0 * 17 / 16


@pytest.mark.parametrize(("given", "sent"), [(0.01, "1000ms"), (60.5, "60500ms"), (86400.0, "600000ms")])
def test_the_wait_stays_within_what_consul_allows(given: float, sent: str) -> None:
    query = BlockingQuery(given)
    query.answered("1", b"[]")
    assert query.next(0.0).params["wait"] == sent


def test_an_index_that_goes_backwards_starts_over() -> None:
    query = BlockingQuery(60.0)
    query.answered("42", b"[1]")
    query.answered("41", b"[2]")
    assert query.restarts == 1
    assert query.next(0.0).params == {}
    query.answered("41", b"[2]")
    assert query.next(0.0).params["index"] == "41"


def test_an_index_of_zero_is_taken_for_one() -> None:
    query = BlockingQuery(60.0)
    query.answered("0", b"[]")
    assert query.next(0.0).params["index"] == "1"


@pytest.mark.parametrize("index", [None, "", "x", "-1", "1.5", "٣", "9" * 30, "1 "])
def test_an_index_that_is_none_is_an_error(index: str | None) -> None:
    with pytest.raises(ValueError, match="X-Consul-Index"):
        BlockingQuery(60.0).answered(index, b"[]")


def test_a_return_is_not_a_change() -> None:
    query = BlockingQuery(60.0)
    assert query.answered("1", b"[1]")
    assert not query.answered("2", b"[1]")
    assert query.answered("3", b"[2]")


def test_a_poll_never_blocks() -> None:
    query = BlockingQuery(60.0)
    query.answered("42", b"[]")
    assert query.next(0.0, blocking=False).params == {}


def test_a_service_that_changes_all_the_time_is_asked_twice_and_then_at_the_rate() -> None:
    query = BlockingQuery(60.0, rate_per_s=4.0)
    now = 0.0
    asked: list[float] = []
    for number in range(20):
        now += query.next(now).delay_s
        asked.append(now)
        query.answered(str(number + 1), str(number).encode())
    assert asked[:3] == [0.0, 0.0, 0.25]
    assert asked[-1] == pytest.approx(18 / 4.0)


def test_after_a_quiet_time_a_change_is_asked_for_at_once() -> None:
    query = BlockingQuery(60.0)
    for number in range(10):
        query.next(float(number) * 60)
        assert query.next(float(number) * 60 + 0.01).delay_s == 0.0


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60))
def test_the_bucket_never_lets_more_through_than_burst_and_rate(gaps: list[float]) -> None:
    bucket = TokenBucket(4.0, 2)
    now = 0.0
    passed: list[float] = []
    for gap in gaps:
        now += gap
        now += bucket.delay_s(now)
        passed.append(now)
    for start, first in enumerate(passed):
        for end in range(start, len(passed)):
            assert end - start + 1 <= 2 + 4.0 * (passed[end] - first) + 1e-6
