"""The gates of a cluster, asked by real calls, in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from meshlib.balance.cluster import ClusterState
from meshlib.context import Criticality, Scope
from meshlib.context import scoped as scoped_context
from meshlib.errors import AttemptTimeout, CircuitOpen, LimitExceeded, RateLimited, Reset
from meshlib.policy.adaptive import AdaptiveGate, Windowed
from meshlib.policy.admission_settings import (
    AimdSettings,
    BulkheadSettings,
    FleetRateSettings,
    GcraSettings,
    Gradient2Settings,
    GradientSettings,
    KeySource,
    NackSettings,
    RateLimitSettings,
    SuccessRateThrottleSettings,
    ThrottleSettings,
    VegasSettings,
)
from meshlib.policy.bulkhead import Bulkhead
from meshlib.policy.call import Call
from meshlib.policy.fleet_gate import FleetRateGate
from meshlib.policy.gates import make_gates
from meshlib.policy.limit import InFlightLimit, Waiter
from meshlib.policy.priority_limit import PriorityLimit
from meshlib.policy.settings import HighLimitSettings, LimitSettings, RetryPolicy
from meshlib.policy.traits import Traits, read_traits, readers_of
from meshlib.routing.match import RequestView
from tests.core import NOW, Bench, failure_of, start_of

NO_RETRY = RetryPolicy(max_retries=0)


def bench_of(
    limits: LimitSettings = LimitSettings(),
    *,
    throttle: Any = None,
    bulkhead: BulkheadSettings | None = None,
    rate_limit: RateLimitSettings | None = None,
    last: Any = (),
    **settings: Any,
) -> Bench:
    gates = make_gates(limits, throttle, bulkhead, rate_limit, NOW, Random(1), (), last)
    state = ClusterState("orders", now=NOW, limit=gates.limit, before=gates.before, after=gates.after, breaker=None)
    return Bench(states=[state], retry=NO_RETRY, **settings)


def call_of(bench: Bench, *, headers: dict[str, str] | None = None, **facts: Any) -> Call:
    """A further call, its traits read of a request."""
    call = bench.another(**facts)
    readers = readers_of(call.facts.policy, bench.states, bench.rng)
    if readers:
        call.traits = read_traits(readers, RequestView("GET", "/", "", headers or {}))
    return call


def gate_of(bench: Bench, name: str) -> Any:
    return next(gate for gate in bench.states[0].gates or () if gate.name == name)


def end(call: Call, now: float, status: int = 200) -> None:
    call.headers(now, 1, status)
    call.body_end(now, 1)


@contextmanager
def criticality(value: Criticality) -> Iterator[None]:
    with scoped_context(lambda _: Scope(criticality=value)):
        yield


def test_a_cluster_with_a_plain_limit_alone_has_no_gates() -> None:
    assert bench_of(LimitSettings(max_in_flight=3)).states[0].gates is None
    assert readers_of(bench_of().policy, bench_of().states, Random(1)) == ()


# The limit


def test_a_call_waits_in_line_no_longer_than_it_may() -> None:
    bench = bench_of(LimitSettings(max_in_flight=1, max_wait_s=0.5))
    start_of(bench.call.begin(NOW))
    second = bench.another()
    assert second.begin(NOW) == []
    assert second.next_wakeup == NOW + 0.5
    error = failure_of(second.timer(NOW + 0.5))
    assert isinstance(error, LimitExceeded)
    assert "max_wait" in str(error)
    record = second.record(NOW + 1)
    assert (record.refused_by, record.waits[0].reason) == ("limit", "limit")
    assert bench.states[0].limit.pending == 0
    end(bench.call, NOW + 1)
    assert bench.states[0].limit.in_flight == 0


def test_a_place_granted_just_as_the_wait_ends_is_taken() -> None:
    bench = bench_of(LimitSettings(max_in_flight=1, max_wait_s=0.5))
    start_of(bench.call.begin(NOW))
    second = bench.another()
    second.begin(NOW)
    end(bench.call, NOW + 0.5)
    start_of(second.timer(NOW + 0.5))
    end(second, NOW + 1)
    assert bench.states[0].limit.in_flight == 0


@pytest.mark.parametrize(("order", "expected"), [("fifo", [0, 1, 2]), ("lifo", [2, 1, 0])])
def test_who_gets_a_place_that_falls_free(order: Any, expected: list[int]) -> None:
    limit = InFlightLimit(LimitSettings(max_in_flight=1, order=order))
    limit.enter()
    got: list[int] = []
    for index in range(3):
        waiter = limit.enter()
        assert isinstance(waiter, Waiter)
        waiter.on_ready(lambda index=index: got.append(index))  # type: ignore[misc]
    for _ in range(4):
        limit.exit()
    assert (got, limit.in_flight) == (expected, 0)


def test_a_limit_that_grows_lets_in_those_who_wait_and_one_that_shrinks_throws_nobody_out() -> None:
    limit = InFlightLimit(LimitSettings(max_in_flight=2))
    for _ in range(2):
        limit.enter()
    waiters = [limit.enter() for _ in range(3)]
    limit.resize(4)
    assert [isinstance(each, Waiter) and each.granted for each in waiters] == [True, True, False]
    assert limit.in_flight == 4
    limit.resize(1)
    for _ in range(3):
        limit.exit()
    assert (limit.in_flight, limit.pending) == (1, 1)
    limit.exit()
    assert (limit.in_flight, limit.pending) == (1, 0), "handed on"
    limit.exit()
    assert limit.in_flight == 0


def test_calls_with_high_priority_have_places_of_their_own() -> None:
    high = HighLimitSettings(max_in_flight=1, max_pending=0)
    bench = bench_of(LimitSettings(max_in_flight=1, max_pending=0, high=high))
    limit = bench.states[0].limit
    assert isinstance(limit, PriorityLimit)
    first = call_of(bench)
    start_of(first.begin(NOW))
    assert isinstance(failure_of(call_of(bench).begin(NOW)), LimitExceeded)
    with criticality(Criticality.CRITICAL_PLUS):
        urgent, other = call_of(bench), call_of(bench)
    start_of(urgent.begin(NOW))
    refused = failure_of(other.begin(NOW))
    assert isinstance(refused, LimitExceeded)
    assert (limit.in_flight, limit.high.in_flight, limit.rejected) == (2, 1, 2)
    end(urgent, NOW)
    start_of(call_of(bench, policy=bench.policy.__replace__(priority="high")).begin(NOW))  # type: ignore[attr-defined]
    assert limit.high.in_flight == 1
    end(first, NOW)
    assert limit.in_flight == 1


# The bulkhead


def parts_of(hard: bool = False, **percents: float) -> BulkheadSettings:
    return BulkheadSettings(KeySource("route"), percents, hard)


def test_the_shares_of_netflixs_partitioned_limiter() -> None:
    # concurrency-limits, AbstractPartitionedLimiterTest: limitAllocatedToBins, setLimitReservesBusy
    bulkhead = Bulkhead(LimitSettings(max_in_flight=10), parts_of(batch=30, live=70))
    assert (bulkhead.share("batch"), bulkhead.share("live")) == (3, 7)
    assert bulkhead.take("batch")
    bulkhead.resize(20)
    assert (bulkhead.share("batch"), bulkhead.taken["batch"], bulkhead.in_flight) == (6, 1, 1)


def test_a_part_may_use_what_others_leave_and_each_has_its_share_all_the_same() -> None:
    # useExcessCapacityUntilTotalLimit, exceedTotalLimitForUnusedBin, releaseLimit
    bulkhead = Bulkhead(LimitSettings(max_in_flight=10), parts_of(batch=30, live=70))
    assert [bulkhead.take("batch") for _ in range(11)] == [True] * 10 + [False]
    assert [bulkhead.take("live") for _ in range(8)] == [True] * 7 + [False]
    assert (bulkhead.in_flight, bulkhead.taken) == (17, {"batch": 10, "live": 7, "": 0})
    for _ in range(8):
        bulkhead.give("batch")
    assert bulkhead.take("batch")
    assert bulkhead.rejected == 2


def test_once_all_is_taken_each_part_is_full() -> None:
    # rejectOnceAllLimitsReached
    bulkhead = Bulkhead(LimitSettings(max_in_flight=10), parts_of(batch=30, live=70))
    assert all(bulkhead.take("batch") for _ in range(3))
    assert all(bulkhead.take("live") for _ in range(7))
    assert not bulkhead.take("batch")
    assert not bulkhead.take("live")
    assert not bulkhead.take(""), "a call of no part has no share"


def test_a_hard_bulkhead_keeps_what_it_keeps() -> None:
    bulkhead = Bulkhead(LimitSettings(max_in_flight=10), parts_of(True, batch=30, live=50))
    assert [bulkhead.take("batch") for _ in range(4)] == [True] * 3 + [False]
    assert [bulkhead.take("") for _ in range(3)] == [True, True, False]
    assert [bulkhead.take("live") for _ in range(6)] == [True] * 5 + [False]
    assert bulkhead.in_flight == 10


def test_calls_are_refused_by_the_bulkhead_with_the_numbers_of_their_part() -> None:
    bench = bench_of(LimitSettings(max_in_flight=2), bulkhead=BulkheadSettings(KeySource("header", "kind"), {"a": 50}))
    running = [call_of(bench, headers={"kind": "b"}) for _ in range(2)]
    for call in running:
        start_of(call.begin(NOW))
    one_more, own = call_of(bench, headers={"kind": "b"}), call_of(bench, headers={"kind": "a"})
    error = failure_of(one_more.begin(NOW))
    assert (error.gate, one_more.record(NOW).refused_by) == ("bulkhead", "bulkhead")
    assert "2 of 2 calls are in flight" in str(error)
    start_of(own.begin(NOW))
    assert bench.states[0].limit.in_flight == 3
    for call in (*running, own):
        end(call, NOW)
    assert (bench.states[0].limit.in_flight, gate_of(bench, "bulkhead").taken) == (0, {"a": 0, "": 0})


# Adaptive


@pytest.mark.parametrize(
    "settings",
    [
        GradientSettings(min_limit=2, min_rtt_calls=5, update_interval_s=0.1),
        VegasSettings(initial_limit=5),
        Gradient2Settings(initial_limit=5, min_limit=2, window_s=0.05),
        AimdSettings(initial_limit=5, min_limit=2),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_each_algorithm_finds_a_limit_near_what_a_service_can_do(settings: Any) -> None:
    # It does ten calls at a time in 10 ms each; more than that queue, and their latency grows.
    bench = bench_of(LimitSettings(adaptive=settings))
    limit, rng, now = bench.states[0].limit, Random(3), NOW
    running: list[tuple[float, Call]] = []
    seen: list[int] = []
    free = [NOW] * 10
    for step in range(12_000):
        now += 0.00035  # nearly three thousand calls per second: three times too many
        while running and running[0][0] <= now:
            at, call = running.pop(0)
            end(call, at)
        call = bench.another()
        if not call.begin(now) or call.attempts == []:
            continue
        worker = min(range(10), key=free.__getitem__)
        free[worker] = max(free[worker], now) + rng.uniform(0.009, 0.011)
        running.append((free[worker], call))
        running.sort(key=lambda each: each[0])
        if step > 8_000:
            seen.append(limit.maximum or 0)
    average = sum(seen) / len(seen)
    most = {"GradientSettings": 40, "VegasSettings": 40, "Gradient2Settings": 60, "AimdSettings": 200}
    assert 5 <= average <= most[type(settings).__name__], average


def test_declined_calls_and_timeouts_shrink_an_aimd_limit_and_let_nobody_wait() -> None:
    bench = bench_of(LimitSettings(adaptive=AimdSettings(initial_limit=30, min_limit=1, max_limit=50)))
    limit = bench.states[0].limit
    assert (limit.maximum, limit.max_pending) == (30, 0)
    end_of = call_of(bench)
    end_of.begin(NOW)
    end(end_of, NOW, 503)
    assert limit.maximum == 27
    lost = call_of(bench)
    lost.begin(NOW)
    lost.error(NOW, 1, AttemptTimeout("x"), "headers")
    assert limit.maximum == 24
    gone = call_of(bench)
    gone.begin(NOW)
    gone.cancelled(NOW)
    assert limit.maximum == 24


def test_max_in_flight_bounds_what_an_algorithm_may_find() -> None:
    bench = bench_of(LimitSettings(max_in_flight=7, adaptive=AimdSettings(initial_limit=20)))
    assert bench.states[0].limit.maximum == 7


def test_a_window_sums_its_attempts_up() -> None:
    class Spy:
        limit = 1

        def __init__(self) -> None:
            self.seen: list[tuple[float, int, bool]] = []

        def advance(self, now: float) -> None: ...

        def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
            self.seen.append((latency_s, in_flight, dropped))

    spy = Spy()
    windowed = Windowed(spy, 1.0)
    windowed.ended(10.0, 9.9, 0.1, 1, False)  # ends the first window, with one sample only
    for index in range(11):
        windowed.ended(10.1 + index / 100, 10.0, 0.01 * (index + 1), index, index == 3)
    windowed.ended(10.5, 10.0, 0.00001, 99, True)
    assert spy.seen == []
    windowed.ended(11.1, 11.0, 0.12, 5, False)
    assert spy.seen == [(pytest.approx(0.065), 10, True)]


class Fixed:
    """An algorithm that has found its limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def advance(self, now: float) -> None: ...

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None: ...


