"""Who may be picked where not all endpoints are alike: priorities, degraded ones, localities, panic."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.settings import (
    DistributeRule,
    FailoverRegion,
    LoadBalancing,
    SlowStartSettings,
    ZoneAwareSettings,
)
from meshlib.balance.tiers import Here
from meshlib.balance.zone_aware import Callers
from meshlib.policy.settings import OutlierSettings
from meshlib.policy.traits import Traits
from tests.core import NOW

A, B, C = Locality("eu", "a"), Locality("eu", "b"), Locality("us", "c")


def state_of(here: Locality = A, callers: Callers | None = None, **balancing: Any) -> ClusterState:
    state = ClusterState("orders", now=NOW, load_balancing=LoadBalancing(**{"policy": "round_robin", **balancing}))
    state.here = Here(here, (), callers)
    return state


def ends(
    *counts: tuple[int, Locality] | int, health: Sequence[Health] = (), first: int = 1, **fields: Any
) -> list[Endpoint]:
    """So many endpoints in each place; or, as numbers, in each priority."""
    made: list[Endpoint] = []
    for priority, given_ in enumerate(counts):
        count, place = (given_, Locality()) if isinstance(given_, int) else given_
        own = {"priority": priority} if isinstance(given_, int) else {"locality": place}
        for _ in range(count):
            at = len(made)
            is_ = health[at] if at < len(health) else Health.HEALTHY
            made.append(Endpoint(f"10.0.0.{first + at}", 80, health=is_, **{**own, **fields}))
    return made


def shares(cluster: Cluster, of: Any, picks: int = 2000, seed: int = 1, **kwargs: Any) -> dict[Any, float]:
    """The percentage of picks for each value of `of`."""
    rng = Random(seed)
    counts: Counter[Any] = Counter()
    for _ in range(picks):
        member = cluster.pick(NOW, rng, **kwargs)
        counts[None if member is None else of(member.endpoint)] += 1
    return {key: 100.0 * count / picks for key, count in counts.items()}


def eject(state: ClusterState, members: Sequence[Member]) -> None:
    assert state.outlier is not None
    for member in members:
        for _ in range(5):
            state.outlier.failed(member, NOW)


def priority(endpoint: Endpoint) -> int:
    return endpoint.priority


def place(endpoint: Endpoint) -> Locality:
    return endpoint.locality


UP, SO_SO, DOWN, LEAVING = Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.DRAINING


def test_a_cluster_of_like_endpoints_has_no_priorities() -> None:
    cluster = state_of().view(ends(3), NOW, Random(1))
    assert cluster.priorities is None
    assert cluster.usual is not None


def test_all_goes_to_the_first_priority_while_it_is_well() -> None:
    cluster = state_of().view(ends(4, 4), NOW, Random(1))
    assert cluster.usual is None
    assert shares(cluster, priority) == {0: 100.0}


def test_load_moves_as_the_first_priority_falls_ill() -> None:
    cluster = state_of().view(ends(4, 4, health=[DOWN, DOWN]), NOW, Random(1))
    found = shares(cluster, priority)
    assert found[0] == pytest.approx(70, abs=3)
    assert found[1] == pytest.approx(30, abs=3)


def test_load_moves_at_once_when_endpoints_are_ejected_and_back_when_they_return() -> None:
    state = state_of()
    cluster = state.view(ends(4, 4), NOW, Random(1))
    eject(state, cluster.members[:2])
    assert shares(cluster, priority)[0] == pytest.approx(70, abs=3)
    assert state.outlier is not None
    for _ in range(2):
        lease = state.outlier.due(NOW + 31, True)
        assert lease is not None
        lease.ended(NOW + 31, True)
    assert shares(cluster, priority) == {0: 100.0}


def test_an_ejected_endpoint_is_not_picked() -> None:
    state = state_of()
    cluster = state.view(ends(4, 1), NOW, Random(1))
    eject(state, cluster.members[:1])
    assert "10.0.0.1" not in shares(cluster, lambda endpoint: endpoint.host)


def test_degraded_endpoints_take_what_the_healthy_cannot() -> None:
    cluster = state_of().view(ends(4, health=[UP, SO_SO, SO_SO, SO_SO]), NOW, Random(1))
    found = shares(cluster, lambda endpoint: endpoint.health)
    assert found[UP] == pytest.approx(35, abs=3)
    assert found[SO_SO] == pytest.approx(65, abs=3)


def test_endpoints_that_active_checks_call_degraded_are() -> None:
    state = state_of()
    state.refreshes = True
    state.view(ends(4), NOW, Random(1))
    for member in state.view(ends(4), NOW, Random(1)).members[1:]:
        member.health.active_degraded = True
    found = shares(state.view(ends(4), NOW, Random(1)), lambda endpoint: endpoint.host)
    assert found["10.0.0.1"] == pytest.approx(35, abs=3)


def test_endpoints_that_fail_active_checks_are_not_picked() -> None:
    state = state_of()
    state.refreshes = True
    state.view(ends(4), NOW, Random(1)).members[0].health.active_failed = True
    assert "10.0.0.1" not in shares(state.view(ends(4), NOW, Random(1)), lambda endpoint: endpoint.host)


def test_in_panic_a_priority_uses_all_its_endpoints() -> None:
    state = state_of()
    cluster = state.view(ends(4, 4, health=[UP, DOWN, DOWN, DOWN] * 2), NOW, Random(1))
    found = shares(cluster, lambda endpoint: endpoint.host, picks=800)
    assert len(found) == 8
    assert state.panics == 800
    assert cluster.panicking()


def test_a_priority_alone_may_be_in_panic() -> None:
    """P0 has 1 of 4 healthy, P1 has 2 of 4: 35 and 70 percent health suffice, so nobody panics. With 1 of 4 in P1..."""
    well = state_of().view(ends(4, 4, health=[UP, DOWN, DOWN, DOWN, UP, UP, DOWN, DOWN]), NOW, Random(1))
    assert not well.panicking()
    ill = state_of().view(ends(4, 5, health=[UP, UP, DOWN, DOWN, DOWN, DOWN, DOWN, DOWN, DOWN]), NOW, Random(1))
    assert shares(ill, priority, 200) == {0: 100.0}
    assert not ill.panicking()  # priority 1 is, but no call goes there


def test_calls_may_fail_in_panic_instead() -> None:
    for counts in ((4,), (4, 4)):
        state = state_of(fail_on_panic=True)
        cluster = state.view(ends(*counts, health=[UP, DOWN, DOWN, DOWN] * 2), NOW, Random(1))
        assert cluster.pick(NOW, Random(1)) is None
        assert not cluster.has_untried(())
        assert state.panics == 1


def test_without_panic_nobody_is_picked_when_all_are_down() -> None:
    for counts in ((2,), (2, 2)):
        cluster = state_of(panic_percent=0.0).view(ends(*counts, health=[DOWN] * 4), NOW, Random(1))
        assert cluster.pick(NOW, Random(1)) is None
        assert not cluster.panicking()


def test_there_is_no_panic_while_the_healthy_can_carry_all() -> None:
    """Envoy's threshold does not count while 140 percent of what is left is enough, with one priority or with two."""
    for counts in ((10,), (10, 1)):
        cluster = state_of(panic_percent=90.0).view(ends(*counts, health=[DOWN, DOWN]), NOW, Random(1))
        assert not cluster.panicking()
    cluster = state_of(panic_percent=90.0).view(ends(10, health=[DOWN] * 3), NOW, Random(1))
    assert cluster.panicking()


