"""A call with an injected fault, in virtual time."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from meshlib.errors import DeadlineExceeded, Reset
from meshlib.policy.actions import Reply, Start
from meshlib.policy.call import Call, CallState
from meshlib.policy.facts import CallFacts
from meshlib.policy.fault import AbortSettings, ActiveFaults, DelaySettings, FaultSettings
from meshlib.policy.settings import CallPolicy
from meshlib.policy.traits import read_traits, readers_of
from meshlib.routing.match import RequestView
from meshlib.routing.route import Backend, Route
from tests.core import NOW, Bench, failure_of, start_of

DELAY = FaultSettings(DelaySettings(2.0, 100))
ABORT = FaultSettings(abort=AbortSettings(503, percent=100))
BOTH = FaultSettings(DelaySettings(2.0, 100), AbortSettings(418, percent=100))


def faulty(
    fault: FaultSettings, *, bench: Bench | None = None, headers: dict[str, str] | None = None, **facts: Any
) -> tuple[Call, ActiveFaults, Bench]:
    bench = bench or Bench()
    active = facts.pop("active", None) or ActiveFaults()
    policy = CallPolicy(timeout_s=facts.pop("timeout_s", 30.0), fault=fault)
    route = Route("default", (Backend("orders"),), policy)
    readers = readers_of(policy, [], Random(1))
    made = {"service": "orders", "method": "GET", "route": route, "policy": policy, "budget": bench.budget}
    made |= {"clusters": lambda: bench.clusters, "safe": True, "faults": active, "readers": readers, **facts}
    call = Call(CallFacts(**made), bench.rng)
    call.traits = read_traits(readers, RequestView("GET", "/", headers=headers or {}))
    return call, active, bench


def test_a_delay_is_a_wait_before_the_first_attempt() -> None:
    call, active, _ = faulty(DELAY)
    assert call.begin(NOW) == []
    assert (call.state, call.next_wakeup, active.count) == (CallState.WAITING, NOW + 2, 1)
    assert call.timer(NOW + 1.9) == []
    start_of(call.timer(NOW + 2))
    assert active.count == 0
    call.headers(NOW + 2.1, 1, 200)
    call.body_end(NOW + 2.1, 1)
    record = call.record(NOW + 3)
    assert (record.fault, record.status, len(record.attempts)) == ("a delay of 2s", 200, 1)
    assert [(wait.reason, wait.duration_s) for wait in record.waits] == [("fault", 2.0)]
    assert "injected: a delay of 2s" in str(record)


def test_the_timeout_cuts_a_delay() -> None:
    call, active, bench = faulty(DELAY, timeout_s=1.5)
    call.begin(NOW)
    assert call.next_wakeup == NOW + 1.5
    error = failure_of(call.timer(NOW + 1.5))
    assert isinstance(error, DeadlineExceeded)
    assert (active.count, bench.in_flight, bench.budget.tokens) == (0, 0, 20)
    assert call.record(NOW + 2).attempts == ()


def test_an_abort_is_the_answer_and_nothing_is_counted() -> None:
    bench = Bench()
    for _ in range(50):
        call, active, _ = faulty(ABORT, bench=bench)
        (reply,) = call.begin(NOW)
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body) == (503, b"fault filter abort")
        assert (call.state, active.count, active.aborts) == (CallState.DONE, 0, 1)
        assert call.next_wakeup is None
    record = call.record(NOW)
    assert (record.status, record.outcome, record.attempts, record.fault) == (503, "success", (), "status 503")
    state = bench.states[0]
    assert bench.budget.tokens == 20
    assert state.limit.in_flight == 0
    other = bench.another()
    start_of(other.begin(NOW))  # no breaker has opened, nobody is ejected
    assert all(member.health.consecutive == 0 for member in bench.clusters[0].members)


def test_an_abort_comes_after_the_delay() -> None:
    call, active, _ = faulty(BOTH)
    assert call.begin(NOW) == []
    (reply,) = call.timer(NOW + 2)
    assert isinstance(reply, Reply)
    assert reply.status == 418
    assert (active.delays, active.aborts, active.count) == (1, 1, 0)
    assert call.record(NOW + 2).fault == "a delay of 2s and status 418"


def test_a_reset_fails_as_one_would_and_is_not_retried() -> None:
    call, active, bench = faulty(FaultSettings(abort=AbortSettings(reset=True, percent=100)))
    error = failure_of(call.begin(NOW))
    assert isinstance(error, Reset)
    assert "injected" in str(error)
    assert (active.count, bench.budget.tokens, call.attempts) == (0, 20, [])
    assert call.record(NOW).error == "Reset"


def test_nothing_of_a_body_is_sent_to_who_asked_for_the_head() -> None:
    call, _, _ = faulty(ABORT, method="HEAD")
    (reply,) = call.begin(NOW)
    assert isinstance(reply, Reply)
    assert reply.body == b""
    assert (b"content-length", b"18") in reply.headers


def test_a_caller_who_gives_up_in_a_delay_leaves_nothing_behind() -> None:
    call, active, _ = faulty(DELAY)
    call.begin(NOW)
    call.cancelled(NOW + 1)
    assert (call.state, active.count) == (CallState.DONE, 0)
    assert call.timer(NOW + 2) == []


def test_enough_is_enough() -> None:
    active = ActiveFaults()
    limited = FaultSettings(DelaySettings(2.0, 100), max_active=1)
    first, _, _ = faulty(limited, active=active)
    second, _, _ = faulty(limited, active=active)
    assert first.begin(NOW) == []
    (start,) = second.begin(NOW)
    assert isinstance(start, Start)
    assert (active.count, active.overflowed) == (1, 1)


def test_a_request_asks_for_a_fault_by_its_headers() -> None:
    asked = FaultSettings(abort=AbortSettings(percent=100), headers=True)
    call, _, _ = faulty(asked, headers={"x-envoy-fault-abort-grpc-request": "14", "content-type": "application/grpc"})
    (reply,) = call.begin(NOW)
    assert isinstance(reply, Reply)
    assert (reply.status, (b"grpc-status", b"14") in reply.headers) == (200, True)
    call, _, _ = faulty(asked)
    start_of(call.begin(NOW))


def test_who_only_watches_injects_nothing() -> None:
    call, active, _ = faulty(BOTH, observe=True)
    call.why = []
    start_of(call.begin(NOW))
    assert active.count == 0
    assert call.why[0] == "would inject a delay of 2s and status 418"
    assert call.record(NOW).fault is None


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_ends_the_delay_or_the_call_and_no_more(jump: float) -> None:
    call, active, _ = faulty(DELAY)
    call.begin(NOW)
    actions = call.timer(NOW + jump)
    if jump < 0:
        assert actions == []
        start_of(call.timer(NOW + 2))
    else:
        assert isinstance(failure_of(actions), DeadlineExceeded)
    assert active.count == 0
