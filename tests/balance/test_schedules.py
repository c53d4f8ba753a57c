"""Schedules and draws are Envoy's, pick by pick: round robin by weight, least request, active request bias."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import pytest

from meshlib.balance.balancer import Balancer, Member
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.health import EndpointHealth
from meshlib.balance.least_request import FullScan, LeastRequest
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.settings import LeastRequestSettings, LoadBalancing, SlowStartSettings
from meshlib.balance.table import find_balancer
from tests.core import NOW

GOLDEN: Any = json.loads((Path(__file__).parents[1] / "data" / "envoy_schedules.json").read_text())
RNG = Random(1)


def members(weights: Sequence[float]) -> list[Member]:
    return [
        Member(Endpoint(f"h{index}", 80, weight=weight), EndpointNode(), Load(NOW, 0.03, 10.0), EndpointHealth())
        for index, weight in enumerate(weights)
    ]


class Seeded(Random):
    """Begins where Envoy's generator would with `seed`, of `count`."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__(0)
        self._value = seed
        self._count = count

    def getrandbits(self, k: int, /) -> int:
        return self._value

    def random(self) -> float:
        return (self._value % self._count + 0.5) / self._count


class Draws(Random):
    """Draws these of `count`, one after another."""

    def __init__(self, values: Sequence[int], count: int) -> None:
        super().__init__(0)
        self._values = cycle([(value + 0.5) / count for value in values])

    def random(self) -> float:
        return next(self._values)


def names(cases: Sequence[Any]) -> dict[str, Any]:
    return {"argvalues": cases, "ids": [case["name"] for case in cases]}


def picks(balancer: Balancer, some: Sequence[Member], count: int, now: float = NOW) -> list[int]:
    found = [balancer.pick(now, RNG, None) for _ in range(count)]
    return [some.index(member) for member in found if member is not None]


def set_active(some: Sequence[Member], active: Sequence[int]) -> None:
    for member, count in zip(some, active, strict=True):
        while member.node.in_flight > count:
            member.node.exit()
        while member.node.in_flight < count:
            member.node.enter()


@pytest.mark.parametrize("case", **names(GOLDEN["round_robin"]))
def test_round_robin_is_envoys(case: Any) -> None:
    some = members(case["weights"])
    balancer = find_balancer("round_robin")(some, LoadBalancing(), NOW, Seeded(case["seed"], len(some)))
    assert picks(balancer, some, len(case["picks"])) == case["picks"]


def test_a_weight_that_changes_counts_from_the_next_pick_on() -> None:
    case = GOLDEN["weights_modified"]
    some = members(case["weights"][0])
    schedule = EdfSchedule(some, NOW, 0)
    for weights, expected in zip(case["weights"], case["picks"], strict=True):
        for member, weight in zip(some, weights, strict=True):
            member.weight = weight
        assert picks(schedule, some, len(expected)) == expected


def test_first_picks_are_spread_by_weight() -> None:
    case = GOLDEN["first_picks"]
    found = Counter[int]()
    for seed in range(case["seeds"]):
        some = members(case["weights"])
        found.update(picks(EdfSchedule(some, NOW, seed), some, 1))
    assert [found[index] for index in range(3)] == case["picked"]


@pytest.mark.parametrize("weights", GOLDEN["first_pick_percent"], ids=str)
def test_first_picks_after_any_number_of_picks_are_spread_by_weight(weights: list[float]) -> None:
    rng, some, found = Random(1), members(weights), Counter[int]()
    for _ in range(8000):
        found.update(picks(EdfSchedule(some, NOW, rng.getrandbits(32)), some, 1))
    assert [found[index] / 80 for index in range(len(weights))] == pytest.approx(weights, abs=1.5)


@pytest.mark.parametrize("count", GOLDEN["pre_picks"]["picks"][:3])
def test_a_schedule_that_is_ahead_is_one_that_was_picked_from(count: int) -> None:
    case = GOLDEN["pre_picks"]
    step = (case["highest"] - case["lowest"]) / case["count"]
    some = members([step * index + case["lowest"] for index in range(case["count"])])
    heap = [(1.0 / member.weight, index) for index, member in enumerate(some)]
    heapq.heapify(heap)
    for _ in range(count):
        deadline, index = heap[0]
        heapq.heapreplace(heap, (deadline + 1.0 / some[index].weight, index))

    found = {some.index(member): deadline for deadline, _, member in EdfSchedule(some, NOW, count)._heap}

    assert [found[index] for index in range(len(some))] == pytest.approx(
        [deadline for deadline, _ in sorted(heap, key=lambda entry: entry[1])], abs=1e-5
    )


