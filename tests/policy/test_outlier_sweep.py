"""Outlier detection by Envoy's rules: its own timelines, and what is ours around them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.outlier_sweep import GRACE_S, SMALL, SweepingDetector
from meshlib.policy.settings import FailurePercentageSettings, OutlierSettings, SuccessRateSettings
from meshlib.sim.network import SimEndpoint, constant
from tests.core import NOW, cluster_state, endpoints, simulation

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "envoy_outlier_detection.json").read_text()
)["timelines"]
RNG = Random(1)
ENVOY: dict[str, Any] = {"consecutive_errors": 0, "always_eject_one_of": 0, "return_by": "sweep"}


def cluster_of(count: int, **fields: Any) -> tuple[ClusterState, SweepingDetector, Cluster]:
    state = cluster_state(outlier=OutlierSettings(**{**ENVOY, **fields}))
    cluster = state.view(endpoints(count), NOW, Random(1))
    assert isinstance(state.outlier, SweepingDetector)
    return state, state.outlier, cluster


def settings_of(golden: dict[str, Any]) -> dict[str, Any]:
    fields = dict(golden["settings"])
    if "success_rate" in fields:
        fields["success_rate"] = SuccessRateSettings(**fields["success_rate"])
    if "failure_percentage" in fields:
        fields["failure_percentage"] = FailurePercentageSettings(**fields["failure_percentage"])
    return fields


def answer(outlier: OutlierDetector, member: Member, now: float, what: int | str) -> None:
    if what == "timeout":
        outlier.failed(member, now, timed_out=True, connected=True)
    elif what == "connect-failed":
        outlier.failed(member, now)
    elif what in (502, 503, 504):
        assert isinstance(what, int)
        outlier.failed(member, now, status=what, connected=True)
    else:
        assert isinstance(what, int)
        outlier.succeeded(member, now, what)


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "lazily"])
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: str(golden["test"]))
def test_timelines_are_those_of_envoys_tests(golden: dict[str, Any], swept: bool) -> None:
    """By sweeps in their time, as the housekeeping does them, and by those that calls do when they come by."""
    _, outlier, cluster = cluster_of(golden["hosts"], **settings_of(golden))
    for step in golden["steps"]:
        now = NOW + step["at"]
        if swept or "answer" not in step:
            outlier.sweep(now)
        for _ in range(step.get("times", 0)):
            members = cluster.members if "host" not in step else (cluster.members[step["host"]],)
            for member in members:
                answer(outlier, member, now, step["answer"])
        assert sorted(cluster.members.index(member) for member in outlier.ejected) == step["out"], step
    for name in ("detected", "enforced", "overflow"):
        if name in golden:
            assert getattr(outlier, name) == golden[name]


def test_a_hung_endpoint_has_no_local_origin_failures_in_a_row_as_in_envoy() -> None:
    """A connection that is there counts as a success on this side, each time (UpstreamRequest::onPoolReady)."""
    fields = {"split_external_local_origin_errors": True, "consecutive_local_origin_failure": 2}
    _, outlier, cluster = cluster_of(2, consecutive_5xx=2, **fields)
    for _ in range(9):
        outlier.failed(cluster.members[0], NOW, timed_out=True, connected=True)
    assert outlier.ejected == ()


def test_answers_and_local_failures_are_counted_apart_where_they_are_split() -> None:
    _, outlier, cluster = cluster_of(
        5,
        split_external_local_origin_errors=True,
        failure_percentage=FailurePercentageSettings(request_volume=10),
        max_ejection_percent=100,
    )
    for member in cluster.members[:4]:
        for _ in range(10):
            outlier.succeeded(member, NOW, 200)
    for _ in range(90):
        outlier.failed(cluster.members[4], NOW)
    for _ in range(10):
        outlier.succeeded(cluster.members[4], NOW, 200)
    outlier.sweep(NOW + 10)
    assert outlier.enforced == {"failure_percentage_local_origin": 1}
    assert cluster.members[4].health.ejected_for == "90 % of 100 calls failed"


def test_what_is_enforced_in_part_is_drawn() -> None:
    _, outlier, cluster = cluster_of(
        100, consecutive_5xx=1, enforcing_consecutive_5xx_percent=30, max_ejection_percent=100
    )
    for member in cluster.members:
        outlier.succeeded(member, NOW, 500)
    assert outlier.detected["consecutive_5xx"] == 100
    assert 20 <= len(outlier.ejected) <= 40
    assert outlier.enforced["consecutive_5xx"] == len(outlier.ejected)


def test_jitter_keeps_them_from_coming_back_all_at_once() -> None:
    _, outlier, cluster = cluster_of(
        50, consecutive_5xx=1, max_ejection_percent=100, max_ejection_jitter_s=40, base_ejection_s=10
    )
    for member in cluster.members:
        outlier.succeeded(member, NOW, 500)
    left = []
    for at in range(10, 60, 10):
        outlier.sweep(NOW + at)
        left.append(len(outlier.ejected))
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0 < left[2] < left[1] < 50


def test_the_worst_go_first_where_not_all_may() -> None:
    failure = FailurePercentageSettings(threshold_percent=50, minimum_hosts=1, request_volume=1)
    _, outlier, cluster = cluster_of(4, failure_percentage=failure, max_ejection_percent=25)
    for member, bad in zip(cluster.members, (6, 7, 9, 8), strict=True):
        for at in range(10):
            outlier.succeeded(member, NOW, 500 if at < bad else 200)
    outlier.sweep(NOW + 10)
    assert outlier.ejected == (cluster.members[2],)
    assert outlier.overflow == 3


def test_one_may_always_go_as_in_grpc() -> None:
    """gRPC A50: the first ejection is never held back by the percentage."""
    _, outlier, cluster = cluster_of(5, consecutive_5xx=1, max_ejection_percent=10, always_eject_one_of=1)
    for member in cluster.members:
        outlier.succeeded(member, NOW, 500)
    assert outlier.ejected == cluster.members[:1]


def test_an_active_check_that_passes_brings_an_endpoint_back() -> None:
    told: list[bool] = []
    state = cluster_state(
        outlier=OutlierSettings(**ENVOY, consecutive_5xx=1), on_ejection=lambda _, ejected: told.append(ejected)
    )
    cluster = state.view(endpoints(2), NOW, RNG)
    outlier, member = state.outlier, cluster.members[0]
    assert outlier is not None
    outlier.succeeded(member, NOW, 500)
    outlier.passed_check(cluster.members[1].health, NOW + 1)
    assert outlier.ejected == (member,)
    outlier.passed_check(member.health, NOW + 1)
    assert outlier.ejected == ()
    assert told == [True, False]


def test_it_does_not_where_that_is_switched_off() -> None:
    _, outlier, cluster = cluster_of(2, consecutive_5xx=1, active_check_unejects=False)
    outlier.succeeded(cluster.members[0], NOW, 500)
    outlier.passed_check(cluster.members[0].health, NOW + 1)
    assert outlier.ejected == cluster.members[:1]


def test_our_rule_and_those_of_envoy_can_stand_side_by_side() -> None:
    _, outlier, cluster = cluster_of(4, consecutive_errors=3, consecutive_5xx=5)
    for _ in range(5):
        outlier.succeeded(cluster.members[0], NOW, 500)
    for _ in range(3):
        outlier.failed(cluster.members[1], NOW)
    assert outlier.enforced == {"consecutive_5xx": 1, "consecutive_errors": 1}


def test_one_found_by_its_rate_can_come_back_by_a_probe() -> None:
    failure = FailurePercentageSettings(minimum_hosts=1, request_volume=1)
    _, outlier, cluster = cluster_of(2, failure_percentage=failure, return_by="probe")
    outlier.succeeded(cluster.members[0], NOW, 500)
    outlier.sweep(NOW + 10)
    assert outlier.ejected == cluster.members[:1]
    outlier.sweep(NOW + 40)
    assert outlier.ejected == cluster.members[:1]
    probe = outlier.due(NOW + 40, True)
    assert probe is not None
    probe.ended(NOW + 40, True)
    assert outlier.ejected == ()


def test_a_large_cluster_is_left_to_the_housekeeping_for_a_while() -> None:
    _, outlier, cluster = cluster_of(SMALL + 1, consecutive_5xx=1)
    outlier.succeeded(cluster.members[0], NOW, 500)
    outlier.sweep(NOW + 20)
    assert outlier.due(NOW + 30, True) is None
    assert outlier.ejected == cluster.members[:1], "a sweep of so many would hold up the call"
    outlier.due(NOW + 30 + GRACE_S, True)
    assert outlier.ejected == ()


def test_sweeps_that_nobody_did_are_made_up_for() -> None:
    """An hour of silence: back as of the 30th second, and forgiven at the 10th after that."""
    _, outlier, cluster = cluster_of(2, consecutive_5xx=1)
    outlier.succeeded(cluster.members[0], NOW, 500)
    outlier.sweep(NOW + 3600)
    health = cluster.members[0].health
    assert (health.ejected, health.returned_at, health.ejections) == (False, NOW + 30, 0)
    outlier.succeeded(cluster.members[0], NOW + 3600, 500)
    assert health.ejected_until == NOW + 3630


def test_a_clock_that_goes_back_holds_up_no_sweep_and_keeps_nobody_out() -> None:
    _, outlier, cluster = cluster_of(2, consecutive_5xx=1)
    outlier.succeeded(cluster.members[0], NOW + 1e9, 500)
    outlier.sweep(NOW)
    outlier.sweep(NOW + 10)
    assert outlier.ejected == ()


@pytest.mark.parametrize("return_by", ["probe", "sweep"])
def test_a_clock_that_goes_back_and_forth_does_not_make_it_sweep_for_ever(return_by: str) -> None:
    _, outlier, cluster = cluster_of(2, consecutive_5xx=1, return_by=return_by)
    health = cluster.members[0].health
    outlier.succeeded(cluster.members[0], NOW + 1e12, 500)
    probe = outlier.due(NOW + 1e12 + 31, True)
    if probe is not None:
        probe.ended(NOW + 1e12 + 31, True)
    outlier.sweep(NOW + 1e12 + 31)
    assert (health.ejected, health.ejections) == (False, 1)
    outlier.sweep(NOW)
    outlier.sweep(NOW + 1e11)  # ten thousand million intervals
    assert health.ejections == 0


def test_members_that_leave_and_come_back_keep_their_counts() -> None:
    state, outlier, cluster = cluster_of(3, consecutive_5xx=5)
    for _ in range(4):
        outlier.succeeded(cluster.members[0], NOW, 500)
    state.view(endpoints(3)[1:], NOW, RNG)
    state.view(endpoints(3), NOW, RNG)
    outlier.succeeded(cluster.members[0], NOW, 500)
    assert [member.endpoint.host for member in outlier.ejected] == ["10.0.0.1"]


def test_an_endpoint_that_answers_500_is_left_out_by_envoys_rule_and_not_by_ours() -> None:
    parts = [SimEndpoint(constant(0.01), fail_percent=100, fail_status=500), SimEndpoint(constant(0.01))]
    ours = simulation(parts)
    ours.load(50, 20)
    envoy = simulation(parts, outlier=OutlierSettings(**ENVOY, consecutive_5xx=5))
    envoy.load(50, 20)
    assert ours.state.outlier is not None
    assert ours.state.outlier.ejections == 0
    assert envoy.state.outlier is not None
    assert envoy.state.outlier.enforced == {"consecutive_5xx": 1}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-50, 100, allow_nan=False),
            st.integers(0, 3),
            st.sampled_from([200, 404, 500, 503, "timeout", "connect-failed", "check", "probe"]),
        ),
        max_size=80,
    ),
    st.sampled_from(["probe", "sweep"]),
    st.booleans(),
)
def test_whatever_happens_the_bounds_hold(
    steps: list[tuple[float, int, int | str]], return_by: str, split: bool
) -> None:
    """Also when the clock goes back: nothing raises, at most half are out, and all come back."""
    rates: dict[str, Any] = {
        "success_rate": SuccessRateSettings(minimum_hosts=2, request_volume=1, stdev_factor=0.5),
        "failure_percentage": FailurePercentageSettings(minimum_hosts=1, request_volume=1),
    }
    _, outlier, cluster = cluster_of(
        4,
        consecutive_errors=3,
        consecutive_5xx=2,
        consecutive_gateway_failure=2,
        consecutive_local_origin_failure=2,
        split_external_local_origin_errors=split,
        return_by=return_by,
        **rates,
    )
    now = NOW
    for delta, host, what in steps:
        now += delta
        member = cluster.members[host]
        if what == "check":
            outlier.passed_check(member.health, now)
        elif what == "probe":
            probe = outlier.due(now, True)
            if probe is not None:
                probe.ended(now, host == 0)
        else:
            answer(outlier, member, now, what)
        assert len(outlier.ejected) <= 2
        assert set(outlier.ejected) == {each for each in cluster.members if each.health.ejected}
    for _ in range(100):
        now += 400
        outlier.sweep(now)
        probe = outlier.due(now, True)
        if probe is not None:
            probe.ended(now, True)
    assert outlier.ejected == ()
