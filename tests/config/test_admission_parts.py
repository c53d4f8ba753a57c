"""Limits, bulkheads, throttles and rate limits as they are written: what they compile to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import meshlib
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import ClusterSettings
from meshlib.policy.admission_settings import (
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
    ThrottleSettings,
    VegasSettings,
)
from meshlib.policy.settings import HighLimitSettings, LimitSettings


def compiled(service: dict[str, Any], **mesh: Any) -> ClusterSettings:
    return compile_config(load_mapping({"services": {"orders": service}, **mesh})).services["orders"].clusters[None]


def refusal(service: dict[str, Any], **mesh: Any) -> str:
    with pytest.raises(meshlib.ConfigError) as caught:
        load_mapping({"services": {"orders": service}, **mesh})
    return str(caught.value)


def test_nothing_is_there_unless_it_is_written() -> None:
    cluster = compiled({})
    assert (cluster.throttle, cluster.bulkhead, cluster.rate_limit, cluster.fleet) == (None,) * 4
    assert cluster.limits == LimitSettings()


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        ({}, ThrottleSettings()),
        ({"k": 1.1, "window": "30s"}, ThrottleSettings(k=1.1, window_s=30.0)),
        ({"algorithm": "success_rate", "aggression": 2}, SuccessRateThrottleSettings(aggression=2.0)),
        ({"algorithm": "nack", "threshold_percent": 30}, NackSettings(threshold_percent=30.0)),
    ],
)
def test_a_throttle_compiles_to_the_settings_of_its_algorithm(written: dict[str, Any], settings: Any) -> None:
    assert compiled({"throttle": written}).throttle == settings


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        ({}, GradientSettings()),
        ({"min_rtt_interval": "10s"}, GradientSettings(min_rtt_interval_s=10.0)),
        ({"algorithm": "vegas", "max_limit": 50}, VegasSettings(max_limit=50)),
        ({"algorithm": "gradient2", "window": "0s"}, Gradient2Settings(window_s=0.0)),
        ({"algorithm": "aimd", "timeout": "1s", "backoff_percent": 50}, AimdSettings(backoff_percent=50, timeout_s=1)),
    ],
)
def test_an_adaptive_limit_compiles_to_the_settings_of_its_algorithm(written: dict[str, Any], settings: Any) -> None:
    assert compiled({"limits": {"adaptive": written}}).limits.adaptive == settings


def test_a_service_lays_its_limits_over_those_of_the_defaults() -> None:
    defaults = {"limits": {"max_in_flight": 9, "high": {"max_in_flight": 3}}, "throttle": {"k": 3, "window": "5s"}}
    cluster = compiled({"limits": {"max_wait": "1s", "order": "lifo"}, "throttle": {"k": 2}}, defaults=defaults)
    assert cluster.limits == LimitSettings(9, max_wait_s=1.0, order="lifo", high=HighLimitSettings(3))
    assert cluster.throttle == ThrottleSettings(k=2.0, window_s=5.0)
    off = compiled({"limits": {"high": None, "adaptive": False}, "throttle": None}, defaults=defaults)
    assert (off.limits, off.throttle) == (LimitSettings(9), None)


def test_rates_and_keys() -> None:
    written = {
        "total": {"rate": 2.5},
        "by": "header:X-User",
        "each": {"max_tokens": 3, "fill_interval": "100ms"},
        "overrides": {"vip": {"rate": 10, "burst": 1}},
        "max_wait": "50ms",
    }
    assert compiled({"rate_limit": written}).rate_limit == RateLimitSettings(
        GcraSettings(2.5),
        KeySource("header", "x-user"),
        BucketSettings(3, 1, 0.1),
        {"vip": GcraSettings(10.0, 1)},
        max_wait_s=0.05,
    )
    assert GcraSettings(2.5).at_once == 3
    bulkhead = {"percents": {"sheddable": 30, "critical": 70}, "by": "criticality", "hard": True}
    cluster = compiled({"bulkhead": bulkhead, "limits": {"max_in_flight": 10}})
    assert cluster.bulkhead == BulkheadSettings(KeySource("criticality"), {"sheddable": 30, "critical": 70}, True)


def test_the_same_in_code() -> None:
    mesh = meshlib.Mesh(
        services={
            "orders": meshlib.Service(
                limits=meshlib.Limits(
                    max_in_flight=10, high=meshlib.HighLimits(max_in_flight=2), adaptive=meshlib.Adaptive()
                ),
                throttle=meshlib.Throttle(k=1.5),
                rate_limit=meshlib.RateLimit(total=meshlib.Rate(rate=5), by="route", each=meshlib.Rate(max_tokens=3)),
                fleet=meshlib.Fleet(
                    rate_limit=meshlib.FleetRateLimit(rate=5, by="hash_key"),
                    circuit_breaker=meshlib.FleetBreaker(fail_max=3),
                ),
                priority="high",
            )
        },
        redis=meshlib.Redis(url="redis://:secret@127.0.0.1:1/0"),
    )
    assert "secret" not in repr(mesh)
    mesh.close()


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ({"throttle": {"aggression": 2}}, "throttle: has aggression, which belongs to success_rate, and its algorithm"),
        ({"throttle": {"k": None}}, "throttle: has k: null; leave it out for the default"),
        ({"throttle": {"k": 0.5}}, "throttle.k: "),
        ({"throttle": {"max_rejection_percent": 101}}, "throttle.max_rejection_percent: "),
        ({"throttle": {"algorithm": "sree"}}, "did you mean 'sre'?"),
        ({"limits": {"adaptive": {"queue_size": 3}}}, "has queue_size, which belongs to gradient2"),
        (
            {"limits": {"adaptive": {"min_limit": 50, "max_limit": 10}}},
            "limits.adaptive.min_limit: min_limit (50) is above max_limit (10)",
        ),
        (
            {"limits": {"adaptive": {"algorithm": "aimd", "max_limit": 5}}},
            "limits.adaptive.max_limit: min_limit (20) is above max_limit (5)",
        ),
        ({"limits": {"max_wait": "1s"}}, "limits.max_wait: does nothing: nobody waits"),
        ({"limits": {"order": "random"}}, "limits.order: "),
        ({"limits": {"max_connections": 0}}, "limits.max_connections: "),
        ({"bulkhead": {"percents": {"a": 10}}}, "bulkhead: divides a limit that there is not"),
        ({"bulkhead": {"percents": {"a": 60, "b": 41}}, "limits": {"max_in_flight": 5}}, "there are only 100"),
        ({"bulkhead": {"percents": {"a": 0}}, "limits": {"max_in_flight": 5}}, "bulkhead.percents"),
        ({"bulkhead": {"percents": {}}, "limits": {"max_in_flight": 5}}, "bulkhead.percents"),
        (
            {"bulkhead": {"percents": {"a": 10}}, "limits": {"max_in_flight": 5, "max_pending": 3}},
            "bulkhead: lets nobody wait, and limits.max_pending lets calls wait",
        ),
        (
            {"bulkhead": {"percents": {"a": 10}}, "limits": {"max_in_flight": 5, "high": {"max_in_flight": 3}}},
            "bulkhead: divides the limit, and so does limits.high",
        ),
        ({"rate_limit": {}}, "rate_limit: limits nothing"),
        ({"rate_limit": {"each": {"rate": 1}}}, "rate_limit.each: needs 'by'"),
        ({"rate_limit": {"total": {"rate": 1}, "by": "route"}}, "rate_limit.by: does nothing without"),
        ({"rate_limit": {"total": {"rate": 0}}}, "rate_limit.total.rate: "),
        ({"rate_limit": {"total": {"rate": 1, "fill_interval": "1s"}}}, "has a rate, and fill_interval of a bucket"),
        ({"rate_limit": {"total": {"max_tokens": 1, "burst": 1}}}, "has burst, which belongs to a rate"),
        ({"rate_limit": {"total": {"max_tokens": 1, "fill_interval": "49ms"}}}, "has a fill_interval below 50ms"),
        ({"rate_limit": {"total": {"rate": 1}, "by": "user"}}, "rate_limit.by: 'user' does not tell calls apart"),
        ({"fleet": {"rate_limit": {"rate": 1}}}, "fleet: needs a Redis"),
        ({"priority": "higher"}, "priority: 'higher' is not one of default, high"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(service: dict[str, Any], text: str) -> None:
    assert text in refusal(service)


def test_one_breaker_for_all_services_is_refused() -> None:
    pybreaker = pytest.importorskip("pybreaker")
    breaker = pybreaker.CircuitBreaker()
    assert "is one breaker for all services" in refusal({}, defaults={"circuit_breaker": breaker})
    assert compiled({"circuit_breaker": breaker}).breaker is breaker
