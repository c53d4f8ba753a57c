"""The latency that a probe is told is that of requests that found about as many others."""

from __future__ import annotations

import pytest

from meshlib.server.latency_bins import RECENT_S, LatencyBins


def test_it_is_the_median_at_about_that_many() -> None:
    bins = LatencyBins()
    for index in range(40):
        bins.note(0, 0.01, 1.0)
        bins.note(20, 0.2 if index % 5 else 9.0, 1.0)
    assert bins.median(0, 1.0) == 0.01
    assert bins.median(3, 1.0) == 0.01
    assert bins.median(20, 1.0) == bins.median(21, 1.0) == bins.median(10**9, 1.0) == 0.2


def test_of_nothing_nothing_is_known() -> None:
    assert LatencyBins().median(3, 1.0) == 0.0


def test_what_is_old_counts_where_there_is_nothing_newer() -> None:
    bins = LatencyBins()
    bins.note(2, 0.02, 0.0)
    assert bins.median(2, 100.0) == 0.02
    bins.note(9, 0.09, 100.0)
    assert bins.median(2, 100.0) == 0.09
    assert bins.median(2, RECENT_S) == 0.02


def test_only_the_last_ones_count() -> None:
    bins = LatencyBins()
    for took_s in [1.0] * 100 + [0.1] * 16:
        bins.note(1, took_s, 1.0)
    assert bins.median(1, 1.0) == 0.1


@pytest.mark.parametrize("in_flight", [-5, 0, 7, 8, 15, 16, 10**12])
def test_any_number_has_a_bin(in_flight: int) -> None:
    bins = LatencyBins()
    bins.note(in_flight, 0.5, 1.0)
    assert bins.median(in_flight, 1.0) == 0.5
