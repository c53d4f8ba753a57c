"""Ejection of single endpoints: when, for how long, how many, and how they come back."""

from __future__ import annotations

import threading
from random import Random

import pytest

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.health import EndpointHealth
from meshlib.policy.outlier import LEASE_S, PATIENCE_S, EjectionProbe, OutlierDetector
from meshlib.policy.settings import OutlierSettings
from meshlib.sim.network import SimEndpoint, constant, uniform
from tests.core import NOW, cluster_state, endpoints, simulation

RNG = Random(1)


def cluster_of(count: int, **settings: float) -> tuple[ClusterState, OutlierDetector, Cluster]:
    state = cluster_state(outlier=OutlierSettings(**settings))  # type: ignore[arg-type]
    cluster = state.view(endpoints(count), NOW, RNG)
    assert state.outlier is not None
    return state, state.outlier, cluster


def fail(outlier: OutlierDetector, member: Member, now: float = NOW, times: int = 5) -> None:
    for _ in range(times):
        outlier.failed(member, now)


def probe_of(outlier: OutlierDetector, now: float) -> EjectionProbe:
    probe = outlier.due(now, True)
    assert probe is not None
    return probe


def test_five_failures_in_a_row_eject() -> None:
    _, outlier, cluster = cluster_of(3)
    member = cluster.members[0]
    fail(outlier, member, times=4)
    outlier.succeeded(member, NOW)
    fail(outlier, member, times=4)
    assert not member.health.ejected
    outlier.failed(member, NOW)
    assert [*outlier.ejected] == [member]
    assert {cluster.pick(NOW, RNG) for _ in range(200)} == set(cluster.members[1:])


