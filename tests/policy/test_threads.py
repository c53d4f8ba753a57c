"""Sixteen threads, one cluster state, endpoints that come and go: every count is exact in the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from random import Random

import pytest

from meshlib.balance.settings import BalancerName
from meshlib.errors import ConnectFailed, Reset
from meshlib.policy.actions import Action, Deliver, Fail, Start
from meshlib.policy.call import Call, CallState
from meshlib.policy.facts import CallFacts
from meshlib.policy.settings import (
    BreakerSettings,
    CallPolicy,
    FailurePercentageSettings,
    LimitSettings,
    OutlierSettings,
    RetryPolicy,
)
from meshlib.policy.token_budget import TokenBudget
from meshlib.routing.route import Backend, Route
from tests.core import NOW, cluster_state, endpoints

THREADS, CALLS = 16, 120


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    ("balancer", "weights"), [("peak_ewma", None), ("peak_ewma", (1, 2, 3, 4, 5)), ("round_robin", (1, 2, 3, 4, 5))]
)
def test_every_count_returns_to_zero(balancer: BalancerName, weights: tuple[float, ...] | None) -> None:
    state = cluster_state(
        policy=balancer,
        breaker=BreakerSettings(min_calls=5, open_for_s=0.01),
        outlier=OutlierSettings(consecutive_errors=2, base_ejection_s=0.01),
        limits=LimitSettings(max_in_flight=8, max_pending=100),
    )
    all_endpoints = endpoints(5, weights)
    nodes, current = set(), [state.view(all_endpoints, NOW, Random(1))]
    budget = TokenBudget(1e6)
    policy = CallPolicy(retry=RetryPolicy(backoff_base_s=0.0))
    route = Route("r", (Backend("orders"),), policy)
    problems: list[BaseException] = []
    ends = [0] * THREADS
    stop = threading.Event()

    def one_call(rng: Random, now: float) -> None:
        facts = CallFacts("orders", "GET", route, policy, lambda: current, budget, safe=rng.random() < 0.9)
        call = Call(facts, rng)
        actions: list[Action] = call.begin(now)
        while True:
            for action in actions:
                if isinstance(action, Deliver):
                    call.body_end(now, action.n)
                if isinstance(action, (Deliver, Fail)):
                    assert call.state is CallState.DONE
                    return
            starts = [action for action in actions if isinstance(action, Start)]
            if rng.random() < 0.1:
                call.cancelled(now)
                return
            if starts:
                nodes.add(starts[0].member.node)
                n, chance = starts[0].n, rng.random()
                if chance < 0.7:
                    actions = call.headers(now, n, 200 if chance < 0.5 else 503)
                else:
                    actions = call.error(now, n, (Reset if chance < 0.9 else ConnectFailed)("x"), "headers")
            elif call.wait_on is not None:
                ready = threading.Event()
                call.wait_on.on_ready(ready.set)
                assert ready.wait(20)
                actions = call.woken(now)
            else:
                assert call.next_wakeup is not None
                actions = call.timer(call.next_wakeup)

    def work(index: int) -> None:
        rng = Random(index)
        try:
            for turn in range(CALLS):
                one_call(rng, NOW + turn / 100)
                ends[index] += 1
        except BaseException as problem:
            problems.append(problem)

    def change() -> None:
        rng, turn = Random(99), 0
        while not stop.wait(0.0005):
            turn += 1
            current[0] = state.view(rng.sample(all_endpoints, rng.randint(1, 5)), NOW + turn / 100, rng)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    changer = threading.Thread(target=change)
    for thread in [changer, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    changer.join()
    assert problems == []
    assert ends == [CALLS] * THREADS
    final = state.view(all_endpoints, NOW + 5, Random(1))
    assert {node.in_flight for node in nodes} == {0}
    assert (state.limit.in_flight, state.limit.pending) == (0, 0)
    assert all(member.health.probe is None for member in final.members)
    assert state.breaker is not None
    assert state.breaker._probe is None
    assert state.outlier is not None
    assert {member.health for member in state.outlier.ejected} == {
        member.health for member in final.members if member.health.ejected
    }


def test_every_outcome_is_counted_and_ejections_stay_within_bounds() -> None:
    """Sixteen threads report to a detector that counts, while sweeps go on and endpoints come back."""
    settings = OutlierSettings(
        consecutive_errors=0,
        consecutive_5xx=3,
        base_ejection_s=0.01,
        max_ejection_s=0.02,
        interval_s=1e9,
        failure_percentage=FailurePercentageSettings(request_volume=1, minimum_hosts=1, enforcing_percent=0),
    )
    told: list[bool] = []
    state = cluster_state(outlier=settings, on_ejection=lambda _, ejected: told.append(ejected))
    members = state.view(endpoints(4), NOW, Random(1)).members
    outlier = state.outlier
    assert outlier is not None
    problems: list[BaseException] = []

    def work(index: int) -> None:
        rng = Random(index)
        try:
            for turn in range(500):
                member, now = rng.choice(members), NOW + turn / 100
                outlier.succeeded(member, now, rng.choice((200, 500, 500)))
                probe = outlier.due(now, True)
                if probe is not None:
                    probe.ended(now, rng.random() < 0.8)
                assert len(outlier.ejected) <= 2
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert sum(member.health.tally.total for member in members if member.health.tally) == THREADS * 500
    assert {each for each in members if each.health.ejected} == set(outlier.ejected)
    assert told.count(True) - told.count(False) == len(outlier.ejected)
    assert outlier.detected["consecutive_5xx"] == outlier.enforced["consecutive_5xx"] + outlier.overflow
