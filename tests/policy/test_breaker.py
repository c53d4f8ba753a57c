"""The circuit breaker: when it opens, what it lets through, and how it closes."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.endpoint import Endpoint, Health
from meshlib.dataclass import replace
from meshlib.policy.breaker import LEASE_S, PATIENCE_S, Breaker, BreakerProbe, BreakerState, Rejected
from meshlib.policy.settings import BreakerSettings, CallPolicy, RetryPolicy
from meshlib.sim.network import SimEndpoint, constant
from tests.core import NOW, Bench, cluster_state, simulation


def opened(settings: BreakerSettings = BreakerSettings()) -> Breaker:
    breaker = Breaker(settings, NOW - 1)
    for _ in range(20):
        breaker.call_ended(NOW, False)
    assert breaker.state is BreakerState.OPEN
    return breaker


def probe_of(breaker: Breaker, now: float, repeatable: bool = True) -> BreakerProbe:
    probe = breaker.admit(now, repeatable)
    assert isinstance(probe, BreakerProbe)
    return probe


def test_it_opens_at_half_of_at_least_twenty() -> None:
    breaker = Breaker(BreakerSettings(), NOW)
    assert not any(breaker.call_ended(NOW, False) for _ in range(19))
    assert breaker.call_ended(NOW, False)
    assert isinstance(breaker.admit(NOW, True), Rejected)


def test_successes_within_half_a_window_keep_it_closed() -> None:
    breaker = Breaker(BreakerSettings(), NOW)
    for _ in range(10):
        breaker.call_ended(NOW, True)
    for _ in range(30):
        breaker.call_ended(NOW + 4.9, False)
    assert breaker.closed
    assert breaker.call_ended(NOW + 5.0, False)


def test_less_than_half_failing_keeps_it_closed() -> None:
    breaker = Breaker(BreakerSettings(), NOW)
    for _ in range(40):
        breaker.call_ended(NOW, True)
    assert not any(breaker.call_ended(NOW + 8, False) for _ in range(39))
    assert breaker.call_ended(NOW + 8, False)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    breaker = Breaker(BreakerSettings(), NOW)
    for _ in range(19):
        breaker.call_ended(NOW, False)
    assert not breaker.call_ended(NOW + 11, False)
    assert repr(breaker) == "<Breaker closed, 1 of 1 failed>"


def test_an_attempt_that_succeeds_counts_though_its_call_did_not_end() -> None:
    breaker = Breaker(BreakerSettings(), NOW)
    breaker.attempt_succeeded(NOW)
    for _ in range(30):
        breaker.call_ended(NOW + 1, False)
    assert breaker.closed


def test_a_broken_route_of_a_healthy_service_does_not_open_it() -> None:
    """Three of four calls go to an operation that answers 503; the fourth works."""
    sim = simulation([SimEndpoint(constant(0.01), fail_percent=75) for _ in range(3)], outlier=None)
    sim.load(50, 60)
    assert sim.state.breaker is not None
    assert sim.state.breaker.changes == 0
    assert sim.outcomes()["CircuitOpen"] == 0


def test_a_service_that_is_down_is_left_alone_until_it_is_back() -> None:
    parts = [SimEndpoint(constant(0.01), fail_percent=100) for _ in range(3)]
    sim = simulation(parts)
    sim.load(50, 60)
    assert sum(part.attempts for part in parts) < 300
    assert sim.outcomes()["CircuitOpen"] > 2500
    for part in parts:
        part.fail_percent = 0
    sim.records.clear()
    sim.load(50, 90)
    assert sim.state.breaker is not None
    assert sim.state.breaker.closed
    assert [record.outcome for record in sim.records[-500:]] == ["success"] * 500


def test_a_fleet_that_refuses_connections_is_found_to_be_back_sooner_than_one_that_does_not_answer() -> None:
    def back_s(ill: str) -> float:
        parts = [SimEndpoint(), SimEndpoint()]
        sim = simulation(parts, policy=CallPolicy(timeout_s=1.0))
        for part in parts:
            setattr(part, ill, True)
            sim.clock.at(NOW + 120.0, partial(setattr, part, ill, False))
        sim.load(20, 200)
        return min(sim.tally.good) - (NOW + 120.0)

    assert back_s("refuses") <= 6.0 < back_s("hung") <= 61.0


@pytest.mark.parametrize("what", ["another address", "healthy again", "the same address again", "nothing new"])
def test_a_deploy_that_mends_a_service_is_found_at_once(what: str) -> None:
    sim = simulation([SimEndpoint(fail_percent=100), SimEndpoint(fail_percent=100)])
    one, other = (member.endpoint for member in sim.cluster.members)
    ill = replace(one, health=Health.UNHEALTHY)
    listed = {"healthy again": [ill, other], "the same address again": [other]}.get(what, [one, other])
    sim.cluster = sim.state.view(listed, NOW, sim.rng)
    sim.load(20, 60)
    breaker = sim.state.breaker
    assert breaker is not None
    assert breaker.open_for(sim.clock.now) > 5.0
    after = {"another address": [one, Endpoint("10.0.1.1", 80)], "nothing new": [other, one]}.get(what, [one, other])
    sim.cluster = sim.state.view(after, sim.clock.now, sim.rng)
    assert (breaker.open_for(sim.clock.now) == 0.0) == (what != "nothing new")


def test_one_probe_at_a_time_and_its_success_closes() -> None:
    breaker = opened()
    assert isinstance(breaker.admit(NOW + 4.99, True), Rejected)
    probe = probe_of(breaker, NOW + 5)
    assert breaker.state is BreakerState.HALF_OPEN
    assert isinstance(breaker.admit(NOW + 5, True), Rejected)
    assert breaker.would_reject(NOW + 5)
    probe.succeeded(NOW + 5.1)
    assert breaker.admit(NOW + 5.1, False) is None
    probe.failed(NOW + 6)
    assert breaker.closed, "a probe is judged once"


def test_the_time_open_doubles_to_a_minute_and_starts_anew_after_a_success() -> None:
    breaker, now, waits = opened(), NOW, []
    for _ in range(6):
        waits.append(breaker.open_for(now))
        now += waits[-1]
        probe_of(breaker, now).failed(now)
    assert waits == [5, 10, 20, 40, 60, 60]
    now += 60
    probe_of(breaker, now).succeeded(now)
    for _ in range(20):
        breaker.call_ended(now, False)
    assert breaker.open_for(now) == 5


def test_where_the_callee_sheds_load_it_is_open_for_a_moment_and_doubles_only_when_that_was_long_ago() -> None:
    breaker, now, waits = Breaker(BreakerSettings(), NOW - 1), NOW, []
    breaker.callee_sheds(NOW)
    for _ in range(20):
        breaker.call_ended(NOW, False)
    while sum(waits) < 70:
        waits.append(breaker.open_for(now))
        now += waits[-1]
        probe_of(breaker, now).failed(now)
    assert waits == [1.0] * 61 + [10.0]  # a minute after the last refusal, as for any callee
    breaker.callee_sheds(now)
    probe_of(breaker, now + 20).failed(now + 20)
    assert breaker.open_for(now + 20) == 1.0


def test_a_pause_that_is_short_by_itself_is_not_made_longer_where_the_callee_sheds_load() -> None:
    breaker = Breaker(BreakerSettings(open_for_s=0.5), NOW - 1)
    breaker.callee_sheds(NOW)
    for _ in range(20):
        breaker.call_ended(NOW, False)
    assert breaker.open_for(NOW) == 0.5


def test_a_refusal_by_the_callees_mesh_makes_pauses_short_and_any_other_503_does_not() -> None:
    def pause_s(*answer: tuple[bytes, bytes]) -> float:
        state = cluster_state(breaker=BreakerSettings(min_calls=1))
        bench = Bench(states=[state], retry=RetryPolicy(max_retries=0))
        bench.call.begin(NOW)
        bench.call.headers(NOW, 1, 503, answer=answer)
        assert state.breaker is not None
        return state.breaker.open_for(NOW)

    assert pause_s((b"x-meshlib-refused", b"overload")) == 1.0
    assert pause_s((b"x-envoy-overloaded", b"true")) == 5.0


def test_a_new_endpoint_is_probed_at_once_and_the_time_open_starts_anew() -> None:
    breaker, now = opened(), NOW
    for open_for_s in (5.0, 10.0, 20.0):
        now += open_for_s
        probe_of(breaker, now).failed(now)
    assert isinstance(breaker.admit(now, True), Rejected)
    breaker.endpoints_changed(now)
    probe_of(breaker, now).failed(now)
    assert breaker.open_for(now) == 10.0
    breaker.endpoints_changed(now + 1.0)
    probe_of(breaker, now + 1.0).succeeded(now + 1.0)
    breaker.endpoints_changed(now + 1.0)
    assert breaker.closed


def test_an_abandoned_probe_is_handed_on_without_punishment() -> None:
    breaker = opened()
    probe_of(breaker, NOW + 5).abandoned()
    probe_of(breaker, NOW + 5).abandoned()
    assert breaker.open_for(NOW + 5) == 0


def test_a_call_that_cannot_be_repeated_probes_only_when_no_other_comes() -> None:
    breaker = opened()
    assert isinstance(breaker.admit(NOW + 5, False), Rejected)
    probe_of(breaker, NOW + 5 + PATIENCE_S, repeatable=False)


def test_a_probe_that_hangs_is_passed_over_and_counts_no_more() -> None:
    breaker = opened()
    hung = probe_of(breaker, NOW + 5)
    assert isinstance(breaker.admit(NOW + 5 + LEASE_S - 0.1, True), Rejected)
    second = probe_of(breaker, NOW + 5 + LEASE_S)
    hung.failed(NOW + 40)
    assert breaker.open_for(NOW + 40) == 0
    hung.abandoned()
    second.succeeded(NOW + 41)
    assert breaker.closed


@pytest.mark.parametrize("jump", [-1e6, -100.0])
def test_a_clock_that_goes_back_does_not_lock_it(jump: float) -> None:
    breaker = opened()
    probe_of(breaker, NOW + jump).succeeded(NOW + jump)
    breaker.attempt_succeeded(NOW)
    for _ in range(40):
        breaker.call_ended(NOW + jump, False)
    assert breaker.closed
    assert breaker.call_ended(NOW + jump + 5, False)


def test_after_a_fork_a_lease_of_the_parent_does_not_bind() -> None:
    breaker = opened()
    probe_of(breaker, NOW + 5)
    breaker.renew_lock()
    probe_of(breaker, NOW + 5)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["good", "bad", "admit", "succeed", "fail", "abandon", "attempt", "shed"]),
            st.one_of(st.floats(0, 20), st.floats(-100, 0)),
        ),
        max_size=80,
    )
)
def test_in_any_order_of_events_there_is_at_most_one_probe_and_a_way_back(events: list[tuple[str, float]]) -> None:
    breaker, now, latest = Breaker(BreakerSettings(min_calls=2), NOW), NOW, NOW
    probes: list[BreakerProbe] = []
    for event, step in events:
        now += step
        latest = max(latest, now)
        match event:
            case "good" | "bad":
                breaker.call_ended(now, event == "good")
            case "attempt":
                breaker.attempt_succeeded(now)
            case "shed":
                breaker.callee_sheds(now)
            case "admit":
                answer = breaker.admit(now, True)
                if isinstance(answer, BreakerProbe):
                    probes.append(answer)
                elif isinstance(answer, Rejected):
                    assert 0 <= answer.retry_after_s <= 60
            case "succeed" if probes:
                probes.pop().succeeded(now)
            case "fail" if probes:
                probes.pop().failed(now)
            case "abandon" if probes:
                probes.pop().abandoned()
    answer = breaker.admit(latest + 60 + LEASE_S, True)
    assert not isinstance(answer, Rejected)


def test_threads_get_one_probe_among_them() -> None:
    breaker = opened()
    probes: list[BreakerProbe] = []
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait()
        for _ in range(200):
            answer = breaker.admit(NOW + 5, True)
            if isinstance(answer, BreakerProbe):
                probes.append(answer)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(probes) == 1
    assert breaker.rejected == 16 * 200 - 1


class _Alarm(BaseException):
    pass


@pytest.mark.xfail(
    sys.version_info[:2] == (3, 14),
    strict=False,
    reason="`with lock` of Python 3.14 can be left so: CPython's issue 148874",
)
def test_what_a_signals_handler_raises_leaves_no_lock_held() -> None:
    """As Ctrl-C does, or a time limit by a signal: every further call would wait for ever."""
    breaker, rng, raised = Breaker(BreakerSettings(), NOW), Random(1), 0

    def handler(*_: object) -> None:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(100):
            with suppress(_Alarm):
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + rng.random() * 1e-3)
                for _ in range(1_000_000):
                    breaker.call_ended(NOW, True)
            raised += 1
            assert not breaker._lock.locked(), f"after {raised}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
