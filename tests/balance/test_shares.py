"""Shares of traffic: by weight while endpoints are alike, and away from what is slow, hung or broken."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.balance.settings import BalancerName
from meshlib.sim.network import Latency, SimEndpoint, constant, exponential, uniform
from meshlib.sim.run import Simulation
from tests.core import NOW, cluster_state, endpoints, simulation

pytestmark = pytest.mark.slow  # many cases, in virtual time

MEAN_S = 0.02
WEIGHTS = ((1, 1, 1), (1, 2, 3), (1, 10), (1, 1, 0.1))
LATENCIES = {"constant": constant(MEAN_S), "exponential": exponential(MEAN_S)}


def shares(sim: Simulation) -> list[float]:
    attempts = list(sim.attempts().values())
    return [count / sum(attempts) for count in attempts]


@pytest.mark.parametrize("in_flight", [0.1, 1, 10])
@pytest.mark.parametrize("latency", LATENCIES.values(), ids=LATENCIES)
@pytest.mark.parametrize(
    ("balancer", "weights"),
    [
        *(("peak_ewma", weights) for weights in WEIGHTS),
        *(("round_robin", weights) for weights in WEIGHTS),
        ("least_request", WEIGHTS[0]),  # as in Envoy, what is in flight bends unequal ones
    ],
    ids=str,
)
def test_shares_hold_at_equal_latency(
    balancer: BalancerName, weights: tuple[float, ...], latency: Latency, in_flight: float
) -> None:
    parts = [SimEndpoint(latency) for _ in weights]
    sim = simulation(parts, weights=weights, balancer=balancer)
    rate = in_flight / MEAN_S
    # Shares by chance, as those of equal weights are, need more calls than those of a schedule.
    calls = 9000 if len(set(weights)) == 1 and balancer != "round_robin" else 2000
    sim.load(rate, calls / rate)
    assert shares(sim) == pytest.approx([weight / sum(weights) for weight in weights], rel=0.1)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 3), (1, 10), (1, 1, 0.1)], ids=str)
def test_random_shares_hold(weights: tuple[float, ...]) -> None:
    rng = Random(1)
    cluster = cluster_state(policy="random").view(endpoints(len(weights), weights), NOW, rng)
    picked = [cluster.pick(NOW, rng) for _ in range(40_000)]
    found = [picked.count(member) / len(picked) for member in cluster.members]
    assert found == pytest.approx([weight / sum(weights) for weight in weights], rel=0.1)


@pytest.mark.parametrize("balancer", ["round_robin", "random", "least_request", "peak_ewma"])
@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (2, 2, 2, 2, 1)], ids=str)
def test_what_an_ejected_endpoint_had_is_spread_over_all_others(
    balancer: BalancerName, weights: tuple[float, ...]
) -> None:
    rng = Random(1)
    state = cluster_state(policy=balancer)
    cluster = state.view(endpoints(5, weights), NOW, rng)
    assert state.outlier is not None
    for member in cluster.members[:2]:
        for _ in range(5):
            state.outlier.failed(member, NOW)
    picked = [cluster.pick(NOW, rng) for _ in range(20_000)]
    found = [picked.count(member) / len(picked) for member in cluster.members]
    left = [0, 0, *weights[2:]]
    assert found == pytest.approx([weight / sum(left) for weight in left], rel=0.1)


@pytest.mark.parametrize(
    ("others", "weights", "give_up_s", "per_second", "for_s"),
    [
        (4, None, 0.05, 20, 90),
        (4, None, 0.1, 100, 60),
        (4, None, 1.0, 20, 90),
        (4, None, 1.0, 100, 60),
        (4, None, 0.05, 500, 20),
        (4, (1, 2, 1, 2, 3), 0.05, 20, 120),
        (4, (1, 2, 1, 2, 3), 1.0, 100, 60),
        (1, None, 0.05, 20, 90),
        (1, None, 1.0, 100, 60),
    ],
)
@pytest.mark.parametrize("by_deadline", [False, True])
def test_a_hung_endpoint_gets_under_one_percent_when_callers_give_up_early(
    others: int,
    weights: tuple[float, ...] | None,
    give_up_s: float,
    per_second: float,
    for_s: float,
    by_deadline: bool,
) -> None:
    sim = simulation(
        [SimEndpoint(hung=True), *(SimEndpoint(uniform(0.01, 0.03)) for _ in range(others))], weights=weights
    )
    sim.load(per_second, for_s, lambda: sim.call(deadline_s=give_up_s) if by_deadline else sim.call(give_up_s))
    assert shares(sim)[0] < 0.01
    assert all(member.node.in_flight == 0 for member in sim.cluster.members)


@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("per_second", [1, 50])
@pytest.mark.parametrize(
    "broken", [SimEndpoint(refuses=True), SimEndpoint(fail_percent=100)], ids=["refuses", "answers 503"]
)
def test_an_endpoint_that_fails_fast_attracts_no_traffic(broken: SimEndpoint, per_second: float, others: int) -> None:
    """Without ejection, which would hide what the balancer does; and without retries, which would add to the others."""
    broken.attempts = 0
    sim = simulation([broken, *(SimEndpoint(uniform(0.01, 0.03)) for _ in range(others))], outlier=None)
    sim.budget.tokens = 0
    sim.load(per_second, 2000 / per_second)
    assert shares(sim)[0] < 1.1 / (others + 1)
    if per_second == 50:
        assert shares(sim)[0] < 0.4 / (others + 1)


@pytest.mark.parametrize("weights", [None, (1, 2, 3)], ids=str)
def test_a_slow_endpoint_gets_less(weights: tuple[float, ...] | None) -> None:
    sim = simulation(
        [SimEndpoint(constant(0.2)), *(SimEndpoint(uniform(0.01, 0.03)) for _ in range(2))], weights=weights
    )
    sim.load(50, 60)
    assert shares(sim)[0] < 0.05


def test_one_that_was_slow_gets_its_share_back() -> None:
    slow = SimEndpoint(constant(1.0))
    sim = simulation([slow, *(SimEndpoint(constant(0.02)) for _ in range(2))])
    sim.load(50, 20)
    slow.latency, slow.attempts = constant(0.02), 0
    sim.load(50, 120)
    assert slow.attempts > 0.25 * 50 * 120


def test_who_asks_to_be_left_alone_is() -> None:
    busy = SimEndpoint(fail_percent=100, fail_status=429, retry_after_s=20.0)
    sim = simulation([busy, *(SimEndpoint(constant(0.02)) for _ in range(2))])
    sim.load(50, 18)
    assert busy.attempts < 30
    assert sim.outcomes() == {"200": len(sim.records)}
