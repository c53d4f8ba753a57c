"""Bounded load is Envoy's: the shares, the order in which others are asked, and who gets the call."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.bounded_load import share, shuffled, spread, total_share
from meshlib.balance.settings import LoadBalancing
from meshlib.balance.table import find_balancer
from meshlib.policy.traits import Traits
from tests.balance.test_picks import members
from tests.core import NOW

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_hash_balancers.json").read_text())["bounded_load"]
HASHES = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("row", GOLDEN["orders"], ids=lambda row: str(row["seed"]))
def test_the_order_of_a_hash_is_envoys(row: dict[str, Any]) -> None:
    assert list(shuffled(row["count"], row["seed"])) == row["order"]


@pytest.mark.parametrize("row", GOLDEN["cases"], ids=lambda row: row["name"])
def test_who_gets_the_call_is_envoys(row: dict[str, Any]) -> None:
    factors = {host: 1.02 + place / 100 for place, host in enumerate(row["overloaded"])}
    hosts = len(set(row["ring"]))
    for hash, host in row["hosts"].items():
        first = row["ring"][int(hash)]
        assert spread(int(hash), first, hosts, lambda index: factors.get(index, 0.5)) == host


def test_with_what_is_really_in_flight_it_is_envoys() -> None:
    row = GOLDEN["actual"]
    total = total_share(row["cluster_in_flight"], row["percent"])
    chosen = spread(
        row["hash"], row["hash"], row["count"], lambda index: row["in_flight"][index] / share(total, 1 / row["count"])
    )
    assert chosen == row["host"]


@given(st.integers(1, 60), HASHES)
def test_each_is_asked_once(count: int, seed: int) -> None:
    assert sorted(shuffled(count, seed)) == list(range(count))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(100, 300), st.data())
def test_no_endpoint_gets_more_than_its_share_by_one(weights: list[int], percent: int, data: Any) -> None:
    some = members(len(weights), [float(weight) for weight in weights])
    balancer = find_balancer("maglev")(
        some, LoadBalancing(policy="maglev", table_size=251, hash_balance_percent=percent), NOW, Random(1)
    )
    traits = Traits()
    for _ in range(60):
        traits.hash = data.draw(st.integers(0, 3))  # few keys, so that some are hot
        picked = balancer.pick(NOW, Random(1), None, traits)
        assert picked is not None
        total = total_share(sum(member.node.in_flight for member in some), percent)
        assert picked.node.in_flight <= share(total, picked.weight / sum(weights))
        picked.node.enter()


def test_a_hot_key_spreads_and_comes_back() -> None:
    some = members(4)
    balancer = find_balancer("ring_hash")(
        some, LoadBalancing(policy="ring_hash", hash_balance_percent=120), NOW, Random(1)
    )
    traits = Traits()
    traits.hash = 7
    picked = []
    for _ in range(20):
        member = balancer.pick(NOW, Random(1), None, traits)
        assert member is not None
        member.node.enter()
        picked.append(member)
    assert max(member.node.in_flight for member in some) <= 7  # of 20, of which 5 are the average
    for member in picked:
        member.node.exit()
    assert balancer.pick(NOW, Random(1), None, traits) is picked[0]