@pytest.mark.parametrize(("count", "allowed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)])
def test_at_most_half_are_out_and_one_may_be_if_there_are_two(count: int, allowed: int) -> None:
    _, outlier, cluster = cluster_of(count)
    for member in cluster.members:
        fail(outlier, member)
    assert len(outlier.ejected) == allowed


def test_the_percentage_can_be_set() -> None:
    _, outlier, cluster = cluster_of(10, max_ejection_percent=0)
    for member in cluster.members:
        fail(outlier, member)
    assert [*outlier.ejected] == []
    _, outlier, cluster = cluster_of(10, max_ejection_percent=100)
    for member in cluster.members:
        fail(outlier, member)
    assert len(outlier.ejected) == 10


def test_one_that_was_spared_goes_when_there_is_room() -> None:
    _, outlier, cluster = cluster_of(2)
    first, second = cluster.members
    fail(outlier, first)
    fail(outlier, second)
    assert [*outlier.ejected] == [first]
    probe_of(outlier, NOW + 30).ended(NOW + 30, True)
    outlier.failed(second, NOW + 31)
    assert [*outlier.ejected] == [second]


def test_the_time_out_grows_with_each_failed_probe_to_its_maximum() -> None:
    _, outlier, cluster = cluster_of(2)
    member, now, times = cluster.members[0], NOW, []
    fail(outlier, member)
    for _ in range(12):
        times.append(member.health.ejected_until - now)
        assert outlier.due(member.health.ejected_until - 0.001, True) is None
        now = member.health.ejected_until
        probe_of(outlier, now).ended(now, False)
    assert times == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_time_in_makes_the_next_ejection_shorter() -> None:
    _, outlier, cluster = cluster_of(2)
    member = cluster.members[0]
    fail(outlier, member)
    probe_of(outlier, NOW + 30).ended(NOW + 30, False)
    probe_of(outlier, NOW + 90).ended(NOW + 90, True)
    fail(outlier, member, NOW + 91)
    assert member.health.ejected_until == NOW + 91 + 90, "back for a second only: the third time"
    probe_of(outlier, NOW + 181).ended(NOW + 181, True)
    fail(outlier, member, NOW + 181 + 61)
    assert member.health.ejected_until == NOW + 242 + 60, "two of the three are forgiven"


def test_it_comes_back_by_one_probe_that_is_a_lease() -> None:
    _, outlier, cluster = cluster_of(2)
    member = cluster.members[0]
    fail(outlier, member)
    outlier.succeeded(member, NOW)
    assert member.health.ejected, "a straggler's success does not count"
    probe = probe_of(outlier, NOW + 30)
    assert outlier.due(NOW + 30, True) is None
    probe.ended(NOW + 31, None)
    second = probe_of(outlier, NOW + 31)
    probe.ended(NOW + 31, True)
    assert member.health.ejected, "who gave the lease back has no say"
    second.ended(NOW + 32, True)
    assert [*outlier.ejected] == []
    assert member.health.consecutive == 0


def test_a_hung_probe_is_passed_over() -> None:
    _, outlier, cluster = cluster_of(2)
    fail(outlier, cluster.members[0])
    hung = probe_of(outlier, NOW + 30)
    assert outlier.due(NOW + 30 + LEASE_S - 0.01, True) is None
    second = probe_of(outlier, NOW + 30 + LEASE_S)
    hung.ended(NOW + 61, False)
    second.ended(NOW + 61, True)
    assert [*outlier.ejected] == []


def test_a_call_that_cannot_be_repeated_probes_only_when_no_other_comes() -> None:
    _, outlier, cluster = cluster_of(2)
    fail(outlier, cluster.members[0])
    assert outlier.due(NOW + 30 + PATIENCE_S - 0.01, False) is None
    assert outlier.due(NOW + 30 + PATIENCE_S, False) is not None


def test_who_has_tried_an_endpoint_does_not_probe_it() -> None:
    _, outlier, cluster = cluster_of(2)
    fail(outlier, cluster.members[0])
    assert outlier.due(NOW + 30, True, [cluster.members[0]]) is None
    assert outlier.due(NOW + 30, True, [cluster.members[1]]) is not None


def test_a_clock_that_goes_back_does_not_keep_it_out() -> None:
    _, outlier, cluster = cluster_of(2)
    fail(outlier, cluster.members[0], 1e9)
    assert outlier.due(NOW, True) is not None


def test_flapping_membership_keeps_history() -> None:
    state, outlier, cluster = cluster_of(3)
    member = cluster.members[0]
    fail(outlier, member)
    state.view(endpoints(3)[1:], NOW + 1, RNG)
    assert [*outlier.ejected] == []
    again = state.view(endpoints(3), NOW + 299, RNG)
    assert [*outlier.ejected] == [again.members[0]]
    assert again.members[0] is member


def test_after_five_minutes_away_it_starts_clean() -> None:
    state, outlier, cluster = cluster_of(3)
    fail(outlier, cluster.members[0])
    state.view(endpoints(3)[1:], NOW, RNG)
    state.view(endpoints(3)[1:], NOW + 301, RNG)
    again = state.view(endpoints(3), NOW + 302, RNG)
    assert not again.members[0].health.ejected
    assert again.members[0] is not cluster.members[0]


def test_a_reused_address_starts_clean() -> None:
    state = cluster_state()
    assert state.outlier is not None
    old = [Endpoint("10.0.0.1", 80, instance_id="a"), Endpoint("10.0.0.2", 80, instance_id="b")]
    cluster = state.view(old, NOW, RNG)
    cluster.members[0].load.answered(NOW, 9.0)
    fail(state.outlier, cluster.members[0])
    new = state.view([Endpoint("10.0.0.1", 80, instance_id="c"), old[1]], NOW + 1, RNG)
    assert [*state.outlier.ejected] == []
    assert new.members[0].load.cost(NOW + 1) < 0.1
    assert new.members[0].node is not cluster.members[0].node
    assert new.members[1] is cluster.members[1]


def test_a_change_of_weight_keeps_history_and_the_way_back() -> None:
    state, outlier, cluster = cluster_of(3)
    fail(outlier, cluster.members[0])
    probe = probe_of(outlier, NOW + 30)
    changed = state.view(endpoints(3, [2.0, 1.0, 1.0]), NOW + 31, RNG)
    assert changed.members[0] is not cluster.members[0]
    assert [*outlier.ejected] == [changed.members[0]]
    probe.ended(NOW + 32, True)
    assert [*outlier.ejected] == []


def test_calls_that_began_before_an_endpoint_left_do_not_eject_it() -> None:
    state, outlier, cluster = cluster_of(3)
    state.view(endpoints(3)[1:], NOW, RNG)
    fail(outlier, cluster.members[0], times=9)
    assert [*outlier.ejected] == []


def test_changes_are_told_outside_the_lock() -> None:
    told: list[tuple[str, bool]] = []
    outlier: OutlierDetector

    def on_ejection(member: Member, ejected: bool) -> None:
        assert not outlier._lock.locked()
        told.append((member.endpoint.address, ejected))

    state = cluster_state(on_ejection=on_ejection)
    assert state.outlier is not None
    outlier = state.outlier
    member = state.view(endpoints(2), NOW, RNG).members[0]
    fail(outlier, member)
    probe_of(outlier, NOW + 30).ended(NOW + 30, True)
    assert told == [("10.0.0.1:80", True), ("10.0.0.1:80", False)]


def test_after_a_fork_the_parents_probe_does_not_bind() -> None:
    _, outlier, cluster = cluster_of(2)
    fail(outlier, cluster.members[0])
    probe_of(outlier, NOW + 30)
    outlier.renew_lock()
    probe_of(outlier, NOW + 30)


# Together with panic


def healths(*kinds: Health) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{i + 1}", 80, health=health) for i, health in enumerate(kinds)]


UP, DOWN, LEAVING = Health.HEALTHY, Health.UNHEALTHY, Health.DRAINING


@pytest.mark.parametrize(
    ("kinds", "ejected", "panic", "used"),
    [
        ([UP, UP], [], False, {1, 2}),
        ([UP, UP], [0], False, {2}),
        ([UP, DOWN], [], False, {1}),
        ([UP, DOWN, DOWN], [], True, {1, 2, 3}),
        ([UP, UP, DOWN], [], False, {1, 2}),
        ([UP, UP, DOWN], [0], True, {1, 2, 3}),
        ([UP, UP, DOWN, DOWN], [], False, {1, 2}),
        ([UP, UP, DOWN, DOWN], [2], False, {1, 2}),
        ([DOWN, DOWN], [], True, {1, 2}),
        ([UP, LEAVING, LEAVING], [], False, {1}),
        ([LEAVING], [], False, {None}),
    ],
)
def test_panic_is_strictly_below_half_of_registry_and_ejection_together(
    kinds: list[Health], ejected: list[int], panic: bool, used: set[int | None]
) -> None:
    state = cluster_state()
    assert state.outlier is not None
    cluster = state.view(healths(*kinds), NOW, RNG)
    for index in ejected:
        fail(state.outlier, cluster.members[index])
    assert len(state.outlier.ejected) == len(ejected)
    assert cluster.panicking() is panic
    picked = [cluster.pick(NOW, RNG) for _ in range(100)]
    assert {None if member is None else int(member.endpoint.host[-1]) for member in picked} == used
    assert state.panics == (100 if panic else 0)


def test_a_broken_endpoint_is_out_and_costs_almost_no_call() -> None:
    sim = simulation([SimEndpoint(fail_percent=100), *(SimEndpoint(uniform(0.01, 0.03)) for _ in range(4))])
    sim.load(50, 60)
    assert sim.network.endpoints["10.0.0.1:80"].attempts < 15
    assert sim.outcomes() == {"200": len(sim.records)}


def test_one_that_recovers_gets_its_share_back() -> None:
    broken = SimEndpoint(constant(0.02), refuses=True)
    sim = simulation([broken, *(SimEndpoint(constant(0.02)) for _ in range(2))])
    sim.load(50, 20)
    broken.refuses, broken.attempts = False, 0
    sim.load(50, 120)
    assert sim.state.outlier is not None
    assert sim.state.outlier.ejected == ()
    assert broken.attempts > 1300


def test_with_no_threshold_nothing_is_ejected() -> None:
    _, outlier, cluster = cluster_of(3, consecutive_errors=0)
    fail(outlier, cluster.members[0], times=50)
    assert [*outlier.ejected] == []


def test_one_of_two_may_be_out_however_low_the_percentage() -> None:
    _, outlier, cluster = cluster_of(2, max_ejection_percent=10)
    for member in cluster.members:
        fail(outlier, member)
    assert len(outlier.ejected) == 1


def test_a_success_in_the_middle_of_a_failure_of_another_thread_is_not_lost() -> None:
    others: list[threading.Thread] = []
    last = False

    class Interrupted(EndpointHealth):
        """Between reading the count of failures and writing it there is time for another thread."""

        __slots__ = ()

        @property
        def consecutive(self) -> int:
            count: int = EndpointHealth.consecutive.__get__(self)  # type: ignore[attr-defined]
            if last and not others:
                others.append(threading.Thread(target=detector.succeeded, args=(member, NOW)))
                others[0].start()
                others[0].join(0.05)
            return count

        @consecutive.setter
        def consecutive(self, count: int) -> None:
            EndpointHealth.consecutive.__set__(self, count)  # type: ignore[attr-defined]

    cluster = cluster_state().view(endpoints(3), NOW, Random(1))
    member = Member(cluster.members[0].endpoint, cluster.members[0].node, cluster.members[0].load, Interrupted())
    detector = OutlierDetector(OutlierSettings())
    detector.rebind([member, *cluster.members[1:]])
    for _ in range(3):
        detector.failed(member, NOW)
    last = True
    detector.failed(member, NOW)
    others[0].join()
    assert member.health.consecutive == 0
    assert not member.health.heeds_success
