"""What an endpoint costs: the moving average, failures, cancellations."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.load import EndpointNode, Load
from tests.core import NOW

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "ewma_decay.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["decays"], ids=str)
def test_it_decays_as_in_tower_and_linkerd(vector: dict[str, float]) -> None:
    load = Load(NOW, vector["start_ms"] / 1000, vector["decay_s"])
    assert load.latency(NOW + vector["after_s"]) * 1000 == pytest.approx(vector["ms"], rel=0.004)


def test_a_peak_is_replaced_once_it_has_decayed_below_the_sample() -> None:
    vector = VECTORS["peak_replaced"]
    load = Load(NOW, vector["first_s"], vector["decay_s"])
    later = NOW + vector["after_s"]
    assert load.latency(later) == pytest.approx(vector["decayed_s"], abs=1e-4)
    load.answered(later, vector["second_s"])
    assert load.cost_s == vector["second_s"]


def test_a_sample_below_is_averaged_in_by_the_time_that_passed() -> None:
    load = Load(NOW, 1.0, 10.0)
    load.answered(NOW + 10, 0.1)
    keep = math.exp(-1)
    assert load.cost_s == pytest.approx(1.0 * keep + 0.1 * (1 - keep))


def test_a_fast_failure_costs_three_times_the_median_and_that_decays_in_two_seconds() -> None:
    load = Load(NOW, 0.02, 10.0)
    load.failed(NOW, 0.001, 0.02)
    assert load.cost(NOW) == pytest.approx(0.06)
    assert load.cost(NOW + 1) == pytest.approx(0.06 * math.exp(-0.5))
    assert load.cost(NOW + 10) == pytest.approx(0.02 * math.exp(-1), rel=0.01)


def test_a_failure_never_makes_it_look_fast() -> None:
    load = Load(NOW, 0.02, 10.0)
    for second in range(200):
        load.failed(NOW + second, 0.0001, 0.02)
    assert load.latency(NOW + 199) >= 0.02


def test_retry_after_holds_the_penalty_and_a_later_failure_does_not_cut_it() -> None:
    load = Load(NOW, 0.02, 10.0)
    load.failed(NOW, 0.001, 0.02, retry_after_s=30.0)
    load.failed(NOW + 1, 0.001, 0.02)
    assert load.cost(NOW + 30) == pytest.approx(0.06)
    assert load.cost(NOW + 32) < 0.03


def test_times_given_up_add_up_until_an_answer() -> None:
    load = Load(NOW, 0.03, 10.0)
    load.given_up(NOW, 0.01)
    assert load.cost(NOW) == 0.03, "a short wait says nothing"
    for _ in range(9):
        load.given_up(NOW, 0.01)
    assert load.cost(NOW) == pytest.approx(0.1)
    load.answered(NOW, 0.02)
    assert load.censored_s == 0
    load.given_up(NOW + 60, 0.001)
    assert load.cost(NOW + 60) < 0.03


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["answered", "failed", "given_up"]),
            st.floats(-10, 100),
            st.one_of(st.floats(-5, 100), st.just(math.nan)),
        )
    )
)
def test_whatever_comes_costs_are_finite_and_not_negative(events: list[tuple[str, float, float]]) -> None:
    load, now = Load(NOW, 0.03, 10.0), NOW
    for kind, step, elapsed in events:
        now += step
        if kind == "failed":
            load.failed(now, elapsed, 0.02)
        else:
            getattr(load, kind)(now, elapsed)
        for cost in (load.cost(now), load.latency(now), load.plain_cost(now)):
            assert 0 <= cost < math.inf


def test_counts_in_flight_are_exact_under_threads() -> None:
    node = EndpointNode()

    def work() -> None:
        for _ in range(2000):
            node.enter()
            node.exit()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert node.in_flight == 0
