"""The balancer of a shadow: it picks where places count, too, and never in place of the live one."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Locality
from meshlib.balance.settings import BalancerName, LoadBalancing
from meshlib.balance.shadow import ShadowedState
from meshlib.policy.gates import Gates
from meshlib.policy.limit import InFlightLimit
from meshlib.policy.settings import LimitSettings, ShadowSettings
from meshlib.policy.shadow import Shadows
from meshlib.policy.traits import Traits
from meshlib.sim.client import Client
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Network, SimEndpoint
from tests.core import NOW, endpoints


def shadowed(live: LoadBalancing, beside: LoadBalancing) -> ShadowedState:
    limit = InFlightLimit(LimitSettings())
    shadows = Shadows(ShadowSettings(load_balancing=beside), Gates(limit), LimitSettings(), None, NOW, Random(7))
    return ShadowedState("orders", shadows=shadows, now=NOW, load_balancing=live, limit=limit)


def picks(cluster: Cluster, rng: Random, count: int = 200) -> list[str]:
    found = []
    for hash in range(count):
        traits = Traits()
        traits.hash = hash * 0x9E3779B97F4A7C15 % 2**64
        member = cluster.pick(NOW, rng, (), traits)
        assert member is not None
        found.append(member.endpoint.address)
    return found


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0, 4.0)])
@pytest.mark.parametrize("beside", ["round_robin", "random", "least_request", "peak_ewma", "maglev", "server_weights"])
@pytest.mark.parametrize("live", ["round_robin", "random", "least_request", "peak_ewma", "maglev"])
def test_live_picks_are_what_they_would_be_without(live: BalancerName, beside: BalancerName, weights: Any) -> None:
    settings = LoadBalancing(live, table_size=101)
    plain = ClusterState("orders", now=NOW, load_balancing=settings)
    other = shadowed(settings, LoadBalancing(beside, table_size=101))
    rng, same = Random(3), Random(3)
    expected = picks(plain.view(endpoints(4, weights), NOW, rng), rng)
    assert picks(other.view(endpoints(4, weights), NOW, same), same) == expected
    comparison = other.shadows.comparisons[0]
    assert (comparison.same + comparison.differed, sum(comparison.counts.values())) == (200, 200)


def test_hash_balancers_agree_with_themselves() -> None:
    settings = LoadBalancing("maglev", table_size=101)
    state = shadowed(settings, settings)
    picks(state.view(endpoints(5), NOW, Random(3)), Random(3))
    assert (state.shadows.comparisons[0].same, state.shadows.comparisons[0].differed) == (200, 0)


def test_after_a_fork_both_pick_on() -> None:
    state = shadowed(LoadBalancing("round_robin"), LoadBalancing("round_robin"))
    cluster = state.view(endpoints(3), NOW, Random(3))
    state.shadows.comparisons[0]._lock.acquire()
    state.renew_locks()
    cluster.after_fork(NOW, Random(4))
    assert Counter(picks(cluster, Random(3), 30)) == dict.fromkeys(["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"], 10)
    assert state.shadows.comparisons[0].counts == dict.fromkeys(["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"], 10)


def test_an_endpoint_that_was_tried_is_left_out_by_both() -> None:
    state = shadowed(LoadBalancing("round_robin"), LoadBalancing("random"))
    cluster = state.view(endpoints(2), NOW, Random(3))
    for _ in range(20):
        cluster.pick(NOW, Random(1), cluster.members[:1])
    assert state.shadows.comparisons[0].counts == {"10.0.0.2:80": 20}


def test_places_count_in_a_shadow_though_they_do_not_in_the_live_cluster() -> None:
    here, there = Locality("eu", "a"), Locality("eu", "b")
    members = [Endpoint(f"10.0.0.{at}", 80, locality=here if at < 3 else there) for at in range(1, 5)]
    network = Network({each.address: SimEndpoint() for each in members})
    service = {"load_balancing": {"policy": "random"}, "shadow": {"load_balancing": {"failover": True}}}
    mesh = {"locality": {"region": "eu", "zone": "a"}}
    clock = VirtualClock(NOW)
    client = Client(network, members, clock=clock, rng=Random(1), service=service, mesh=mesh)
    client.load(50.0, 2.0)
    assert len(set(client.attempts().elements())) == 4
    shadows = client.cluster.state.shadow
    assert shadows is not None
    assert set(shadows.comparisons[0].counts) == {"10.0.0.1:80", "10.0.0.2:80"}
