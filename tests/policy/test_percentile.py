"""The moving percentile against a sorted list, and what happens to its window."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.percentile import WindowedPercentile


def filled(percentile: float, durations: list[float], at: float = 100.0) -> WindowedPercentile:
    window = WindowedPercentile(percentile)
    for duration in durations:
        window.note(at, duration)
    return window


@given(
    st.lists(st.floats(2e-6, 100.0), min_size=20, max_size=200),
    st.sampled_from([50.0, 90.0, 95.0]),
)
def test_it_is_that_of_the_sorted_list_and_at_most_a_64th_above(durations: list[float], percentile: float) -> None:
    value = filled(percentile, durations).value(100.0)

    exact = sorted(durations)[math.ceil(percentile / 100 * len(durations)) - 1]
    assert value is not None
    assert exact <= value <= exact * (1 + 1 / 64) * (1 + 1e-9)


def test_there_is_none_before_a_sample_lies_above_it() -> None:
    for percentile, least in ((50.0, 20), (95.0, 20), (99.0, 100), (99.9, 1000)):
        window = filled(percentile, [0.01] * (least - 1))
        assert window.value(100.0) is None
        window.note(100.0, 0.01)
        assert window.value(100.0) == pytest.approx(0.01, rel=1 / 60)


def test_it_is_read_out_every_three_seconds() -> None:
    window = filled(50.0, [0.01] * 20)
    assert window.value(100.0) == pytest.approx(0.01, rel=1 / 60)
    for _ in range(50):
        window.note(101.0, 1.0)

    assert window.value(102.9) == pytest.approx(0.01, rel=1 / 60)
    assert window.value(103.0) == pytest.approx(1.0, rel=1 / 60)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window = filled(50.0, [0.01] * 20)
    for _ in range(20):
        window.note(115.0, 1.0)
    assert window.samples == 40

    window.note(129.0, 1.0)  # the first slice is 100 to 110, and is one of three until 130
    assert window.samples == 41
    window.note(130.0, 1.0)
    assert window.samples == 22
    assert window.value(1000.0) is None
    assert window.samples == 0


def test_bad_durations_and_a_clock_that_jumps_do_no_harm() -> None:
    window = filled(50.0, [math.nan, -1.0, 0.0, math.inf, -math.inf])
    assert window.samples == 4
    for now in (100.0, 5.0, 1e9, -1e9, 100.0):
        for _ in range(30):
            window.note(now, 0.02)
        assert window.value(now) is not None
    assert filled(50.0, [math.inf] * 20).value(100.0) == pytest.approx(128.0, rel=1 / 60)
