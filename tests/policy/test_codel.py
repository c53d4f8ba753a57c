"""How long one may wait: Facebook's controlled delay, by its two times."""

from __future__ import annotations

import pytest

from meshlib.policy.codel import Codel

N, M = 0.1, 0.005  # "Fail at Scale": N and M


def test_in_a_queue_that_was_empty_lately_one_may_wait_for_the_interval() -> None:
    codel = Codel()
    assert codel.timeout_s(5.0, N, M) == N
    codel.joined(5.0)
    assert codel.timeout_s(5.1, N, M) == N  # not longer ago than N


def test_in_a_queue_that_stands_one_may_wait_for_the_target_until_it_was_empty() -> None:
    codel = Codel()
    codel.joined(5.0)
    codel.joined(5.05)
    codel.left()
    assert codel.stands(5.11, N)
    assert codel.timeout_s(5.11, N, M) == M
    codel.left()
    assert codel.timeout_s(5.12, N, M) == N
    codel.joined(5.12)
    assert codel.timeout_s(5.2, N, M) == N


@pytest.mark.parametrize("now", [-1e9, 0.0])
def test_a_clock_that_went_back_makes_no_queue_stand(now: float) -> None:
    codel = Codel()
    codel.joined(5.0)
    assert codel.timeout_s(now, N, M) == N
