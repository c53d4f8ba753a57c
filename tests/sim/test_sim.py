"""The simulator itself: time, order, and that it drives calls to their ends."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest

from meshlib.policy.settings import CallPolicy, LimitSettings, RetryPolicy
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Network, SimEndpoint, constant, exponential, uniform
from tests.core import simulation


def test_things_happen_in_order_of_time_and_then_of_asking() -> None:
    clock, seen = VirtualClock(0.0), []
    clock.at(2.0, lambda: seen.append("c"))
    clock.at(1.0, lambda: seen.append("a"))
    clock.at(1.0, lambda: seen.append("b"))
    clock.at(1.5, lambda: seen.append("never")).cancel()
    clock.run(1.5)
    assert (seen, clock.now) == (["a", "b"], 1.5)
    clock.at(0.0, lambda: seen.append("late, so at once"))
    clock.run()
    assert seen[2:] == ["late, so at once", "c"]


def test_latencies_have_their_means() -> None:
    rng = Random(1)
    for latency in (constant(0.02), uniform(0.01, 0.03), exponential(0.02)):
        assert sum(latency(rng) for _ in range(20_000)) / 20_000 == pytest.approx(0.02, rel=0.05)


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[float]:
        sim = simulation([SimEndpoint(exponential(0.02), fail_percent=5) for _ in range(3)], seed=seed)
        sim.load(50, 10)
        return [record.duration_s for record in sim.records]

    assert run(1) == run(1) != run(2)


def test_every_call_ends_and_gives_back_what_it_held() -> None:
    parts = [
        SimEndpoint(uniform(0.01, 0.03)),
        SimEndpoint(exponential(0.05), fail_percent=20),
        SimEndpoint(hung=True),
        SimEndpoint(refuses=True),
        SimEndpoint(constant(0.02), fail_percent=50, fail_status=None),
    ]
    sim = simulation(
        parts,
        policy=CallPolicy(timeout_s=2.0, per_try_timeout_s=0.5, retry=RetryPolicy()),
        limits=LimitSettings(max_in_flight=20, max_pending=20),
        body_s=0.01,
    )
    rng, begun = Random(7), 0

    def start() -> None:
        nonlocal begun
        begun += 1
        sim.call(rng.choice([None, 0.05, 1.0]), deadline_s=rng.choice([None, 0.2]), safe=rng.random() < 0.5)

    sim.load(200, 30, start)
    assert len(sim.records) == begun
    assert (sim.state.limit.in_flight, sim.state.limit.pending) == (0, 0)
    assert [member.node.in_flight for member in sim.cluster.members] == [0] * 5
    assert all(member.health.probe is None for member in sim.cluster.members)
    assert all(record.retries <= 2 for record in sim.records)
    assert max(record.duration_s for record in sim.records) <= 2.0 + 1e-6


def test_nobody_at_an_address_refuses() -> None:
    sim = simulation([SimEndpoint()])
    sim.network = Network()
    sim.call()
    sim.clock.run()
    assert sim.outcomes() == {"ConnectFailed": 1}


def test_nothing_else_imports_it() -> None:
    code = "import sys, meshlib.policy.call, meshlib.routing.route; print('meshlib.sim' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
