"""Active checks: when an endpoint is failed and well again, and when the next check is due."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.health_check import (
    Checkup,
    Finding,
    FirstRound,
    HealthCheckSettings,
    HttpCheck,
    TcpCheck,
    Transition,
    first_delay_s,
    judge_bytes,
    judge_response,
    next_delay_s,
)

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "envoy_health_check.json").read_text())
RNG = Random(1)


def finding_of(answer: int | str, retriable: tuple[int, int] | None = None) -> Finding:
    if answer in ("timeout", "disconnect"):
        return Finding.NO_ANSWER
    check = HttpCheck(retriable_statuses=(retriable,) if retriable else ())
    if answer == "degraded":
        return judge_response(check, 200, {b"x-envoy-degraded": b""})
    assert isinstance(answer, int)
    return judge_response(check, answer, {})


def test_intervals_and_transitions_are_those_of_envoy() -> None:
    """HealthCheckIntervals of Envoy's health_checker_impl_test.cc."""
    settings = HealthCheckSettings(initial="passed", **GOLDEN["intervals"]["settings"])
    checkup = Checkup(settings)
    for step in GOLDEN["intervals"]["steps"]:
        finding = finding_of(step["answer"])
        transition = checkup.found(finding)
        assert transition.value == step["transition"]
        assert next_delay_s(settings, finding, transition, step["traffic"], RNG) == step["next_s"]


@pytest.mark.parametrize("golden", GOLDEN["sequences"], ids=lambda golden: str(golden["test"]))
def test_sequences_end_as_in_envoys_tests(golden: dict[str, Any]) -> None:
    settings = HealthCheckSettings(
        initial="failed" if golden["failed"] else "passed", healthy_threshold=2, unhealthy_threshold=2
    )
    checkup = Checkup(settings)
    retriable = tuple(golden["retriable"]) if "retriable" in golden else None
    for answer, transition, state in golden["steps"]:
        assert checkup.found(finding_of(answer, retriable)).value == transition
        assert ("failed" if checkup.failed else "degraded" if checkup.degraded else "well") == state


def test_an_endpoint_that_says_that_it_goes_is_failed_at_once() -> None:
    checkup = Checkup(HealthCheckSettings(unhealthy_threshold=5))
    checkup.found(Finding.PASSED)
    assert checkup.told_to_go() is Transition.CHANGED
    assert checkup.failed


@pytest.mark.parametrize(
    ("status", "headers", "finding"),
    [
        (200, {}, Finding.PASSED),
        (204, {}, Finding.PASSED),
        (205, {}, Finding.WRONG),
        (200, {b"x-envoy-degraded": b""}, Finding.DEGRADED),
        (429, {}, Finding.RETRIABLE),
        (429, {b"x-envoy-immediate-health-check-fail": b"true"}, Finding.WRONG),
        (503, {b"x-envoy-degraded": b""}, Finding.WRONG),
        (200, {b"x-envoy-immediate-health-check-fail": b"true"}, Finding.PASSED),
    ],
)
def test_what_a_response_says(status: int, headers: dict[bytes, bytes], finding: Finding) -> None:
    check = HttpCheck(expected_statuses=((200, 200), (204, 204)), retriable_statuses=((429, 429),))
    assert judge_response(check, status, headers) is finding


@pytest.mark.parametrize(
    ("receive", "received", "passed"),
    [
        ((), b"", True),
        ((b"PONG",), b"+PO", False),
        ((b"PONG",), b"+PONG\r\n", True),
        ((b"a", b"b"), b"xaxbx", True),
        ((b"a", b"b"), b"ba", False),
        ((b"a", b"a"), b"a", False),
    ],
)
def test_pieces_are_found_in_their_order(receive: tuple[bytes, ...], received: bytes, passed: bool) -> None:
    """As PayloadMatcher of Envoy's health_checker_impl.cc: other bytes may stand between the pieces."""
    assert judge_bytes(TcpCheck(receive=receive), received) is passed


