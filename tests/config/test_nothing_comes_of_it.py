"""What is written and would do nothing, or too much, is refused with its field and the nearest that would be right."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.load import load_mapping
from meshlib.errors import ConfigError

SECRET = "s3cr3t"
LIMITED = {"limits": {"max_in_flight": 10}}
ROUTES = [{"name": "search", "match": [{"path": {"path_prefix": "/search"}}]}]
RATE = {"rate": 5}
SELECTORS = {"selectors": [{"keys": ["v"]}]}


def problems(orders: dict[str, Any], **top: Any) -> tuple[str, ...]:
    try:
        load_mapping({"services": {"orders": orders, **top.pop("services", {})}, **top})
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    ("orders", "field", "said"),
    [
        (
            {**LIMITED, "bulkhead": {"percents": {"serch": 30}}, "routes": ROUTES},
            "bulkhead.percents.serch",
            "'search'?",
        ),
        (
            {**LIMITED, "bulkhead": {"by": "criticality", "percents": {"SHEDABLE": 30}}},
            "bulkhead.percents.SHEDABLE",
            "did you mean 'sheddable'?",
        ),
        (
            {"rate_limit": {"by": "route", "overrides": {"x": RATE}}},
            "rate_limit.overrides.x",
            "those that there are: default",
        ),
        ({"metadata_match": {"v": "1"}}, "metadata_match", "load_balancing: {subset"),
        ({"routes": [{"metadata_match": {"v": "1"}}]}, "routes[0].metadata_match", "load_balancing: {subset"),
        ({"load_balancing": {"locality_weights": {"a": 0, "b": 0}}}, "load_balancing.locality_weights", "zero"),
        ({"load_balancing": {"failover_priority": ["=a"]}}, "load_balancing.failover_priority[0]", "no label"),
        (
            {"load_balancing": {"zone_aware": {"local_counts": {"a": 0}}}},
            "load_balancing.zone_aware.local_counts",
            "nobody",
        ),
        ({"limits": {"max_in_flight": 5, "adaptive": {"min_limit": 10}}}, "limits.adaptive.min_limit", "(5)"),
        ({"limits": {"max_pending": 10}}, "limits.max_pending", "max_in_flight is not set"),
        (
            {"load_balancing": {"subset": {**SELECTORS, "fallback": "any", "default": {"v": "1"}}}},
            "load_balancing.subset.default",
            "no fallback",
        ),
        ({"timeout": "2s", "hedge": {"min_delay": "2s"}}, "hedge.min_delay", "below timeout (2s)"),
        ({"per_try_timeout": "1s", "hedge": {"min_delay": "2s"}}, "hedge.min_delay", "below per_try_timeout (1s)"),
    ],
)
def test_it_is_refused(orders: dict[str, Any], field: str, said: str) -> None:
    (problem,) = problems(orders)
    assert f"services.orders.{field}: " in problem
    assert said in problem


@pytest.mark.parametrize(
    "orders",
    [
        {**LIMITED, "bulkhead": {"percents": {"search": 30, "default": 30, "from-checkout": 10}}, "routes": ROUTES},
        {"rate_limit": {"by": "header:x-user", "overrides": {"anybody": RATE}}},
        {"metadata_match": {"v": "1"}, "load_balancing": {"subset": SELECTORS}},
        {"routes": [{"backends": [{"service": "checkout"}], "metadata_match": {"v": "1"}}]},
        {"load_balancing": {"locality_weights": {"a": 0, "b": 1}}},
        {"limits": {"max_in_flight": 5, "adaptive": {}}},
        {"limits": {"adaptive": {}, "max_pending": 10}},
        {"limits": {"max_pending": 0}},
        {"load_balancing": {"subset": {"selectors": [{"keys": ["v"], "fallback": "default"}], "default": {"v": "1"}}}},
        {"timeout": "2s", "hedge": {"min_delay": "1s"}},
    ],
)
def test_what_does_something_is_not(orders: dict[str, Any]) -> None:
    checkout = {"routes": [{"name": "from-checkout", "backends": [{"service": "orders"}]}]}
    assert problems(orders, services={"checkout": checkout}) == ()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@cache:port/0",
        f"redis://:{SECRET}@cache:99999/0",
        f"rediss://user:{SECRET}@cache:6380/first",
        f"http://:{SECRET}@cache",
        [f"redis://:{SECRET}@cache"],
    ],
)
def test_the_url_of_a_redis_is_looked_at_and_never_shown(url: Any) -> None:
    (problem,) = problems({}, redis={"url": url})
    assert "redis.url: " in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "url", ["redis://cache", f"rediss://user:{SECRET}@[::1]:6380/3?ssl_cert_reqs=none", "unix:///run/redis.sock?db=1"]
)
def test_a_good_one_is_taken(url: str) -> None:
    assert problems({}, redis={"url": url}) == ()


def test_what_defaults_say_of_limits_and_subsets_is_for_the_services_that_have_them() -> None:
    subset = {"subset": {**SELECTORS, "default": {"v": "1"}}}
    defaults = {"limits": {"max_pending": 10}, "load_balancing": subset}
    assert problems(LIMITED, defaults=defaults) == ()


def test_an_inherited_limit_lets_calls_wait() -> None:
    assert problems({"limits": {"max_pending": 10}}, defaults=LIMITED) == ()
