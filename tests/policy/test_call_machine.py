"""Random events in random order: what a call promises holds whatever happens.

One machine, driven twice: by Hypothesis, which shrinks what it finds, and by a plain generator with weights, which goes
deeper into the lives of calls than uniform choices do.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState, Known
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.errors import (
    AttemptTimeout,
    BodyBroken,
    ConnectFailed,
    MeshClosed,
    MeshError,
    PoolTimeout,
    RequestBodyError,
    Reset,
)
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Start
from meshlib.policy.admission_settings import AimdSettings, GcraSettings, RateLimitSettings, ThrottleSettings
from meshlib.policy.call import Call, CallState
from meshlib.policy.facts import CallFacts
from meshlib.policy.gates import make_gates
from meshlib.policy.hedge import Hedging
from meshlib.policy.limit import LimitFull, Waiter
from meshlib.policy.settings import (
    BreakerSettings,
    CallPolicy,
    HedgeSettings,
    LimitSettings,
    OutlierSettings,
    RetryPolicy,
)
from meshlib.policy.token_budget import TokenBudget
from meshlib.routing.route import Backend, Route

pytestmark = pytest.mark.slow  # many cases

ERRORS: list[tuple[type[MeshError], str]] = [
    (ConnectFailed, "connect"),
    (Reset, "headers"),
    (Reset, "write"),
    (AttemptTimeout, "headers"),
    (BodyBroken, "body"),
    (PoolTimeout, "pool"),
    (RequestBodyError, "write"),
    (MeshClosed, "pool"),
]
TIMEOUTS = [None, 5.0, 30.0, 30.0, 30.0, 0.5, 0.0]
PER_TRY = [None, 10.0, 0.2]
INHERITED = [None, None, None, 60.0, 0.3, -1.0]
STEPS = [0.0, 0.0, 0.001, 0.01, 0.05, 0.3, 2.0]
HEDGES = [
    None,
    HedgeSettings(after=0.02, max_extra_percent=100.0, max_hedges=2),
    HedgeSettings(after=0.0, max_extra_percent=50.0),
    HedgeSettings(after="p50", on_per_try_timeout=True, max_extra_percent=100.0),
    HedgeSettings(after=None, on_per_try_timeout=True),
]
STATUSES = [200, 200, 200, 204, 404, 429, 500, 502, 503, 504]


class FirstEndpoints:
    """What a call waits for until discovery answers."""

    def __init__(self) -> None:
        self.left = 0

    def on_ready(self, callback: Any) -> None:
        self.callback = callback

    def leave(self) -> None:
        self.left += 1


class OneCall(RuleBasedStateMachine):
    """One call after another over the same two clusters; at every step all that was promised is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.call: Call | None = None

    @initialize(
        seed=st.integers(0, 2**32),
        sizes=st.tuples(st.integers(1, 4), st.integers(0, 3)),
        limit=st.sampled_from([None, 1, 2]),
        tokens=st.sampled_from([1.0, 4.0, 20.0]),
        balancer=st.booleans(),
        gated=st.booleans(),
    )
    def prepare(
        self, seed: int, sizes: tuple[int, int], limit: int | None, tokens: float, balancer: bool, gated: bool
    ) -> None:
        self.rng = Random(seed)
        self.budget = TokenBudget(tokens)
        # Thresholds are low, so that ejections and open circuits happen within one example.
        self.states = [
            ClusterState(
                name,
                now=self.now,
                breaker=BreakerSettings(min_calls=2, window_s=10.0),
                outlier=OutlierSettings(consecutive_errors=2, base_ejection_s=1.0),
                limits=LimitSettings(max_in_flight=limit, max_pending=1),
                **self._gates(limit) if gated else {},
            )
            for name in ("orders/v1", "orders/v2")
        ]
        self.sizes = list(sizes)
        self.weighted = balancer
        self.clusters: list[Cluster] = []
        self.place: tuple[ClusterState, Waiter | None] | None = None
        self.hedgings: dict[HedgeSettings, Hedging] = {}
        self.members: set[Member] = set()
        self._publish()

    def _gates(self, limit: int | None) -> dict[str, Any]:
        limits = LimitSettings(limit, 1, 0.3, adaptive=AimdSettings(initial_limit=2, min_limit=1, max_limit=3))
        rate = RateLimitSettings(total=GcraSettings(20, 2), max_wait_s=0.05)
        gates = make_gates(limits, ThrottleSettings(min_calls=3), None, rate, self.now, self.rng)
        return {"limit": gates.limit, "before": gates.before, "after": gates.after}

    def _publish(self) -> None:
        healths = [Health.HEALTHY, Health.HEALTHY, Health.HEALTHY, Health.UNHEALTHY]
        self.clusters = [
            state.view(
                [
                    Endpoint(
                        f"10.0.{at}.{i}",
                        80,
                        weight=1.0 + i * self.weighted,
                        health=self.rng.choice(healths),
                    )
                    for i in range(size)
                ],
                self.now,
                self.rng,
                known=Known.YES if size else Known.PENDING,
            )
            for at, (state, size) in enumerate(zip(self.states, self.sizes, strict=True))
        ]
        for cluster in self.clusters:
            self.members.update(cluster.members)

    # One call

    @precondition(lambda self: self.call is None or self.call.state is CallState.DONE)
    @rule(
        safe=st.booleans(),
        replayable=st.booleans(),
        complete_body=st.booleans(),
        max_retries=st.integers(0, 3),
        timeout_s=st.sampled_from(TIMEOUTS),
        per_try_s=st.sampled_from(PER_TRY),
        inherited_s=st.sampled_from(INHERITED),
        observe=st.sampled_from([False, False, False, True]),
        hedge=st.sampled_from(HEDGES),
    )
    def begin(
        self,
        safe: bool,
        replayable: bool,
        complete_body: bool,
        max_retries: int,
        timeout_s: float | None,
        per_try_s: float | None,
        inherited_s: float | None,
        observe: bool,
        hedge: HedgeSettings | None,
    ) -> None:
        policy = CallPolicy(
            timeout_s=timeout_s, per_try_timeout_s=per_try_s, retry=RetryPolicy(max_retries=max_retries)
        )
        self.token = FirstEndpoints()
        facts = CallFacts(
            service="orders",
            method="GET" if safe else "POST",
            route=Route("r", (Backend("orders", "v1", 2.0), Backend("orders", "v2", 1.0)), policy),
            policy=policy,
            clusters=lambda: self.clusters,
            budget=self.budget,
            endpoints_ready=lambda: self.token,
            safe=safe,
            complete_body=complete_body,
            observe=observe,
            hedging=None if hedge is None else self.hedgings.setdefault(hedge, Hedging(hedge)),
        )
        inherited = None if inherited_s is None else self.now + inherited_s
        self.call = Call(facts, self.rng, inherited=inherited, replayable=replayable)
        self.allowed = 1 + max_retries + (0 if hedge is None else hedge.max_hedges)
        self.call.may_hedge()
        self.started: list[Start] = []
        self.ends: list[Action | str] = []
        self._take(self.call.begin(self.now))
        assert self.call.begin(self.now) == []

    def _take(self, actions: list[Action]) -> None:
        """Check actions as they come."""
        assert self.call is not None
        call = self.call
        for action in actions:
            assert not [end for end in self.ends if end != "delivered"], "nothing comes after the end"
            if isinstance(action, Start):
                self._check_start(action)
            elif isinstance(action, Deliver):
                assert not self.ends
                assert call.attempts[action.n - 1].headers_at is not None
                self.ends.append("delivered")
            elif isinstance(action, Fail):
                assert not self.ends
                self.ends.append(action)
            else:
                assert isinstance(action, Cancel)
                assert not call.attempts[action.n - 1].open

    def _check_start(self, start: Start) -> None:
        assert self.call is not None
        call, facts = self.call, self.call.facts
        self.started.append(start)
        assert start.n == len(self.started) <= self.allowed
        assert call.deadline is None or self.now < call.deadline
        assert start.timeout_s is None or start.timeout_s > 0
        assert start.deadline is None or call.deadline is None or start.deadline <= call.deadline
        earlier = call.attempts[: start.n - 1]
        if any(attempt.sent for attempt in earlier):
            assert facts.safe, "an unsafe request was repeated"
            assert call.replayable, "a body was sent that is gone"

    @property
    def running(self) -> bool:
        return self.call is not None and self.call.state is not CallState.DONE

    def _n(self, data: Any) -> int | None:
        """Any attempt: open or over, so that events come late and twice."""
        assert self.call is not None
        return data.draw(st.integers(1, len(self.call.attempts))) if self.call.attempts else None

    @precondition(lambda self: self.call is not None)
    @rule(data=st.data(), sent=st.booleans())
    def progress(self, data: Any, sent: bool) -> None:
        assert self.call is not None
        if (n := self._n(data)) is not None:
            # A driver reports nothing more of an attempt that it was told to cancel.
            if sent and self.call.attempts[n - 1].open:
                self._take(self.call.bytes_written(self.now, n))
            self._take(self.call.started(self.now, n))

    @precondition(lambda self: self.call is not None)
    @rule(
        data=st.data(),
        status=st.sampled_from(STATUSES),
        retry_after_s=st.sampled_from([None, None, 0.0, 0.5, 30.0]),
        overloaded=st.sampled_from([False, False, False, True]),
    )
    def headers(self, data: Any, status: int, retry_after_s: float | None, overloaded: bool) -> None:
        assert self.call is not None
        if (n := self._n(data)) is not None:
            before = len(self.started)
            self._take(self.call.headers(self.now, n, status, retry_after_s=retry_after_s, overloaded=overloaded))
            assert not overloaded or len(self.started) == before

    @precondition(lambda self: self.call is not None)
    @rule(data=st.data(), kind=st.sampled_from(ERRORS), replayable=st.booleans())
    def error(self, data: Any, kind: tuple[type[MeshError], str], replayable: bool) -> None:
        assert self.call is not None
        if (n := self._n(data)) is not None:
            if self.call.attempts[n - 1].open:
                self.call.replayable = self.call.replayable and replayable
            before = len(self.started)
            self._take(self.call.error(self.now, n, kind[0]("broken"), kind[1]))
            assert kind[0] is not PoolTimeout or len(self.started) == before

    @precondition(lambda self: self.call is not None)
    @rule(data=st.data())
    def body_end(self, data: Any) -> None:
        assert self.call is not None
        if (n := self._n(data)) is not None:
            self._take(self.call.body_end(self.now, n))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), whole=st.booleans())
    def cancel(self, data: Any, whole: bool) -> None:
        assert self.call is not None
        n = None if whole else self._n(data)
        late, state = n is not None and not self.call.attempts[n - 1].open, self.call.state
        self._take(self.call.cancelled(self.now, n))
        if late:
            assert self.call.state is state
        elif self.call.state is CallState.DONE and not self.ends:
            self.ends.append("cancelled")

    # Time and the rest of the world

    @rule(step_s=st.sampled_from(STEPS))
    def time_passes(self, step_s: float) -> None:
        self.now += step_s

    @precondition(lambda self: self.running)
    @rule(early=st.booleans())
    def timer(self, early: bool) -> None:
        assert self.call is not None
        wake_at = self.call.next_wakeup
        if wake_at is not None and not early:
            self.now = max(self.now, wake_at)
        before = len(self.started)
        self._take(self.call.timer(self.now))
        if wake_at is not None and self.now >= wake_at and len(self.started) == before:
            # No livelock: what was due is done, so the next wake-up is later.
            later = self.call.next_wakeup
            assert later is None or later > self.now or later > wake_at

    @precondition(lambda self: self.running)
    @rule()
    def woken(self) -> None:
        assert self.call is not None
        token = self.call.wait_on
        granted = not isinstance(token, Waiter) or token.granted
        self._take(self.call.woken(self.now))
        if not granted and self.call.state is CallState.WAITING:
            assert self.call.wait_on is token

    @rule(at=st.integers(0, 1), size=st.integers(0, 4))
    def endpoints_change(self, at: int, size: int) -> None:
        self.sizes[at] = size
        self._publish()

    @rule(at=st.integers(0, 1))
    def another_call_takes_a_place(self, at: int) -> None:
        if self.place is None:
            answer = self.states[at].limit.enter()
            if not isinstance(answer, LimitFull):
                self.place = (self.states[at], answer)

    @precondition(lambda self: self.place is not None)
    @rule()
    def another_call_leaves(self) -> None:
        assert self.place is not None
        (state, waiter), self.place = self.place, None
        if waiter is None:
            state.limit.exit()
        else:
            waiter.leave()

    # What holds at every moment

    @invariant()
    def budget_is_within_bounds(self) -> None:
        if self.call is not None:
            assert 0.0 <= self.budget.tokens <= self.budget.size

    @invariant()
    def counts_are_those_of_the_open_attempts(self) -> None:
        if self.call is None:
            return
        open_attempts = [attempt for attempt in self.call.attempts if attempt.open]
        nodes = {member.node for member in self.members}
        assert sum(node.in_flight for node in nodes) == len(open_attempts)
        assert all(node.in_flight >= 0 for node in nodes)
        if self.call.state in (CallState.NEW, CallState.WAITING, CallState.DONE):
            assert not open_attempts
        if self.call.state is CallState.RUNNING:
            assert open_attempts

    @invariant()
    def an_ended_call_holds_nothing(self) -> None:
        if self.call is None or self.call.state is not CallState.DONE:
            return
        held = {id(state): 0 for state in self.states}
        if self.place is not None:
            state, waiter = self.place
            held[id(state)] += waiter is None or waiter.granted
        for state in self.states:
            assert state.limit.in_flight == held[id(state)]
            assert state.breaker is not None
            assert state.breaker._probe is None
        assert all(member.health.probe is None for member in self.members)
        assert self.call.next_wakeup is None
        assert self.call.wait_on is None

    @invariant()
    def there_is_one_end(self) -> None:
        if self.call is None:
            return
        assert len(self.ends) <= 1
        if self.call.state in (CallState.DONE, CallState.DELIVERED):
            assert len(self.ends) == 1
        else:
            assert not self.ends

    @invariant()
    def the_record_is_that_of_the_actions(self) -> None:
        if self.call is None:
            return
        call, record = self.call, self.call.record(self.now)
        assert [attempt.number for attempt in record.attempts] == list(range(1, len(self.started) + 1))
        assert [attempt.endpoint for attempt in record.attempts] == [
            start.member.endpoint.address for start in self.started
        ]
        assert record.retries + record.hedges == max(0, len(self.started) - 1)
        assert record.duration_s >= 0.0
        assert all(attempt.duration_s >= 0.0 and attempt.started_s >= 0.0 for attempt in record.attempts)
        assert all(wait.duration_s >= 0.0 for wait in record.waits)
        match self.ends:
            case []:
                assert record.outcome == "pending"
            case ["cancelled"]:
                assert record.outcome == "cancelled"
                assert record.error is None
            case [Fail() as fail]:
                assert record.outcome == "failure"
                assert record.error == type(fail.error).__name__
            case ["delivered"]:
                assert record.status is not None
                assert record.outcome == ("failure" if record.error else "success")
        if call.state is CallState.DONE:
            assert all(attempt.outcome != "pending" for attempt in record.attempts)
            if record.outcome == "success":
                assert [attempt for attempt in record.attempts if attempt.status == record.status]
        assert str(record)

    @invariant()
    def it_waits_for_something(self) -> None:
        if self.call is not None and self.call.state is CallState.WAITING:
            assert self.call.wait_on is not None or self.call.next_wakeup is not None