def test_of_equal_deadlines_the_one_that_waited_longest_is_first() -> None:
    some = members([1.0] * 128)
    schedule = EdfSchedule(some, NOW, 0)
    assert picks(schedule, some, 3 * 128) == 3 * list(range(128))


def test_shares_are_exact_whatever_the_weights() -> None:
    some = members([float(index + 1) for index in range(128)])
    found = Counter(picks(EdfSchedule(some, NOW, 0), some, 128 * 129 // 2))
    assert [found[index] for index in range(128)] == list(range(1, 129))


@pytest.mark.parametrize("case", **names(GOLDEN["least_request"]))
def test_of_some_that_are_drawn_the_least_busy_is_picked(case: Any) -> None:
    some = members([1.0] * len(case["active"]))
    set_active(some, case["active"])
    balancer = LeastRequest(some, case["choices"])
    for usable in (None, lambda member: True):
        assert balancer.pick(NOW, Draws(case["draws"], len(some)), usable) is some[case["picked"]]


@pytest.mark.parametrize("case", **names(GOLDEN["full_scan"]))
def test_a_full_scan_finds_the_least_busy_and_ties_are_even(case: Any) -> None:
    some = members([1.0] * len(case["active"]))
    set_active(some, case["active"])
    found = Counter(picks(FullScan(some), some, 3000))
    assert sorted(found) == case["picked"]
    assert all(abs(count - 3000 / len(found)) < 120 for count in found.values())
    out = some[case["picked"][0]]
    balancer = FullScan(some)
    assert balancer.pick(NOW, RNG, lambda member: member is out) is out
    assert balancer.pick(NOW, RNG, lambda member: member is not out) is not out
    assert balancer.pick(NOW, RNG, lambda member: False) is None


@pytest.mark.parametrize("case", **names(GOLDEN["active_request_bias"]))
def test_active_requests_reduce_weights(case: Any) -> None:
    some = members(case["weights"])
    settings = LoadBalancing(least_request=LeastRequestSettings(active_request_bias=case["bias"]))
    balancer = find_balancer("least_request")(some, settings, NOW, Seeded(0, 2))
    for active, expected in zip(case["active"], case["picks"], strict=True):
        set_active(some, active)
        assert picks(balancer, some, len(expected)) == expected


@pytest.mark.parametrize("case", **names(GOLDEN["slow_start"]))
def test_least_request_with_slow_start_is_envoys(case: Any) -> None:
    some = members(case["weights"])
    for member, joined in zip(some, case["joined"], strict=True):
        member.health.joined_at = NOW + joined
    set_active(some, case["active_at_first"])
    settings = LoadBalancing(
        least_request=LeastRequestSettings(active_request_bias=case["bias"]),
        slow_start=SlowStartSettings(case["window_s"], case["aggression"]),
    )
    balancer = find_balancer("least_request")(some, settings, NOW, Seeded(0, 2))
    set_active(some, case["active"])
    assert picks(balancer, some, len(case["picks"])) == case["picks"]


def test_newcomers_get_their_whole_share_in_time() -> None:
    some = members([1.0, 1.0])
    some[1].health.joined_at = NOW
    settings = LoadBalancing(slow_start=SlowStartSettings(10.0))
    balancer = find_balancer("round_robin")(some, settings, NOW, RNG)
    early, late = picks(balancer, some, 110, NOW + 1), picks(balancer, some, 100, NOW + 11)
    assert 9 <= early.count(1) <= 12
    assert 47 <= late.count(1) <= 50
    assert type(find_balancer("round_robin")(some, settings, NOW + 11, RNG)).__name__ == "RoundRobin"


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0, 10.0])
def test_any_load_leaves_a_weight_that_can_be_scheduled(bias: float) -> None:
    some = members([1.0, 1e-9, 1e9])
    set_active(some, [0, 500, 3000])
    own = LeastRequestSettings(active_request_bias=bias)
    balancer = find_balancer("least_request")(some, replace(LoadBalancing(), least_request=own), NOW, Random(1))
    assert len(picks(balancer, some, 100)) == 100
