"""Who may be picked, by registry, active checks and ejections together."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.health import ActiveHealth, EndpointHealth
from meshlib.policy.settings import OutlierSettings
from tests.core import NOW, cluster_state, endpoints

RNG = Random(1)
UP, DOWN, SPARED = Health.HEALTHY, Health.UNHEALTHY, Health.DEGRADED


def eject(state: ClusterState, member: Member) -> None:
    assert state.outlier is not None
    for _ in range(5):
        state.outlier.failed(member, NOW)
    assert member.health.ejected


def found(state: ClusterState, member: Member, *, failed: bool = False, degraded: bool = False) -> None:
    assert state.active is not None
    state.active.found(member.health, failed=failed, degraded=degraded)


def picked(cluster: Cluster) -> set[int]:
    members = [cluster.pick(NOW, RNG) for _ in range(200)]
    return {cluster.members.index(member) for member in members if member is not None}


@pytest.mark.parametrize(
    ("reported", "failed", "ejected", "used", "panic"),
    [
        ([UP] * 4, [], [], {0, 1, 2, 3}, False),
        ([UP] * 4, [0], [], {1, 2, 3}, False),
        ([UP] * 4, [0], [0], {1, 2, 3}, False),
        ([UP] * 4, [0], [1], {2, 3}, False),
        ([DOWN, UP, UP, UP], [1], [], {2, 3}, False),
        ([DOWN, UP, UP, UP], [0], [], {1, 2, 3}, False),
        ([DOWN, UP, UP, UP], [1], [2], {0, 1, 2, 3}, True),
        ([UP] * 4, [0, 1, 2], [], {0, 1, 2, 3}, True),
    ],
)
def test_one_that_anybody_is_against_is_left_out_until_there_are_too_few(
    reported: list[Health], failed: list[int], ejected: list[int], used: set[int], panic: bool
) -> None:
    state = cluster_state(checked=True)
    these = [Endpoint(f"10.0.0.{at + 1}", 80, health=health) for at, health in enumerate(reported)]
    cluster = state.view(these, NOW, RNG)
    for at in failed:
        found(state, cluster.members[at], failed=True)
    for at in ejected:
        eject(state, cluster.members[at])
    cluster = state.view(these, NOW, RNG)
    assert cluster.panicking() is panic
    assert picked(cluster) == used


def test_a_degraded_one_is_used_only_when_the_others_do_not_suffice() -> None:
    state = cluster_state(checked=True)
    cluster = state.view(endpoints(4), NOW, RNG)
    found(state, cluster.members[0], degraded=True)
    assert picked(state.view(endpoints(4), NOW, RNG)) == {1, 2, 3}
    found(state, cluster.members[1], failed=True)
    found(state, cluster.members[2], failed=True)
    assert 0 in picked(state.view(endpoints(4), NOW, RNG))


def test_a_newcomer_waits_for_its_check_where_that_is_said() -> None:
    state = cluster_state(checked=True)
    state.view(endpoints(3), NOW, RNG)
    assert state.active is not None
    state.active.newcomers_fail = True
    cluster = state.view(endpoints(4), NOW, RNG)
    assert [member.state for member in cluster.members] == ["healthy"] * 3 + ["failed"]
    assert picked(cluster) == {0, 1, 2}
    found(state, cluster.members[3])
    assert picked(state.view(endpoints(4), NOW, RNG)) == {0, 1, 2, 3}


def test_whoever_reckons_with_states_is_told_when_they_change() -> None:
    changes: list[None] = []
    state = cluster_state(checked=True, on_change=lambda: changes.append(None))
    cluster = state.view(endpoints(2), NOW, RNG)
    eject(state, cluster.members[0])
    assert len(changes) == 1
    state.health_changed()
    assert len(changes) == 2
    plain = cluster_state(on_change=lambda: changes.append(None))
    eject(plain, plain.view(endpoints(2), NOW, RNG).members[0])
    assert len(changes) == 2, "a cluster that looks at each pick need not be made anew"


def test_only_what_is_new_counts_as_a_change() -> None:
    active, health = ActiveHealth(), EndpointHealth()
    assert not active.found(health, failed=False, degraded=False)
    assert active.found(health, failed=True, degraded=False)
    assert not active.found(health, failed=True, degraded=False)
    assert active.found(health, failed=False, degraded=True)
    assert active.version == 2


def test_an_ejected_endpoint_that_fails_its_check_is_not_probed_until_it_passes() -> None:
    state = cluster_state(checked=True, outlier=OutlierSettings(active_check_unejects=False))
    member = state.view(endpoints(2), NOW, RNG).members[0]
    outlier = state.outlier
    assert outlier is not None
    found(state, member, failed=True)
    eject(state, member)
    assert outlier.due(NOW + 40, True) is None
    found(state, member)
    outlier.passed_check(member.health, NOW + 50)
    assert member.health.ejected
    assert outlier.due(NOW + 50, True) is not None


@pytest.mark.parametrize(
    ("reported", "flags", "state"),
    [
        (UP, {}, "healthy"),
        (SPARED, {}, "degraded"),
        (UP, {"active_degraded": True}, "degraded"),
        (UP, {"ejected": True, "active_degraded": True}, "ejected"),
        (UP, {"ejected": True, "active_failed": True}, "failed"),
        (DOWN, {"ejected": True, "active_failed": True}, "unhealthy"),
    ],
)
def test_a_state_is_told_in_one_word(reported: Health, flags: dict[str, bool], state: str) -> None:
    member = cluster_state().view([Endpoint("10.0.0.1", 80, health=reported)], NOW, RNG).members[0]
    for name, value in flags.items():
        setattr(member.health, name, value)
    assert member.state == state
