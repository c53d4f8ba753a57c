"""Numbers with which no formula can be reckoned are refused where they are written."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.errors import ConfigError

TINY, HUGE = 5e-324, 10**400


@pytest.mark.parametrize(
    ("field", "policy"),
    [
        ("throttle.window", {"throttle": {"window": TINY}}),
        ("throttle.window", {"throttle": {"window": "1000000d"}}),
        ("throttle.success_rate_percent", {"throttle": {"algorithm": "success_rate", "success_rate_percent": TINY}}),
        ("rate_limit.total.burst", {"rate_limit": {"total": {"rate": 1, "burst": HUGE}}}),
        ("rate_limit.total.rate", {"rate_limit": {"total": {"rate": 1e300}}}),
        ("rate_limit.total.rate", {"rate_limit": {"total": {"rate": "1e-300"}}}),
        ("limits.adaptive.long_window", {"limits": {"adaptive": {"algorithm": "gradient2", "long_window": HUGE}}}),
        ("circuit_breaker.window", {"circuit_breaker": {"window": TINY}}),
        ("load_balancing.slow_start.aggression", {"load_balancing": {"slow_start": {"aggression": 1e-12}}}),
        ("endpoints[0].weight", {"endpoints": [{"address": "a:1", "weight": 1e308}]}),
        ("timeout", {"timeout": 1e300}),
        ("timeout", {"timeout": 1e-9}),
    ],
)
def test_what_cannot_be_reckoned_with_is_refused(field: str, policy: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        load_mapping({"services": {"orders": policy}})
    assert any(f"services.orders.{field}: " in problem for problem in refused.value.problems)


@pytest.mark.parametrize("timeout", ["1us", "36500d", 0.5])
def test_what_can_be_is_not(timeout: Any) -> None:
    config = load_mapping({"services": {"orders": {"timeout": timeout, "per_try_timeout": None}}})
    assert compile_config(config).services["orders"].routes[0].policy.timeout_s
