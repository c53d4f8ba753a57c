"""Discovery in a real Consul: what comes, what goes, and what happens while the agent is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib.balance.endpoint import Health, Locality
from meshlib.config.settings import ConsulSettings
from meshlib.discovery.consul import ConsulSource
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.watch import Directory
from tests.discovery.support import Published, until
from tests.peers.consul import Consul

Watch = Callable[..., Published]


@pytest.fixture
def watch(control: ControlPlane) -> Iterator[Watch]:
    directories: list[Directory] = []

    def watch(address: str, *services: str, hold_s: float = 0.0, **settings: Any) -> Published:
        published = Published()
        source = ConsulSource(ConsulSettings(address=address, **settings))
        directory = Directory([source], control, published, on_event=published.event, empty_hold_s=hold_s)
        directories.append(directory)
        for service in services or ("orders",):
            directory.use(service)
        return published

    yield watch
    for directory in directories:
        directory.close()


def register(consul: Consul, port: int, **rest: Any) -> None:
    body = {"Name": "orders", "ID": f"orders-{port}", "Address": "127.0.0.1", "Port": port} | rest
    consul.put("/v1/agent/service/register", body)


def endpoints(published: Published) -> tuple[Any, ...]:
    resolution = published.now.get("orders")
    return resolution.endpoints if resolution is not None else ()


def test_a_service_that_consul_does_not_know_is_unknown_and_its_first_instance_is_seen(
    consul: Consul, watch: Watch
) -> None:
    published = watch(consul.address)
    until(lambda: published.state("orders") == "unknown")
    register(consul, 8000)
    until(lambda: published.ports("orders") == [8000])


def test_instances_come_with_weight_metadata_tags_health_and_the_nodes_locality(
    consul_factory: Callable[..., Consul], watch: Watch
) -> None:
    consul = consul_factory(node_meta={"region": "eu-west", "zone": "eu-west-1a"}, node="node-7")
    weights = {"Passing": 5, "Warning": 2}
    meta = {"version": "v2"}
    register(consul, 8000, Meta=meta, Tags=["tier=gold"], Weights=weights, Check={"TTL": "60s", "Status": "passing"})
    published = watch(consul.address)
    (one,) = until(lambda: endpoints(published))
    assert (one.address, one.weight, one.health) == ("127.0.0.1:8000", 5.0, Health.HEALTHY)
    assert one.locality == Locality("eu-west", "eu-west-1a")
    assert dict(one.metadata) == {"version": "v2", "tier": "gold", "tag.tier=gold": "true"}
    assert one.instance_id.startswith("node-7/orders-8000#")
    consul.put("/v1/agent/check/warn/service:orders-8000")
    until(lambda: endpoints(published)[0].weight == 2.0)
    consul.put("/v1/agent/check/fail/service:orders-8000")
    until(lambda: endpoints(published)[0].health is Health.UNHEALTHY)
    consul.put("/v1/agent/check/pass/service:orders-8000")
    until(lambda: endpoints(published)[0].health is Health.HEALTHY)
    assert endpoints(published)[0].key == one.key


def test_maintenance_of_a_service_or_its_node_takes_instances_out_and_brings_them_back(
    consul: Consul, watch: Watch
) -> None:
    register(consul, 8000)
    register(consul, 8001)
    published = watch(consul.address)
    until(lambda: published.ports("orders") == [8000, 8001])
    before = endpoints(published)
    consul.put("/v1/agent/service/maintenance/orders-8000?enable=true")
    until(lambda: published.ports("orders") == [8001])
    consul.put("/v1/agent/service/maintenance/orders-8000?enable=false")
    until(lambda: endpoints(published) == before)
    consul.put("/v1/agent/maintenance?enable=true")
    until(lambda: published.state("orders") == "empty")
    consul.put("/v1/agent/maintenance?enable=false")
    until(lambda: endpoints(published) == before)


def test_only_the_instances_with_the_tag_are_asked_for(consul: Consul, watch: Watch) -> None:
    register(consul, 8000, Tags=["blue"])
    register(consul, 8001, Tags=["green"])
    published = watch(consul.address, tag="green")
    until(lambda: published.ports("orders") == [8001])


def test_a_killed_agent_leaves_the_last_good_endpoints_and_its_return_is_picked_up_within_a_second(
    consul: Consul, watch: Watch
) -> None:
    register(consul, 8000)
    published = watch(consul.address, hold_s=15.0)
    until(lambda: published.ports("orders") == [8000])
    before = endpoints(published)
    consul.kill()
    until(lambda: published.state("orders") == "stale")
    assert endpoints(published) == before
    consul.restart()
    # The agent has forgotten everything; until somebody registers, its "unknown" is not believed.
    assert endpoints(published) == before
    register(consul, 8000)
    register(consul, 8001)
    began = time.monotonic()
    until(lambda: published.ports("orders") == [8000, 8001])
    assert time.monotonic() - began < 2.0
    assert endpoints(published)[0].key == before[0].key, "the same process, so the same history"
    assert published.state("orders") == "ok"


def test_an_instance_that_is_registered_anew_is_another_one(consul: Consul, watch: Watch) -> None:
    register(consul, 8000)
    published = watch(consul.address)
    (before,) = until(lambda: endpoints(published))
    consul.put("/v1/agent/service/deregister/orders-8000")
    until(lambda: not endpoints(published))
    register(consul, 8000)
    (after,) = until(lambda: endpoints(published))
    assert after.key != before.key
    register(consul, 8000, Meta={"version": "v2"})
    until(lambda: dict(endpoints(published)[0].metadata) == {"version": "v2"})
    assert endpoints(published)[0].key == after.key


def test_an_unknown_datacenter_is_an_error_that_names_it(consul: Consul, watch: Watch) -> None:
    published = watch(consul.address, datacenter="mars")
    until(lambda: published.state("orders") == "unwell")
    assert "No path to datacenter" in published.events[0][2]


def test_a_token_opens_a_consul_that_denies_by_default(consul_factory: Callable[..., Consul], watch: Watch) -> None:
    manager = "11111111-2222-3333-4444-555555555555"
    consul = consul_factory(token=manager)
    register(consul, 8000)
    rules = 'service_prefix "" { policy = "read" }\nnode_prefix "" { policy = "read" }'
    consul.put("/v1/acl/policy", {"Name": "discover", "Rules": rules})
    made = consul.put("/v1/acl/token", {"Policies": [{"Name": "discover"}]})
    published = watch(consul.address, token=made["SecretID"])
    until(lambda: published.ports("orders") == [8000])
    register(consul, 8001)
    until(lambda: published.ports("orders") == [8000, 8001])


@pytest.mark.parametrize(
    "rules",
    ['node_prefix "" { policy = "read" }', 'service_prefix "" { policy = "read" }', 'key "a" {policy = "read"}'],
)
def test_a_token_that_may_not_see_the_instances_is_unwell_not_unknown(
    consul_factory: Callable[..., Consul], watch: Watch, rules: str
) -> None:
    consul = consul_factory(token="11111111-2222-3333-4444-555555555555")
    register(consul, 8000)
    consul.put("/v1/acl/policy", {"Name": "some", "Rules": rules})
    made = consul.put("/v1/acl/token", {"Policies": [{"Name": "some"}]})
    published = watch(consul.address, token=made["SecretID"])
    until(lambda: published.state("orders") == "unwell")
    assert "lacks `service:read` for 'orders' and `node:read`" in published.events[0][2]


@pytest.mark.parametrize("token", ["99999999-2222-3333-4444-555555555555", None])
def test_a_wrong_token_and_none_say_what_is_lacking(
    consul_factory: Callable[..., Consul], watch: Watch, token: str | None
) -> None:
    consul = consul_factory(token="11111111-2222-3333-4444-555555555555")
    register(consul, 8000)
    published = watch(consul.address, token=token)
    until(lambda: published.state("orders") == "unwell")
    detail = published.events[0][2]
    assert "`service:read` for 'orders'" in detail
    assert ("no `token` is configured" in detail) is (token is None)
    assert token is None or token not in detail


def test_fifty_services_are_watched_at_once_within_the_connections_of_one_process(
    consul: Consul, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meshlib.discovery import consul as module

    monkeypatch.setattr(module, "_POLL_S", 0.2)
    names = [f"s{number}" for number in range(50)]
    published = watch(consul.address, *names)
    until(lambda: len(published.now) == 50)
    for name in names:
        consul.put("/v1/agent/service/register", {"Name": name, "Port": 8000, "Address": "127.0.0.1"})
    until(lambda: all(published.ports(name) == [8000] for name in names), 20.0)
    assert all(thread.name != "meshlib-control-io" for thread in threading.enumerate())
