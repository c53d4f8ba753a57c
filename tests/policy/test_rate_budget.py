"""The rate budget against Finagle's numbers, and as time goes by."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.rate_budget import RateBudget

FINAGLE = json.loads((Path(__file__).parents[1] / "data" / "finagle_retry_budget.json").read_text())
TOWER = json.loads((Path(__file__).parents[1] / "data" / "tower_retry_budget.json").read_text())
NOW = 1000.0


@pytest.mark.parametrize(
    "row", FINAGLE["retry_budget"], ids=lambda row: f"{row['percent']}%-{row['reserve']}-{row['ttl_s']}s"
)
def test_as_many_calls_are_retried_as_by_finagle(row: dict[str, Any]) -> None:
    budget = RateBudget(row["percent"], row["min_per_second"], row["ttl_s"])
    assert (budget.withdrawal, budget.reserve) == (row["withdrawal"], row["reserve"])
    retried = 0
    for _ in range(10_000):
        if row["percent"]:
            budget.succeeded(NOW)
        retried += budget.retry_began(NOW)
    # Finagle's own test allows for one, which the rounding of the withdrawal makes.
    assert abs(retried - row["retried"]) <= 1


def test_above_a_hundred_percent_a_call_may_be_retried_more_than_once() -> None:
    budget = RateBudget(200, 0, 60)
    for _ in range(10_000):
        budget.succeeded(NOW)
    assert budget.left(NOW) == 20_000


def test_a_share_next_to_nothing_is_nothing() -> None:
    budget = RateBudget(5e-324, 0)
    budget.succeeded(NOW)
    assert not budget.may_retry(NOW)
    assert RateBudget(5e-324, 1).left(NOW) == 10


def test_it_begins_with_its_reserve() -> None:
    assert RateBudget().left(NOW) == 100
    assert not RateBudget(0, 0).may_retry(NOW)


def test_what_is_deposited_expires() -> None:
    budget = RateBudget(100, 0, 10)
    budget.succeeded(NOW)
    budget.succeeded(NOW + 5)
    assert [budget.left(NOW + after) for after in (5, 9.9, 10.1, 14.9, 15.1)] == [2, 2, 1, 1, 0]


def test_what_is_withdrawn_expires_too_so_the_reserve_comes_back() -> None:
    budget = RateBudget(0, 1, 5)
    assert [budget.retry_began(NOW) for _ in range(6)] == [True] * 5 + [False]
    assert not budget.may_retry(NOW + 4.9)
    assert budget.left(NOW + 5.1) == 5


def test_after_a_long_silence_nothing_of_before_is_left() -> None:
    budget = RateBudget(100, 0, 1)
    budget.succeeded(NOW)
    assert budget.left(NOW + 1e9) == 0
    budget.succeeded(NOW + 1e9)
    assert budget.left(NOW + 1e9) == 1


@given(
    st.lists(st.tuples(st.sampled_from(["succeeded", "retry_began", "may_retry"]), st.floats(-1e6, 1e6)), max_size=50)
)
def test_however_the_clock_jumps_it_never_allows_more_than_was_deposited(events: list[tuple[str, float]]) -> None:
    budget = RateBudget(50, 0, 10)
    deposits = retries = 0
    for event, now in events:
        said = getattr(budget, event)(now)
        deposits += event == "succeeded"
        retries += event == "retry_began" and said
        assert budget.left(now) >= 0
        assert retries <= deposits / 2


def test_a_clock_that_went_back_by_an_hour_keeps_the_reserve_away_no_longer_than_ever() -> None:
    budget = RateBudget(0, 10, 10)
    budget.succeeded(NOW)
    while budget.retry_began(NOW + 3600):
        pass
    assert not budget.may_retry(NOW)
    assert [budget.may_retry(NOW + after) for after in (5, 10.1)] == [False, True]


def test_threads_take_no_more_than_there_is() -> None:
    budget, taken = RateBudget(0, 10, 10), []

    def take() -> None:
        taken.append(sum(budget.retry_began(NOW) for _ in range(50)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 100


@pytest.mark.parametrize("row", TOWER["effective"], ids=lambda row: f"{row['percent']}%")
def test_towers_whole_numbers_allow_what_they_allow_there(row: dict[str, float]) -> None:
    budget = RateBudget(row["percent"], 0, 60, "tower")
    assert 100 * budget.deposit / budget.withdrawal == pytest.approx(row["effective_percent"])
    retried = 0
    for _ in range(6000):
        budget.succeeded(NOW)
        retried += budget.retry_began(NOW)
    assert retried == round(60 * row["effective_percent"])


def test_tower_above_a_hundred_percent_and_its_reserve() -> None:
    above = RateBudget(300, 0, 60, "tower")
    assert (above.deposit, above.withdrawal) == (1000, 333)
    none = RateBudget(0, 5, 1.9, "tower")
    assert (none.deposit, none.withdrawal, none.reserve) == (0, 1, 5)


def test_slices_expire_when_those_of_tower_do() -> None:
    # tps_slots of tower's tps_budget.rs.
    budget = RateBudget(50, 0, 1, "tower")
    budget.succeeded(NOW)
    budget.succeeded(NOW)
    assert budget.retry_began(NOW + 0.901)
    for after in (2.902, 3.203, 4.004):
        budget.succeeded(NOW + after)
    assert [budget.retry_began(NOW + 4.004) for _ in range(2)] == [True, False]
