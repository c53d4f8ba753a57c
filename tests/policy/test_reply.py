"""Calls that their route answers, in virtual time: nobody is called, and an injected fault comes first."""

from __future__ import annotations

from random import Random
from typing import Any

from meshlib.policy.actions import Reply
from meshlib.policy.call import Call, CallState
from meshlib.policy.facts import CallFacts
from meshlib.policy.fault import AbortSettings, ActiveFaults, DelaySettings, FaultSettings
from meshlib.policy.settings import CallPolicy
from meshlib.policy.traits import read_traits, readers_of
from meshlib.routing.actions import DirectResponse, Redirect, Rewrite, Sticky
from meshlib.routing.match import RequestView
from meshlib.routing.route import Backend, Route
from tests.core import NOW, Bench, failure_of, start_of

TEAPOT = DirectResponse(418, b"short and stout")
BACKENDS = (Backend("orders", "v1"), Backend("orders", "v2"))


def routed(
    bench: Bench, *, fault: FaultSettings | None = None, headers: dict[str, str] | None = None, **given: Any
) -> Call:
    """A call over the bench's clusters that takes a route with these fields."""
    facts = {key: given.pop(key) for key in ("method", "observe") if key in given}
    policy = CallPolicy(fault=fault)
    route = Route("beta", given.pop("backends", (Backend("orders"),)), policy, **given)
    readers = readers_of(policy, [], Random(1), route)
    made = {"service": "orders", "method": "GET", "route": route, "policy": policy, "budget": bench.budget, **facts}
    made |= {"clusters": lambda: bench.clusters, "safe": True, "faults": ActiveFaults(), "readers": readers}
    call = Call(CallFacts(**made), bench.rng, "/a", "b=c")
    call.traits = read_traits(readers, RequestView("GET", "/a", "b=c", headers or {}, host="orders"), None)
    return call


def test_nobody_is_called_and_nothing_is_held() -> None:
    bench = Bench()
    call = routed(bench, reply=TEAPOT)
    (reply,) = call.begin(NOW)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, call.state) == (418, b"short and stout", CallState.DONE)
    record = call.record(NOW + 1)
    assert (record.reply, record.status, record.outcome, record.attempts) == ("direct response", 418, "success", ())
    assert "answered here: direct response" in str(record)
    assert (bench.in_flight, bench.budget.tokens) == (0, 20)
    assert (call.begin(NOW), call.timer(NOW + 60), call.cancelled(NOW), call.next_wakeup) == ([], [], [], None)


def test_a_redirect_is_recorded_without_its_query() -> None:
    call = routed(Bench(), reply=Redirect(host="new"))
    (reply,) = call.begin(NOW)
    assert isinstance(reply, Reply)
    assert (b"location", b"http://new/a?b=c") in reply.headers
    assert call.record(NOW).reply == "redirect to http://new/a"


def test_a_head_gets_no_body() -> None:
    (reply,) = routed(Bench(), reply=TEAPOT, method="HEAD").begin(NOW)
    assert isinstance(reply, Reply)
    assert (reply.body, reply.headers[-1]) == (b"", (b"content-length", b"15"))


def test_a_service_that_nobody_serves_is_answered_for_all_the_same() -> None:
    (reply,) = routed(Bench(0), reply=TEAPOT).begin(NOW)
    assert isinstance(reply, Reply)


def test_an_injected_fault_comes_first() -> None:
    abort = routed(Bench(), reply=TEAPOT, fault=FaultSettings(abort=AbortSettings(503, percent=100)))
    (reply,) = abort.begin(NOW)
    assert isinstance(reply, Reply)
    assert (reply.status, abort.record(NOW).reply, abort.record(NOW).fault) == (503, None, "status 503")
    delayed = routed(Bench(), reply=TEAPOT, fault=FaultSettings(DelaySettings(2.0, 100)))
    assert delayed.begin(NOW) == []
    (reply,) = delayed.timer(NOW + 2)
    assert isinstance(reply, Reply)
    assert (reply.status, delayed.record(NOW).fault) == (418, "a delay of 2s")


def test_a_deadline_that_has_passed_is_no_time_to_answer() -> None:
    call = routed(Bench(), reply=TEAPOT)
    call.inherited = NOW - 1
    assert failure_of(call.begin(NOW)).limit == "deadline"


def test_observed_it_is_said_and_not_done() -> None:
    call = routed(Bench(), reply=TEAPOT, observe=True)
    call.why = []
    assert call.begin(NOW) == []
    call.settled(NOW + 1, status=200)
    record = call.record(NOW + 2)
    assert (record.why, record.reply, record.status) == (("would answer 418 (direct response)",), None, 200)
    assert routed(Bench(), rewrite=Rewrite(path="/new"), observe=True).record(NOW).rewritten is None


def test_a_new_path_is_recorded() -> None:
    call = routed(Bench(), rewrite=Rewrite(path="/new"))
    start_of(call.begin(NOW))
    record = call.record(NOW)
    assert (record.path, record.rewritten) == ("/a", "/new")
    assert "sent as /new" in str(record)


def drawn(bench: Bench, user: str) -> Call:
    return routed(bench, backends=BACKENDS, sticky=Sticky(header="x-user"), headers={"x-user": user})


def test_a_user_is_drawn_for_one_backend_and_redrawn_for_the_other() -> None:
    for user in map(str, range(20)):
        bench = Bench(1, backends=BACKENDS)
        calls = [drawn(bench, user) for _ in range(3)]
        assert len({start_of(call.begin(NOW)).cluster for call in calls}) == 1
        call, first = calls[0], calls[0].drawn
        assert [each.drawn for each in calls] == [first] * 3
        call.headers(NOW, 1, 503)
        assert call.next_wakeup is not None
        start = start_of(call.timer(call.next_wakeup))
        assert (start.cluster, call.drawn) == (BACKENDS[1 - first].cluster, 1 - first)


def test_without_what_the_draw_goes_by_chance_decides() -> None:
    bench = Bench(1, backends=BACKENDS)
    calls = [routed(bench, backends=BACKENDS, sticky=Sticky(header="x-user")) for _ in range(50)]
    for call in calls:
        call.begin(NOW)
    assert {call.drawn for call in calls} == {0, 1}
