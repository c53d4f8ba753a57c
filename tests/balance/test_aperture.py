"""Deterministic aperture: Finagle's slices, exactly even over the fleet, and what is done when a slice is down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.aperture import Aperture, arcs, in_order, width
from meshlib.balance.balancer import Member
from meshlib.balance.settings import ApertureSettings, LoadBalancing
from meshlib.balance.table import find_balancer
from tests.balance.test_schedules import members, set_active
from tests.core import NOW

GOLDEN: Any = json.loads((Path(__file__).parents[1] / "data" / "finagle_aperture.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["slices"], ids=lambda case: f"{case['instance']} of {case['of']}")
def test_slices_are_finagles(case: Any) -> None:
    servers = case["servers"]
    length = width(case["of"], len(servers), 12)
    found = arcs(servers, case["instance"] / case["of"], length)
    assert [index for index, arc in enumerate(found) if arc > 0] == case["indices"]
    assert sum(found) == pytest.approx(case["sum"]) == pytest.approx(length)
    assert found == pytest.approx(case["weights"])


def test_arcs_of_the_whole_ring_are_the_shares_of_the_weights() -> None:
    case = GOLDEN["normalized"]
    assert arcs(case["weights"], 0.0, 1.0) == pytest.approx(case["shares"])


def shares(weights: Sequence[float], clients: int, size: int = 12) -> list[float]:
    length = width(clients, len(weights), size)
    slices = [arcs(weights, client / clients, length) for client in range(clients)]
    return [sum(column) for column in zip(*slices, strict=True)]


@pytest.mark.parametrize(("clients", "servers", "peers"), GOLDEN["fleets"])
def test_all_clients_together_call_all_servers_alike(clients: int, servers: int, peers: int) -> None:
    found = shares([1.0] * servers, clients)
    assert max(found) / min(found) == pytest.approx(1.0, abs=1e-9)
    assert len([arc for arc in arcs([1.0] * servers, 0.0, width(clients, servers, 12)) if arc > 1e-12]) == peers


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    clients=st.integers(1, 40),
    size=st.integers(1, 20),
)
def test_whatever_the_numbers_each_server_gets_its_share(weights: list[float], clients: int, size: int) -> None:
    found, total = shares(weights, clients, size), sum(weights)
    assert [share / sum(found) for share in found] == pytest.approx([weight / total for weight in weights], abs=1e-9)
    length = width(clients, len(weights), size)
    assert 0 < length <= 1
    assert length * len(weights) >= min(size, len(weights)) - 1e-9


def test_the_order_is_one_whatever_discovery_tells_first() -> None:
    some = members([1.0] * 40)
    shuffled = Random(7).sample(some, len(some))
    assert in_order(some) == in_order(shuffled)
    assert in_order(some) != some
    mine = ApertureSettings(instance=3, of=10)
    assert Aperture(some, mine).members == Aperture(shuffled, mine).members


@pytest.mark.parametrize("load", ["least_request", "peak_ewma"])
def test_picks_are_by_weight_and_only_in_the_slice(load: Any) -> None:
    rng = Random(1)
    some = members([1.0] * 30)
    balancer = Aperture(some, ApertureSettings(instance=1, of=7, size=12, load=load))
    found = Counter(id(balancer.pick(NOW, rng, None)) for _ in range(15_000))
    assert found.keys() == set(map(id, balancer.members))
    total = sum(balancer.weights)
    for member, weight in zip(balancer.members, balancer.weights, strict=True):
        assert found[id(member)] / 15_000 == pytest.approx(weight / total, rel=0.2, abs=0.004)


@pytest.mark.parametrize("load", ["least_request", "peak_ewma"])
def test_of_two_the_one_with_less_to_do_for_its_weight_is_picked(load: Any) -> None:
    rng = Random(1)
    some = members([1.0, 2.0])
    balancer = Aperture(some, ApertureSettings(load=load))
    heavy = next(member for member in some if member.weight == 2.0)
    light = next(member for member in some if member.weight == 1.0)
    set_active([light, heavy], [2, 3])  # 2 per weight of 1, and 1.5
    assert [balancer.pick(NOW, rng, None) for _ in range(100)].count(heavy) > 75
    set_active([light, heavy], [1, 3])
    assert [balancer.pick(NOW, rng, None) for _ in range(100)].count(light) > 75


def test_by_cost_the_slow_one_is_left() -> None:
    rng = Random(1)
    some = members([1.0, 1.0])
    some[0].load.answered(NOW, 0.5)
    some[1].load.answered(NOW, 0.001)
    balancer = Aperture(some, ApertureSettings(load="peak_ewma"))
    assert [balancer.pick(NOW, rng, None) for _ in range(100)].count(some[1]) > 90


def test_a_slice_that_is_down_leaves_the_others() -> None:
    rng = Random(1)
    some = members([1.0] * 40)
    balancer = Aperture(some, ApertureSettings(instance=2, of=10))
    inside = set(map(id, balancer.members))
    found = {id(balancer.pick(NOW, rng, lambda member: id(member) not in inside)) for _ in range(600)}
    assert found == {id(member) for member in some} - inside
    assert balancer.pick(NOW, rng, lambda member: False) is None
    one = balancer.members[0]
    assert {balancer.pick(NOW, rng, lambda member: member is one) for _ in range(20)} == {one}


def test_one_server_and_one_client() -> None:
    rng = Random(1)
    some = members([3.0])
    settings = LoadBalancing(policy="aperture")
    balancer = find_balancer("aperture")(some, settings, NOW, rng)
    assert balancer.pick(NOW, rng, None) is some[0]
    assert balancer.pick(NOW, rng, lambda member: False) is None


def test_in_flight_follows_weights_at_the_edges() -> None:
    """With a server at the edge of the slice the load per weight is alike."""
    some: list[Member] = members([1.0] * 25)
    balancer = Aperture(some, ApertureSettings(instance=1, of=9))
    assert min(balancer.weights) < 0.99
    running: list[Member] = []
    rng = Random(3)
    for _ in range(4000):
        picked = balancer.pick(NOW, rng, None)
        assert picked is not None
        picked.node.enter()
        running.append(picked)
        if len(running) > 300:
            running.pop(0).node.exit()
    loads = [m.node.in_flight / w for m, w in zip(balancer.members, balancer.weights, strict=True) if w > 0.2]
    assert max(loads) < 2.0 * min(loads)
