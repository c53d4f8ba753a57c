"""What `defaults` have is taken over by a service, and switched off there by false or null, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import ServiceSettings

OF_CLUSTERS: dict[str, Any] = {
    "bulkhead": {"percents": {"a": 50}, "by": "hash_key"},
    "circuit_breaker": {},
    "fleet": {"rate_limit": {"rate": 1}},
    "health_check": {"tcp": {}},
    "outlier_detection": {},
    "rate_limit": {"total": {"rate": 5}},
    "shadow": {"throttle": {"k": 3}},
    "throttle": {},
}
OF_CALLS: dict[str, Any] = {"fault": {"abort": {"reset": True, "percent": 1}}, "hedge": {}}
OF_BALANCING: dict[str, Any] = {
    "session_affinity": {},
    "slow_start": {},
    "subset": {"selectors": [{"keys": ["a"]}]},
    "subsetting": {},
    "zone_aware": {"local_service": "checkout"},
}
OWN_NAMES = {"circuit_breaker": "breaker", "outlier_detection": "outlier"}


def _orders(defaults: dict[str, Any], orders: dict[str, Any]) -> ServiceSettings:
    top = {"redis": {"url": "redis://127.0.0.1"}, "locality": {"zone": "a"}}
    limits = {"limits": {"max_in_flight": 10}}
    config = load_mapping({**top, "defaults": {**limits, **defaults}, "services": {"orders": orders}})
    return compile_config(config).services["orders"]


# Of what is on by default null would not say what is meant.
@pytest.mark.parametrize(
    ("name", "off"),
    [(name, off) for name in OF_CLUSTERS for off in (False, None) if off is False or name not in OWN_NAMES],
)
def test_policies_of_clusters(name: str, off: Any) -> None:
    defaults, field = {name: OF_CLUSTERS[name]}, OWN_NAMES.get(name, name)
    assert getattr(_orders(defaults, {}).clusters[None], field) is not None
    assert getattr(_orders(defaults, {name: off}).clusters[None], field) is None


@pytest.mark.parametrize("off", [False, None])
@pytest.mark.parametrize("name", sorted(OF_CALLS))
def test_policies_of_calls(name: str, off: Any) -> None:
    def policies(orders: dict[str, Any]) -> list[Any]:
        return [getattr(route.policy, name) for route in _orders({name: OF_CALLS[name]}, orders).routes]

    route = {"name": "quiet", "match": [{"method": "GET"}]}
    assert None not in policies({"routes": [route]})
    assert policies({name: off}) == [None]
    quiet, others = policies({"routes": [{**route, name: off}]})
    assert quiet is None
    assert others is not None


@pytest.mark.parametrize("off", [False, None])
@pytest.mark.parametrize("name", sorted(OF_BALANCING))
def test_parts_of_balancing(name: str, off: Any) -> None:
    def part(orders: dict[str, Any]) -> Any:
        defaults = {"load_balancing": {"policy": "round_robin", name: OF_BALANCING[name]}}
        return getattr(_orders(defaults, orders).clusters[None].load_balancing, name)

    assert part({}) is not None
    assert part({"load_balancing": {name: off}}) is None


def test_what_rests_on_another_field_may_have_that_from_the_defaults() -> None:
    selectors = [{"keys": ["version"]}]
    load_mapping(
        {
            "defaults": {
                "limits": {"max_wait": "1s"},
                "load_balancing": {"subset": {"default": {"version": "v1"}, "selectors": selectors}},
            },
            "services": {
                "orders": {
                    "limits": {"max_in_flight": 5},
                    "load_balancing": {"subset": {"fallback": "default", "selectors": selectors}},
                }
            },
        }
    )
