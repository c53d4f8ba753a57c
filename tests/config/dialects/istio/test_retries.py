"""Retries are read as Istio reads them: the cases of its retry_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.dialects.istio.retries import DEFAULT_CONDITIONS, parse_retry_on
from meshlib.policy.settings import RetryPolicy
from tests.config.dialects.istio.support import draft_of, effects, http, load, notes, virtual_service

ISTIOS = frozenset(DEFAULT_CONDITIONS)


@pytest.mark.parametrize(
    ("retry_on", "conditions", "statuses"),
    [
        ("some,fake,conditions", "some,fake,conditions", []),
        ("some,fake,conditions,,,", "some,fake,conditions", []),
        ("gateway-error,retriable-status-codes,503", "gateway-error,retriable-status-codes", [503]),
        ("reset-before-request", "reset-before-request", []),
        (" some,\t,fake ,\tconditions, ,", "some,fake,conditions", []),
        ("some,fake,5xx,404,conditions,503", "some,fake,5xx,conditions,retriable-status-codes", [404, 503]),
        ("some,fake,conditions,1000", "some,fake,conditions,1000", []),
        ("reset,503", "reset,retriable-status-codes", [503]),
    ],
)
def test_whole_numbers_among_conditions_are_statuses(retry_on: str, conditions: str, statuses: list[int]) -> None:
    # TestRetry and TestInboundRetry in Istio's retry_test.go.
    found = parse_retry_on(retry_on)
    assert (",".join(found[0]), found[1]) == (conditions, statuses)


def policy(**route: Any) -> tuple[RetryPolicy, float | None]:
    route_ = load(virtual_service(http(**route))).services["reviews"].routes[0]
    return route_.policy.retry, route_.policy.per_try_timeout_s


def test_without_a_word_there_are_two_retries_on_istios_conditions() -> None:
    retry, per_try_s = policy()
    assert (retry.max_retries, retry.on, retry.retriable_status_codes, per_try_s) == (2, ISTIOS, frozenset(), None)


def test_no_attempts_are_no_retries() -> None:
    assert policy(retries={"attempts": 0})[0].max_retries == 0
    assert policy(retries={"perTryTimeout": "1s"})[0].max_retries == 0


def test_attempts_without_conditions_are_on_istios() -> None:
    retry, per_try_s = policy(retries={"attempts": 3})
    assert (retry.max_retries, retry.on, per_try_s) == (3, ISTIOS, None)


def test_all_fields_are_taken() -> None:
    retries = {"attempts": 2, "retryOn": "5xx,404", "perTryTimeout": "3s", "backoff": "2s"}
    retry, per_try_s = policy(retries=retries)
    assert retry.on == {"5xx", "retriable-status-codes"}
    assert retry.retriable_status_codes == {404}
    assert (retry.backoff_base_s, retry.backoff_max_s, per_try_s) == (2.0, 20.0, 3.0)


def test_an_attempt_that_may_take_longer_than_the_call_is_ended_with_it() -> None:
    assert policy(timeout="1s", retries={"attempts": 1, "perTryTimeout": "2s"})[1] is None
    assert policy(timeout="0s", retries={"attempts": 1, "perTryTimeout": "2s"})[1] == 2.0


def test_what_is_not_safe_to_repeat_is_retried_on_demand_alone() -> None:
    text = virtual_service(http(retries={"attempts": 1}))
    assert ("spec.http[].retries", "different") in effects(draft_of(text))
    assert not load(text).services["reviews"].routes[0].policy.retry.unsafe
    unsafe: dict[str, Any] = {"documents": {"retry_unsafe": True}}
    assert effects(draft_of(text, **unsafe)) == set()
    service = load(text, **unsafe).services["reviews"]
    assert [route.policy.retry.unsafe for route in service.routes] == [True, True]


@pytest.mark.parametrize(
    ("retries", "said", "effect"),
    [
        ({"attempts": 1, "retryOn": "5xxx"}, "'5xxx' is no condition", "wrong"),
        ({"attempts": -1}, "below 0", "wrong"),
        ({"attempts": 1, "retryOn": "http3-post-connect-failure"}, "HTTP/3", "ignored"),
        ({"attempts": 1, "retryIgnorePreviousHosts": True, "retryRemoteLocalities": False}, "repeat", "different"),
    ],
)
def test_what_cannot_be_done_is_told_of(retries: dict[str, Any], said: str, effect: str) -> None:
    found = notes(draft_of(virtual_service(http(retries=retries))), effect)
    assert len(found) == 1 and said in found[0]
