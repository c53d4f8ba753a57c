"""The concurrency budget, by the arithmetic of Envoy's retry budget and of its circuit breaker for retries."""

from __future__ import annotations

import threading

import pytest

from meshlib.policy.concurrency_budget import ConcurrencyBudget

NOW = 1000.0


@pytest.mark.parametrize(
    ("percent", "min_concurrency", "active", "limit"),
    [
        (20, 3, 0, 3),
        (20, 3, 15, 3),
        (20, 3, 19, 3),
        (20, 3, 20, 4),
        (20, 3, 24, 4),
        (20, 3, 100, 20),
        (25, 0, 3, 0),
        (25, 0, 4, 1),
        (100, 3, 7, 7),
        (0, 0, 1000, 0),
        (0, 1, 1000, 1),
    ],
)
def test_the_limit_is_a_share_of_what_is_under_way(
    percent: float, min_concurrency: int, active: int, limit: int
) -> None:
    budget = ConcurrencyBudget(percent, min_concurrency, active=lambda: active)
    assert [budget.retry_began(NOW) for _ in range(limit + 1)] == [True] * limit + [False]
    assert not budget.may_retry(NOW)


def test_the_limit_moves_with_the_calls() -> None:
    active = 100
    budget = ConcurrencyBudget(20, 3, active=lambda: active)
    for _ in range(10):
        assert budget.retry_began(NOW)
    assert budget.left(NOW) == 10
    active = 10
    assert (budget.may_retry(NOW), budget.left(NOW)) == (False, 0)


def test_a_fixed_number_is_that_number_whatever_is_under_way() -> None:
    budget = ConcurrencyBudget(max_retries=3, active=lambda: 10_000)
    assert [budget.retry_began(NOW) for _ in range(4)] == [True, True, True, False]
    budget.ended(NOW)
    assert budget.hedge_began(NOW)
    budget.ended(NOW)
    assert budget.left(NOW) == 1


def test_none_are_under_way_after_a_fork_and_the_count_is_never_negative() -> None:
    budget = ConcurrencyBudget(max_retries=1)
    assert budget.retry_began(NOW)
    budget.renew_lock()
    budget.ended(NOW)
    assert budget.under_way == 0
    assert [budget.retry_began(NOW), budget.retry_began(NOW)] == [True, False]


def test_threads_never_go_beyond_it() -> None:
    budget, most = ConcurrencyBudget(max_retries=3), []

    def run() -> None:
        for _ in range(200):
            if budget.retry_began(NOW):
                most.append(budget.under_way)
                budget.ended(NOW)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 3
    assert budget.under_way == 0
