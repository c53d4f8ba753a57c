"""The policies together, in the failures of fleets: what the caller sees, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.sim.scenarios.composition import BEGIN, CLIENTS, END, OTHER, PER_SECOND, SCENARIOS, Stage, run

pytestmark = pytest.mark.slow  # in virtual time, so nothing depends on the Python

DEFAULTS, TUNED = "defaults", "defaults, per try 500 ms"

# Success in percent, p99 and p99.9 in seconds.
FLOORS = {
    "one broken route of a healthy service": (100.0, 0.04, 0.04),
    "one bad endpoint of two": (99.9, 0.04, 0.2),
    "half the fleet fails its health checks": (99.9, 0.04, 0.2),
    "a hung endpoint": (99.9, 0.04, 10.1),
    "a slow endpoint": (100.0, 0.04, 2.1),
    "a flapping endpoint": (99.9, 0.04, 0.2),
    "a deploy that replaces every address": (99.9, 0.04, 0.2),
}


def test_each_failure_but_the_total_one_has_a_floor() -> None:
    assert SCENARIOS.keys() - FLOORS.keys() == {"all down for 30 s, and back"}


@pytest.mark.parametrize("failure", FLOORS)
def test_what_a_caller_sees_of_a_failure_with_the_default_policies(failure: str) -> None:
    success_percent, p99_s, p999_s = FLOORS[failure]
    outcome = run(failure, DEFAULTS)
    assert outcome.success_percent >= success_percent
    assert outcome.after_percent == 100.0
    assert outcome.p99_s <= p99_s
    assert outcome.p999_s <= p999_s
    assert outcome.attempts_per_call <= 1.05


@pytest.mark.parametrize("failure", ["a hung endpoint", "a slow endpoint"])
def test_a_per_try_timeout_bounds_what_a_hung_or_slow_endpoint_costs(failure: str) -> None:
    outcome = run(failure, TUNED)
    assert outcome.success_percent == 100.0
    assert outcome.p999_s <= 0.6


@pytest.mark.parametrize(
    ("failure", "most_percent"),
    [
        ("one bad endpoint of two", 80.0),
        ("half the fleet fails its health checks", 99.0),
        ("a hung endpoint", 90.0),
        ("a flapping endpoint", 95.0),
        ("a deploy that replaces every address", 99.9),
    ],
)
def test_without_policies_the_same_failures_reach_the_caller(failure: str, most_percent: float) -> None:
    assert run(failure, "no policies").success_percent <= most_percent


def test_a_fleet_that_is_down_is_left_alone_and_called_again_once_it_is_back() -> None:
    outcome = run("all down for 30 s, and back", DEFAULTS)
    assert outcome.success_percent >= 48.0  # down for half of the time
    assert outcome.after_percent >= 95.0
    assert outcome.attempts_per_call <= 0.65
    assert run("all down for 30 s, and back", "no policies").attempts_per_call == 1.0


@pytest.mark.parametrize(
    ("retry", "least", "most"), [({}, 98.0, 99.7), ({"on": []}, 100.0, 100.0)], ids=["as the others", "not retried"]
)
def test_a_broken_route_uses_up_the_budget_unless_it_is_not_retried(
    retry: dict[str, Any], least: float, most: float
) -> None:
    routes = [{"name": "other", "match": [{"path": {"exact": OTHER}}], "retry": retry}]
    stage = Stage(lambda fleet: fleet.client(routes=routes), 4, 1)
    SCENARIOS["one broken route of a healthy service"](stage)
    for part in stage.parts:
        part.fail_percent = 1.0
    stage.fleet.load(PER_SECOND, END, stage.call)
    stage.fleet.run()
    journals = [call.journal for call, other in stage.calls if not other and (call.journal.began or 0.0) >= BEGIN]
    good = 100.0 * sum(journal.status == 200 for journal in journals) / len(journals)
    assert least <= good <= most


def test_the_same_seed_gives_the_same_outcome() -> None:
    failure, client = "a flapping endpoint", next(iter(CLIENTS))
    assert run(failure, client) == run(failure, client) != run(failure, client, seed=2)