def test_of_two_limits_that_an_adaptive_gate_sets_at_once_the_last_holds() -> None:
    class Meanwhile(InFlightLimit):
        """While the first thread sets its limit, another learns of a better one and sets that."""

        def resize(self, maximum: int) -> None:
            if maximum == 5:
                gate._algorithm = Fixed(6)
                super().resize(6)
            super().resize(maximum)

    limit = Meanwhile(LimitSettings(), 0)
    gate = AdaptiveGate(AimdSettings(initial_limit=4, min_limit=1, max_limit=8), limit, None, NOW, Random(1))
    gate._algorithm = Fixed(5)
    gate.ask(NOW, bench_of().another())
    assert limit.maximum == 6


def test_an_adaptive_limit_is_exact_under_sixteen_threads() -> None:
    limit = InFlightLimit(LimitSettings(), 0)
    gate = AdaptiveGate(AimdSettings(initial_limit=4, min_limit=1, max_limit=8), limit, None, NOW, Random(1))
    bench = bench_of()
    over: list[int] = []

    def work(seed: int) -> None:
        rng = Random(seed)
        for _ in range(200):
            call = bench.another()
            gate.ask(NOW, call)
            if limit.enter() is None:
                if limit.in_flight > 8:
                    over.append(limit.in_flight)
                call.begin(NOW)
                end(call, NOW + rng.random() / 100, 503 if rng.random() < 0.1 else 200)
                gate.judged(NOW, call, True)
                limit.exit()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (limit.in_flight, limit.pending, over) == (0, 0, [])
    assert limit.maximum is not None
    assert 1 <= limit.maximum <= 8