OneCall.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOneCall = OneCall.TestCase


class Draw:
    """In place of Hypothesis's `data`: the newest attempt most of the time, or any."""

    def __init__(self, machine: OneCall, rng: Random) -> None:
        self.machine = machine
        self.rng = rng

    def draw(self, strategy: object) -> int:
        assert self.machine.call is not None
        count = len(self.machine.call.attempts)
        return count if self.rng.random() < 0.7 else self.rng.randint(1, count)


def step(machine: OneCall, rng: Random, seen: Counter[str]) -> None:
    if not machine.running:
        machine.begin(
            safe=rng.random() < 0.6,
            replayable=rng.random() < 0.8,
            complete_body=rng.random() < 0.5,
            max_retries=rng.randint(0, 3),
            timeout_s=rng.choice(TIMEOUTS),
            per_try_s=rng.choice(PER_TRY),
            inherited_s=rng.choice(INHERITED),
            observe=rng.random() < 0.1,
            hedge=rng.choice(HEDGES),
        )
        return
    data = Draw(machine, rng)
    choices = ["headers"] * 4 + ["error"] * 5 + ["timer"] * 5 + ["progress"] * 3 + ["body_end"] * 2
    choices += ["time"] * 3 + ["woken"] * 2 + ["cancel", "cancel attempt", "change", "take", "leave"]
    match rng.choice(choices):
        case "headers":
            pause = rng.choice([None, None, 0.0, 0.5, 30.0])
            machine.headers(data, rng.choice(STATUSES), pause, rng.random() < 0.1)
        case "error":
            machine.error(data, rng.choice(ERRORS[:4] if rng.random() < 0.8 else ERRORS), rng.random() < 0.9)
        case "timer":
            machine.timer(rng.random() < 0.2)
        case "progress":
            machine.progress(data, rng.random() < 0.5)
        case "body_end":
            machine.body_end(data)
        case "time":
            machine.time_passes(rng.choice(STEPS))
        case "woken":
            machine.woken()
        case "cancel":
            machine.cancel(data, True)
        case "cancel attempt":
            machine.cancel(data, False)
        case "change":
            machine.endpoints_change(rng.randint(0, 1), rng.choice([0, 1, 2, 3, 4]))
        case "take":
            machine.another_call_takes_a_place(rng.randint(0, 1))
        case "leave" if machine.place is not None:
            machine.another_call_leaves()
    assert machine.call is not None
    call = machine.call
    seen[call.state.name] += 1
    seen["several open"] += sum(attempt.open for attempt in call.attempts) > 1
    seen["hedges"] += any(attempt.hedge for attempt in call.attempts)
    seen["overdue"] += call._hedging is not None and bool(call._retried)
    seen["retries"] += len(call.attempts) > 1
    seen["third attempts"] += len(call.attempts) > 2
    seen["in line"] += isinstance(call.wait_on, Waiter)
    seen["without endpoints"] += isinstance(call.wait_on, FirstEndpoints)
    seen["probes"] += any(attempt.probe and attempt.open for attempt in call.attempts)
    seen["circuit probes"] += any(
        state.breaker is not None and state.breaker._probe is not None for state in machine.states
    )
    seen["cut"] += (
        isinstance(call.record(machine.now).error, str) and call.record(machine.now).error == "DeadlineExceeded"
    )


@pytest.mark.parametrize("part", range(4))
def test_calls_keep_their_promises_through_long_random_lives(part: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(part * 100, part * 100 + 100):
        rng = Random(seed)
        machine = OneCall()
        sizes = (rng.randint(1, 4), rng.randint(0, 3))
        machine.prepare(
            seed, sizes, rng.choice([None, 1, 2]), rng.choice([4.0, 20.0, 20.0]), rng.random() < 0.5, part == 3
        )
        for _ in range(120):
            step(machine, rng, seen)
            machine.budget_is_within_bounds()
            machine.counts_are_those_of_the_open_attempts()
            machine.an_ended_call_holds_nothing()
            machine.there_is_one_end()
            machine.the_record_is_that_of_the_actions()
            machine.it_waits_for_something()
    # That it went everywhere: a test that never gets there would hold nothing.
    for place in (
        "several open",
        "hedges",
        "overdue",
        "retries",
        "third attempts",
        "in line",
        "without endpoints",
        "probes",
        "circuit probes",
        "cut",
    ):
        assert seen[place] >= 10, (place, seen)
