"""Hedging as it is written: what it comes to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib import ConfigError, Hedge, Mesh, Route, Service
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import ServiceSettings
from meshlib.policy.settings import HedgeSettings


def compiled(service: dict[str, Any], **top: Any) -> ServiceSettings:
    return compile_config(load_mapping({**top, "services": {"orders": service}})).services["orders"]


def hedges(service: dict[str, Any], **top: Any) -> dict[str, HedgeSettings | None]:
    return {route.name: route.policy.hedge for route in compiled(service, **top).routes}


def test_it_is_off_unless_written() -> None:
    assert hedges({}) == {"default": None}


def test_an_empty_map_is_the_95th_percentile() -> None:
    (hedge,) = hedges({"hedge": {}}).values()
    assert hedge == HedgeSettings()
    assert hedge is not None
    assert (hedge.rule, hedge.max_extra_percent, hedge.max_hedges, hedge.min_delay_s) == ("p95", 5.0, 1, 0.001)


def test_on_the_per_try_timeout_alone_nothing_starts_by_time() -> None:
    (hedge,) = hedges({"hedge": {"on_per_try_timeout": True}}).values()
    assert hedge is not None
    assert hedge.rule is None
    (hedge,) = hedges({"hedge": {"on_per_try_timeout": True, "after": "p99.9"}}).values()
    assert hedge is not None
    assert hedge.rule == "p99.9"


def test_a_route_lays_it_over_its_service_and_the_service_over_the_defaults() -> None:
    match = {"match": [{"method": "GET"}]}
    routes = [
        {"name": "a", **match, "hedge": {"max_hedges": 2}},
        {"name": "b", **match, "hedge": False},
        {"name": "c", **match},
    ]
    found = hedges({"hedge": {"after": "50ms"}, "routes": routes}, defaults={"hedge": {"max_extra_percent": 1}})
    service = HedgeSettings(after=0.05, max_extra_percent=1.0)
    assert found == {
        "a": HedgeSettings(after=0.05, max_extra_percent=1.0, max_hedges=2),
        "b": None,
        "c": service,
        "default": service,
    }


def test_in_code_it_is_the_same() -> None:
    routes = [Route(name="a", hedge=Hedge(after=0.05)), Route(name="b", match=[{"method": "GET"}])]
    with Mesh(services={"orders": Service(hedge=Hedge(after="p90"), routes=routes[::-1])}) as mesh:
        found = {route.name: route.policy.hedge for route in mesh.settings.services["orders"].routes}
    assert found["a"] == HedgeSettings(after=0.05)
    assert found["b"] == HedgeSettings(after="p90")


@pytest.mark.parametrize(
    ("service", "where", "why"),
    [
        ({"hedge": {"after": "p0"}}, "after", "no percentile"),
        ({"hedge": {"after": "p100"}}, "after", "no percentile"),
        ({"hedge": {"after": "95"}}, "after", "is not below timeout"),
        ({"hedge": {"after": "ninety"}}, "after", "neither a percentile such as p95 nor a duration"),
        ({"hedge": {"after": 0}}, "after", "no time at all"),
        ({"hedge": {"after": "-1s"}}, "after", "neither"),
        ({"hedge": {"after": "10s"}}, "after", "is not below per_try_timeout"),
        ({"hedge": {"after": "3s"}, "timeout": "2s"}, "after", "is not below timeout"),
        ({"hedge": {"max_extra_percent": 0}}, "max_extra_percent", "greater than 0"),
        ({"hedge": {"max_extra_percent": 101}}, "max_extra_percent", "100"),
        ({"hedge": {"max_extra_percent": float("nan")}}, "max_extra_percent", "finite"),
        ({"hedge": {"max_hedges": 0}}, "max_hedges", "1"),
        ({"hedge": {"max_hedges": 11}}, "max_hedges", "10"),
        ({"hedge": {"min_delay": "x"}}, "min_delay", "duration"),
        ({"hedge": {"afterr": "p95"}}, "afterr", "after"),
        ({"hedge": {"on_per_try_timeout": True}, "per_try_timeout": None}, "on_per_try_timeout", "needs a 'per_try"),
        ({"hedge": {"on_per_try_timeout": True}, "retry": {"max_retries": 0}}, "on_per_try_timeout", "needs retries"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(service: dict[str, Any], where: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(service)
    assert f"services.orders.hedge.{where}: " in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize("place", ["defaults", "service", "route"])
def test_the_stock_wire_cannot_hedge(place: str) -> None:
    hedge: dict[str, Any] = {"hedge": {}}
    service = {"service": hedge, "route": {"routes": [{"name": "a", **hedge}]}}.get(place, {})
    defaults = hedge if place == "defaults" else {}
    with pytest.raises(ConfigError, match=r"hedge: is not possible with 'wire: stock'"):
        compiled(service, wire="stock", defaults=defaults)
    assert compiled(service, wire="h11", defaults=defaults)
