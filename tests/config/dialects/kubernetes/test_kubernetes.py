"""Services, EndpointSlices and Endpoints as services of the native form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.config.dialects.draft import Context, Draft
from meshlib.config.dialects.resources import Resource, resources_in
from meshlib.config.dialects.table import translate
from meshlib.config.documents import Document
from meshlib.config.load import load_mapping

PAGE = (Path(__file__).parents[4] / "docs" / "dialects" / "kubernetes.md").read_text()


def drafted(*documents: Any, **context: Any) -> Draft:
    resources: list[Resource] = []
    for each in documents:
        resources += resources_in(Document("given.yaml", each))
    return translate(resources, Context(**{"namespace": "shop", **context}))


def service(*ports: dict[str, Any], name: str = "orders", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": list(ports), **spec}}


def slice_of(
    *endpoints: Any, port: int = 8080, name: str = "http", kind: str = "IPv4", of: str = "orders"
) -> dict[str, Any]:
    given = [{"addresses": [each]} if isinstance(each, str) else each for each in endpoints]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{of}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": of}},
        "addressType": kind,
        "ports": [{"name": name, "port": port}],
        "endpoints": given,
    }


def endpoint(
    address: str, zone: str | None = None, hints: str | None = None, pod: str | None = None, **conditions: bool
) -> Any:
    given: dict[str, Any] = {"addresses": [address]}
    if zone is not None:
        given["zone"] = zone
    if hints is not None:
        given["hints"] = {"forZones": [{"name": hints}]}
    if pod is not None:
        given["targetRef"] = {"kind": "Pod", "name": pod}
    if conditions:
        given["conditions"] = conditions
    return given


HTTP = {"name": "http", "port": 80}


def endpoints_of(draft: Draft, name: str = "orders") -> list[Any]:
    return list(draft.services[name].data.get("endpoints", ()))


def test_each_port_is_a_service_and_port_80_is_that_of_the_name_itself() -> None:
    ports = {"name": "metrics", "port": 9090}, HTTP, {"port": 53, "protocol": "UDP", "name": "dns"}
    draft = drafted(service(*ports), slice_of("10.0.0.1"), slice_of("10.0.0.1", port=9100, name="metrics"))
    assert sorted(draft.services) == ["orders", "orders-metrics"]
    assert endpoints_of(draft) == ["10.0.0.1:8080"]
    assert endpoints_of(draft, "orders-metrics") == ["10.0.0.1:9100"]
    assert draft.services["orders-metrics"].data["hosts"][0] == "orders:9090"
    entry = draft.inventory.services["orders.shop.svc.cluster.local"]
    assert [(port.number, port.name) for port in entry.ports] == [(80, "http"), (9090, "metrics")]


def test_a_service_of_other_protocols_alone_is_none_for_calls() -> None:
    draft = drafted(service({"name": "dns", "port": 53, "protocol": "UDP"}))
    assert not draft.services
    assert "orders.shop.svc.cluster.local" in draft.inventory.services


def test_the_service_of_a_port_does_not_take_the_name_of_another_service() -> None:
    draft = drafted(service({"port": 80}, {"name": "admin", "port": 81}), service({"port": 80}, name="orders-admin"))
    assert sorted(draft.services) == ["orders", "orders-81", "orders-admin"]


def test_a_service_of_another_namespace_has_its_namespace_in_its_name() -> None:
    data = drafted(service({"port": 80}), namespace="web").services["orders.shop"].data
    assert data["hosts"] == ["orders.shop.svc", "orders.shop.svc.cluster.local"]


def test_conditions_become_health() -> None:
    ending = endpoint("10.0.0.3", ready=False, serving=True, terminating=True)
    unready = endpoint("10.0.0.4", ready=False)
    draft = drafted(service(HTTP), slice_of("10.0.0.1", endpoint("10.0.0.2", serving=True), ending, unready))
    assert endpoints_of(draft) == [
        "10.0.0.1:8080",
        "10.0.0.2:8080",
        {"address": "10.0.0.3:8080", "health": "draining"},
        {"address": "10.0.0.4:8080", "health": "unhealthy"},
    ]


def test_those_that_end_are_called_as_long_as_nobody_is_ready() -> None:
    ending = endpoint("10.0.0.3", ready=False, serving=True, terminating=True)
    gone = endpoint("10.0.0.4", ready=False, serving=False, terminating=True)
    draft = drafted(service(HTTP), slice_of(ending, gone))
    assert endpoints_of(draft) == ["10.0.0.3:8080", {"address": "10.0.0.4:8080", "health": "unhealthy"}]


def test_slices_are_joined_and_an_address_that_is_in_two_counts_once_in_its_better_condition() -> None:
    one = slice_of(endpoint("10.0.0.1", ready=False), "10.0.0.2")
    two = slice_of("10.0.0.1", "10.0.0.3")
    assert endpoints_of(drafted(service(HTTP), one, two)) == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]


@pytest.mark.parametrize(
    ("families", "wanted"), [([], "10.0.0.1:8080"), (["IPv6", "IPv4"], "[fd00::1]:8080"), (["IPv4"], "10.0.0.1:8080")]
)
def test_of_two_families_the_first_of_the_service_counts(families: list[str], wanted: str) -> None:
    both = slice_of("10.0.0.1"), slice_of("fd00::1", kind="IPv6")
    assert endpoints_of(drafted(service(HTTP, ipFamilies=families), *both)) == [wanted]
    assert endpoints_of(drafted(service(HTTP, ipFamilies=families), both[1])) == ["[fd00::1]:8080"]


def test_slices_of_names_are_left_out_and_told() -> None:
    draft = drafted(service(HTTP), slice_of("orders.example", kind="FQDN"))
    assert [note.effect for note in draft.notes] == ["ignored"]
    assert endpoints_of(draft) == ["orders.shop.svc.cluster.local:80"]


def test_labels_of_pods_and_regions_of_nodes() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "shop", "labels": {"version": "v1"}},
    }
    labels = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "b"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels}}
    given = {**endpoint("10.0.0.1", pod="p"), "nodeName": "n"}
    assert endpoints_of(drafted(service(HTTP), slice_of(given), pod, node)) == [
        {"address": "10.0.0.1:8080", "metadata": {"version": "v1"}, "locality": {"region": "eu", "zone": "b"}}
    ]


def _first(draft: Draft) -> list[str]:
    return [each["address"] for each in endpoints_of(draft) if "priority" not in each]


def test_hints_for_the_own_zone_come_first() -> None:
    hinted = slice_of(endpoint("10.0.0.1", "a", "a"), endpoint("10.0.0.2", "b", "b"), endpoint("10.0.0.3", "b", "a"))
    assert _first(drafted(service(HTTP), hinted, zone="a")) == ["10.0.0.1:8080", "10.0.0.3:8080"]
    assert len(_first(drafted(service(HTTP), hinted, zone="c"))) == 3
    assert len(_first(drafted(service(HTTP), hinted))) == 3


def test_hints_that_one_endpoint_lacks_do_not_count_but_a_distribution_does() -> None:
    some = slice_of(endpoint("10.0.0.1", "a", "a"), endpoint("10.0.0.2", "b"))
    assert len(_first(drafted(service(HTTP), some, zone="a"))) == 2
    assert _first(drafted(service(HTTP, trafficDistribution="PreferClose"), some, zone="a")) == ["10.0.0.1:8080"]
    unready = slice_of(endpoint("10.0.0.1", "a", ready=False), endpoint("10.0.0.2", "b"))
    assert len(_first(drafted(service(HTTP, trafficDistribution="PreferSameZone"), unready, zone="a"))) == 2


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, "orders.shop.svc.cluster.local:80"),
        ({"clusterIP": "10.96.0.7"}, "10.96.0.7:80"),
        ({"clusterIP": "fd00::7"}, "[fd00::7]:80"),
        ({"clusterIP": "None"}, "orders.shop.svc.cluster.local:8080"),
        ({"type": "ExternalName", "externalName": "orders.example."}, "orders.example:80"),
    ],
)
def test_without_slices_a_service_is_called_as_without_a_mesh(spec: dict[str, Any], wanted: str) -> None:
    document = service({"port": 80, "targetPort": 8080}, **spec)
    assert endpoints_of(drafted(document)) == [wanted]
    assert endpoints_of(drafted(document, discovery=True)) == []


def test_what_the_user_says_of_endpoints_holds(tmp_path: Path) -> None:
    (tmp_path / "k.yaml").write_text(yaml.safe_dump(service({"port": 80})))
    own = {"namespace": "shop", "include": [str(tmp_path)], "services": {"orders": {"endpoints": ["10.1.1.1:80"]}}}
    assert load_mapping(own).services["orders"].endpoints == ("10.1.1.1:80",)


def test_endpoints_count_where_there_are_no_slices_and_slices_without_a_service_make_one() -> None:
    old = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "orders", "namespace": "shop"},
        "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 8080}]}
        ],
    }
    wanted = ["10.0.0.1:8080", {"address": "10.0.0.2:8080", "health": "unhealthy"}]
    assert endpoints_of(drafted(service({"port": 80}), old)) == wanted
    assert endpoints_of(drafted(old)) == wanted
    assert endpoints_of(drafted(service({"port": 80}), old, slice_of("10.0.0.9", name=""))) == ["10.0.0.9:8080"]


def test_h2c_is_spoken_where_a_port_says_so() -> None:
    draft = drafted(service({"port": 80, "appProtocol": "kubernetes.io/h2c"}))
    assert draft.services["orders"].data["http2"] is True


def test_a_service_that_is_there_twice_is_an_error() -> None:
    draft = drafted(service(HTTP), service(HTTP))
    assert [(note.effect, "is declared by" in note.text) for note in draft.notes] == [("wrong", True)]


FULL = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            **service({**HTTP, "protocol": "TCP", "targetPort": 8080, "appProtocol": "http", "nodePort": 30000})[
                "spec"
            ],
            "internalTrafficPolicy": "Local",
            "trafficDistribution": "PreferSameNode",
            "sessionAffinity": "ClientIP",
        },
    },
    slice_of({**endpoint("10.0.0.1", "a", "a", "p", ready=True)}),
    {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "old", "namespace": "shop"},
        "subsets": [
            {
                "addresses": [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "p"}}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 1}],
            }
        ],
    },
]


def _rows(kind: str) -> dict[str, str]:
    section = re.search(rf"^### `{kind}`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    lines = [line.split("|") for line in section[1].splitlines() if line.startswith("| `")]
    return {name: cells[2].strip() for cells in lines for name in re.findall(r"`([^`]+)`", cells[1])}


@pytest.mark.parametrize("kind", ["Service", "EndpointSlice", "Endpoints"])
def test_the_table_of_fields_has_all_that_is_looked_at_and_no_other(kind: str) -> None:
    taken = {path for own, path in drafted(*FULL).taken if own == kind}
    leaves = {path for path in taken if not any(other.startswith((f"{path}.", f"{path}[")) for other in taken)}
    rows = _rows(kind)
    assert (
        sorted(
            path
            for path in leaves - {"apiVersion", "kind", "metadata", "status"}
            if not any(path == row or path.startswith((f"{row}.", f"{row}[")) for row in rows)
        )
        == []
    )
    assert sorted(row for row in rows if not any(row == path or path.startswith(f"{row}.") for path in taken)) == []


def test_what_is_reported_is_what_the_table_says() -> None:
    told = {(note.effect, ".".join(map(str, note.place.path))) for note in drafted(*FULL).notes}
    rows = _rows("Service")
    assert {path for effect, path in told if effect == "ignored"} == {row for row, how in rows.items() if how == "no"}
    assert {path for effect, path in told if effect == "different"} == {"spec.trafficDistribution"}


def test_the_blocks_of_the_page_can_be_read(tmp_path: Path) -> None:
    native, foreign = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "k.yaml").write_text(foreign)
    config = load_mapping({**yaml.safe_load(native), "include": [str(tmp_path)]})
    assert sorted(config.services) == ["orders", "orders-admin"]
    assert len(config.services["orders"].endpoints) == 2
    assert not config.notes
