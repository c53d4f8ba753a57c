"""Retries, budgets and faults as they are written: what they compile to, and what is refused, with the field named."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import MeshSettings
from meshlib.errors import ConfigError
from meshlib.policy.fault import AbortSettings, DelaySettings, FaultSettings
from meshlib.policy.retry_on import CONDITIONS
from meshlib.policy.retry_settings import BudgetSettings, HeaderCondition, RateLimitedBackoff, ResetHeader
from meshlib.routing.match import StringMatch


def compiled(orders: dict[str, Any], defaults: dict[str, Any] | None = None) -> MeshSettings:
    given = {"service": "checkout", "services": {"orders": orders}, "defaults": defaults or {}}
    return compile_config(load_mapping(given, environ={}))


def problems(orders: dict[str, Any], defaults: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compiled(orders, defaults)
    return str(caught.value)


def test_every_condition_can_be_written() -> None:
    policy = compiled(
        {
            "retry": {
                "on": [*CONDITIONS, "503", 418],
                "retriable_status_codes": [200, 409],
                "retriable_headers": [{"name": "X-Verdict", "prefix": "retry"}, {"name": "x-b", "present": False}],
            }
        }
    )
    retry = policy.services["orders"].routes[-1].policy.retry
    assert retry.on == {*CONDITIONS, 503, 418}
    assert retry.retriable_status_codes == {200, 409}
    assert retry.retriable_headers == (
        HeaderCondition("x-verdict", prefix="retry"),
        HeaderCondition("x-b", present=False),
    )
    assert [each.match for each in retry.retriable_headers] == [
        StringMatch("prefix", "retry"),
        StringMatch("present", invert=True),
    ]
    assert retry.looks_closely


def test_the_usual_conditions_look_at_no_good_response() -> None:
    assert not compiled({}).services["orders"].routes[-1].policy.retry.looks_closely


def test_back_off_and_reset_headers() -> None:
    retry = (
        compiled(
            {
                "retry": {
                    "backoff": {"base": "10ms", "jitter": "decorrelated"},
                    "rate_limited_backoff": {
                        "reset_headers": [
                            {"name": "Retry-After", "format": "seconds"},
                            {"name": "X-RateLimit-Reset", "format": "unix_timestamp"},
                        ],
                        "max_interval": "30s",
                    },
                    "retriable_methods": "get",
                }
            }
        )
        .services["orders"]
        .routes[-1]
        .policy.retry
    )
    assert (retry.backoff_base_s, retry.backoff_max_s, retry.backoff_jitter) == (0.01, 0.25, "decorrelated")
    headers = (ResetHeader("retry-after"), ResetHeader("x-ratelimit-reset", "unix_timestamp"))
    assert retry.rate_limited_backoff == RateLimitedBackoff(headers, 30.0)
    assert retry.retriable_methods == {"GET"}


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        ({}, BudgetSettings()),
        ({"tokens": 5}, BudgetSettings(tokens=5)),
        ({"kind": "rate", "percent": 10, "ttl": "5s"}, BudgetSettings("rate", percent=10, ttl_s=5)),
        ({"kind": "rate", "arithmetic": "tower"}, BudgetSettings("rate", arithmetic="tower")),
        ({"kind": "concurrency", "percent": 30}, BudgetSettings("concurrency", percent=30)),
        ({"kind": "concurrency", "max_retries": 3}, BudgetSettings("concurrency", max_retries=3)),
    ],
)
def test_a_budget_of_each_kind(written: dict[str, Any], settings: BudgetSettings) -> None:
    assert compiled({"retry_budget": written}).services["orders"].budget == settings


def test_another_kind_begins_with_its_own_defaults() -> None:
    settings = compiled({"retry_budget": {"kind": "concurrency"}}, {"retry_budget": {"kind": "rate", "percent": 90}})
    assert settings.services["orders"].budget == BudgetSettings("concurrency")
    settings = compiled({"retry_budget": {"ttl": "5s"}}, {"retry_budget": {"kind": "rate", "percent": 90}})
    assert settings.services["orders"].budget == BudgetSettings("rate", percent=90, ttl_s=5)


def test_faults_of_a_service_and_of_a_route() -> None:
    service = compiled(
        {
            "fault": {"delay": {"fixed": "2s", "percent": 10}, "max_active": 5},
            "routes": [
                {"name": "beta", "match": [{"method": "GET"}], "fault": {"abort": {"status": 503, "percent": 1}}},
                {"name": "plain", "match": [{"method": "PUT"}], "fault": False},
            ],
        }
    ).services["orders"]
    delay = DelaySettings(2.0, 10)
    assert [route.policy.fault for route in service.routes] == [
        FaultSettings(delay, AbortSettings(503, percent=1), 5),
        None,
        FaultSettings(delay, max_active=5),
    ]


def test_there_is_no_fault_unless_one_is_written() -> None:
    assert compiled({}).services["orders"].routes[-1].policy.fault is None


@pytest.mark.parametrize(
    ("orders", "words"),
    [
        ({"retry_budget": {"arithmetic": "tower"}}, ["retry_budget.arithmetic", "kind rate"]),
        ({"retry": {"on": ["http3-post-connect-failure"]}}, ["retry.on", "HTTP/3"]),
        ({"retry": {"on": ["gateway-errors"]}}, ["retry.on", "gateway-error"]),
        ({"retry": {"retriable_status_codes": [409]}}, ["retriable_status_codes", "'retriable-status-codes'"]),
        ({"retry": {"retriable_headers": [{"name": "x", "present": True}]}}, ["retriable_headers"]),
        ({"retry": {"on": ["retriable-headers"]}}, ["retry.on", "no 'retriable_headers'"]),
        ({"retry": {"retriable_status_codes": [99]}}, ["retriable_status_codes"]),
        ({"retry": {"retriable_request_headers": [{"name": "x"}]}}, ["has no condition"]),
        ({"retry": {"retriable_request_headers": [{"name": "x", "exact": "a", "regex": "b"}]}}, ["exact and regex"]),
        ({"retry": {"backoff": {"jitter": "some"}}}, ["retry.backoff.jitter"]),
        ({"retry": {"rate_limited_backoff": {"reset_headers": []}}}, ["reset_headers"]),
        (
            {"retry": {"rate_limited_backoff": {"reset_headers": [{"name": "a"}]}, "retry_after_max": "2s"}},
            ["retry_after_max", "rate_limited_backoff"],
        ),
        ({"retry_budget": {"percent": 10}}, ["retry_budget.percent", "rate and concurrency", "tokens"]),
        ({"retry_budget": {"kind": "rate", "tokens": 10}}, ["retry_budget.tokens", "kind tokens"]),
        ({"retry_budget": {"kind": "rate", "ttl": "2m"}}, ["retry_budget.ttl", "1s to 60s"]),
        ({"retry_budget": {"kind": "concurrency", "ttl": "5s"}}, ["retry_budget.ttl", "kind rate"]),
        ({"retry_budget": {"kind": "concurrency", "max_retries": 1, "percent": 5}}, ["retry_budget.percent"]),
        ({"retry_budget": {"kind": "fixed"}}, ["retry_budget.kind"]),
        ({"fault": {"delay": {"percent": 10}}}, ["fault.delay", "'fixed' is needed"]),
        ({"fault": {"delay": {"fixed": "1s", "percent": 101}}}, ["fault.delay.percent"]),
        ({"fault": {"abort": {"percent": 10}}}, ["fault.abort", "not with what"]),
        ({"fault": {"abort": {"status": 199}}}, ["fault.abort.status"]),
        ({"fault": {"abort": {"status": 500, "reset": True}}}, ["fault.abort", "status and reset"]),
        ({"fault": {"abort": {"grpc_status": 17}}}, ["fault.abort.grpc_status"]),
        ({"fault": {"max_active": -1}}, ["fault.max_active"]),
        (
            {
                "fault": {"abort": {"status": 500, "percent": 1}},
                "routes": [{"fault": {"abort": {"reset": True}}}],
            },
            ["routes[0].fault.abort", "inherited"],
        ),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_field_named(orders: dict[str, Any], words: list[str]) -> None:
    text = problems(orders)
    assert all(word in text for word in words), text


def test_faults_may_be_left_to_requests_altogether() -> None:
    fault = {"delay": {"percent": 100}, "abort": {"percent": 50}, "headers": True}
    settings = compiled({"fault": fault}).services["orders"].routes[-1].policy.fault
    assert settings == FaultSettings(DelaySettings(None, 100), AbortSettings(percent=50), None, True)
