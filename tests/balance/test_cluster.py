"""Clusters: what is remembered over changes of endpoints, and what a pick may choose from."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.balance.cluster import Cluster
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.load import EndpointNode
from meshlib.balance.settings import LoadBalancing
from tests.core import NOW, cluster_state, endpoints

RNG = Random(1)


def test_members_stay_the_same_objects_while_their_endpoints_do() -> None:
    state = cluster_state()
    one, two = state.view(endpoints(2), NOW, RNG), state.view(endpoints(3), NOW + 1, RNG)
    assert two.members[:2] == one.members
    assert repr(two) == "<Cluster orders [3 healthy of 3]>"


def test_a_changed_endpoint_keeps_its_load_and_count() -> None:
    state = cluster_state()
    old = state.view(endpoints(1), NOW, RNG).members[0]
    new = state.view([Endpoint("10.0.0.1", 80, weight=5.0)], NOW, RNG).members[0]
    assert new is not old
    assert (new.node, new.load, new.health) == (old.node, old.load, old.health)
    assert new.weight == 5.0


def test_of_two_reports_of_one_endpoint_the_last_counts() -> None:
    reported = [Endpoint("10.0.0.1", 80), Endpoint("10.0.0.1", 80, weight=3.0)]
    (member,) = cluster_state().view(reported, NOW, RNG).members
    assert member.weight == 3.0


def test_targets_are_made_once_per_endpoint() -> None:
    made: list[str] = []

    def target_of(endpoint: Endpoint) -> object:
        made.append(endpoint.address)
        return object()

    state = cluster_state()
    state.view(endpoints(2), NOW, RNG, target_of=target_of)
    state.view(endpoints(2), NOW, RNG, target_of=target_of)
    assert made == ["10.0.0.1:80", "10.0.0.2:80"]


def test_counts_may_be_shared_between_clusters() -> None:
    node = EndpointNode()
    one, two = (cluster_state(name, node_of=lambda endpoint: node) for name in ("a", "b"))
    first, second = one.view(endpoints(1), NOW, RNG).members[0], two.view(endpoints(1), NOW, RNG).members[0]
    assert first.node is second.node
    assert first.load is not second.load


def test_an_old_view_goes_on_working() -> None:
    state = cluster_state()
    old = state.view(endpoints(2), NOW, RNG)
    state.view([], NOW, RNG)
    assert old.pick(NOW, RNG) in old.members


def test_one_that_drains_gets_nothing_even_in_panic() -> None:
    reported = [Endpoint("10.0.0.1", 80, health=Health.DRAINING), Endpoint("10.0.0.2", 80, health=Health.UNHEALTHY)]
    cluster = cluster_state().view(reported, NOW, RNG)
    assert {cluster.pick(NOW, RNG) for _ in range(50)} == {cluster.members[0]}
    assert cluster.members[0].endpoint.host == "10.0.0.2"


def test_those_tried_are_left_out_while_another_is_left() -> None:
    cluster = cluster_state().view(endpoints(3), NOW, RNG)
    one, two, three = cluster.members
    assert {cluster.pick(NOW, RNG, [one, two]) for _ in range(50)} == {three}
    assert cluster.has_untried([one, two])
    assert not cluster.has_untried([one, two, three])
    assert {cluster.pick(NOW, RNG, [one, two, three]) for _ in range(50)} == {one, two, three}


def test_looking_for_another_changes_nothing() -> None:
    state = cluster_state(policy="round_robin")
    cluster = state.view(endpoints(3), NOW, Random(5))
    first = cluster.pick(NOW, RNG)
    assert first is not None
    for _ in range(7):
        cluster.has_untried([first])
    second, third, again = (cluster.pick(NOW, RNG) for _ in range(3))
    assert len({first, second, third}) == 3
    assert again is first


@pytest.mark.parametrize("without", [0, 1])
def test_the_usual_cost_is_that_of_the_others(without: int) -> None:
    cluster: Cluster = cluster_state().view(endpoints(2), NOW, RNG)
    cluster.members[0].load.cost_s = 0.001
    cluster.members[1].load.cost_s = 0.1
    assert cluster.usual_cost(RNG, cluster.members[without]) == (0.1 if without == 0 else 0.001)


def test_a_single_endpoint_is_measured_by_the_default() -> None:
    cluster = cluster_state().view(endpoints(1), NOW, RNG)
    assert cluster.usual_cost(RNG, cluster.members[0]) == 0.03


def test_an_address_is_written_as_in_a_url() -> None:
    assert Endpoint("::1", 80).address == "[::1]:80"
    assert hash(Endpoint("h", 1, metadata={"a": "b"})) == hash(Endpoint("h", 1, metadata={"a": "c"}))


def test_a_newcomer_is_thought_to_be_as_fast_as_its_fellows() -> None:
    state = cluster_state()
    rng = Random(1)
    old = endpoints(3)
    for member in state.view(old, 0.0, rng).members:
        for second in range(100, 130):
            member.load.answered(float(second), 0.001)
    cluster = state.view([*old, Endpoint("10.9.9.9", 80)], 129.0, rng)
    newcomer = cluster.members[-1]
    assert newcomer.load.cost(129.0) == pytest.approx(0.001)


def test_a_newcomer_among_slow_fellows_or_among_strangers_has_the_default() -> None:
    state = cluster_state()
    rng = Random(1)
    first = state.view(endpoints(2), 0.0, rng).members
    assert [member.load.cost(0.0) for member in first] == [0.03, 0.03]
    for member in first:
        member.load.answered(1.0, 5.0)
    assert state.view([*endpoints(2), Endpoint("10.9.9.9", 80)], 1.0, rng).members[-1].load.cost(1.0) == 0.03


def test_a_view_of_the_past_finds_who_has_come_back() -> None:
    """A cluster by hash is made anew when health changes; until then the view knows the ones that were well."""
    state = cluster_state(policy="maglev")
    state.load_balancing = LoadBalancing(policy="maglev", table_size=13, panic_percent=0.0)
    first, second = state.view(endpoints(2), NOW, RNG).members
    first.health.ejected = True
    view = state.view(endpoints(2), NOW, RNG)
    assert view.pick(NOW, RNG) is second
    first.health.ejected, second.health.ejected = False, True
    assert state.outlier is not None
    state.outlier.rebind(view.members)
    assert view.pick(NOW, RNG) is first
    first.health.ejected = True
    state.outlier.rebind(view.members)
    assert view.pick(NOW, RNG) is None
