"""Shadows as they are written: what they compile to over what is live, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import meshlib
from meshlib import CircuitBreaker, Mesh, Service, Shadow
from meshlib.balance.settings import LoadBalancing
from meshlib.balance.shadow import ShadowedState
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import ClusterSettings, ServiceSettings
from meshlib.policy.admission_settings import GcraSettings, NackSettings, RateLimitSettings, ThrottleSettings
from meshlib.policy.settings import BreakerSettings, LimitSettings, OutlierSettings, ShadowSettings


def service_of(service: dict[str, Any], **mesh: Any) -> ServiceSettings:
    return compile_config(load_mapping({"services": {"orders": service}, **mesh})).services["orders"]


def compiled(service: dict[str, Any], **mesh: Any) -> ClusterSettings:
    return service_of(service, **mesh).clusters[None]


def refusal(service: dict[str, Any], **mesh: Any) -> str:
    with pytest.raises(meshlib.ConfigError) as caught:
        load_mapping({"services": {"orders": service}, **mesh})
    return str(caught.value)


def test_there_is_none_unless_it_is_written() -> None:
    assert compiled({}).shadow is None
    assert compiled({"shadow": False}).shadow is None


@pytest.mark.parametrize(
    ("live", "shadow", "settings"),
    [
        (
            {"circuit_breaker": {"min_calls": 7}},
            {"circuit_breaker": {"failure_percent": 10}},
            ShadowSettings(breaker=BreakerSettings(10.0, 7)),
        ),
        (
            {"circuit_breaker": False},
            {"circuit_breaker": {"min_calls": 3}},
            ShadowSettings(breaker=BreakerSettings(min_calls=3)),
        ),
        (
            {"outlier_detection": {"base_ejection": "5s"}},
            {"outlier_detection": {"consecutive_errors": 2}},
            ShadowSettings(outlier=OutlierSettings(consecutive_errors=2, base_ejection_s=5.0)),
        ),
        ({}, {"throttle": {"k": 1.5}}, ShadowSettings(throttle=ThrottleSettings(1.5))),
        (
            {"throttle": {"k": 1.5}},
            {"throttle": {"algorithm": "nack"}},
            ShadowSettings(throttle=NackSettings()),
        ),
        (
            {"limits": {"max_in_flight": 9, "order": "lifo"}},
            {"limits": {"max_in_flight": 4}},
            ShadowSettings(limits=LimitSettings(4, order="lifo")),
        ),
        (
            {"rate_limit": {"total": {"rate": 5}, "max_wait": "1s"}},
            {"rate_limit": {"total": {"rate": 2}}},
            ShadowSettings(rate_limit=RateLimitSettings(GcraSettings(2.0), max_wait_s=1.0)),
        ),
        (
            {"load_balancing": {"panic_percent": 10}},
            {"load_balancing": {"policy": "random"}},
            ShadowSettings(load_balancing=LoadBalancing("random", panic_percent=10.0)),
        ),
    ],
)
def test_it_is_laid_over_what_is_live(live: dict[str, Any], shadow: dict[str, Any], settings: ShadowSettings) -> None:
    assert compiled({**live, "shadow": shadow}).shadow == settings


def test_levels_are_laid_over_one_another_and_then_over_the_live_policy_of_the_service() -> None:
    defaults = {"circuit_breaker": {"min_calls": 7}, "shadow": {"circuit_breaker": {"failure_percent": 10}}}
    own = {"circuit_breaker": {"min_calls": 3}}
    assert compiled(own, defaults=defaults).shadow == ShadowSettings(breaker=BreakerSettings(10.0, 3))
    both = {**own, "shadow": {"throttle": {}}}
    expected = ShadowSettings(breaker=BreakerSettings(10.0, 3), throttle=ThrottleSettings())
    assert compiled(both, defaults=defaults).shadow == expected
    assert compiled({"shadow": False}, defaults=defaults).shadow is None
    assert compiled({"shadow": {"circuit_breaker": None}}, defaults=defaults).shadow is None
    subset = service_of({**own, "subsets": {"v1": {"version": "v1"}}}, defaults=defaults).clusters["v1"]
    assert subset.shadow == ShadowSettings(breaker=BreakerSettings(10.0, 3))
    fallback = compile_config(load_mapping({"defaults": defaults})).fallback("else").clusters[None]
    assert fallback.shadow == ShadowSettings(breaker=BreakerSettings(10.0, 7))


def test_in_code_it_is_written_in_the_same_words() -> None:
    shadow = Shadow(circuit_breaker=CircuitBreaker(min_calls=3))
    with Mesh(services={"orders": Service(endpoints=["127.0.0.1:1"], shadow=shadow)}) as mesh:
        state = mesh._wiring.snapshots.service("orders").state.clusters[None]
    assert isinstance(state, ShadowedState)


def test_callers_that_a_shadow_counts_are_watched() -> None:
    zone_aware = {"load_balancing": {"zone_aware": {"local_service": "checkout"}}}
    assert service_of({"shadow": zone_aware}, locality={"zone": "a"}).callers == {"checkout"}


@pytest.mark.parametrize(
    ("live", "shadow", "expected"),
    [
        ({}, {}, "services.orders.shadow: compares nothing"),
        ({}, {"breaker": {}}, "services.orders.shadow.breaker"),
        ({}, {"hedge": {"after": "p95"}}, "services.orders.shadow.hedge"),
        ({}, {"circuit_breaker": False}, "services.orders.shadow.circuit_breaker"),
        ({}, {"circuit_breaker": {"failure_percent": 101}}, "services.orders.shadow.circuit_breaker.failure_percent"),
        (
            {},
            {"circuit_breaker": {"open_for": "90s"}},
            "services.orders.shadow.circuit_breaker.open_for: 90s is above max_open_for",
        ),
        (
            {"outlier_detection": {"max_ejection": "40s"}},
            {"outlier_detection": {"base_ejection": "50s"}},
            "services.orders.shadow.outlier_detection.base_ejection",
        ),
        (
            {},
            {"bulkhead": {"percents": {"default": 50}}},
            "services.orders.shadow.bulkhead: divides a limit that there is not",
        ),
        (
            {"limits": {"max_in_flight": 3}},
            {"limits": {"max_connections": 2}},
            "services.orders.shadow.limits.max_connections",
        ),
        ({}, {"rate_limit": {"by": "route"}}, "services.orders.shadow.rate_limit"),
        (
            {},
            {"load_balancing": {"policy": "round_robin", "slow_start": {"window": "10s"}}},
            "services.orders.shadow.load_balancing.slow_start: is when endpoints joined",
        ),
        (
            {},
            {"load_balancing": {"session_affinity": {}}},
            "services.orders.shadow.load_balancing.session_affinity",
        ),
        (
            {},
            {"load_balancing": {"policy": "random", "least_request": {"choice_count": 3}}},
            "services.orders.shadow.load_balancing.least_request",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(
    live: dict[str, Any], shadow: dict[str, Any], expected: str
) -> None:
    assert expected in refusal({**live, "shadow": shadow})
