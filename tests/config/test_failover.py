"""Subsets by filter, and what a service or a subset fails over to: as written, compiled, and in a snapshot."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import FailoverTarget
from meshlib.config.snapshot import Snapshots
from meshlib.errors import ConfigError


def snapshots(services: dict[str, Any]) -> Snapshots:
    settings = compile_config(load_mapping({"discovery": [], "services": services}))
    return Snapshots(settings, now=lambda: 0.0, rng=Random(1), target_of=lambda cluster, endpoint: endpoint.address)


def ports(made: Snapshots, service: str, subset: str | None = None) -> list[tuple[int, int]]:
    members = made.current.services[service].clusters[subset].members
    return [(member.endpoint.port, member.endpoint.priority) for member in members]


def test_a_subset_may_be_a_filter_over_metadata_and_tags() -> None:
    made = snapshots(
        {"orders": {"subset_filters": {"new": "Service.Meta.version != v1 and canary not in Service.Tags"}}}
    )
    old = Endpoint("h", 1, metadata={"version": "v1"})
    canary = Endpoint("h", 2, metadata={"version": "v2", "tag.canary": "true"})
    made.publish("orders", [old, canary, Endpoint("h", 3)], Known.YES)
    assert ports(made, "orders", "new") == [(3, 0)]
    assert len(ports(made, "orders")) == 3


def test_endpoints_of_what_a_service_fails_over_to_stand_by_in_priorities_behind_its_own() -> None:
    made = snapshots(
        {
            "orders": {"failover_to": [{"service": "backup", "subset": "v1"}, {"service": "last"}]},
            "backup": {"subsets": {"v1": {"version": "v1"}}},
        }
    )
    made.publish("orders", [Endpoint("h", 1), Endpoint("h", 2, priority=1)], Known.YES)
    assert ports(made, "orders") == [(1, 0), (2, 1)]
    made.publish("last", [Endpoint("h", 5)], Known.YES)
    assert ports(made, "orders") == [(1, 0), (2, 1), (5, 2)]
    made.publish("backup", [Endpoint("h", 3, metadata={"version": "v1"}), Endpoint("h", 4)], Known.YES)
    assert ports(made, "orders") == [(1, 0), (2, 1), (3, 2), (5, 3)]
    made.publish("orders", [], Known.YES)
    assert ports(made, "orders") == [(3, 1), (5, 2)]
    assert made.current.services["orders"].settings.standbys == {"backup", "last"}


def test_one_that_is_in_both_stays_where_it_was_first() -> None:
    made = snapshots({"orders": {"subsets": {"v1": {"v": "1"}}, "subset_policies": {"v1": {"failover_to": [ALL]}}}})
    made.publish("orders", [Endpoint("h", 1, metadata={"v": "1"}), Endpoint("h", 2)], Known.YES)
    assert ports(made, "orders", "v1") == [(1, 0), (2, 1)]
    assert ports(made, "orders") == [(1, 0), (2, 0)]


ALL = {"service": "orders"}


def test_calls_fail_over_while_nobody_is_healthy_and_come_back() -> None:
    balancing = {"panic_percent": 0, "overprovisioning_percent": 100_000}
    made = snapshots({"orders": {"failover_to": [{"service": "backup"}], "load_balancing": balancing}})
    made.publish("backup", [Endpoint("h", 3)], Known.YES)

    def picked(*health: Health) -> set[int]:
        made.publish("orders", [Endpoint("h", port, health=each) for port, each in enumerate(health)], Known.YES)
        cluster, rng = made.current.services["orders"].clusters[None], Random(1)
        found = [cluster.pick(0.0, rng) for _ in range(50)]
        return {each.endpoint.port for each in found if each is not None}

    assert picked(Health.HEALTHY, Health.UNHEALTHY) == {0}
    assert picked(Health.UNHEALTHY, Health.UNHEALTHY) == {3}
    assert picked() == {3}
    assert picked(Health.HEALTHY) == {0}


def test_a_call_waits_for_what_a_service_without_endpoints_fails_over_to() -> None:
    made = snapshots({"orders": {"failover_to": [{"service": "backup"}]}})
    made.service("orders")
    for own, other, expected in (
        (Known.YES, None, Known.PENDING),
        (Known.NO, Known.UNWELL, Known.UNWELL),
        (Known.NO, Known.NO, Known.NO),
        (Known.NO, Known.YES, Known.YES),
    ):
        if other is not None:
            made.publish("backup", [], other)
        made.publish("orders", [], own)
        assert made.current.services["orders"].clusters[None].known is expected


@pytest.mark.parametrize(
    ("services", "text"),
    [
        ({"orders": {"subset_filters": {"a": "Service.Meta.v =="}}}, r"subset_filters\.a: .* ends where a value is"),
        (
            {"orders": {"subset_filters": {"a": ""}, "subsets": {"a": {"v": "1"}}}},
            r"subset_filters\.a: 'a' is one of the 'subsets' as well",
        ),
        ({"orders": {"failover_to": [{}]}}, "names neither a service nor a subset"),
        ({"orders": {"failover_to": [ALL]}}, r"failover_to\[0\]: fails over to itself"),
        ({"orders": {"failover_to": [{"subset": "v9"}]}}, r"'orders' has no subset 'v9'"),
        ({"orders": {"failover_to": [{"service": "b", "subset": "v9"}]}}, "'b' is not declared under 'services'"),
    ],
)
def test_what_cannot_be_is_refused(services: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_mapping({"services": services})


def test_a_failover_for_all_services_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"defaults\.failover_to: is for one service"):
        load_mapping({"defaults": {"failover_to": [{"service": "backup"}]}})


def test_routes_may_lead_to_subsets_by_filter() -> None:
    routes = [{"backends": [{"subset": "new"}]}]
    config = load_mapping({"services": {"orders": {"subset_filters": {"new": "v2 in Service.Tags"}, "routes": routes}}})
    settings = compile_config(config).services["orders"]
    assert settings.clusters["new"].filter is not None
    assert settings.clusters["new"].failover_to == ()


def test_targets_compile_to_settings() -> None:
    services = {"orders": {"failover_to": [{"service": "b"}, {"subset": "v1"}], "subsets": {"v1": {"v": "1"}}}}
    settings = compile_config(load_mapping({"services": services})).services["orders"]
    expected = (FailoverTarget("b"), FailoverTarget(None, "v1"))
    assert settings.clusters[None].failover_to == settings.clusters["v1"].failover_to == expected