def test_nobody_is_left_out_for_want_of_a_check_before_the_first_round_is_over() -> None:
    settings = HealthCheckSettings()
    first, second, newcomer = Checkup(settings), Checkup(settings), Checkup(settings)
    a_round = FirstRound()
    assert not a_round.leaves_out(first)
    first.found(Finding.NO_ANSWER)
    a_round.look(1, 2)
    assert a_round.leaves_out(first), "what was checked and failed is out at once"
    assert not a_round.leaves_out(second)
    second.found(Finding.PASSED)
    assert a_round.look(2, 2)
    a_round.look(2, 3)
    assert a_round.leaves_out(newcomer), "from then on newcomers wait for their check"
    newcomer.found(Finding.PASSED)
    assert not a_round.leaves_out(newcomer)


def test_a_deploy_that_replaces_all_begins_a_first_round() -> None:
    a_round = FirstRound()
    a_round.look(3, 3)
    assert a_round.over
    assert a_round.look(0, 3)
    assert not a_round.over
    assert not a_round.look(0, 0)


def test_who_starts_as_passed_is_never_left_out_before_it_failed() -> None:
    checkup, a_round = Checkup(HealthCheckSettings(initial="passed", unhealthy_threshold=2)), FirstRound()
    a_round.look(1, 1)
    assert not a_round.leaves_out(checkup)
    checkup.found(Finding.NO_ANSWER)
    assert not a_round.leaves_out(checkup)
    checkup.found(Finding.NO_ANSWER)
    assert a_round.leaves_out(checkup)


def test_intervals_are_jittered_within_their_bounds_and_never_nothing() -> None:
    settings = HealthCheckSettings(
        interval_s=10, interval_jitter_s=2, interval_jitter_percent=50, initial_jitter_s=3, no_traffic_interval_s=0
    )
    drawn = [next_delay_s(settings, Finding.PASSED, Transition.UNCHANGED, True, RNG) for _ in range(500)]
    assert 10 <= min(drawn) < 10.7
    assert 16.3 < max(drawn) < 17
    assert 2.9 < max(first_delay_s(settings, RNG) for _ in range(500)) < 3
    still = HealthCheckSettings(no_traffic_interval_s=0)
    assert next_delay_s(still, Finding.PASSED, Transition.UNCHANGED, False, RNG) == 0.001


def test_without_traffic_those_that_are_well_can_have_an_interval_of_their_own() -> None:
    settings = HealthCheckSettings(no_traffic_interval_s=7, no_traffic_healthy_interval_s=70)
    assert next_delay_s(settings, Finding.PASSED, Transition.UNCHANGED, False, RNG) == 70
    assert next_delay_s(settings, Finding.PASSED, Transition.PENDING, False, RNG) == 7
    assert next_delay_s(settings, Finding.NO_ANSWER, Transition.UNCHANGED, False, RNG) == 7


@given(st.lists(st.sampled_from(Finding)), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_it_takes_exactly_the_thresholds_to_change(
    findings: list[Finding], healthy: int, unhealthy: int, failed: bool
) -> None:
    """Against a model that looks at the whole history anew."""
    settings = HealthCheckSettings(
        healthy_threshold=healthy, unhealthy_threshold=unhealthy, initial="failed" if failed else "passed"
    )
    checkup = Checkup(settings)
    well, since = not failed, 0
    for at, finding in enumerate(findings):
        checkup.found(finding)
        lately = [each in (Finding.PASSED, Finding.DEGRADED) for each in findings[since : at + 1]]
        if well:
            changed = finding is Finding.WRONG or (len(lately) >= unhealthy and not any(lately[-unhealthy:]))
        else:
            changed = (at == 0 and lately[-1]) or (len(lately) >= healthy and all(lately[-healthy:]))
        if changed:
            well, since = not well, at + 1
        assert checkup.failed is not well
