"""What Consul's answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.discovery.consul_payload import Incarnations, endpoints_of, whole_weight


def item(name: str = "orders-1", port: int = 8000, **rest: Any) -> dict[str, Any]:
    service = {"ID": name, "Service": "orders", "Address": "10.0.0.1", "Port": port, "CreateIndex": 7}
    return {
        "Node": {"ID": "uuid", "Node": "n1", "Address": "10.9.9.9"} | rest.pop("node", {}),
        "Service": service | rest.pop("service", {}),
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, *rest.pop("checks", [])],
    } | rest


def parse(*items: Any, incarnations: Incarnations | None = None) -> tuple[Endpoint, ...]:
    return endpoints_of(json.dumps(items).encode(), incarnations or Incarnations())


def only(*items: Any) -> Endpoint:
    (endpoint,) = parse(*items)
    return endpoint


def check(status: str, name: str = "service:orders-1") -> dict[str, str]:
    return {"CheckID": name, "Status": status}


def test_a_plain_instance() -> None:
    assert only(item()) == Endpoint("10.0.0.1", 8000, 1.0, "n1/orders-1#7", Locality(), {}, Health.HEALTHY)


def test_an_instance_without_an_address_is_at_its_nodes() -> None:
    assert only(item(service={"Address": ""})).host == "10.9.9.9"


def test_an_instance_without_a_port_cannot_be_called() -> None:
    assert parse(item(port=0), item("orders-2")) == (only(item("orders-2")),)


@pytest.mark.parametrize(
    "host",
    [
        "a\r\nevil: 1",
        "a\0",
        "unix:/run/x.sock",
        "user@10.0.0.1",
        "10.0.0.1/x",
        "10.0.0.1?x",
        " ",
        "caf\u00e9",
        "x" * 254,
    ],
)
def test_an_instance_whose_address_is_none_is_left_out_and_harms_no_other(host: str) -> None:
    assert parse(item(service={"Address": host}), item("orders-2")) == (only(item("orders-2")),)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "fe80::1%eth0", "Node-1.dc_1.consul", "orders"])
def test_an_address_may_be_any_name_or_address(host: str) -> None:
    assert only(item(service={"Address": host})).host == host


@pytest.mark.parametrize(
    ("status", "health"),
    [("passing", Health.HEALTHY), ("warning", Health.HEALTHY), ("critical", Health.UNHEALTHY), ("?", Health.UNHEALTHY)],
)
def test_the_worst_check_decides_and_the_unhealthy_are_kept(status: str, health: Health) -> None:
    assert only(item(checks=[check(status), check("passing", "other")])).health is health


@pytest.mark.parametrize("name", ["_node_maintenance", "_service_maintenance:orders-1"])
def test_an_instance_in_maintenance_is_not_there(name: str) -> None:
    assert parse(item(checks=[check("critical", name)])) == ()


def test_weights_are_those_of_the_state() -> None:
    weights = {"Weights": {"Passing": 10, "Warning": 2}}
    assert only(item(service=weights)).weight == 10
    assert only(item(service=weights, checks=[check("warning")])).weight == 2
    assert only(item(service=weights, checks=[check("critical")])).weight == 10


def test_no_share_while_warning_means_only_if_there_is_nobody_better() -> None:
    endpoint = only(item(service={"Weights": {"Passing": 10, "Warning": 0}}, checks=[check("warning")]))
    assert (endpoint.health, endpoint.weight) == (Health.UNHEALTHY, 10)


def test_a_fractional_weight_survives_consuls_whole_ones_unless_an_operator_changed_them() -> None:
    meta = {"Meta": {"meshlib-weight": "2.4"}}
    endpoint = only(item(service=meta | {"Weights": {"Passing": whole_weight(2.4), "Warning": 1}}))
    assert endpoint.weight == 2.4
    assert dict(endpoint.metadata) == {}
    assert only(item(service=meta | {"Weights": {"Passing": 9, "Warning": 1}})).weight == 9
    assert only(item(service={"Meta": {"meshlib-weight": "lots"}})).weight == 1


def test_metadata_are_meta_and_tags_and_meta_wins() -> None:
    service = {"Meta": {"version": "v2"}, "Tags": ["version=v1", "tier=gold", "canary", "a=b=c", "=x", 7]}
    assert dict(only(item(service=service)).metadata) == {
        "version": "v2",
        "tier": "gold",
        "a": "b=c",
        "tag.version=v1": "true",
        "tag.tier=gold": "true",
        "tag.canary": "true",
        "tag.a=b=c": "true",
        "tag.=x": "true",
    }


def test_locality_is_the_services_then_the_nodes() -> None:
    node = {"Meta": {"region": "eu", "zone": "eu-1"}}
    assert only(item(node=node)).locality == Locality("eu", "eu-1")
    assert only(item(node=node, service={"Meta": {"zone": "eu-2"}})).locality == Locality("eu", "eu-2")
    given = {"Locality": {"Region": "us", "Zone": "us-1"}}
    assert only(item(node=node | given)).locality == Locality("us", "us-1")
    labels = {"Meta": {"topology.kubernetes.io/region": "ap", "topology.kubernetes.io/zone": "ap-1"}}
    assert only(item(node=labels)).locality == Locality("ap", "ap-1")


def test_the_order_does_not_depend_on_consuls() -> None:
    items = [item(f"orders-{n}") for n in range(5)]
    assert parse(*items) == parse(*reversed(items))


def test_a_registry_that_lost_its_data_does_not_make_old_instances_new() -> None:
    known = Incarnations()
    before = parse(item(), item("orders-2"), incarnations=known)
    known.interrupted()
    assert parse(incarnations=known) == ()
    assert parse(item(service={"CreateIndex": 99}), incarnations=known) == before[:1]
    again = parse(item(service={"CreateIndex": 99}), item("orders-2", service={"CreateIndex": 98}), incarnations=known)
    assert again == before


def test_an_instance_that_was_registered_anew_at_the_same_address_is_another() -> None:
    known = Incarnations()
    before = parse(item(), incarnations=known)
    after = parse(item(service={"CreateIndex": 8}), incarnations=known)
    assert after[0].key != before[0].key
    assert parse(item(service={"CreateIndex": 8}), incarnations=known) == after


def test_a_new_agent_of_the_same_name_makes_no_new_instance() -> None:
    known = Incarnations()
    before = parse(item(), incarnations=known)
    assert parse(item(node={"ID": "another uuid"}), incarnations=known) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'"x"',
        b"[1]",
        b"[null]",
        b"[[]]",
        b"[{}]",
        b'[{"Node": [], "Service": {}}]',
        b"\xff",
        b"[" * 100_000,
        json.dumps([item(service={"Port": "80"})]).encode(),
        json.dumps([item(service={"Port": 70000})]).encode(),
        json.dumps([item(service={"Port": True})]).encode(),
        json.dumps([item(service={"Address": 7})]).encode(),
        json.dumps([item(service={"Weights": [1]})]).encode(),
        json.dumps([item(service={"Weights": {"Passing": "many"}})]).encode(),
        json.dumps([item(service={"Weights": {"Passing": -1}})]).encode(),
        json.dumps([item(service={"Weights": {"Passing": float("inf")}})]).encode(),
        json.dumps([item(service={"Tags": "a"})]).encode(),
        json.dumps([item(service={"Meta": ["a"]})]).encode(),
        json.dumps([item(service={"CreateIndex": "x"})]).encode(),
        json.dumps([item() | {"Checks": {"a": 1}}]).encode(),
        json.dumps([item() | {"Checks": [1]}]).encode(),
    ],
)
def test_what_is_not_consuls_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        endpoints_of(body, Incarnations())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.sampled_from(["ID", "Address", "Port", "Weights", "Tags", "Meta", "CreateIndex", "Locality"]),
    st.sampled_from(["Node", "Service"]),
    JSON,
)
def test_no_value_in_any_place_does_anything_but_parse_or_be_refused(field: str, owner: str, value: Any) -> None:
    made = item()
    made[owner][field] = value
    try:
        endpoints = parse(made)
    except ValueError:
        return
    for endpoint in endpoints:
        assert 1 <= endpoint.port <= 65535
        assert endpoint.weight > 0
        assert all(isinstance(part, str) for pair in endpoint.metadata.items() for part in pair)