# The throttle


@pytest.mark.parametrize(
    "settings", [ThrottleSettings(min_calls=0), SuccessRateThrottleSettings(), NackSettings(rps_threshold=0)]
)
def test_a_service_that_declines_is_spared(settings: Any) -> None:
    bench = bench_of(throttle=settings)
    refused = 0
    for index in range(200):
        call = call_of(bench)
        now = NOW + index * 3
        if call.begin(now) and call.attempts:
            end(call, now + 0.01, 503)
        else:
            refused += 1
            assert call.record(now).refused_by == "throttle"
    assert refused > 50
    assert gate_of(bench, "throttle").rejected == refused
    assert bench.states[0].limit.in_flight == 0


def test_an_error_of_the_application_is_no_overload() -> None:
    bench = bench_of(throttle=ThrottleSettings(min_calls=0))
    for _ in range(50):
        call = call_of(bench)
        start_of(call.begin(NOW))
        end(call, NOW, 500)


def test_lost_calls_count_as_declined_and_cancelled_ones_not_at_all() -> None:
    bench = bench_of(throttle=ThrottleSettings(min_calls=0))
    for _ in range(20):
        call = call_of(bench)
        start_of(call.begin(NOW))
        call.cancelled(NOW)
    throttle = gate_of(bench, "throttle").throttle
    assert repr(throttle) == "<Throttle 0 accepted of 0>"
    call = call_of(bench)
    call.begin(NOW)
    call.error(NOW, 1, Reset("x"), "headers")
    assert repr(throttle) == "<Throttle 0 accepted of 1>"


