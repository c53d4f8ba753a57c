"""What balancers are given may be odd: none, one, twice the same, clocks that jump, weights at the ends of what is."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib import Mesh
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.settings import ApertureSettings, BalancerName, LoadBalancing, SubsettingSettings
from meshlib.balance.table import BALANCERS
from meshlib.errors import ConfigError
from meshlib.policy.traits import Traits
from tests.core import NOW, endpoints

NAMES: list[BalancerName] = list(BALANCERS)
JUMPS = (0.0, -1e9, 1e9, 5.0, float("-1e18"))


def state_of(name: BalancerName, **more: Any) -> ClusterState:
    return ClusterState("orders", now=NOW, load_balancing=LoadBalancing(name, **more))


def hashed(value: int) -> Traits:
    traits = Traits()
    traits.hash = value
    return traits


@pytest.mark.parametrize("name", NAMES)
def test_of_none_none_is_picked_and_of_one_that_one(name: BalancerName) -> None:
    rng = Random(1)
    assert state_of(name).view([], NOW, rng).pick(NOW, rng, (), hashed(1)) is None
    cluster = state_of(name).view(endpoints(1), NOW, rng)
    assert {cluster.pick(NOW, rng, (), hashed(n)) for n in range(10)} == set(cluster.members)
    assert cluster.pick(NOW, rng, cluster.members, hashed(1)) is cluster.members[0]


@pytest.mark.parametrize("name", NAMES)
def test_of_two_endpoints_with_one_key_the_last_counts(name: BalancerName) -> None:
    rng = Random(1)
    cluster = state_of(name).view([Endpoint("h", 80), Endpoint("h", 80, weight=3.0)], NOW, rng)
    assert [member.weight for member in cluster.members] == [3.0]
    assert cluster.pick(NOW, rng, (), hashed(1)) is cluster.members[0]


@pytest.mark.parametrize("name", NAMES)
def test_endpoints_at_one_address_are_told_apart_by_their_ids(name: BalancerName) -> None:
    rng = Random(1)
    twins = [Endpoint("h", 80, instance_id=str(number)) for number in range(3)]
    more: dict[str, Any] = {"subsetting": SubsettingSettings(size=2, seed=1)} if name == "round_robin" else {}
    cluster = state_of(name, **more).view(twins, NOW, rng)
    assert all(cluster.pick(NOW, rng, (), hashed(n)) in cluster.members for n in range(20))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0)], ids=["even", "by weight"])
def test_clocks_that_jump_and_times_that_are_none_do_no_harm(
    name: BalancerName, weights: tuple[float, ...] | None
) -> None:
    rng = Random(1)
    cluster = state_of(name).view(endpoints(3, weights), NOW, rng)
    for turn, jump in enumerate(JUMPS * 4):
        now = NOW + jump
        member = cluster.pick(now, rng, (), hashed(turn))
        assert member is not None
        member.node.enter()
        for latency_s in (-1.0, float("nan"), float("inf"), 0.0, 1e-9):
            member.load.answered(now, latency_s)
        member.load.failed(now, float("nan"), 0.01)
        member.load.given_up(now, -5.0)
        member.node.exit()
    for member in cluster.members:
        assert member.node.in_flight == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ring_hash", "maglev")])
@settings(max_examples=15, deadline=None)
@given(
    weights=st.lists(st.sampled_from([1e-9, 0.5, 1.0, 1e9]), min_size=1, max_size=5),
    health=st.lists(st.sampled_from(list(Health)), min_size=5, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_a_pick_finds_one_whatever_weights_and_health(
    name: BalancerName, weights: list[float], health: list[Health], seed: int
) -> None:
    rng = Random(seed)
    some = [
        Endpoint(f"h{n}", 80, weight=weight, health=state)
        for n, (weight, state) in enumerate(zip(weights, health, strict=False))
    ]
    more: dict[str, Any] = {"aperture": ApertureSettings(1, 3, size=2)} if name == "aperture" else {}
    cluster = state_of(name, **more).view(some, NOW, rng)
    for turn in range(8):
        picked = cluster.pick(NOW + turn, rng, cluster.members[: turn % 3])
        assert (picked is None) == (not cluster.members)


@pytest.mark.parametrize("weight", [0, -1, "NaN", float("nan"), float("inf"), "much", True])
def test_a_weight_that_is_none_is_refused_with_its_field(weight: Any) -> None:
    endpoint = {"address": "127.0.0.1:1", "weight": weight}
    with pytest.raises(ConfigError, match=r"services\.orders\.endpoints\[0\]\.weight"):
        Mesh({"services": {"orders": {"endpoints": [endpoint]}}})


@pytest.mark.parametrize(
    ("balancing", "field"),
    [
        ({"policy": "fastest"}, r"load_balancing\.policy"),
        ({"policy": "aperture"}, r"aperture: has no 'of'"),
        ({"policy": "aperture", "aperture": {"of": 3}}, r"aperture: has no 'instance'"),
        ({"policy": "aperture", "aperture": {"instance": 3, "of": 3}}, r"aperture\.instance: is 3, and of 3"),
        ({"policy": "aperture", "aperture": {"instance": -1, "of": 3}}, r"aperture\.instance"),
        ({"policy": "aperture", "aperture": {"instance": 0, "of": 3}, "subsetting": {}}, r"load_balancing\.subsetting"),
        ({"policy": "random", "aperture": {"instance": 0, "of": 3}}, r"aperture: is for the policy 'aperture'"),
        ({"policy": "random", "least_request": {"choice_count": 3}}, r"least_request: is for"),
        ({"policy": "least_request", "least_request": {"choice_count": 1}}, r"choice_count"),
        ({"policy": "least_request", "least_request": {"active_request_bias": -1}}, r"active_request_bias"),
        ({"policy": "least_request", "least_request": {"active_request_bias": float("nan")}}, r"active_request_bias"),
        ({"policy": "server_weights", "server_weights": {"update": "50ms"}}, r"server_weights\.update"),
        ({"policy": "server_weights", "server_weights": {"error_penalty": -1}}, r"error_penalty"),
        ({"policy": "server_weights", "server_weights": {"metrics": ["load"]}}, r"metrics\[0\]: 'load' is no metric"),
        ({"policy": "maglev", "subsetting": {"size": 5}}, r"subsetting: breaks the policy 'maglev'"),
        ({"subsetting": {"size": 0}}, r"subsetting\.size"),
        ({"subsetting": {"kind": "rounds"}}, r"subsetting: has no 'instance'"),
        ({"subsetting": {"kind": "rounds", "instance": 0, "seed": 3}}, r"subsetting\.seed: is of the other kind"),
        ({"subsetting": {"instance": 3}}, r"subsetting\.instance: is of the other kind"),
    ],
    ids=str,
)
def test_what_contradicts_is_refused_with_its_field(balancing: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Mesh({"services": {"orders": {"endpoints": ["127.0.0.1:1"], "load_balancing": balancing}}})


def test_a_clients_number_may_stand_in_the_name_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {
        "defaults": {"load_balancing": {"aperture": {"instance": "hostname", "of": 5}}},
        "services": {"orders": {"endpoints": ["127.0.0.1:1"], "load_balancing": {"policy": "aperture"}}},
    }
    monkeypatch.setattr("socket.gethostname", lambda: "checkout-3.checkout.default.svc")
    with Mesh(config) as mesh:
        settings = mesh.settings.services["orders"].clusters[None].load_balancing
        assert settings.aperture == ApertureSettings(3, 5)
    monkeypatch.setattr("socket.gethostname", lambda: "checkout")
    with pytest.raises(ConfigError, match="'checkout' has none"):
        Mesh(config)


def test_a_call_that_read_the_endpoints_before_a_change_is_made_although_all_it_knows_are_ejected() -> None:
    rng = Random(1)
    state = ClusterState("orders", now=NOW)
    assert state.outlier is not None
    old = state.view(endpoints(2), NOW, rng)
    state.view([Endpoint("other", 80, instance_id=str(n)) for n in range(4)], NOW, rng)
    for member in old.members:
        member.health.ejected = True
    state.outlier.ejected = old.members
    assert state.outlier.ejected_healthy == 0
    assert old.pick(NOW, rng) in old.members
