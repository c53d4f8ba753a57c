"""Failure accrual against Finagle's and Linkerd's numbers, and what the detector makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.policy.accrual import AccruingDetector, AccruingSweepingDetector, MovingAverage, MovingCounts, make_accrual
from meshlib.policy.comparison import Comparison
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.settings import AccrualSettings, OutlierSettings
from meshlib.policy.shadow_outlier import ShadowOutlier, make_watched
from meshlib.sim.network import SimEndpoint, constant
from tests.core import NOW, cluster_state, endpoints, simulation

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "linkerd_finagle_accrual.json").read_text())
KINDS = [
    AccrualSettings("ema", window_s=10.0),
    AccrualSettings("ema", requests=20),
    AccrualSettings("window", window_s=10.0),
]


def cluster_of(count: int, accrual: AccrualSettings, **fields: Any) -> tuple[ClusterState, OutlierDetector, Cluster]:
    fields = {"consecutive_errors": 0, **fields}
    state = cluster_state(outlier=OutlierSettings(accrual=accrual, **fields))
    cluster = state.view(endpoints(count), NOW, Random(1))
    assert isinstance(state.outlier, AccruingDetector | AccruingSweepingDetector)
    return state, state.outlier, cluster


@pytest.mark.parametrize("row", GOLDEN["ema"], ids=str)
def test_a_moving_average_trips_at_the_failure_that_finagle_trips_at(row: dict[str, Any]) -> None:
    row = dict(row)
    successes, trips_at = row.pop("successes"), row.pop("trips_at")
    average = MovingAverage(AccrualSettings("ema", **row), NOW)
    for after in range(1, successes + 1):
        assert average.note(NOW + after, True) is None
    found = [average.note(NOW + successes + after, False) is not None for after in range(1, trips_at + 3)]
    assert found == [False] * (trips_at - 1) + [True] * 3
    average.reset(NOW)
    if trips_at > 1:
        assert average.note(NOW, False) is None


@pytest.mark.parametrize("row", GOLDEN["window"], ids=lambda row: str(row["test"]))
def test_counts_in_a_window_are_those_of_linkerd(row: dict[str, Any]) -> None:
    *before, (last, good) = row["outcomes"]
    for min_requests, percent, trips in row["trips"] or [(1, 100, row["ratio"] < 1)]:
        counts = MovingCounts(AccrualSettings("window", percent, 10.0, min_requests=min_requests), NOW)
        for after, well in before:
            counts.note(NOW + after, well)
        assert (counts.note(NOW + last, good) is not None) is trips
        assert counts.percent == row["ratio"] * 100
        counts.reset(NOW + last)
        assert counts.percent is None


def test_a_window_counts_again_after_sixty_days_of_silence() -> None:
    counts = MovingCounts(AccrualSettings("window", window_s=0.01), 0.0)
    for at, good in ((0.0, False), (5_184_000.0, True), (5_184_000.001, False), (5_184_000.002, True)):
        counts.note(at, good)
    assert counts.percent == pytest.approx(200 / 3)


def test_a_moving_average_by_time_waits_for_a_whole_window_and_for_enough_requests() -> None:
    average = MovingAverage(AccrualSettings("ema", window_s=30.0), NOW)
    assert [average.note(NOW + after, False) is None for after in (25, 26, 27, 28, 29, 29.9)] == [True] * 6
    assert average.note(NOW + 30, False) is not None
    # Of the last window, so after a long silence one failure alone is none, whatever it makes of the average.
    assert [average.note(NOW + 1000 + after, False) is None for after in range(5)] == [True] * 4 + [False]
    assert average.ema == 0


@pytest.mark.parametrize("accrual", KINDS, ids=lambda each: f"{each.kind}-{each.requests}")
def test_a_success_that_comes_late_moves_no_time(accrual: AccrualSettings) -> None:
    rate = make_accrual(accrual, NOW)
    for after in range(40):
        assert rate.note(NOW + after, True) is None
    assert rate.note(NOW, True) is None
    assert rate.note(NOW + 40, False) is None


@pytest.mark.parametrize("accrual", KINDS, ids=lambda each: f"{each.kind}-{each.requests}")
def test_after_a_clock_went_back_it_still_finds_who_fails(accrual: AccrualSettings) -> None:
    rate = make_accrual(accrual, NOW + 3600)
    for after in range(20):
        rate.note(NOW + 3600 + after, True)
    found = [rate.note(NOW + after, False) is not None for after in range(20)]
    assert found[-1]
    assert not any(found[:4])


@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.floats(-1e12, 1e12), st.booleans()), max_size=60),
)
@settings(max_examples=100)
def test_however_the_clock_jumps_who_never_fails_is_never_found(
    accrual: AccrualSettings, outcomes: list[tuple[float, bool]]
) -> None:
    rate, well = make_accrual(accrual, NOW), make_accrual(accrual, NOW)
    for now, good in outcomes:
        rate.note(now, good)
        assert well.note(now, True) is None
        assert 0 <= (rate.ema if isinstance(rate, MovingAverage) else 0) <= 1


@pytest.mark.parametrize("accrual", KINDS, ids=lambda each: f"{each.kind}-{each.requests}")
@pytest.mark.parametrize("envoy", [{}, {"consecutive_5xx": 100}], ids=["ours", "with Envoy's rules"])
def test_it_ejects_returns_by_a_probe_and_begins_anew(accrual: AccrualSettings, envoy: dict[str, Any]) -> None:
    _, outlier, cluster = cluster_of(3, accrual, **envoy)
    member = cluster.members[0]
    for after in range(60):
        # Never two in a row, so no rule on rows would find it.
        outlier.succeeded(member, NOW + after, 200)
        if not member.health.ejected:
            outlier.failed(member, NOW + after + 0.5)
    assert [*outlier.ejected] == [member]
    assert "went well" in member.health.ejected_for
    assert outlier.detected == outlier.enforced == {"accrual": 1}
    at = member.health.ejected_until
    probe = outlier.due(at, True)
    assert probe is not None
    probe.ended(at, True)
    assert not member.health.ejected
    outlier.failed(member, at)
    assert not member.health.ejected


def test_answers_count_as_they_do_for_finagle_and_linkerd() -> None:
    for kind, failures in (("ema", {500, 503}), ("window", {429, 500, 503})):
        for status in (200, 404, 429, 500, 503):
            accrual = AccrualSettings(kind, window_s=10.0, min_requests=1)  # type: ignore[arg-type]
            _, outlier, cluster = cluster_of(3, accrual)
            for after in range(0, 12, 2):
                outlier.succeeded(cluster.members[0], NOW + after, status)
            assert cluster.members[0].health.ejected is (status in failures), (kind, status)


def test_what_trips_both_rules_is_a_matter_of_failures_in_a_row() -> None:
    _, outlier, cluster = cluster_of(3, AccrualSettings("window"), consecutive_errors=5)
    for _ in range(5):
        outlier.failed(cluster.members[0], NOW)
    assert outlier.enforced == {"consecutive_errors": 1}


def test_no_more_are_out_than_the_percentage_allows() -> None:
    _, outlier, cluster = cluster_of(4, AccrualSettings("window"))
    for member in cluster.members:
        for _ in range(5):
            outlier.failed(member, NOW)
    assert (len(outlier.ejected), outlier.overflow) == (2, 2)


def test_a_sweep_takes_back_and_begins_anew() -> None:
    _, outlier, cluster = cluster_of(3, AccrualSettings("window", window_s=1000.0), return_by="sweep")
    member = cluster.members[0]
    for _ in range(5):
        outlier.failed(member, NOW)
    assert member.health.ejected
    outlier.sweep(NOW + 30)
    for _ in range(4):
        outlier.failed(member, NOW + 31)
    assert not member.health.ejected
    outlier.failed(member, NOW + 31)
    assert member.health.ejected


def test_an_endpoint_keeps_its_rate_where_the_settings_stay() -> None:
    state, outlier, cluster = cluster_of(3, AccrualSettings("window"))
    for _ in range(4):
        outlier.failed(cluster.members[0], NOW)
    member = state.view(endpoints(3), NOW, Random(1)).members[0]
    outlier.failed(member, NOW)
    assert member.health.ejected
    other = AccruingDetector(OutlierSettings(accrual=AccrualSettings("window", min_requests=2)))
    other.rebind(cluster.members, NOW)
    tally = cluster.members[0].health.tally
    assert tally is not None
    assert tally.accrual is not None
    assert tally.accrual.settings == AccrualSettings("window", min_requests=2)


@pytest.mark.parametrize("fields", [{}, {"consecutive_5xx": 100}], ids=["ours", "with Envoy's rules"])
def test_a_shadow_hears_the_same(fields: dict[str, Any]) -> None:
    live = OutlierSettings(consecutive_errors=0, accrual=AccrualSettings("window"), **fields)
    shadow = ShadowOutlier(live, Comparison("outlier_detection", "ejected", "spared"), Random(1))
    detector = make_watched(live, None, shadow)
    members: list[Member] = list(cluster_of(3, AccrualSettings("window"))[2].members)
    detector.rebind(members, NOW, Random(1))
    for _ in range(5):
        detector.failed(members[0], NOW)
    assert members[0].health.ejected
    assert shadow.is_out(members[0])


def test_threads_lose_no_outcome() -> None:
    _, outlier, cluster = cluster_of(2, AccrualSettings("window", 1.0))
    member = cluster.members[0]

    def call() -> None:
        for _ in range(500):
            outlier.succeeded(member, NOW, 200)
            outlier.failed(member, NOW)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally = member.health.tally
    assert tally is not None
    assert isinstance(tally.accrual, MovingCounts)
    assert tally.accrual._counts.totals == [8000, 4000]


def test_calls_go_round_an_endpoint_that_fails_half_of_the_time() -> None:
    attempts = []
    for accrual in (None, AccrualSettings("window", window_s=10.0), AccrualSettings("ema", window_s=10.0)):
        bad = SimEndpoint(constant(0.02), fail_percent=40, failure_s=0.02)
        outlier = OutlierSettings(consecutive_errors=0, accrual=accrual)
        sim = simulation(
            [bad, *(SimEndpoint(constant(0.02)) for _ in range(2))], balancer="round_robin", outlier=outlier
        )
        sim.load(20, 60)
        attempts.append(bad.attempts)
    never, window, ema = attempts
    assert never > 350
    assert window < 30
    assert ema < 120


def test_nobody_imports_it_who_does_not_configure_it() -> None:
    code = (
        "import sys; from meshlib.policy.outlier import make_detector; from meshlib.policy.settings import *; "
        "make_detector(OutlierSettings()); assert 'meshlib.policy.accrual' not in sys.modules; "
        "make_detector(OutlierSettings(accrual=AccrualSettings())); assert 'meshlib.policy.accrual' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