def test_draining_endpoints_get_neither_calls_nor_probes() -> None:
    state = state_of()
    cluster = state.view(ends(4), NOW, Random(1))
    eject(state, cluster.members[:1])
    cluster = state.view(ends(4, health=[LEAVING, LEAVING]), NOW, Random(1))
    assert [member.endpoint.host for member in cluster.draining] == ["10.0.0.1", "10.0.0.2"]
    assert set(shares(cluster, lambda endpoint: endpoint.host)) == {"10.0.0.3", "10.0.0.4"}
    assert state.outlier is not None
    assert state.outlier.due(NOW + 1000, True) is None


def test_draining_endpoints_get_no_calls_in_panic_either() -> None:
    cluster = state_of().view(ends(4, 1, health=[LEAVING, DOWN, DOWN, DOWN, DOWN]), NOW, Random(1))
    assert "10.0.0.1" not in shares(cluster, lambda endpoint: endpoint.host)


def test_the_hash_of_a_call_chooses_its_priority() -> None:
    cluster = state_of().view(ends(4, 4, health=[DOWN, DOWN]), NOW, Random(1))
    traits = Traits()
    for hash_, expected in ((69, 0), (70, 1), (169, 0), (2**64 - 1, 0)):
        traits.hash = hash_
        assert set(shares(cluster, priority, 20, traits=traits)) == {expected}