def test_the_criticality_of_the_work_decides_who_is_throttled() -> None:
    bench = bench_of(throttle=ThrottleSettings(k=1.0, min_calls=0, max_rejection_percent=100.0))
    gate = gate_of(bench, "throttle")
    for _ in range(100):
        gate.throttle.ended(NOW, Criticality.SHEDDABLE, False)
        gate.throttle.ended(NOW, Criticality.CRITICAL, True)
    with criticality(Criticality.SHEDDABLE):
        low = call_of(bench)
    error = failure_of(low.begin(NOW))
    assert (error.gate, "sheddable" in str(error)) == ("throttle", True)
    start_of(call_of(bench).begin(NOW))


# The rate limit


def test_a_call_beyond_the_rate_is_refused_and_says_when_to_come_back() -> None:
    bench = bench_of(LimitSettings(max_in_flight=5), rate_limit=RateLimitSettings(total=GcraSettings(2, 1)))
    start_of(call_of(bench).begin(NOW))
    refused = call_of(bench)
    error = failure_of(refused.begin(NOW + 0.1))
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(0.4)
    assert str(error) == (
        "orders: its rate limit was reached (2 calls per second, 1 at once in all); the next call may be made in 0.4s"
    )
    assert refused.record(NOW).refused_by == "rate-limit"
    assert bench.states[0].limit.in_flight == 1, "its place is given back"
    assert bench.budget.tokens == 20


