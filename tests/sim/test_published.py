"""Published results come out of this very code, within the bounds that their sources state."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from meshlib.balance.settings import BalancerName
from meshlib.balance.subsetting import random_subset
from meshlib.policy.backoff import Jitter
from meshlib.sim.scenarios import antagonists, hedging, jitter, metastable, shedding, slow_backend, subsets, throttling

pytestmark = pytest.mark.slow  # in virtual time, so nothing depends on the Python either


@pytest.mark.parametrize(
    ("balancer", "least", "most"),
    [("round_robin", 94.5, 96.5), ("least_request", 99.0, 99.7), ("peak_ewma", 99.9, 100)],
)
def test_one_slow_backend_of_eleven(balancer: BalancerName, least: float, most: float) -> None:
    """Finagle, 2016: about 95, 99 and 99.9 % of the calls end within a second."""
    tally = slow_backend.run(balancer)
    assert sum(tally.begun.values()) == pytest.approx(60_000, rel=0.02)
    assert least <= slow_backend.success_percent(tally) <= most


@pytest.mark.parametrize("rate", metastable.RATES)
def test_a_bucket_and_a_server_that_drops_expired_work_recover_from_a_stall_at_every_rate(rate: float) -> None:
    outcome = metastable.run(metastable.ROWS["1 retry, gRPC's bucket, server drops expired"], rate, watch_s=10.0)
    assert outcome.recovered_s is not None
    assert outcome.recovered_s <= 2


@pytest.mark.parametrize("rate", [150.0, 280.0])
def test_one_retry_without_a_budget_keeps_a_service_down_after_the_stall(rate: float) -> None:
    """HotOS 2021: twice the rate, for ever, and no answer is in time."""
    outcome = metastable.run(metastable.ROWS["1 retry"], rate, watch_s=40.0)
    assert outcome.recovered_s is None
    assert outcome.attempts_per_s == pytest.approx(2 * rate, rel=0.1)
    assert outcome.good_per_s <= 1.0


@pytest.mark.parametrize(
    ("defence", "rate", "least_s", "most_s"),
    [
        ("no retry", 150.0, 6, 10),
        ("1 retry, gRPC's bucket (10, 0.1)", 150.0, 6, 10),
        ("1 retry, server drops expired", 240.0, 0, 5),
        ("1 retry, last in first out beyond 20", 280.0, 0, 2),
        ("meshlib's defaults, per try 1 s", 280.0, 5, 15),
        ("the same, server drops expired", 280.0, 0, 2),
        ("the same, 100 clients, server drops expired", 280.0, 0, 5),
    ],
)
def test_how_long_other_defences_take(defence: str, rate: float, least_s: int, most_s: int) -> None:
    outcome = metastable.run(metastable.ROWS[defence], rate, watch_s=20.0)
    assert outcome.recovered_s is not None
    assert least_s <= outcome.recovered_s <= most_s


@pytest.mark.parametrize("rate", metastable.RATES)
def test_with_the_mesh_at_both_ends_a_stall_leaves_nothing_behind_at_any_rate(rate: float) -> None:
    defence = metastable.ROWS["the same at both ends, 100 clients"]
    outcome = metastable.run(defence, rate, watch_s=10.0)
    assert outcome.recovered_s is not None
    assert outcome.recovered_s <= 2


@pytest.mark.parametrize(
    ("defence", "most_s"),
    [
        ("1 retry, server with admission, 8 in flight", 1),
        ("the same at both ends, no circuit breaker, 100 clients", 1),
        ("the same at both ends, circuits open as long as for any callee, 100 clients", 12),  # by the rhythm of those
    ],
)
def test_admission_ends_the_work_that_nobody_waits_for(defence: str, most_s: int) -> None:
    outcome = metastable.run(metastable.ROWS[defence], 280.0, watch_s=most_s + 8.0)
    assert outcome.recovered_s is not None
    assert outcome.recovered_s <= most_s


def test_full_jitter_needs_under_half_the_calls_of_none() -> None:
    """Brooker, 2015."""
    kinds: tuple[Jitter, ...] = ("none", "full")
    found = {kind: jitter.run(kind) for kind in kinds}
    assert [outcome.written for outcome in found.values()] == [jitter.CLIENTS] * 2
    assert found["full"].attempts < found["none"].attempts / 2
    assert found["full"].finished_s < found["none"].finished_s / 5


def test_subsets_by_chance_are_uneven_and_those_in_rounds_are_not() -> None:
    """SRE book, chapter 20: 63 and 121 % of the mean at 30 %, 50 and 150 % at 10 %."""
    third, tenth = subsets.random(90), subsets.random(30)
    assert 60 <= third.least_percent <= 85
    assert 115 <= third.most_percent <= 135
    assert 40 <= tenth.least_percent <= 65
    assert 140 <= tenth.most_percent <= 170
    assert set(subsets.rounds(30).connections) == {30}
    assert 75 <= min(subsets.rounds(90).connections) <= max(subsets.rounds(90).connections) <= 100


def test_the_hands_of_shuffle_sharding_seldom_overlap() -> None:
    """AWS: of two hands of 5 out of 100, 77 % have nothing in common, 21.1 % one, 1.84 % two, 0.06 % three."""
    members = subsets.servers(100)
    hands = [set(map(id, random_subset(members, 5, tenant))) for tenant in range(300)]
    overlaps = Counter(len(one & other) for one, other in combinations(hands, 2))
    shares = [100.0 * overlaps[count] / overlaps.total() for count in range(6)]
    assert shares[0] == pytest.approx(77.0, abs=1.0)
    assert shares[1] == pytest.approx(21.1, abs=1.0)
    assert shares[2] == pytest.approx(1.84, abs=0.4)
    assert sum(shares[3:]) < 0.2


@pytest.mark.parametrize(("size", "clients", "servers"), [(30, 300, 300), (12, 41, 70), (12, 300, 7), (1, 10, 100)])
def test_a_deterministic_aperture_is_exactly_even(size: int, clients: int, servers: int) -> None:
    """Twitter, 2019."""
    spread = subsets.aperture(size, clients, servers)
    assert spread.least_percent == pytest.approx(100.0, abs=1e-6)
    assert spread.most_percent == pytest.approx(100.0, abs=1e-6)
    assert max(spread.connections) - min(spread.connections) <= 2


def test_a_hedge_at_p95_cuts_the_far_tail_ten_times_for_six_percent_more() -> None:
    """Dean and Barroso, 2013."""
    without, hedged = (hedging.run(hedge, for_s=30.0) for hedge in (None, hedging.HEDGE))
    assert without.extra_percent == 0.0
    assert 2.0 <= hedged.extra_percent <= 6.0
    assert hedged.p999_s <= without.p999_s / 10
    assert hedged.p99_s < without.p99_s
    assert hedged.p50_s == pytest.approx(without.p50_s, rel=0.05)


@pytest.mark.parametrize(("case", "most_percent"), [("uniform", 0.0), ("slow", 6.0), ("silent", 0.5)])
def test_hedges_add_next_to_nothing_where_everything_is_slow(case: hedging.Case, most_percent: float) -> None:
    assert hedging.run(hedging.HEDGE, case, for_s=20.0).extra_percent <= most_percent


@pytest.mark.parametrize("k", throttling.FACTORS)
def test_a_throttled_service_sees_k_times_what_it_can_do(k: float) -> None:
    """SRE book, chapter 21."""
    outcome = throttling.run({"k": k, "window": "10s"}, for_s=30.0)
    assert outcome.attempts == pytest.approx(k * throttling.CAPACITY, rel=0.05)
    assert outcome.good == pytest.approx(throttling.CAPACITY, rel=0.03)


def test_a_throttle_without_a_cap_locks_out_a_service_whose_failures_are_timeouts() -> None:
    found = {
        name: metastable.run(metastable.ROWS[name], 280.0, watch_s=110.0)
        for name in ("1 retry, throttle without a cap", "1 retry, throttle, at most 90 %")
    }
    locked_out, capped = found.values()
    assert locked_out.recovered_s is None
    assert locked_out.good_per_s < 10.0
    assert capped.recovered_s is not None
    cured = metastable.run(
        metastable.ROWS["1 retry, throttle, at most 90 %, server drops expired"], 280.0, watch_s=20.0
    )
    assert cured.recovered_s is not None
    assert cured.recovered_s <= 15


def test_under_three_times_the_load_what_matters_is_answered() -> None:
    """Netflix, 2024: above 99 % of what users ask for, and prefetches take the loss."""
    assert shedding.run(shedding.DEFENCES["none"], for_s=20.0).high_percent <= 40.0
    for name in ("at most 20 in flight, hard bulkhead 75 to 25", "at most 5 in flight, and 15 critical ones"):
        outcome = shedding.run(shedding.DEFENCES[name])
        assert outcome.high_percent >= 99.0
        assert outcome.low_percent >= 15.0


@pytest.mark.parametrize(
    "defence", ["the callee's admission, 8 in flight", "the same, and meshlib's defaults at the client"]
)
def test_the_callee_answers_what_matters_at_three_times_its_capacity(defence: str) -> None:
    outcome = shedding.run(shedding.DEFENCES[defence], for_s=10.0)
    assert outcome.high_percent > 99.0
    assert outcome.low_percent >= 15.0


def test_a_balancer_by_cost_beats_counts_where_servers_differ_in_speed() -> None:
    names = ("random", "round_robin", "server_weights", "least_request", "peak_ewma", "prequal")
    chosen = [f"`{name}`" for name in names] + ["`server_weights`, `load: peak_ewma`"]
    tails = {name: antagonists.run(antagonists.BALANCERS[name], calls=12_000).percentile(99.0) for name in chosen}
    assert tails["`peak_ewma`"] <= 0.45
    assert tails["`prequal`"] < tails["`peak_ewma`"] / 1.5
    assert tails["`server_weights`, `load: peak_ewma`"] < tails["`peak_ewma`"]
    assert tails["`peak_ewma`"] < tails["`least_request`"] / 2
    assert tails["`least_request`"] < tails["`round_robin`"] / 5
    assert tails["`random`"] > 3.0
    assert tails["`server_weights`"] < tails["`round_robin`"] / 5  # for its first seconds it is the same


def test_probes_and_weights_beat_cost_in_a_larger_fleet_too() -> None:
    def tail(name: str) -> float:
        return antagonists.run(antagonists.BALANCERS[name], servers=100, calls=10_000).percentile(99.0)

    cost = tail("`peak_ewma`")
    assert tail("`prequal`") < cost / 1.3
    assert tail("`server_weights`, `load: least_request`") < cost
