"""Single picks: two different ones, those left out, and no walk through a long list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.balancer import Member, draw_two, pick_two, pick_uniform
from meshlib.balance.edf import EdfSchedule
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.health import EndpointHealth
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.settings import BalancerName, LoadBalancing
from meshlib.balance.table import BALANCERS, find_balancer
from tests.core import NOW, cluster_state, endpoints

pytestmark = pytest.mark.slow  # many cases

RNG = Random(1)
NAMES: list[BalancerName] = list(BALANCERS)


def members(count: int, weights: Sequence[float] | None = None) -> list[Member]:
    return [
        Member(endpoint, EndpointNode(), Load(NOW, 0.03, 10.0), EndpointHealth())
        for endpoint in endpoints(count, weights)
    ]


@given(st.integers(2, 12), st.integers(0, 2**32), st.data())
def test_two_drawn_are_two(count: int, seed: int, data: Any) -> None:
    some = members(count)
    out = {id(some[i]) for i in data.draw(st.sets(st.integers(0, count - 1)))}
    rng = Random(seed)
    pair = pick_two(some, rng, None)
    assert pair is not None
    assert pair[0] is not pair[1]
    pair = pick_two(some, rng, lambda member: id(member) not in out)
    left = count - len(out)
    if left == 0:
        assert pair is None
    else:
        assert pair is not None
        assert not {id(member) for member in pair} & out
        assert (pair[0] is pair[1]) is (left == 1)


def test_each_pair_is_as_likely() -> None:
    some, rng = members(4), Random(1)
    pairs = Counter(tuple(some.index(member) for member in pick_two(some, rng, None) or ()) for _ in range(24_000))
    assert len(pairs) == 12
    assert all(1800 < count < 2200 for count in pairs.values())


def test_sampling_with_some_left_out_is_uniform_over_the_rest() -> None:
    some, rng = members(10), Random(1)
    out = set(map(id, some[:7]))
    picked = Counter(some.index(pick_uniform(some, rng, lambda m: id(m) not in out)) for _ in range(9000))  # type: ignore[arg-type]
    assert picked.keys() == {7, 8, 9}
    assert all(2800 < count < 3200 for count in picked.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0)], ids=str)
def test_what_may_not_be_used_is_never_picked(name: BalancerName, weights: tuple[float, ...] | None) -> None:
    some, rng = members(3, weights), Random(1)
    balancer = find_balancer(name)(some, LoadBalancing(policy=name), NOW, rng)
    assert {balancer.pick(NOW, rng, lambda member: member is some[1]) for _ in range(50)} == {some[1]}
    assert balancer.pick(NOW, rng, lambda member: False) is None
    assert {balancer.pick(NOW, rng, None) for _ in range(50)} == set(some)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_any_weights_work(name: BalancerName, weights: list[float], seed: int) -> None:
    rng = Random(seed)
    some = members(len(weights), weights)
    balancer = find_balancer(name)(some, LoadBalancing(policy=name), NOW, rng)
    for step in range(30):
        usable = None if step % 3 else (lambda member: member is some[0])
        picked = balancer.pick(NOW + step, rng, usable)
        assert picked is not None
        assert usable is None or picked is some[0]


def test_a_schedule_is_exact_over_any_stretch() -> None:
    some = members(3, (1.0, 2.0, 3.0))
    schedule = EdfSchedule(some, NOW, 7)
    picked = Counter(some.index(schedule.pick(NOW, RNG, None)) for _ in range(600))  # type: ignore[arg-type]
    assert [picked[i] for i in range(3)] == pytest.approx([100, 200, 300], abs=1)


def test_one_that_was_out_does_not_make_up_for_its_turns() -> None:
    some = members(3, (1.0, 1.0, 2.0))
    schedule = EdfSchedule(some, NOW, 7)
    for _ in range(1000):
        schedule.pick(NOW, RNG, lambda member: member is not some[0])
    picked = Counter(some.index(schedule.pick(NOW, RNG, None)) for _ in range(40))  # type: ignore[arg-type]
    assert picked[0] <= 11


@pytest.mark.parametrize("one_after_another", [True, False])
@given(
    costs=st.lists(st.sampled_from([0.001, 0.01, 0.1]), min_size=2, max_size=5),
    busy=st.lists(st.integers(0, 12), min_size=5, max_size=5),
    failed=st.sets(st.integers(0, 4)),
    seed=st.integers(0, 2**32),
)
def test_a_pick_by_cells_is_the_pick_by_loads(
    one_after_another: bool, costs: list[float], busy: list[int], failed: set[int], seed: int
) -> None:
    some = members(len(costs))
    if not one_after_another:
        some.reverse()
    for at, (member, cost_s) in enumerate(zip(some, costs, strict=True)):
        member.load.answered(NOW + at, cost_s)
        if at in failed:
            member.load.failed(NOW + at, 0.001, 0.01)
        for _ in range(busy[at]):
            member.node.enter()
    balancer, now = find_balancer("peak_ewma")(some, LoadBalancing(), NOW, RNG), NOW + 10
    one, other = draw_two(len(some), Random(seed))
    loads = [some[at].load.cost(now) * (some[at].node.in_flight + 1) for at in (one, other)]
    if loads[0] != pytest.approx(loads[1]):
        assert balancer.pick(now, Random(seed), None) is some[one if loads[0] < loads[1] else other]


@given(st.integers(2, 10**6), st.floats(0, 1, exclude_max=True))
def test_one_number_gives_two_different_indexes(count: int, number: float) -> None:
    class Fixed(Random):
        def random(self) -> float:
            return number

    for rng in (Fixed(), Random(number)):
        one, other = draw_two(count, rng)
        assert one != other
        assert 0 <= one < count
        assert 0 <= other < count


class Watched(Sequence[Member]):
    """Counts looks at members."""

    def __init__(self, some: Sequence[Member]) -> None:
        self._some = some
        self.looks = 0

    def __len__(self) -> int:
        return len(self._some)

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return self._some[index]

    def __iter__(self) -> Iterator[Member]:
        for member in self._some:
            self.looks += 1
            yield member


@cache
def many(weighted: bool) -> list[Member]:
    one = members(1)[0]
    return [
        Member(Endpoint("h", port, weight=1.0 + (port % 3) * weighted), one.node, one.load, one.health)
        for port in range(1, 20_001)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("half_out", [False, True])
def test_a_pick_among_many_looks_at_few(name: BalancerName, weighted: bool, half_out: bool) -> None:
    rng = Random(1)
    some = Watched(many(weighted))
    asked = 0

    def usable(member: Member) -> bool:
        nonlocal asked
        asked += 1
        return member.endpoint.port % 2 == 0

    balancer = find_balancer(name)(some, LoadBalancing(policy=name), NOW, rng)
    some.looks = 0
    for _ in range(200):
        assert balancer.pick(NOW, rng, usable if half_out else None) is not None
    assert some.looks <= 200 * 10
    assert asked <= 200 * 10


def test_with_half_of_many_ejected_a_pick_does_not_look_at_them() -> None:
    rng = Random(1)
    state = cluster_state()
    cluster = state.view([Endpoint(f"h{i}", 80) for i in range(2000)], NOW, rng)
    assert state.outlier is not None
    for member in cluster.members[:1000]:
        member.health.consecutive = 4
        state.outlier.failed(member, NOW)
    asked = 0

    class Counting(tuple[Member, ...]):
        def __iter__(self) -> Iterator[Member]:
            nonlocal asked
            asked += 1
            return super().__iter__()

    state.outlier.ejected = Counting(state.outlier.ejected)
    for _ in range(100):
        assert state.outlier.due(NOW + 1, True) is None
        picked = cluster.pick(NOW + 1, rng)
        assert picked is not None
        assert not picked.health.ejected
    assert asked == 0