def test_a_retry_goes_to_an_endpoint_that_was_not_tried_in_whatever_priority() -> None:
    cluster = state_of().view(ends(1, 1, 1), NOW, Random(1))
    rng, tried = Random(1), []
    for expected in (0, 1, 2):
        assert cluster.has_untried(tried)
        member = cluster.pick(NOW, rng, tried)
        assert member is not None
        assert member.endpoint.priority == expected
        tried.append(member)
    assert not cluster.has_untried(tried)
    again = cluster.pick(NOW, rng, tried)
    assert again is not None
    assert again.endpoint.priority == 0


def test_the_nearest_endpoints_are_the_first_choice() -> None:
    state = state_of(failover=True)
    here = state.view(ends((2, A), (2, B), (2, C)), NOW, Random(1))
    assert shares(here, place) == {A: 100.0}
    gone = state.view(ends((2, A), (2, B), (2, C), health=[DOWN, DOWN]), NOW, Random(1))
    assert shares(gone, place) == {B: 100.0}
    gone = state.view(ends((2, A), (2, B), (2, C), health=[DOWN] * 4), NOW, Random(1))
    assert shares(gone, place) == {C: 100.0}


def test_a_region_fails_over_to_the_one_that_is_named() -> None:
    us, ap = Locality("us", "x"), Locality("ap", "y")
    state = state_of(failover=(FailoverRegion("eu", "ap"),))
    cluster = state.view(ends((1, A), (2, us), (2, ap), health=[DOWN]), NOW, Random(1))
    assert shares(cluster, place) == {ap: 100.0}


def test_localities_take_turns_by_weight_and_one_without_gets_nothing() -> None:
    cluster = state_of(locality_weights={"eu/a": 1.0, "eu/b": 2.0}).view(ends((5, A), (1, B), (3, C)), NOW, Random(1))
    found = shares(cluster, place, 300)
    assert found[A] == pytest.approx(100 / 3, abs=0.5)
    assert C not in found


def test_a_hash_keeps_to_its_endpoint_whatever_localities_weigh() -> None:
    state = state_of(policy="maglev", table_size=1009, locality_weights={"eu/a": 1.0, "eu/b": 3.0})
    cluster = state.view(ends((5, A), (1, B), (3, C)), NOW, Random(1))
    traits, counts = Traits(), Counter[Locality]()
    for key in range(2018):
        traits.hash = key * 7919
        picked = {cluster.pick(NOW, Random(seed), traits=traits) for seed in range(3)}
        assert len(picked) == 1
        counts[next(member for member in picked if member is not None).endpoint.locality] += 1
    assert counts[B] / counts[A] == pytest.approx(3, rel=0.02)
    assert C not in counts


def test_a_locality_gets_less_when_its_endpoints_are_ejected() -> None:
    state = state_of(locality_weights={"eu/a": 1.0, "eu/b": 2.0}, panic_percent=0.0)
    cluster = state.view(ends((5, A), (2, B)), NOW, Random(1))
    eject(state, cluster.members[:3])
    found = shares(cluster, place, 300)
    assert found[A] == pytest.approx(22, abs=1)  # 2 of 5 left: 0.56 to 2


