"""Which endpoints are outliers by their rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.settings import FailurePercentageSettings, SuccessRateSettings
from meshlib.policy.success_rate import Rate, failing, success_threshold, unlike_others

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "envoy_success_rate.json").read_text())


def rates(*counts: tuple[int, int]) -> list[Rate]:
    return [Rate(at, good, total) for at, (good, total) in enumerate(counts)]


def test_the_threshold_is_that_of_envoys_example() -> None:
    mean, threshold = success_threshold(GOLDEN["rates"], GOLDEN["factor"])
    assert (mean, threshold) == (GOLDEN["mean"], GOLDEN["threshold"])
    assert (mean - threshold) / GOLDEN["factor"] == GOLDEN["stdev"]


def test_who_is_below_the_threshold_goes() -> None:
    (found,) = unlike_others(SuccessRateSettings(), rates((100, 200), *[(200, 200)] * 4))
    assert (found.of, found.success_percent, found.limit) == (0, 50.0, 52.0)


def test_who_is_at_the_threshold_stays() -> None:
    """With all rates alike the stdev is 0 and the threshold is the mean itself."""
    assert unlike_others(SuccessRateSettings(), rates(*[(70, 100)] * 5)) == []


@pytest.mark.parametrize(
    ("volume", "hosts", "goes"),
    [(100, 5, True), (101, 5, False), (100, 6, False)],
)
def test_with_too_few_calls_or_endpoints_nobody_goes(volume: int, hosts: int, goes: bool) -> None:
    settings = SuccessRateSettings(request_volume=volume, minimum_hosts=hosts)
    counts = rates((10, 100), *[(100, 100)] * 4)
    assert bool(unlike_others(settings, counts)) is goes
    other = FailurePercentageSettings(request_volume=volume, minimum_hosts=hosts)
    assert bool(failing(other, counts)) is goes


def test_who_fails_as_often_as_the_threshold_says_goes_the_worst_first() -> None:
    found = failing(FailurePercentageSettings(), rates((15, 100), (16, 100), (0, 50), (100, 100), (100, 100)))
    assert [(rate.of, rate.limit) for rate in found] == [(2, 85.0), (0, 85.0)]


def test_without_calls_there_is_no_rate() -> None:
    nothing = rates(*[(0, 0)] * 5)
    assert unlike_others(SuccessRateSettings(request_volume=0, minimum_hosts=0), nothing) == []
    assert failing(FailurePercentageSettings(request_volume=0, minimum_hosts=0), nothing) == []


@given(st.lists(st.integers(0, 200).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))))
def test_the_one_that_does_best_never_goes_for_being_unlike_the_others(counts: list[tuple[int, int]]) -> None:
    settings = SuccessRateSettings(minimum_hosts=1, request_volume=1, stdev_factor=0.0)
    found = {rate.of for rate in unlike_others(settings, rates(*counts))}
    called = [(good / total, at) for at, (good, total) in enumerate(counts) if total]
    if called:
        best = max(called)[0]
        assert not {at for share, at in called if share == best} & found or len({share for share, _ in called}) == 1
