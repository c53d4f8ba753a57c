"""Counting what came of calls."""

from __future__ import annotations

from math import isnan

import pytest

from meshlib.sim.tally import Tally, percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (1, 1), (50, 50), (50.1, 51), (99, 99), (99.9, 100), (100, 100)]
)
def test_percentiles_are_nearest_ranks(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_of_nothing_there_are_no_figures() -> None:
    tally = Tally()
    assert isnan(percentile([], 50))
    assert isnan(tally.success_percent)
    assert tally.first_second(tally.good, 0, 20, lambda mean: mean > 0) is None


def test_calls_are_counted_by_the_second_in_which_they_end() -> None:
    tally = Tally()
    for at in (0.1, 0.9, 1.5, 3.2):
        tally.ended(at, True, 0.01)
    tally.ended(3.9, False, 0.001)
    assert tally.good == {0: 2, 1: 1, 3: 1}
    assert tally.bad == {3: 1}
    assert tally.rate(tally.good, 0, 4) == 1.0
    assert tally.success_percent == 80.0
    assert tally.percentile(20) == 0.001
    assert tally.percentile(20, within_s=1.0) == 0.01
    assert tally.percentile(100, within_s=1.0) == 1.0


def test_the_first_second_is_that_of_five_good_ones() -> None:
    tally = Tally()
    for second in (0, *range(4, 10)):
        tally.ended(second, True, 0.01)
    assert tally.first_second(tally.good, 0, 10, lambda mean: mean >= 1.0) == 4
    assert tally.first_second(tally.good, 6, 10, lambda mean: mean >= 1.0) is None
