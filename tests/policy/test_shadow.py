"""Shadows: they change nothing, never differ where they are set as the live policy is, and else say how."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from meshlib.balance.endpoint import Endpoint, Health
from meshlib.dataclass import replace
from meshlib.policy.breaker import BreakerState
from meshlib.policy.comparison import Comparison
from meshlib.policy.record import Record
from meshlib.policy.shadow import Shadows
from meshlib.sim.client import Client
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Network, SimEndpoint, constant, uniform
from tests.core import NOW, endpoints

NO_RETRY = {"max_retries": 0}
OFF: dict[str, Any] = {"circuit_breaker": False, "outlier_detection": False, "retry": NO_RETRY}


class Fleet:
    """A client and its endpoints, at 10.0.0.1:80 and up."""

    def __init__(self, count: int, service: Mapping[str, Any], *, seed: int = 1, **kept: Any) -> None:
        self.clock = VirtualClock(NOW)
        self.parts = [SimEndpoint(constant(0.02)) for _ in range(count)]
        self.members = endpoints(count)
        network = Network({each.address: part for each, part in zip(self.members, self.parts, strict=True)})
        rng = Random(seed)
        self.client = Client(network, self.members, clock=self.clock, rng=rng, service=service, **kept)

    @property
    def state(self) -> Any:
        return self.client.cluster.state

    def shadow(self, policy: str) -> Comparison:
        shadows = self.state.shadow
        assert isinstance(shadows, Shadows)
        return next(each for each in shadows.comparisons if each.policy == policy)

    def calls(self, count: int, every_s: float = 0.1) -> list[Record]:
        """So many calls, one after the other; their records."""
        before = len(self.client.records)
        for index in range(count):
            self.clock.after(index * every_s, self.client.call)
        self.clock.run(self.clock.now + count * every_s)
        self.clock.run()
        return self.client.records[before:]


def stormy(service: Mapping[str, Any], seed: int) -> Fleet:
    """Endpoints that fail, hang, refuse and come back, all of them down for a while, callers that give up."""
    fleet = Fleet(4, service, seed=seed)
    rng, clock = Random(seed), fleet.clock
    for part in fleet.parts:
        part.latency = uniform(0.005, 0.15)

    def change(part: SimEndpoint, **how: Any) -> None:
        for name, value in {"fail_percent": 0.0, "hung": False, "refuses": False, **how}.items():
            setattr(part, name, value)

    for _ in range(25):
        part, at = rng.choice(fleet.parts), NOW + rng.choice([0, 34]) + rng.random() * 18
        how = rng.choice([{"fail_percent": 100.0}, {"fail_percent": 40.0}, {"hung": True}, {"refuses": True}, {}, {}])
        clock.at(at, lambda part=part, how=how: change(part, **how))  # type: ignore[misc]
    for part in fleet.parts:
        clock.at(NOW + 20, lambda part=part: change(part, fail_percent=100.0))  # type: ignore[misc]
        clock.at(NOW + 32, lambda part=part: change(part))  # type: ignore[misc]
    clock.at(NOW + 40, lambda: fleet.client.publish(fleet.members[:3]))
    clock.at(NOW + 45, lambda: fleet.client.publish(fleet.members))
    fleet.client.load(30.0, 70.0, lambda: fleet.client.call(rng.choice([None, None, 0.05]), safe=rng.random() < 0.7))
    return fleet


LIVE: dict[str, Any] = {
    "per_try_timeout": "500ms",
    "timeout": "2s",
    "circuit_breaker": {"min_calls": 5, "window": "4s", "open_for": "1s"},
    "outlier_detection": {"consecutive_errors": 3, "base_ejection": "2s", "max_ejection_percent": 50},
    "limits": {"max_in_flight": 4, "max_pending": 0},
    "throttle": {"window": "5s", "k": 1.5},
    "rate_limit": {"total": {"rate": 28, "burst": 5}},
}
STRICT: dict[str, Any] = {
    "circuit_breaker": {"min_calls": 2, "failure_percent": 10},
    "outlier_detection": {"consecutive_errors": 1},
    "limits": {"max_in_flight": 2, "adaptive": {"algorithm": "vegas"}},
    "throttle": {"k": 1},
    "rate_limit": {"total": {"rate": 10}},
    "load_balancing": {"policy": "round_robin"},
}


@pytest.mark.parametrize("balancer", ["peak_ewma", "round_robin"])
@pytest.mark.parametrize("seed", [1, 2])
def test_shadows_change_nothing(balancer: str, seed: int) -> None:
    live = {**LIVE, "load_balancing": {"policy": balancer}}
    plain, shadowed = stormy(live, seed), stormy({**live, "shadow": STRICT}, seed)
    assert any(record.shadow for record in shadowed.client.records)
    assert [replace(record, shadow=()) for record in shadowed.client.records] == plain.client.records
    assert (plain.client.in_flight, shadowed.client.in_flight) == (0, 0)


@pytest.mark.parametrize("sweeps", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_shadow_that_is_set_as_the_live_policy_never_differs(sweeps: bool, seed: int) -> None:
    outliers, limits, rates = LIVE["outlier_detection"], LIVE["limits"], LIVE["rate_limit"]
    if sweeps:
        outliers = {**outliers, "consecutive_5xx": 3, "return_by": "sweep", "interval": "3s"}
        limits = {"max_in_flight": 3, "max_pending": 2, "max_wait": "100ms"}
        rates = {"total": {"rate": 20, "burst": 3}, "max_wait": "150ms"}
    alike: dict[str, Any] = {key: {} for key in ("circuit_breaker", "outlier_detection", "limits", "rate_limit")}
    live = {**LIVE, "throttle": None, "outlier_detection": outliers, "limits": limits, "rate_limit": rates}
    fleet = stormy({**live, "shadow": alike}, seed)
    state = fleet.state
    assert state.outlier.ejections > 3
    assert state.breaker.changes > 1
    refused = {record.refused_by for record in fleet.client.records}
    waits = {wait.reason for record in fleet.client.records for wait in record.waits}
    assert refused | waits >= {"limit", "rate-limit"}
    for name in alike:
        assert (name, fleet.shadow(name).differed, fleet.shadow(name).last) == (name, 0, "")
        assert fleet.shadow(name).same > 100
    assert not any(record.shadow for record in fleet.client.records)


# Each by itself


def test_a_stricter_breaker_says_which_calls_it_would_have_refused() -> None:
    fleet = Fleet(2, {**OFF, "circuit_breaker": {"min_calls": 1000}, "shadow": {"circuit_breaker": {"min_calls": 4}}})
    for part in fleet.parts:
        part.fail_percent = 100.0
    records = fleet.calls(10)
    assert [record.shadow for record in records] == [()] * 4 + [("circuit_breaker would have refused it",)] * 6
    shadow = fleet.shadow("circuit_breaker")
    assert (shadow.same, shadow.differed, shadow.counts) == (4, 6, {"refused": 6, "let_in": 0})
    assert fleet.state.shadow.state_of(shadow) == "open"
    assert fleet.state.breaker.state is BreakerState.CLOSED


def test_a_shadow_breaker_probes_with_a_call_that_is_made_anyhow_and_closes() -> None:
    fleet = Fleet(2, {**OFF, "circuit_breaker": {"min_calls": 1000}, "shadow": {"circuit_breaker": {"min_calls": 4}}})
    for part in fleet.parts:
        part.fail_percent = 100.0
    fleet.calls(5)
    for part in fleet.parts:
        part.fail_percent = 0.0
    fleet.clock.run(fleet.clock.now + 6.0)
    assert [record.shadow for record in fleet.calls(3)] == [(), (), ()]
    assert fleet.state.shadow.state_of(fleet.shadow("circuit_breaker")) == "closed"


def test_a_laxer_breaker_says_which_calls_it_would_have_let_in() -> None:
    live = {"min_calls": 4, "open_for": "60s"}
    fleet = Fleet(2, {**OFF, "circuit_breaker": live, "shadow": {"circuit_breaker": {"min_calls": 1000}}})
    for part in fleet.parts:
        part.fail_percent = 100.0
    records = fleet.calls(6)
    assert [record.error for record in records[4:]] == ["CircuitOpen"] * 2
    assert [record.shadow for record in records] == [()] * 4 + [("circuit_breaker would have let it in",)] * 2
    assert fleet.shadow("circuit_breaker").counts == {"refused": 0, "let_in": 2}


def test_a_breaker_can_be_tried_where_the_live_one_is_off_and_hears_of_new_endpoints() -> None:
    fleet = Fleet(2, {**OFF, "shadow": {"circuit_breaker": {"min_calls": 4, "open_for": "60s"}}})
    assert fleet.state.breaker is None
    for part in fleet.parts:
        part.fail_percent = 100.0
    assert fleet.calls(5)[-1].shadow
    for part in fleet.parts:
        part.fail_percent = 0.0
    fleet.client.publish([*fleet.members[:1], Endpoint("10.0.0.9", 80)])
    fleet.client.network.endpoints["10.0.0.9:80"] = SimEndpoint(constant(0.02))
    assert fleet.calls(1)[0].shadow == ()


def test_a_limit_that_is_smaller_says_who_would_have_been_refused_and_who_would_have_waited() -> None:
    fleet = Fleet(1, {**OFF, "shadow": {"limits": {"max_in_flight": 2, "max_pending": 1}}})
    fleet.parts[0].latency = constant(0.5)
    for _ in range(4):
        fleet.client.call()
    fleet.clock.run()
    assert [record.shadow for record in fleet.client.records] == [(), (), (), ("limits would have refused it",)]
    assert fleet.shadow("limits").counts == {"refused": 1, "let_in": 0, "waited": 1}
    assert (fleet.shadow("limits").same, fleet.client.in_flight) == (3, 0)
    fleet.calls(3, every_s=1.0)  # all places were given back
    assert (fleet.shadow("limits").same, fleet.shadow("limits").differed) == (6, 1)


def test_a_call_that_would_have_waited_for_too_long_would_have_been_refused() -> None:
    limits = {"max_in_flight": 1, "max_wait": "100ms"}
    fleet = Fleet(1, {**OFF, "shadow": {"limits": limits}})
    fleet.parts[0].latency = constant(0.5)
    fleet.client.call()
    fleet.client.call()
    fleet.clock.run()
    assert [record.shadow for record in fleet.client.records] == [(), ("limits would have refused it",)]


def test_a_larger_limit_says_who_would_have_been_let_in_and_a_bulkhead_is_a_part_of_it() -> None:
    live = {**OFF, "limits": {"max_in_flight": 1, "max_pending": 0}}
    fleet = Fleet(1, {**live, "shadow": {"limits": {"max_in_flight": 5}}})
    parts = {"by": "route", "percents": {"default": 50}, "hard": True}
    divided = Fleet(1, {**OFF, "limits": {"max_in_flight": 4}, "shadow": {"bulkhead": parts}})
    for each in (fleet, divided):
        for _ in range(3):
            each.client.call()
        each.clock.run()
    assert [record.shadow for record in fleet.client.records] == [("limits would have let it in",)] * 2 + [()]
    assert [record.shadow for record in divided.client.records] == [(), (), ("limits would have refused it",)]


def test_a_rate_limit_is_compared_call_by_call() -> None:
    fleet = Fleet(1, {**OFF, "shadow": {"rate_limit": {"total": {"rate": 1, "burst": 2}}}})
    assert [len(record.shadow) for record in fleet.calls(4)] == [0, 0, 1, 1]
    assert fleet.shadow("rate_limit").counts == {"refused": 2, "let_in": 0, "waited": 0}
    assert (fleet.shadow("rate_limit").same, fleet.shadow("rate_limit").differed) == (2, 2)


def test_a_shadow_is_asked_only_by_calls_that_come_as_far() -> None:
    live = {**OFF, "limits": {"max_in_flight": 1, "max_pending": 0}}
    fleet = Fleet(1, {**live, "shadow": {"rate_limit": {"total": {"rate": 1, "burst": 1}}}})
    for _ in range(3):
        fleet.client.call()
    fleet.clock.run()
    assert (fleet.shadow("rate_limit").same, fleet.shadow("rate_limit").differed) == (1, 0)


def test_a_throttle_learns_from_the_calls_that_it_would_have_let_in() -> None:
    fleet = Fleet(1, {**OFF, "shadow": {"throttle": {"k": 1.1, "window": "20s"}}})
    fleet.parts[0].fail_percent = 100.0
    records = fleet.calls(200, every_s=0.05)
    refused = sum("throttle would have refused it" in record.shadow for record in records)
    assert refused > 100
    assert fleet.shadow("throttle").counts == {"refused": refused, "let_in": 0}
    assert {record.status for record in records} == {503}


def test_an_outlier_detector_says_what_it_would_have_put_out_and_which_attempts_went_there() -> None:
    service = {
        **OFF,
        "load_balancing": {"policy": "round_robin"},
        "shadow": {"outlier_detection": {"consecutive_errors": 2}},
    }
    fleet = Fleet(4, service)
    fleet.parts[0].fail_percent = 100.0
    records = fleet.calls(40)
    told = ("outlier_detection: 10.0.0.1:80 would have been out",)
    at_the_bad_one = [record.shadow for record in records if record.attempts[0].endpoint == "10.0.0.1:80"]
    assert at_the_bad_one == [(), (), *[told] * 8]
    seen = fleet.shadow("outlier_detection")
    assert (seen.same, seen.differed, seen.counts) == (32, 8, {"ejected": 1, "spared": 0})
    assert fleet.state.shadow.state_of(seen) == "out: 10.0.0.1:80 (2 failures in a row)"
    assert not fleet.client.cluster.ejected
    fleet.parts[0].fail_percent = 0.0
    fleet.clock.run(fleet.clock.now + 30.0)
    assert not any(record.shadow for record in fleet.calls(8))
    assert fleet.state.shadow.state_of(seen) == ""


def test_an_ejection_that_would_not_have_been_made_is_counted() -> None:
    outliers = {"consecutive_errors": 2}
    shadow = {"outlier_detection": {"consecutive_errors": 50}}
    fleet = Fleet(4, {**OFF, "outlier_detection": outliers, "shadow": shadow})
    fleet.parts[0].fail_percent = 100.0
    fleet.calls(60)
    assert len(fleet.client.cluster.ejected) == 1
    seen = fleet.shadow("outlier_detection")
    assert (seen.differed, seen.counts) == (1, {"ejected": 0, "spared": 1})
    assert seen.last == "10.0.0.1:80 would not have been put out (2 failures in a row)"


def test_where_the_shadow_would_panic_an_endpoint_that_is_out_is_used_all_the_same() -> None:
    outliers = {"consecutive_errors": 1, "max_ejection_percent": 100}
    fleet = Fleet(2, {**OFF, "shadow": {"outlier_detection": outliers}})
    for part in fleet.parts:
        part.fail_percent = 100.0
    fleet.calls(4)
    assert fleet.shadow("outlier_detection").counts["ejected"] == 2
    before = fleet.shadow("outlier_detection").differed
    fleet.calls(10)
    assert fleet.shadow("outlier_detection").differed == before


def test_an_endpoint_that_leaves_and_returns_is_still_out_in_the_shadow() -> None:
    fleet = Fleet(3, {**OFF, "shadow": {"outlier_detection": {"consecutive_errors": 1}}})
    fleet.parts[0].fail_percent = 100.0
    fleet.calls(9)
    fleet.client.publish(fleet.members[1:])
    state = fleet.state.shadow.state_of
    assert state(fleet.shadow("outlier_detection")) == ""
    fleet.client.publish([replace(fleet.members[0], weight=2.0), *fleet.members[1:]])
    assert state(fleet.shadow("outlier_detection")).startswith("out: 10.0.0.1:80")


def test_a_balancer_says_which_share_each_endpoint_would_have_had() -> None:
    members = [Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80, health=Health.UNHEALTHY), Endpoint("10.0.0.3", 80)]
    service = {**OFF, "load_balancing": {"policy": "random"}, "shadow": {"load_balancing": {"policy": "round_robin"}}}
    fleet = Fleet(3, service)
    fleet.client.publish(members)
    records = fleet.calls(100)
    shadow = fleet.shadow("load_balancing")
    assert shadow.counts == {"10.0.0.1:80": 50, "10.0.0.3:80": 50}
    assert shadow.differed == sum(bool(record.shadow) for record in records)
    assert 20 < shadow.differed < 80
    assert next(record.shadow for record in records if record.shadow)[0].startswith("load_balancing: 10.0.0.")
    fleet.client.publish(members[:1])
    assert shadow.counts == {"10.0.0.1:80": 50}


def test_a_balancer_by_hash_finds_the_keys_of_calls() -> None:
    fleet = Fleet(5, {**OFF, "hash_on": [{"header": "x-user"}], "shadow": {"load_balancing": {"policy": "maglev"}}})
    fleet.calls(30)
    assert sum(fleet.shadow("load_balancing").counts.values()) == 30


def test_what_a_subset_of_the_endpoints_is_picked_for_is_compared_too() -> None:
    shadow = {"load_balancing": {"policy": "round_robin"}, "outlier_detection": {}}
    balancing = {"policy": "random", "subset": {"selectors": [{"keys": ["v"]}], "fallback": "any"}}
    fleet = Fleet(4, {**OFF, "load_balancing": balancing, "metadata_match": {"v": "2"}, "shadow": shadow})
    fleet.client.publish([replace(each, metadata={"v": str(1 + at % 2)}) for at, each in enumerate(fleet.members)])
    fleet.calls(20)
    assert fleet.shadow("load_balancing").counts == {"10.0.0.2:80": 10, "10.0.0.4:80": 10}
    assert fleet.shadow("outlier_detection").same == 20


def test_a_call_that_is_given_up_before_it_is_let_in_is_not_compared() -> None:
    live = {**OFF, "limits": {"max_in_flight": 1}, "shadow": {"limits": {"max_in_flight": 1, "max_pending": 0}}}
    fleet = Fleet(1, live)
    fleet.parts[0].latency = constant(1.0)
    fleet.client.call()
    fleet.client.call(0.1)
    fleet.clock.run()
    assert (fleet.shadow("limits").same, fleet.shadow("limits").differed, fleet.client.in_flight) == (1, 0, 0)


def test_a_clock_that_jumps_leaves_nothing_behind() -> None:
    fleet = Fleet(2, {**LIVE, "shadow": STRICT})
    fleet.calls(5)
    fleet.clock.now -= 500.0
    fleet.calls(20)
    fleet.clock.now += 5000.0
    fleet.calls(20)
    state = fleet.state
    visits = [getattr(gate, "_visits", None) or getattr(gate, "_asked", None) for gate in state.gates]
    assert not any(visits)
    assert fleet.client.in_flight == 0


# Threads and forks


def test_counts_are_exact_under_threads() -> None:
    fleet = Fleet(3, {**OFF, "shadow": {**STRICT, "limits": {"max_in_flight": 2, "max_pending": 2}}})
    client, threads, each = fleet.client, 8, 60
    problems: list[BaseException] = []

    def run(seed: int) -> None:
        rng = Random(seed)
        try:
            for _ in range(each):
                call = client.make("/", True, None)
                call.begin(NOW)
                call.headers(NOW, 1, 503 if rng.random() < 0.5 else 200)
                call.body_end(NOW, 1)
        except BaseException as error:
            problems.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        running = [threading.Thread(target=run, args=(seed,)) for seed in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert problems == []
    for policy in ("circuit_breaker", "throttle", "limits", "rate_limit", "outlier_detection", "load_balancing"):
        assert fleet.shadow(policy).same + fleet.shadow(policy).differed == threads * each
    assert sum(fleet.shadow("load_balancing").counts.values()) == threads * each
    limit = next(gate for gate in fleet.state.gates if gate.name == "shadow-limits")._gates[-1]
    assert (limit.in_flight, limit.pending) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_no_lock_is_held_and_the_parents_calls_are_not_ours() -> None:
    fleet = Fleet(2, {**OFF, "shadow": STRICT})
    under_way = fleet.client.make("/", True, None)
    under_way.begin(NOW)
    for each in fleet.state.shadow.comparisons:
        each._lock.acquire()
    fleet.state.shadow.outlier.detector._lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            fleet.client.snapshots.renew_locks()
            assert not any(getattr(gate, "_visits", None) for gate in fleet.state.gates)
            call = fleet.client.make("/", True, None)
            call.begin(NOW)
            call.headers(NOW, 1, 503)
            call.body_end(NOW, 1)
            under_way.cancelled(NOW)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