def test_a_call_may_wait_for_its_turn_and_one_that_gives_up_leaves_it_to_others() -> None:
    bench = bench_of(rate_limit=RateLimitSettings(total=GcraSettings(10, 1), max_wait_s=1.0))
    start_of(call_of(bench).begin(NOW))
    second, third = call_of(bench), call_of(bench)
    assert second.begin(NOW) == third.begin(NOW) == []
    assert (second.next_wakeup, third.next_wakeup) == (pytest.approx(NOW + 0.1), pytest.approx(NOW + 0.2))
    third.cancelled(NOW + 0.05)
    fourth = call_of(bench)
    fourth.begin(NOW + 0.05)
    assert fourth.next_wakeup == pytest.approx(NOW + 0.2)
    start_of(second.timer(NOW + 0.1001))
    start_of(fourth.timer(NOW + 0.2001))
    assert second.record(NOW + 1).waits[0].reason == "rate-limit"
    soon = call_of(bench, deadline=NOW + 0.22)
    assert isinstance(failure_of(soon.begin(NOW + 0.21)), RateLimited), "its deadline is before its turn"


def test_routes_and_headers_tell_callers_apart() -> None:
    rates = RateLimitSettings(by=KeySource("header", "x-user"), each=GcraSettings(1, 1))
    bench = bench_of(rate_limit=rates)
    for user in ("a", "b"):
        start_of(call_of(bench, headers={"x-user": user}).begin(NOW))
    assert isinstance(failure_of(call_of(bench, headers={"x-user": "a"}).begin(NOW)), RateLimited)
    by_route = bench_of(rate_limit=RateLimitSettings(by=KeySource("route"), overrides={"default": GcraSettings(1, 1)}))
    start_of(call_of(by_route).begin(NOW))
    assert isinstance(failure_of(call_of(by_route).begin(NOW)), RateLimited)


# What the fleet shares


class _Errand:
    def __init__(self, result: float | None = None) -> None:
        self.result = result
        self.left = False

    def on_ready(self, callback: Any) -> None: ...

    def leave(self) -> None:
        self.left = True


class _Store:
    max_wait_s = 0.02

    def __init__(self) -> None:
        self.answer: _Errand | None = _Errand()
        self.asked: list[tuple[str, float, int]] = []

    def take(self, name: str, interval_s: float, burst: int) -> _Errand | None:
        self.asked.append((name, interval_s, burst))
        return self.answer


def test_the_fleets_answer_is_waited_for_and_without_one_the_call_goes_on() -> None:
    store = _Store()
    gate = FleetRateGate(FleetRateSettings(50, 5), "orders", store)
    bench = bench_of(last=[gate])
    first = call_of(bench, explain=True)
    assert first.begin(NOW) == []
    assert (first.next_wakeup, store.asked) == (NOW + 0.02, [("orders", 0.02, 5)])
    assert store.answer is not None
    store.answer.result = 0.0
    start_of(first.woken(NOW + 0.001))

    store.answer = _Errand()
    late = call_of(bench, explain=True)
    late.begin(NOW)
    start_of(late.timer(NOW + 0.02))
    assert (gate.failed_open, store.answer.left) == (1, True)
    assert any("no answer in time" in reason for reason in late.record(NOW).why)

    store.answer = _Errand(None)
    broken = call_of(bench)
    broken.begin(NOW)
    start_of(broken.woken(NOW))
    store.answer = None
    start_of(call_of(bench).begin(NOW))
    assert gate.failed_open == 3

    store.answer = _Errand(0.25)
    refused = call_of(bench)
    refused.begin(NOW)
    error = failure_of(refused.woken(NOW))
    assert (error.retry_after_s, gate.rejected, refused.record(NOW).refused_by) == (0.25, 1, "fleet-rate-limit")


def test_a_fork_leaves_nothing_held() -> None:
    bench = bench_of(
        LimitSettings(max_in_flight=3, high=HighLimitSettings(max_in_flight=1)),
        throttle=ThrottleSettings(),
        rate_limit=RateLimitSettings(total=GcraSettings(5, 5)),
    )
    start_of(call_of(bench).begin(NOW))
    bench.states[0].renew_locks()
    assert bench.states[0].limit.in_flight == 0
    start_of(call_of(bench).begin(NOW))


def test_refusals_are_no_outcomes_of_the_service() -> None:
    bench = bench_of(rate_limit=RateLimitSettings(total=GcraSettings(1e-3, 1)), throttle=ThrottleSettings())
    start_of(call_of(bench).begin(NOW))
    for _ in range(10):
        assert not isinstance(failure_of(call_of(bench).begin(NOW)), CircuitOpen)
    assert repr(gate_of(bench, "throttle").throttle) == "<Throttle 0 accepted of 0>"
    assert Traits().keys is None