def test_calls_are_distributed_by_where_they_come_from() -> None:
    rules = (DistributeRule("eu/a/*", {"eu/a": 80.0, "eu/b": 20.0}), DistributeRule("us/*", {"*": 100.0}))
    everywhere = ends((1, A), (3, B), (2, C))
    found = shares(state_of(distribute=rules).view(everywhere, NOW, Random(1)), place, 500)
    assert found[A] == pytest.approx(80, abs=0.5)
    assert C not in found
    elsewhere = state_of(here=Locality("ap"), distribute=rules).view(everywhere, NOW, Random(1))
    assert len(shares(elsewhere, place)) == 3  # there is no rule for that


def test_calls_stay_in_the_zone_as_far_as_it_can_carry_them() -> None:
    local = {A: 4, B: 4, C: 2}
    state = state_of(callers=Callers(local, local), zone_aware=ZoneAwareSettings())
    cluster = state.view(ends((5, A), (10, B), (5, C)), NOW, Random(1))
    found = shares(cluster, place, 4000)
    assert found[A] == pytest.approx(62.5, abs=2)
    assert found[B] == pytest.approx(25, abs=2)


def test_zones_do_not_count_while_the_callers_are_not_known_or_not_well() -> None:
    everywhere = ends((5, A), (10, B), (5, C))
    ill = Callers({A: 4, B: 4}, {A: 1})
    for callers in (None, ill):
        cluster = state_of(callers=callers, zone_aware=ZoneAwareSettings()).view(everywhere, NOW, Random(1))
        assert shares(cluster, place, 4000)[A] == pytest.approx(25, abs=3)


def test_zones_count_for_a_part_of_the_calls() -> None:
    local = {A: 1, B: 3}
    state = state_of(callers=Callers(local, local), zone_aware=ZoneAwareSettings(routing_percent=50.0))
    cluster = state.view(ends((5, A), (5, B)), NOW, Random(1))
    assert shares(cluster, place, 4000)[A] == pytest.approx(75, abs=3)


def test_the_health_of_a_priority_may_be_that_of_its_weights() -> None:
    reported = ends(4, 1, health=[UP, UP, DOWN, DOWN])
    weights = [3.0, 3.0, 2.0, 2.0, 1.0]
    reported = [
        Endpoint(one.host, 80, weight=weight, health=one.health, priority=one.priority)
        for one, weight in zip(reported, weights, strict=True)
    ]
    state = state_of(weighted_priority_health=True, overprovisioning_percent=100.0)
    assert shares(state.view(reported, NOW, Random(1)), priority)[0] == pytest.approx(60, abs=3)


def test_it_says_from_where_a_member_was_picked() -> None:
    state = state_of(failover=True, locality_weights={"*": 1.0})
    cluster = state.view(ends((2, A), (2, C)), NOW, Random(1))
    assert [cluster.how(member) for member in cluster.members[1:3]] == [
        "priority 0, locality eu/a",
        "priority 1, locality us/c",
    ]
    panicking = state_of().view(ends(3, 1, health=[DOWN] * 4), NOW, Random(1))
    assert panicking.how(panicking.members[0]) == "priority 0, panic"
    so_so = state_of().view(ends(3, health=[UP, UP, SO_SO]), NOW, Random(1))
    assert so_so.how(so_so.members[2]) == "degraded"
    plain = state_of().view(ends(3, health=[DOWN] * 3), NOW, Random(1))
    assert plain.how(plain.members[0]) == "panic"


def test_newcomers_and_those_that_come_back_are_known_as_such_where_that_counts() -> None:
    state = state_of(slow_start=SlowStartSettings(60.0))
    first = state.view(ends(2), NOW, Random(1)).members[0]
    assert first.health.joined_at == NOW
    state.view(ends(1, first=2), NOW + 10, Random(1))
    assert state.view(ends(2), NOW + 20, Random(1)).members[0].health.joined_at == NOW + 20
    assert state.view(ends(3), NOW + 99, Random(1)).members[0].health.joined_at == NOW + 20
    assert state_of().view(ends(1), NOW, Random(1)).members[0].health.joined_at is None


