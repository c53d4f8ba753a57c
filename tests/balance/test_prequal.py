"""The probe pool's rules one by one, as the paper has them; and a server that lies gets no more than they allow."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.balancer import Member
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.health import EndpointHealth
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.prequal import Prequal, prequal, stands_in
from meshlib.balance.probe_pool import ProbePool, reuse
from meshlib.balance.reported import Reported, parse_in_flight, write_in_flight
from meshlib.balance.settings import LoadBalancing, PrequalSettings
from tests.core import NOW, balanced_state, endpoints

SETTINGS = LoadBalancing(policy="prequal")


def members(count: int, weights: Sequence[float] | None = None) -> list[Member]:
    return [
        Member(endpoint, EndpointNode(), Load(NOW, 0.03, 10.0), EndpointHealth())
        for endpoint in endpoints(count, weights)
    ]


class OneUse(Random):
    """Rounds every number of uses down."""

    def random(self) -> float:
        return 0.0


class TwoUses(Random):
    """Rounds every number of uses up."""

    def random(self) -> float:
        return 0.999


def pool_of(
    said: Sequence[tuple[float, float]], *, servers: int = 100, **settings: Any
) -> tuple[ProbePool, list[Member]]:
    """A pool with these answers, (in flight, latency), one server each, and plenty of answers besides."""
    settings = {"probes": 0.1, "removals": 0.0, **settings}
    some, pool = members(len(said)), ProbePool(PrequalSettings(**settings), servers)
    for member, (in_flight, latency_s) in zip(some, said, strict=True):
        pool.add(member, in_flight, latency_s, NOW, OneUse())
    return pool, some


@pytest.mark.parametrize(
    ("said", "hot_percent", "best"),
    [
        ([(1, 0.009), (2, 0.004), (3, 0.008), (10, 0.001)], 70.0, 1),  # the last is hot, of the others the fastest
        ([(3, 0.001), (5, 0.00001), (7, 0.00001)], 0.0, 0),  # by what is in flight alone
        ([(30, 0.005), (1, 0.009), (2, 0.007)], 100.0, 0),  # by latency alone
        ([(0, 0.002), (0, 0.001)], 84.0, 1),
    ],
    ids=["hot and cold", "in flight alone", "latency alone", "idle"],
)
def test_picked_is_the_fastest_that_is_not_hot(said: list[tuple[float, float]], hot_percent: float, best: int) -> None:
    pool, some = pool_of(said, hot_percent=hot_percent)
    assert pool.pick(NOW, None) is some[best]


def test_where_all_are_hot_the_least_busy_is_picked() -> None:
    pool, some = pool_of([(0, 0.001)] * 20 + [(9, 0.001), (5, 0.1)], pool_size=22, hot_percent=50.0)
    hot = some[20:]
    assert pool.pick(NOW, lambda member: member in hot) is some[21]


def test_what_is_sent_counts_before_the_server_says_so() -> None:
    pool, some = ProbePool(PrequalSettings(hot_percent=0.0, removals=0.0), 32), members(2)
    for _ in range(8):
        pool.add(some[0], 0, 0.001, NOW, TwoUses())
        pool.add(some[1], 0, 0.002, NOW, TwoUses())
    assert pool.pick(NOW, None) is some[0]
    assert pool.pick(NOW, None) is some[1]  # the first has one in flight by now, so it is hot


def test_an_answer_lives_for_a_second_and_a_clock_that_goes_back_ends_it() -> None:
    pool, _ = pool_of([(0, 0.1)] * 4)
    assert pool.pick(NOW + 0.999, None) is not None
    assert pool.pick(NOW + 1.0, None) is None
    pool, _ = pool_of([(0, 0.1)] * 4)
    assert pool.pick(NOW - 3600, None) is None
    assert len(pool) == 0


def test_an_answer_serves_as_many_calls_as_it_may_and_of_one_there_is_no_choice() -> None:
    pool, _ = pool_of([(0, 0.1)] * 4)
    picked = [pool.pick(NOW, None) for _ in range(5)]
    assert len(set(map(id, picked[:3]))) == 3
    assert picked[3:] == [None, None]


@pytest.mark.parametrize(
    ("servers", "uses"),
    [(100, 2 / 1.52), (1000, 2 / (0.984 * 3 - 1)), (20, 1.0), (24, 1.0), (32, 1.5), (10**6, 1.0)],
    ids=str,
)
def test_how_often_an_answer_is_used_is_the_papers_formula_within_bounds(servers: int, uses: float) -> None:
    assert reuse(PrequalSettings(), servers) == pytest.approx(uses, rel=1e-4)


def test_a_newer_answer_replaces_the_older_and_a_full_pool_loses_its_oldest() -> None:
    pool, some = pool_of([(0, 0.1)] * 16)
    pool.add(some[0], 7, 0.2, NOW, OneUse())
    assert len(pool) == 16
    pool.add(members(1)[0], 0, 0.3, NOW, OneUse())
    assert len(pool) == 16
    picked = {id(pool.pick(NOW, None)) for _ in range(15)}
    assert id(some[1]) not in picked


def test_for_each_call_the_oldest_goes_or_the_worst() -> None:
    pool, some = pool_of(
        [(0, 0.001), (0, 0.01), (0, 0.3), (50, 0.0001), (0, 0.02), (0, 0.03)], removals=1.0, hot_percent=70.0
    )
    assert pool.pick(NOW, None) is not None  # the fastest but for the hot one, and with it goes ...
    left = [entry.member for entry in pool._entries]
    assert some[0] not in left
    assert some[1] not in left  # ... the oldest of those left
    pool.pick(NOW, None)
    assert [entry.member for entry in pool._entries] == [some[2], some[5]]  # the hot one went


def test_calls_keep_to_the_answers_that_there_are() -> None:
    pool, some = pool_of([(0, 0.1)] * 12, probes=3.0)
    assert sum(pool.pick(NOW, None) is not None for _ in range(10)) == 4
    pool.add(some[0], 0, 0.1, NOW, OneUse())
    assert pool.pick(NOW, None) is None
    for member in some[1:3]:
        pool.add(member, 0, 0.1, NOW, OneUse())
    assert pool.pick(NOW, None) is not None


def test_answers_to_calls_renew_what_is_there_and_add_nothing() -> None:
    pool, some = pool_of([(0, 0.1)] * 3)
    for member in (*some, *members(1)):
        member.load.reported = Reported()
    assert some[0].load.reported is not None
    pool.refresh(some[0].load.reported, 5, 0.2, NOW + 0.9)
    pool.refresh(Reported(), 0, 0.0, NOW + 0.9)
    assert len(pool) == 3
    assert pool.pick(NOW + 1.5, None) is None  # it alone is young enough
    assert len(pool) == 1


def test_who_failed_is_not_picked_for_being_fast() -> None:
    pool, some = pool_of([(0, 0.001), (0, 0.01), (0, 0.02)])
    some[0].load.failed(NOW, 0.0001, 0.01)
    assert pool.pick(NOW, None) is some[1]


def test_below_ten_endpoints_it_is_peak_ewma() -> None:
    assert type(prequal(members(9), SETTINGS, NOW, Random(1))).__name__ == "PeakEwma"
    assert isinstance(prequal(members(10), SETTINGS, NOW, Random(1)), Prequal)


class Prober:
    """Answers what a balancer asks for, at once."""

    def __init__(self, some: Sequence[Member], balancer: Prequal, says: Any) -> None:
        self.asked: list[Member] = []
        self.now = NOW
        reported = some[0].load.reported
        assert reported is not None
        assert reported.probing is not None
        self.probing = reported.probing
        self.probing.wake = self.wake
        self.says = says
        self.rng = Random(5)

    def wake(self) -> None:
        for pool, member in list(self.probing.take()):
            self.asked.append(member)
            pool.add(member, *self.says(member), self.now, self.rng)
        assert self.probing.rest()


def test_three_are_probed_for_each_call_all_alike_and_none_twice_at_once() -> None:
    some, rng = members(20), Random(1)
    balancer = Prequal(some, SETTINGS, NOW, rng)
    prober = Prober(some, balancer, lambda member: (0, 0.01))
    for turn in range(2000):
        before = len(prober.asked)
        balancer.pick(NOW + turn / 1000, rng, None)
        prober.now = NOW + turn / 1000
        assert len(set(map(id, prober.asked[before:]))) == 3
    asked = Counter(map(id, prober.asked))
    assert all(240 < asked[id(member)] < 360 for member in some)


def test_an_endpoint_of_twice_the_weight_is_probed_twice_as_often() -> None:
    some, rng = members(10, [2.0] * 5 + [1.0] * 5), Random(1)
    balancer = Prequal(some, LoadBalancing(prequal=PrequalSettings(probes=1.0)), NOW, rng)
    prober = Prober(some, balancer, lambda member: (0, 0.01))
    for _ in range(3000):
        balancer.pick(NOW, rng, None)
    asked = Counter(member.weight for member in prober.asked)
    assert asked[2.0] / asked[1.0] == pytest.approx(2.0, rel=0.1)


def test_who_has_nothing_to_say_is_left_alone_and_it_is_told() -> None:
    some, rng = members(20), Random(1)
    balancer = Prequal(some, SETTINGS, NOW, rng)
    assert stands_in(some, SETTINGS, NOW) is None
    for member in some[:11]:
        assert member.load.reported is not None
        member.load.reported.quiet_until = NOW + 60
    prober = Prober(some, balancer, lambda member: (0, 0.01))
    for _ in range(300):
        balancer.pick(NOW, rng, None)
    assert {some.index(member) for member in prober.asked} == set(range(11, 20))
    assert "11 of 20 endpoints do not say" in (stands_in(some, SETTINGS, NOW) or "")
    assert "fewer than 10" in (stands_in(some[:9], SETTINGS, NOW) or "")
    assert stands_in(some, SETTINGS, NOW + 61) is None


@pytest.mark.parametrize("count", [20, 100])
def test_a_server_that_says_it_is_idle_gets_what_probes_allow(count: int) -> None:
    """Of `probes` probes for a call each server has its part, and each answer serves `reuse` calls."""
    some, rng = members(count), Random(1)
    balancer = Prequal(some, SETTINGS, NOW, rng)

    def says(member: Member) -> tuple[float, float]:
        return (0.0, 0.0) if member is some[0] else (float(rng.randrange(1, 9)), rng.uniform(0.005, 0.05))

    prober = Prober(some, balancer, says)
    picked, calls = 0, 6000
    for turn in range(calls):
        prober.now = NOW + turn / 500
        member = balancer.pick(prober.now, rng, None)
        assert member is not None
        picked += member is some[0]
        if member is some[0] and member.load.reported is not None:  # it says so with every answer, too
            member.load.reported.read([(b"x-meshlib-load", b"in_flight=0, latency_ms=0.000")], prober.now)
    settings = SETTINGS.prequal
    assert picked / calls <= 1.2 * settings.probes * reuse(settings, count) / count


def test_no_server_has_less_in_flight_than_this_client_has_there() -> None:
    some, rng = members(20), Random(1)
    balancer = Prequal(some, SETTINGS, NOW, rng)
    prober = Prober(some, balancer, lambda member: (0.0 if member is some[0] else 3.0, 0.01))
    for _ in range(40):  # hung: none of its calls ends
        member = balancer.pick(NOW, rng, None)
        assert member is not None
        if member is some[0]:
            member.node.enter()
    had = some[0].node.in_flight
    prober.says = lambda member: (0.0, 0.0 if member is some[0] else 0.01)
    for _ in range(400):
        member = balancer.pick(NOW, rng, None)
        if member is some[0]:
            member.node.enter()
    assert had <= some[0].node.in_flight <= had + 4


def test_what_was_heard_outlasts_a_change_of_endpoints() -> None:
    state = balanced_state(LoadBalancing(policy="prequal", prequal=PrequalSettings(max_age_s=10.0)))
    everything, rng = endpoints(20), Random(1)
    cluster = state.view(everything, NOW, rng)
    for member in cluster.members[:5]:
        assert member.load.reported is not None
        member.load.reported.read([(b"x-meshlib-load", b"in_flight=2, latency_ms=5.0")], NOW + 1)
    balancer = state.view([*everything[1:], Endpoint("10.9.9.9", 80)], NOW + 2, rng).balancer
    assert isinstance(balancer, Prequal)
    assert len(balancer.pool) == 4
    probing = {id(member.load.reported.probing) for member in cluster.members if member.load.reported is not None}
    assert len(probing) == 1


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"in_flight=", b"in_flight=-1, latency_ms=1", b"in_flight=nan, latency_ms=1", b"in_flight=1"),
        *(b"in_flight=1, latency_ms=inf", b"in_flight=1, latency_ms=-1", b"in_flight=1.5, latency_ms=1", b"\xff" * 99),
        *(
            b"in_flight=1, latency_ms=1 ",
            b"in_flight=" + b"9" * 10**6 + b", latency_ms=1",
            b"in_flight=1, latency_ms=1e9",
        ),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_is_no_report_changes_nothing(value: bytes) -> None:
    said = Reported()
    assert parse_in_flight(value) is None
    assert not said.hear([(b"x-meshlib-load", value)], NOW)
    assert said.at == -math.inf


@given(st.integers(0, 10**12), st.floats(0, 1e12))
def test_what_is_written_is_read(in_flight: int, latency_s: float) -> None:
    found = parse_in_flight(write_in_flight(in_flight, latency_s))
    assert found is not None
    assert found[0] == min(in_flight, 999_999_999)
    assert found[1] == pytest.approx(min(latency_s, 999_999.999), rel=1e-3, abs=1e-6)


def test_a_server_with_orca_alone_is_heard_too() -> None:
    said = Reported()
    header = b"TEXT cpu_utilization=0.3, named_metrics.in_flight=4, named_metrics.latency_ms=20"
    assert said.hear([(b"Endpoint-Load-Metrics", header)], NOW)
    assert (said.in_flight, said.latency_s) == (4.0, 0.02)
    assert not said.hear([(b"endpoint-load-metrics", b"TEXT cpu_utilization=0.3")], NOW + 1)


def test_threads_pick_and_answer_at_once() -> None:
    some, problems = members(40), []
    balancer = Prequal(some, SETTINGS, NOW, Random(1))

    def work(seed: int) -> None:
        rng = Random(seed)
        try:
            for turn in range(400):
                member = balancer.pick(NOW + turn / 100, rng, None)
                assert member is not None
                balancer.pool.add(rng.choice(some), rng.randrange(9), rng.random(), NOW + turn / 100, rng)
                if member.load.reported is not None:
                    member.load.reported.read([(b"x-meshlib-load", b"in_flight=1, latency_ms=5")], NOW + turn / 100)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert len(balancer.pool) <= 16
