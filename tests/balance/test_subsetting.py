"""Subsets: alike each time, little moved by a change, dealt out evenly, and left when they are down."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.adapters.reasons import candidates
from meshlib.balance.hashing import xxh64_in_python
from meshlib.balance.settings import BalancerName, LoadBalancing, SubsettingSettings
from meshlib.balance.subsetting import random_subset, round_subset, with_seed
from meshlib.balance.table import find_balancer
from meshlib.policy.settings import OutlierSettings
from tests.balance.test_schedules import members
from tests.core import NOW, cluster_state, endpoints

RNG = Random(1)


def test_a_random_subset_is_that_of_the_smallest_hashes() -> None:
    some = members([1.0] * 50)
    by_hash = sorted(some, key=lambda member: xxh64_in_python(member.endpoint.address.encode(), 99))
    assert random_subset(some, 20, 99) == by_hash[:20]
    assert random_subset(some[::-1], 20, 99) == by_hash[:20]
    assert len(random_subset(some, 60, 99)) == 50


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 40), size=st.integers(1, 20), seed=st.integers(0, 2**64 - 1), data=st.data())
def test_one_server_that_goes_changes_at_most_one_place(count: int, size: int, seed: int, data: st.DataObject) -> None:
    some = members([1.0] * count)
    gone = data.draw(st.sampled_from(some))
    before = set(map(id, random_subset(some, size, seed)))
    after = set(map(id, random_subset([member for member in some if member is not gone], size, seed)))
    assert len(before - after) <= 1
    assert len(after - before) <= 1


def test_random_subsets_are_spread_as_chance_has_it() -> None:
    some, found = members([1.0] * 60), Counter[int]()
    for client in range(60):
        found.update(map(id, random_subset(some, 18, client)))
    assert set(found) == set(map(id, some))
    assert 6 <= min(found.values()) < 15
    assert 21 < max(found.values()) <= 34


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 60), size=st.integers(1, 20), rounds=st.integers(1, 5))
def test_rounds_deal_each_server_once(count: int, size: int, rounds: int) -> None:
    some = members([1.0] * count)
    per_round = max(1, count // size)
    found = Counter[int]()
    for client in range(per_round * rounds):
        mine = round_subset(some, size, client)
        assert len(mine) == min(size, count)
        found.update(map(id, mine))
    assert max(found.values()) <= rounds
    if count % size == 0:
        assert set(found.values()) == {rounds}
        assert len(found) == count


def test_rounds_are_shuffled_and_do_not_depend_on_the_order_told() -> None:
    some = members([1.0] * 24)
    first, second = round_subset(some, 6, 0), round_subset(some, 6, 4)
    assert first == round_subset(some[::-1], 6, 0)
    assert set(map(id, first)) != set(map(id, second))


@pytest.mark.parametrize("policy", ["peak_ewma", "round_robin", "least_request", "random", "server_weights"])
@pytest.mark.parametrize("kind", ["random", "rounds"])
def test_any_balancer_keeps_to_its_subset(policy: BalancerName, kind: Literal["random", "rounds"]) -> None:
    some = members([1.0] * 40)
    mine = SubsettingSettings(kind, 5, seed=3, instance=2)
    inside = random_subset(some, 5, 3) if kind == "random" else round_subset(some, 5, 2)
    balancer = find_balancer(policy)(some, LoadBalancing(policy=policy, subsetting=mine), NOW, RNG)
    assert {balancer.pick(NOW, RNG, None) for _ in range(200)} == set(inside)
    outside = {balancer.pick(NOW, RNG, lambda member: member not in inside) for _ in range(500)}
    assert outside == set(some) - set(inside)
    assert balancer.pick(NOW, RNG, lambda member: False) is None


def test_a_subset_as_large_as_the_cluster_is_the_cluster() -> None:
    some = members([1.0] * 5)
    balancer = find_balancer("round_robin")(some, LoadBalancing(subsetting=SubsettingSettings(size=5)), NOW, RNG)
    assert {balancer.pick(NOW, RNG, None) for _ in range(5)} == set(some)


def test_a_client_without_a_seed_gets_one_of_its_own() -> None:
    plain = LoadBalancing(subsetting=SubsettingSettings())
    seeds = {with_seed(plain, Random(client)).subsetting.seed for client in range(5)}  # type: ignore[union-attr]
    assert len(seeds) == 5
    assert None not in seeds
    for kept in (LoadBalancing(), LoadBalancing(subsetting=SubsettingSettings(seed=0))):
        assert with_seed(kept, RNG) is kept
    some = members([1.0] * 30)
    assert find_balancer("random")(some, plain, NOW, RNG).pick(NOW, RNG, None) in some


def test_calls_leave_a_subset_whose_endpoints_are_all_ejected() -> None:
    rng = Random(1)
    state = cluster_state(outlier=OutlierSettings(max_ejection_percent=50))
    state.load_balancing = LoadBalancing(subsetting=SubsettingSettings(size=3, seed=5))
    cluster = state.view(endpoints(10), NOW, rng)
    inside = set(random_subset(cluster.members, 3, 5))
    assert {cluster.pick(NOW, rng) for _ in range(100)} == inside
    assert state.outlier is not None
    for member in inside:
        for _ in range(5):
            state.outlier.failed(member, NOW)
    outside = set(cluster.members) - inside
    assert {cluster.pick(NOW, rng) for _ in range(300)} == outside
    assert state.panics == 0
    assert {cluster.how(member) for member in outside} == {"outside the subset"}
    assert {cluster.how(member) for member in inside} == {None}
    told = {reason.address: reason.why_not for reason in candidates(cluster, NOW)}
    for member in cluster.members:
        assert ("outside this client's subset" in str(told[member.endpoint.address])) is (member in outside)


def test_a_retry_goes_to_an_endpoint_outside_when_all_inside_were_tried() -> None:
    rng = Random(1)
    state = cluster_state()
    state.load_balancing = LoadBalancing(subsetting=SubsettingSettings(size=2, seed=5))
    cluster = state.view(endpoints(6), NOW, rng)
    tried = random_subset(cluster.members, 2, 5)
    assert cluster.pick(NOW, rng, tried) not in tried
