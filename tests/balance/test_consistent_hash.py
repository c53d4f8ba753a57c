"""Hash balancers over members: who is picked, who takes over, and what that does to other calls."""

from __future__ import annotations

from collections import Counter
from random import Random
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.ahead import collected
from meshlib.balance.balancer import Balancer, Member
from meshlib.balance.cluster import ClusterState
from meshlib.balance.consistent_hash import hash_key, normalized
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.hashing import xxh64
from meshlib.balance.settings import BalancerName, LoadBalancing, RingSettings, SessionAffinity
from meshlib.balance.table import find_balancer
from meshlib.policy.traits import Traits
from tests.balance.test_picks import members
from tests.core import NOW

NAMES: list[BalancerName] = ["ring_hash", "maglev"]


def balancer_of(name: BalancerName, some: list[Member]) -> Balancer:
    return find_balancer(name)(some, LoadBalancing(policy=name, table_size=1009), NOW, Random(1))


def traits_of(hash: int) -> Traits:
    traits = Traits()
    traits.hash = hash
    return traits


@pytest.mark.parametrize("name", NAMES)
def test_a_hash_stays_with_its_endpoint(name: BalancerName) -> None:
    some = members(7)
    one, other = balancer_of(name, some), balancer_of(name, members(7))
    for number in range(200):
        traits = traits_of(xxh64(b"%d" % number))
        picked, again = one.pick(NOW, Random(number), None, traits), other.pick(NOW + 9, Random(1), None, traits)
        assert picked is not None
        assert again is not None
        assert picked.endpoint == again.endpoint


@pytest.mark.parametrize("name", NAMES)
def test_without_a_hash_all_are_called_by_weight(name: BalancerName) -> None:
    some, rng = members(3, (1.0, 2.0, 3.0)), Random(1)
    balancer = balancer_of(name, some)
    picked = Counter(some.index(balancer.pick(NOW, rng, None, None)) for _ in range(6000))  # type: ignore[arg-type]
    for index, weight in enumerate((1, 2, 3)):
        assert abs(picked[index] - 1000 * weight) < 300


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 9), out=st.sets(st.integers(0, 8)))
def test_calls_of_those_that_are_out_move_and_no_others(name: BalancerName, count: int, out: set[int]) -> None:
    some = members(count)
    balancer, gone = balancer_of(name, some), {some[index] for index in out if index < count}
    for number in range(40):
        traits = traits_of(xxh64(b"%d" % number))
        before = balancer.pick(NOW, Random(1), None, traits)
        after = balancer.pick(NOW, Random(2), lambda member: member not in gone, traits)
        assert after not in gone
        assert (after is None) is (len(gone) == count)
        assert after is before or before in gone


@pytest.mark.parametrize("name", NAMES)
def test_of_one_that_has_nearly_all_the_weight_the_others_take_over(name: BalancerName) -> None:
    some = members(2, (1_000.0, 1.0))
    balancer = balancer_of(name, some)
    for number in range(20):
        assert balancer.pick(NOW, Random(1), lambda member: member is some[1], traits_of(number)) is some[1]


def test_tables_are_made_ahead_in_steps_and_shared() -> None:
    some = members(50)
    make, settings = find_balancer("maglev"), LoadBalancing(policy="maglev")
    with collected() as steps:
        first = make(some, settings, NOW, Random(1))
    assert len(steps) == 1
    assert len(list(steps[0]())) > 20
    with collected() as steps:
        second = make(some[:], settings, NOW, Random(1))
        make(some[1:], settings, NOW, Random(1))
    assert len(steps) == 1  # for the other members alone
    traits = traits_of(1)
    assert first.pick(NOW, Random(1), None, traits) is second.pick(NOW, Random(1), None, traits)


def test_the_key_of_an_endpoint_is_its_address_or_name_or_what_its_metadata_says() -> None:
    plain, by_name = LoadBalancing(), LoadBalancing(hash_key="hostname")
    assert hash_key(Endpoint("10.0.0.1", 80), plain) == b"10.0.0.1:80"
    assert hash_key(Endpoint("::1", 80), plain) == b"[::1]:80"
    assert hash_key(Endpoint("pod-1", 80), by_name) == b"pod-1"
    named = Endpoint("10.0.0.1", 80, metadata={"hash_key": "pod-1"})
    assert hash_key(named, plain) == hash_key(named, by_name) == b"pod-1"


@given(st.lists(st.floats(5e-324, 1.7e308), min_size=1, max_size=20))
def test_weights_become_parts_of_one(weights: list[float]) -> None:
    assert sum(normalized(weights)) == pytest.approx(1.0)


def test_the_same_address_twice_is_no_trouble() -> None:
    some = members(1) * 2
    settings = LoadBalancing(policy="ring_hash", ring=RingSettings(min_size=8))
    assert find_balancer("ring_hash")(some, settings, NOW, Random(1)).pick(NOW, Random(1), None, traits_of(3)) in some


def test_sixteen_threads_pick_while_tables_change() -> None:
    balancing = LoadBalancing(
        policy="maglev", table_size=251, hash_balance_percent=120, session_affinity=SessionAffinity()
    )
    state = ClusterState("orders", now=NOW, load_balancing=balancing)
    endpoints = [Endpoint("10.0.0.1", port) for port in range(1, 21)]
    current = [state.view(endpoints, NOW, Random(1))]
    failed: list[BaseException] = []

    def call(seed: int) -> None:
        rng = Random(seed)
        try:
            for _ in range(200):
                member = current[0].pick(NOW, rng, (), traits_of(rng.getrandbits(5)))
                assert member is not None
                member.node.enter()
                assert state.sessions is not None
                state.sessions.member_at(member.endpoint.address)
                member.node.exit()
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=call, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    turn = 0
    while any(thread.is_alive() for thread in threads):
        turn += 1
        current[0] = state.view(endpoints[: 10 + turn % 10], NOW, Random(1))
    assert failed == []
    assert state.sessions is not None
    assert state.sessions.bound + state.sessions.moved == 16 * 200
    assert sum(member.node.in_flight for member in state.view(endpoints, NOW, Random(1)).members) == 0
