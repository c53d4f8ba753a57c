"""Which endpoints may be chosen, as it is written: what it compiles to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib import ConfigError, Distribute, FailoverRegion, LoadBalancing, Mesh, SlowStart, ZoneAware
from meshlib.balance import settings
from meshlib.balance.endpoint import Health
from meshlib.balance.settings import SlowStartSettings
from meshlib.config.settings import MeshSettings


def compiled(service: Any, **rest: Any) -> MeshSettings:
    mesh = Mesh({"services": {"orders": service}, **rest})
    mesh.close()
    return mesh.settings


def balancing(written: Any, defaults: Any = None) -> settings.LoadBalancing:
    rest = {} if defaults is None else {"defaults": {"load_balancing": defaults}}
    return compiled({"load_balancing": written}, **rest).services["orders"].clusters[None].load_balancing


def test_each_is_off_until_it_is_written() -> None:
    plain = balancing({})
    assert not (plain.failover or plain.failover_priority or plain.locality_weights or plain.distribute)
    assert plain.zone_aware is plain.slow_start is plain.subset is None
    assert not plain.fail_on_panic


def test_it_is_the_same_in_a_file_and_in_code() -> None:
    written = {
        "policy": "round_robin",
        "failover": [{"from": "eu", "to": "us"}],
        "failover_priority": ["topology.istio.io/network", "version=v2"],
        "zone_aware": {"local_service": "checkout", "force_local_zone": 2},
        "slow_start": {"window": "30s", "aggression": 2},
    }
    in_code = LoadBalancing(
        policy="round_robin",
        failover=[FailoverRegion(from_="eu", to="us")],
        failover_priority=["topology.istio.io/network", "version=v2"],
        zone_aware=ZoneAware(local_service="checkout", force_local_zone=2),
        slow_start=SlowStart(window="30s", aggression=2),
    )
    assert balancing(written) == balancing(in_code)
    assert balancing(written) == settings.LoadBalancing(
        policy="round_robin",
        failover=(settings.FailoverRegion("eu", "us"),),
        failover_priority=("topology.istio.io/network", "version=v2"),
        zone_aware=settings.ZoneAwareSettings("checkout", force_local_zone=2),
        slow_start=SlowStartSettings(30.0, 2.0),
    )


def test_places_have_weights_and_shares() -> None:
    assert balancing({"locality_weights": {"eu/1": 2, "us": 1}}).locality_weights == {"eu/1": 2, "us": 1}
    rule = {"from": "eu/*", "to": {"eu": 80, "us": 20}}
    expected = (settings.DistributeRule("eu/*", {"eu": 80, "us": 20}),)
    assert balancing({"distribute": [rule]}).distribute == expected
    assert (
        balancing(LoadBalancing(distribute=[Distribute(from_="eu/*", to={"eu": 80, "us": 20})])).distribute == expected
    )


def test_a_service_may_do_without_what_the_defaults_have() -> None:
    defaults = {"failover": True, "slow_start": {}, "zone_aware": {"local_service": "checkout"}}
    assert balancing({}, defaults).failover is True
    without = balancing({"failover": False, "slow_start": None, "zone_aware": None}, defaults)
    assert not without.failover
    assert without.slow_start is without.zone_aware is None
    assert not balancing({"failover": False}, {"failover": [{"from": "a", "to": "b"}]}).failover


def test_endpoints_have_priorities_and_health() -> None:
    written = {"endpoints": [{"address": "10.0.0.1:80", "priority": 1, "health": "draining"}]}
    (source, *_) = compiled(written).discovery
    (endpoint,) = source.services["orders"]  # type: ignore[union-attr]
    assert (endpoint.priority, endpoint.health) == (1, Health.DRAINING)


def test_subsets_have_fallbacks() -> None:
    service = {
        "subsets": {"v1": {"v": "1"}, "v2": {"v": "2"}, "v3": {"v": "3"}},
        "subset_fallback": {"v2": "any", "v3": {"v": "1"}},
    }
    clusters = compiled(service).services["orders"].clusters
    assert [clusters[name].otherwise for name in ("v1", "v2", "v3")] == [None, (), (("v", "1"),)]
    with pytest.raises(ConfigError, match=r"subset_fallback\.v9: .*no subset of this name"):
        compiled({**service, "subset_fallback": {"v9": "any"}})


def test_metadata_of_calls_are_written_for_a_service_and_a_route() -> None:
    service = {
        "load_balancing": {"subset": {"selectors": [{"keys": ["v"]}], "fallback": "default", "default": {"v": "1"}}},
        "metadata_match": {"v": "1"},
        "routes": [{"match": [{"method": "POST"}], "metadata_match": {"v": "2"}}],
    }
    found = compiled(service).services["orders"]
    assert [route.policy.metadata_match for route in found.routes] == [{"v": "2"}, {"v": "1"}]
    assert found.clusters[None].load_balancing.subset == settings.SubsetSettings(
        (settings.SubsetSelector(("v",)),), "default", {"v": "1"}
    )


SELECTORS = [{"keys": ["a", "b"]}]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "overprovisioning below all": ({"overprovisioning_percent": 99}, "overprovisioning_percent"),
    "a panic above all": ({"panic_percent": 101}, "panic_percent"),
    "no panic to fail on": ({"fail_on_panic": True, "panic_percent": 0}, "fail_on_panic"),
    "a place of four parts": ({"locality_weights": {"a/b/c/d": 1}}, "locality_weights"),
    "a place without a region": ({"distribute": [{"from": "/a", "to": {"a": 100}}]}, r"distribute\[0\]\.from"),
    "a negative weight": ({"locality_weights": {"a": -1}}, r"locality_weights\.a"),
    "shares that are not 100": ({"distribute": [{"from": "a", "to": {"a": 80, "b": 30}}]}, r"distribute\[0\]\.to"),
    "two ways to choose a place": (
        {"locality_weights": {"a": 1}, "zone_aware": {"local_service": "x"}},
        "locality_weights",
    ),
    "shares and an order": ({"distribute": [{"from": "a", "to": {"a": 100}}], "failover": True}, "distribute"),
    "a region that is itself": ({"failover": [{"from": "a", "to": "a"}]}, r"failover\[0\]\.to"),
    "a region twice": (
        {"failover": [{"from": "a", "to": "b"}, {"from": "a", "to": "c"}]},
        r"failover\[1\]\.from",
    ),
    "callers that nobody knows": ({"zone_aware": {}}, "zone_aware"),
    "callers known twice": (
        {"zone_aware": {"local_service": "x", "local_counts": {"a": 1}}},
        r"zone_aware\.local_counts",
    ),
    "zones and a hash": ({"policy": "maglev", "zone_aware": {"local_service": "x"}}, "zone_aware"),
    "a slow start without weights": ({"slow_start": {}}, "slow_start"),
    "a slow start by hash": ({"policy": "ring_hash", "slow_start": {}}, "slow_start"),
    "no aggression": ({"policy": "round_robin", "slow_start": {"aggression": 0}}, r"slow_start\.aggression"),
    "no window": ({"policy": "round_robin", "slow_start": {"window": "0s"}}, r"slow_start\.window"),
    "no selectors": ({"subset": {"selectors": []}}, r"subset\.selectors"),
    "a default that is not given": ({"subset": {"selectors": SELECTORS, "fallback": "default"}}, r"subset\.default"),
    "selectors twice": ({"subset": {"selectors": [*SELECTORS, {"keys": ["b", "a"]}]}}, r"subset\.selectors\[1\]\.keys"),
    "all keys as fewer": (
        {"subset": {"selectors": [{"keys": ["a"], "fallback": "keys", "fallback_keys": ["a"]}]}},
        r"subset\.selectors\[0\]\.fallback_keys",
    ),
    "fewer keys without need": (
        {"subset": {"selectors": [{"keys": ["a", "b"], "fallback_keys": ["a"]}]}},
        r"subset\.selectors\[0\]\.fallback_keys",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_its_field(name: str) -> None:
    written, field = REFUSED[name]
    with pytest.raises(ConfigError, match=rf"services\.orders\.load_balancing\.{field}"):
        balancing(written)