def test_after_a_fork_picks_go_on() -> None:
    state = state_of(locality_weights={"eu": 1.0})
    cluster = state.view(ends((2, A), (2, B)), NOW, Random(1))
    shares(cluster, place, 10)
    cluster.after_fork(NOW, Random(2))
    assert set(shares(cluster, place, 10)) == {A, B}


KINDS = st.sampled_from(list(Health))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), KINDS, st.sampled_from([A, B, C]), st.floats(0.001, 1000)), max_size=12),
    st.sets(st.integers(0, 11), max_size=6),
    st.fixed_dictionaries(
        {
            "policy": st.sampled_from(["round_robin", "peak_ewma", "least_request", "random", "maglev"]),
            "panic_percent": st.sampled_from([0.0, 50.0, 100.0]),
            "fail_on_panic": st.booleans(),
            "weighted_priority_health": st.booleans(),
            "failover": st.booleans(),
        }
    ),
    st.sampled_from(
        [
            {},
            {"locality_weights": {"eu/a": 1.0, "us": 3.0}},
            {"distribute": (DistributeRule("eu", {"eu/a": 50.0, "us": 50.0}),)},
            {"zone_aware": ZoneAwareSettings(min_cluster_size=1)},
        ]
    ),
    st.integers(0, 2**32),
)
def test_nothing_raises_and_nobody_is_picked_who_may_not_be(
    parts: list[tuple[int, Health, Locality, float]],
    out: set[int],
    balancing: dict[str, Any],
    places: dict[str, Any],
    seed: int,
) -> None:
    rng = Random(seed)
    local = {A: 2, B: 1}
    detector = OutlierSettings(max_ejection_percent=100.0)
    state = ClusterState(
        "orders", now=NOW, load_balancing=LoadBalancing(**{"table_size": 13, **balancing, **places}), outlier=detector
    )
    state.here = Here(A, (), Callers(local, local))
    reported = [
        Endpoint(f"10.0.0.{at}", 80, weight=weight, locality=locality, health=health, priority=priority_)
        for at, (priority_, health, locality, weight) in enumerate(parts)
    ]
    cluster = state.view(reported, NOW, rng)
    eject(state, [member for at, member in enumerate(cluster.members) if at in out])
    for view in (cluster, state.view(reported, NOW, rng)):
        tried: list[Member] = []
        for _ in range(8):
            could = view.has_untried(tried)
            member = view.pick(NOW, rng, tried)
            if member is None:
                break
            assert member.endpoint.health is not LEAVING
            how = view.how(member) or ""
            if "panic" not in how:
                assert member.endpoint.health in (UP, SO_SO)
                assert not member.health.ejected
            if not could and tried:
                assert any(member.node is other.node for other in tried)
            tried.append(member)
        if view.priorities is not None and view.priorities.loads(view.ejected).healthy:
            found = view.priorities.loads(view.ejected)
            assert sum(found.healthy) + sum(found.degraded) == 100


def test_threads_pick_while_endpoints_come_go_and_are_ejected() -> None:
    local = {A: 2, B: 1}
    state = state_of(failover=True, locality_weights={"eu/a": 2.0, "eu/b": 1.0, "us": 1.0})
    state.here = Here(A, (), Callers(local, local))
    reported = ends((4, A), (4, B), (4, C))
    views = [state.view(reported, NOW, Random(1))]
    assert state.outlier is not None
    outlier, failures, done = state.outlier, [], threading.Event()

    def call(seed: int) -> None:
        rng = Random(seed)
        try:
            while not done.is_set():
                member = views[-1].pick(NOW, rng)
                assert member is not None
                views[-1].how(member)
                views[-1].has_untried([member])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    rng = Random(9)
    for round_ in range(40):
        for member in rng.sample(views[-1].members, 4):
            for _ in range(5):
                outlier.failed(member, NOW + round_)
        views.append(state.view(rng.sample(reported, 10), NOW + round_, rng))
        while (lease := outlier.due(NOW + 1000 * round_, True)) is not None:
            lease.ended(NOW + 1000 * round_, True)
    done.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
