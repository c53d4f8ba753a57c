"""Sixteen threads drive calls through a cluster with everything on: what is counted is counted exactly.

There is no wire: a thread says itself how an attempt goes. Time is virtual, one clock for all threads. Beside them one
thread changes the endpoints, sweeps and reads what telemetry and `status` read.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from random import Random
from typing import Any

import pytest

from meshlib.balance.cells import CELLS
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.load_report import LoadReport
from meshlib.balance.settings import LoadBalancing, SessionAffinity, SlowStartSettings, SubsettingSettings
from meshlib.balance.shadow import ShadowedState
from meshlib.balance.table import BALANCERS
from meshlib.context import Criticality
from meshlib.errors import ConnectFailed, PoolTimeout, Reset
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Reply, Start
from meshlib.policy.admission_settings import (
    AdaptiveSettings,
    AimdSettings,
    BucketSettings,
    BulkheadSettings,
    GcraSettings,
    Gradient2Settings,
    GradientSettings,
    KeySource,
    NackSettings,
    RateLimitSettings,
    SuccessRateThrottleSettings,
    ThrottleAlgorithm,
    ThrottleSettings,
    VegasSettings,
)
from meshlib.policy.breaker import BreakerState
from meshlib.policy.call import Call, CallState
from meshlib.policy.concurrency_budget import ConcurrencyBudget
from meshlib.policy.facts import CallFacts
from meshlib.policy.fault import AbortSettings, ActiveFaults, DelaySettings, FaultSettings
from meshlib.policy.gates import make_gates
from meshlib.policy.hedge import Hedging
from meshlib.policy.limit import InFlightLimit, Waiter
from meshlib.policy.rate_budget import RateBudget
from meshlib.policy.settings import (
    BreakerSettings,
    CallPolicy,
    FailurePercentageSettings,
    HedgeSettings,
    HighLimitSettings,
    LimitSettings,
    OutlierSettings,
    RetryPolicy,
    ShadowSettings,
    SuccessRateSettings,
)
from meshlib.policy.shadow import Shadows
from meshlib.policy.shadow_gate import ShadowGate
from meshlib.policy.token_budget import TokenBudget
from meshlib.policy.traits import Traits
from meshlib.routing.route import Backend, Route
from tests.core import NOW
from tests.policy.watched import Door, WatchedBudget

pytestmark = pytest.mark.slow

THREADS, CALLS = 16, 60
MAX_IN_FLIGHT, MAX_HIGH = 6, 2

BALANCINGS: dict[str, dict[str, Any]] = {
    **{name: {"policy": name} for name in BALANCERS},
    "maglev": {"policy": "maglev", "table_size": 251, "hash_balance_percent": 150},
    "slow start": {"policy": "least_request", "slow_start": SlowStartSettings(1.0)},
    "subset": {"policy": "round_robin", "subsetting": SubsettingSettings(size=3, seed=1)},
    "sessions": {"policy": "round_robin", "session_affinity": SessionAffinity()},
    "places": {"locality_weights": {"eu/a": 1.0, "eu/b": 3.0}},
}
BUDGETS = cycle(("tokens", "rate", "concurrency"))
LIMITS = cycle(("priority", "bulkhead", GradientSettings(), VegasSettings(), Gradient2Settings(), AimdSettings()))
THROTTLES = cycle(
    (ThrottleSettings(window_s=1.0), SuccessRateThrottleSettings(window_s=1.0), NackSettings(window_s=1.0))
)
CASES = [
    pytest.param(settings, weighted, next(BUDGETS), next(LIMITS), next(THROTTLES), id=f"{name}, {word}")
    for name, settings in BALANCINGS.items()
    for weighted, word in ((False, "even"), (True, "by weight"))
]


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Clock:
    """The one clock; it never goes back."""

    def __init__(self) -> None:
        self.now = NOW
        self._lock = threading.Lock()

    def reach(self, at: float) -> float:
        with self._lock:
            self.now = max(self.now + 0.0002, at)
            return self.now

    def tick(self) -> float:
        return self.reach(0.0)


def make_budget(kind: str, state: ClusterState) -> WatchedBudget:
    if kind == "tokens":
        tokens = TokenBudget(2.0**20, 0.5)
        tokens.tokens = 0.75 * tokens.size
        return WatchedBudget(tokens)
    if kind == "rate":
        return WatchedBudget(RateBudget(60.0, 0.0, 1e6))
    return WatchedBudget(ConcurrencyBudget(50.0, 2, None, lambda: state.limit.in_flight + state.limit.pending))


def make_endpoints(*, weighted: bool, places: bool) -> list[Endpoint]:
    return [
        Endpoint(
            f"10.0.0.{n + 1}",
            80,
            weight=float(n + 1) if weighted else 1.0,
            locality=Locality("eu", "ab"[n % 2]) if places else Locality(),
            priority=n // 4 if places else 0,
            health=Health.DEGRADED if places and n == 2 else Health.HEALTHY,
        )
        for n in range(6)
    ]


class Engine:
    """One cluster with everything on, and what its calls came to."""

    def __init__(
        self,
        balancing: dict[str, Any],
        weighted: bool,
        budget: str,
        limits: str | AdaptiveSettings,
        throttle: ThrottleAlgorithm,
    ) -> None:
        self.clock = Clock()
        self.told: list[bool] = []
        self.outer, self.inner = Door(), Door()
        adaptive = None if isinstance(limits, str) else limits
        high = HighLimitSettings(MAX_HIGH, 2) if limits == "priority" else None
        parts = BulkheadSettings(KeySource("hash_key"), {"1": 30.0, "2": 30.0}) if limits == "bulkhead" else None
        limit = LimitSettings(MAX_IN_FLIGHT, 4, 0.02, "fifo", None, high, adaptive)
        rate = RateLimitSettings(
            total=GcraSettings(4000.0, 50),
            by=KeySource("hash_key"),
            each=BucketSettings(20, 1, 0.002),
            max_keys=5,
            max_wait_s=0.01,
        )
        gates = make_gates(limit, throttle, parts, rate, NOW, Random(3), [self.outer], [self.inner])
        breaker = BreakerSettings(min_calls=5, window_s=0.05, open_for_s=0.01, max_open_for_s=0.05)
        self.sweeping = budget != "tokens"
        outlier = OutlierSettings(
            consecutive_errors=4,
            consecutive_5xx=5,
            consecutive_gateway_failure=3,
            consecutive_local_origin_failure=3,
            split_external_local_origin_errors=True,
            success_rate=SuccessRateSettings(minimum_hosts=2, request_volume=5),
            failure_percentage=FailurePercentageSettings(minimum_hosts=2, request_volume=5),
            interval_s=0.05,
            base_ejection_s=0.02,
            max_ejection_s=0.1,
            max_ejection_jitter_s=0.01,
            return_by="sweep" if self.sweeping else "probe",
        )
        self.shadows: Shadows | None = None
        make_state: Callable[..., ClusterState] = ClusterState
        if weighted:
            fewer = LimitSettings(3, 2, 0.01)
            beside = LoadBalancing("least_request")
            shadow = ShadowSettings(breaker, outlier, throttle, fewer, None, rate, beside)
            self.shadows = Shadows(shadow, gates, limit, parts, NOW, Random(4))
            make_state, gates = partial(ShadowedState, shadows=self.shadows), self.shadows.gates
        self.state = make_state(
            "orders",
            now=NOW,
            load_balancing=LoadBalancing(**balancing),
            breaker=breaker,
            outlier=outlier,
            limit=gates.limit,
            before=gates.before,
            after=gates.after,
            on_ejection=lambda _, ejected: self.told.append(ejected),
        )
        self.endpoints = make_endpoints(weighted=weighted, places="locality_weights" in balancing)
        self.current = [self.state.view(self.endpoints, NOW, Random(0))]
        self.budget = make_budget(budget, self.state)
        self.faults = ActiveFaults()
        self.hedging = Hedging(HedgeSettings(0.001, 50.0, on_per_try_timeout=budget == "rate", max_hedges=2))
        self.policy = CallPolicy(
            timeout_s=2.0,
            per_try_timeout_s=0.01,
            retry=RetryPolicy(backoff_base_s=0.0005, backoff_max_s=0.002),
            fault=FaultSettings(DelaySettings(0.002, 10.0), AbortSettings(503, percent=5.0), max_active=1),
        )
        self.route = Route("r", (Backend("orders"),), self.policy)
        self.calls: list[Call] = []
        self.ends: list[str] = []
        self.starts: list[Start] = []

    def one_call(self, rng: Random) -> None:
        facts = CallFacts(
            "orders",
            "GET",
            self.route,
            self.policy,
            lambda: self.current,
            self.budget,
            safe=rng.random() < 0.9,
            complete_body=rng.random() < 0.3,
            hedging=self.hedging,
            faults=self.faults,
        )
        call = Call(facts, rng)
        call.traits = traits = Traits(str(rng.randrange(8)))
        traits.hash = rng.getrandbits(64)
        traits.criticality = rng.choice(list(Criticality))
        traits.bound_to = rng.choice(self.endpoints).address
        call.may_hedge()
        self.calls.append(call)
        self.ends.append(self.drive(call, rng))

    def drive(self, call: Call, rng: Random) -> str:
        open_attempts: dict[int, Start] = {}
        actions: list[Action] = call.begin(self.clock.tick())
        while True:
            for action in actions:
                if isinstance(action, Start):
                    open_attempts[action.n] = action
                    self.starts.append(action)
                elif isinstance(action, Cancel):
                    del open_attempts[action.n]
            last = actions[-1] if actions else None
            if isinstance(last, (Reply, Fail)):
                assert call.state is CallState.DONE
                return type(last).__name__
            if isinstance(last, Deliver):
                assert [*open_attempts] == [last.n]
                if call.state is not CallState.DONE:
                    self.end_body(call, rng, last.n)
                assert call.state is CallState.DONE
                return "Deliver"
            if rng.random() < 0.03:
                assert all(isinstance(action, Cancel) for action in call.cancelled(self.clock.tick()))
                assert call.state is CallState.DONE
                return "cancelled"
            if open_attempts and rng.random() < 0.75:
                n = rng.choice(list(open_attempts))
                actions = self.answer(call, rng, open_attempts, n)
            elif isinstance(call.wait_on, Waiter) and rng.random() < 0.9:
                ready = threading.Event()
                call.wait_on.on_ready(ready.set)
                assert ready.wait(20)
                actions = call.woken(self.clock.tick())
            else:
                assert call.next_wakeup is not None
                actions = call.timer(self.clock.reach(call.next_wakeup))

    def answer(self, call: Call, rng: Random, open_attempts: dict[int, Start], n: int) -> list[Action]:
        chance, now = rng.random(), self.clock.tick()
        call.started(now, n)
        if chance < 0.25:
            del open_attempts[n]
            error = Reset if chance < 0.1 else ConnectFailed if chance < 0.2 else PoolTimeout
            return call.error(now, n, error("x"), "headers" if error is Reset else "connect")
        if (reported := open_attempts[n].member.load.reported) is not None:
            reported.report(LoadReport(cpu_utilization=0.5, rps_fractional=rng.random() * 100), now)
        status = rng.choice((200, 200, 200, 200, 404, 500, 502, 503, 429))
        retry_after_s = rng.choice((None, 0.001)) if status in (429, 503) else None
        actions = call.headers(now, n, status, retry_after_s=retry_after_s, overloaded=chance > 0.98)
        if not actions and call.state is CallState.RUNNING and call.attempts[n - 1].headers_at is not None:
            if rng.random() < 0.2:
                del open_attempts[n]
                return call.error(self.clock.tick(), n, Reset("x"), "body")
            return call.body_end(self.clock.tick(), n)
        return actions

    def end_body(self, call: Call, rng: Random, n: int) -> None:
        now, chance = self.clock.tick(), rng.random()
        if chance < 0.8:
            call.body_end(now, n)
        elif chance < 0.9:
            call.error(now, n, Reset("x"), "body")
        else:
            call.cancelled(now, n)

    def change(self, rng: Random) -> None:
        """Endpoints come and go; what housekeeping does is done, and what telemetry and `status` read is read."""
        now, state = self.clock.tick(), self.state
        self.current[0] = cluster = state.view(rng.sample(self.endpoints, rng.randint(2, 6)), now, rng)
        assert state.outlier is not None
        state.outlier.sweep(now)
        assert repr([state.outlier, state.breaker, self.budget.budget, self.hedging, *cluster.members])
        enforced = dict(state.outlier.enforced)  # read first, since it is written last
        assert enforced.keys() <= dict(state.outlier.detected).keys()
        for gate in state.gates or ():
            gate.note(now)
        self.budget.left(now)
        cluster.panicking()

    def check(self) -> None:
        """Everything is over: nothing is held, and each count is that of what was counted."""
        final = self.state.view(self.endpoints, self.clock.tick(), Random(1))
        self.check_calls()
        self.check_gates()
        self.check_endpoints(final)
        if self.shadows is not None:
            self.check_shadows(self.shadows)
        self.budget.check()

    def check_calls(self) -> None:
        assert {call.state for call in self.calls} == {CallState.DONE}
        assert len(self.calls) == len(self.ends)
        outcomes = Counter(call.journal.outcome for call in self.calls)
        assert outcomes.keys() == {"success", "failure", "cancelled"}
        assert outcomes.total() == len(self.calls)
        attempts = [attempt for call in self.calls for attempt in call.attempts]
        assert len(attempts) == len(self.starts)
        assert not any(attempt.open for attempt in attempts)
        assert "pending" not in {attempt.outcome for attempt in attempts}
        hedges = sum(attempt.hedge for attempt in attempts)
        assert self.hedging.sent <= len(self.budget.hedges)  # one that found no endpoint is paid for, and not sent
        assert (
            self.hedging.sent == hedges if not self.hedging.settings.on_per_try_timeout else self.hedging.sent <= hedges
        )
        faults = Counter(call.journal.fault for call in self.calls if call.journal.fault is not None)
        assert self.faults.delays == sum(count for fault, count in faults.items() if "delay" in fault) > 0
        assert self.faults.aborts == sum(count for fault, count in faults.items() if "status" in fault) > 0
        assert self.faults.count == 0

    def check_gates(self) -> None:
        refused = Counter(call.journal.refused_by for call in self.calls)
        for door in (self.outer, self.inner):
            assert len(door.asked) == len(door.told) == len(door.gone) > 0
        for gate in self.state.gates or ():
            assert gate.rejected == refused[gate.name]
        limit, breaker = self.state.limit, self.state.breaker
        assert (limit.in_flight, limit.pending) == (0, 0)
        assert not any(getattr(limit, "taken", {}).values())
        assert breaker is not None
        assert breaker.rejected == refused["circuit-breaker"]
        assert breaker._probe is None
        assert breaker.state is not BreakerState.HALF_OPEN

    def check_shadows(self, shadows: Shadows) -> None:
        decisions = {each.policy: each.same + each.differed for each in shadows.comparisons}
        assert self.state.breaker is not None
        assert shadows.breaker is not None
        assert shadows.breaker.breaker._probe is None
        assert shadows.breaker._asked == {}
        assert decisions["circuit_breaker"] == len(self.outer.asked) + self.state.breaker.rejected
        for gate in shadows.gates.before:
            if isinstance(gate, ShadowGate):
                assert gate._visits == {}
                limits = [each for each in gate._gates if isinstance(each, InFlightLimit)]
                assert [(each.in_flight, each.pending) for each in limits] == [(0, 0)] * len(limits)
        if self.sweeping:  # else some endpoints are probed, and not picked
            picks = sum(attempt.how != "bound" for call in self.calls for attempt in call.attempts)
            assert decisions["load_balancing"] == picks <= decisions["outlier_detection"]

    def check_endpoints(self, final: Cluster) -> None:
        nodes = {start.member.node for start in self.starts}
        assert [node.in_flight for node in nodes] == [0] * len(nodes)
        assert [CELLS[node.cell] for node in nodes] == [0.0] * len(nodes)
        outlier = self.state.outlier
        assert outlier is not None
        assert outlier.ejections > 0
        assert {member.health for member in outlier.ejected} == {
            member.health for member in final.members if member.health.ejected
        }
        assert all(member.health.probe is None for member in final.members)
        enforced = sum(outlier.enforced.values())
        assert self.told.count(True) == enforced <= sum(outlier.detected.values())
        assert self.told.count(True) - self.told.count(False) == len(outlier.ejected)


@pytest.mark.parametrize(("balancing", "weighted", "budget", "limits", "throttle"), CASES)
def test_what_is_counted_is_counted_exactly(
    balancing: dict[str, Any],
    weighted: bool,
    budget: str,
    limits: str | AdaptiveSettings,
    throttle: ThrottleAlgorithm,
) -> None:
    engine = Engine(balancing, weighted, budget, limits, throttle)
    problems: list[BaseException] = []

    def work(index: int) -> None:
        rng = Random(index)
        try:
            for _ in range(CALLS):
                engine.one_call(rng)
        except BaseException as problem:
            problems.append(problem)

    def change() -> None:
        rng = Random(99)
        try:
            while any(thread.is_alive() for thread in threads):
                engine.change(rng)
                threads[0].join(0.002)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    changer = threading.Thread(target=change)
    for thread in [*threads, changer]:
        thread.start()
    for thread in [*threads, changer]:
        thread.join()
    assert problems == []
    assert len(engine.ends) == THREADS * CALLS
    engine.check()
