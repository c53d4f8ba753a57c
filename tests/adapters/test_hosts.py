"""Which service a URL means, hosts that are services by themselves, and what is sent of a path that is made normal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from meshlib.adapters import plane as planes
from meshlib.config.own_hosts import OwnHosts, WrittenEndpoints
from meshlib.errors import ConfigError, EgressRefused
from meshlib.mesh import MeshParts
from meshlib.net.wire import Progress, SyncWireResponse, Target, WireLimits, WireRequest


class Noting:
    """A wire that notes what it is given, and answers at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[Target, WireRequest]] = []

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        self.sent.append((target, request))
        progress.phase, progress.bytes_written, progress.answered = "body", True, True
        return SyncWireResponse(200, [(b"content-length", b"0")], iter(()), lambda: None)


@contextmanager
def noted(config: dict[str, Any]) -> Iterator[tuple[Mesh, httpx.Client, Noting]]:
    wire = Noting()
    with (
        Mesh({"discovery": [], **config}, parts=MeshParts(sync_wire=wire)) as mesh,
        httpx.Client(transport=mesh.transport(), timeout=None) as client,
    ):
        yield mesh, client, wire


def test_urls_mean_the_service_whose_host_is_the_most_specific() -> None:
    services = {
        "orders": {"hosts": ["*.orders.example", "orders.internal:8080"], "endpoints": ["127.0.0.1:1"]},
        "eu": {"hosts": ["*.eu.orders.example", "*.orders.example:8443"], "endpoints": ["127.0.0.1:1"]},
    }
    with Mesh({"discovery": [], "services": services}) as mesh:
        locate = mesh._wiring.plane.locate
        found = {
            (host, port): locate(host, port)
            for host, port in (
                *(("a.orders.example", 80), ("A.B.Orders.Example.", 80), ("a.eu.orders.example", 80)),
                *(("a.orders.example", 8443), ("orders.internal", 8080), ("orders.internal", 80)),
                *(("orders.example", 80), ("ORDERS", None), ("other", None), ("localhost", 80)),
            )
        }
    assert list(found.values()) == ["orders", "orders", "eu", "eu", "orders", None, None, "orders", "other", None]


def test_each_host_of_a_wildcard_may_be_a_service_at_its_own_address() -> None:
    partners = {
        "hosts": ["*.partners.example"],
        "endpoints": ["*:8443"],
        "timeout": "3s",
        "routes": [{"name": "v2", "match": [{"path": {"prefix": "/v2"}}], "backends": [{"weight": 1}]}],
    }
    with noted({"services": {"partners": partners}}) as (mesh, client, wire):
        first = client.get("https://a.partners.example/v2/x")
        client.get("http://B.c.partners.example./")
        client.get("http://partners/")
        assert [(target.endpoint.address, target.server_name) for target, _ in wire.sent] == [
            ("a.partners.example:8443", "a.partners.example"),
            ("b.c.partners.example:8443", "b.c.partners.example"),
            ("partners:8443", "partners"),
        ]
        record = meshlib.record(first)
        assert record is not None
        assert (record.service, record.route, record.attempts[0].cluster) == (
            *("a.partners.example", "v2"),
            "a.partners.example",
        )
        plan = mesh.plan("GET", "http://d.partners.example/")
        assert plan.policy is not None
        assert (plan.service, plan.policy.timeout_s) == ("d.partners.example", 3.0)
        assert mesh._wiring.plane.mode_of("d.partners.example") == "on"


def test_services_at_two_ports_of_one_host_are_two() -> None:
    services = {
        "plain": {"hosts": ["*.example.com:80"], "endpoints": ["*:80"]},
        "secure": {"hosts": ["*.example.com:443"], "endpoints": ["*:443"], "mode": "observe"},
        "exact": {"hosts": ["one.example.com"], "endpoints": ["*:9000"]},
    }
    with noted({"services": services}) as (mesh, client, wire):
        locate = mesh._wiring.plane.locate
        assert [locate("a.example.com", port) for port in (80, 443, 81)] == [
            "a.example.com:80",
            "a.example.com:443",
            None,
        ]
        assert locate("one.example.com", 80) == "one.example.com"
        client.get("http://a.example.com/")
        client.get("http://one.example.com/")
        assert [target.endpoint.address for target, _ in wire.sent] == ["a.example.com:80", "one.example.com:9000"]
        assert wire.sent[0][0].server_name == "a.example.com"
        assert [mesh._wiring.plane.mode_of(f"a.example.com:{port}") for port in (80, 443)] == ["on", "observe"]


def test_there_are_only_so_many_of_them_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(planes, "MAX_OWN", 2)
    config = {"egress": "refuse", "services": {"any": {"hosts": ["*.example.com"], "endpoints": ["*:80"]}}}
    with noted(config) as (_, client, wire):
        for host in "abab":
            client.get(f"http://{host}.example.com/")
        with caplog.at_level("WARNING", "meshlib"):
            for host in "cd":
                with pytest.raises(EgressRefused):
                    client.get(f"http://{host}.example.com/")
        assert len(wire.sent) == 4
    assert sum("outside the mesh: 2 hosts of any are called" in message for message in caplog.messages) == 1


def test_what_is_written_of_them_is_found_and_compared() -> None:
    def written(*hosts: str) -> WrittenEndpoints:
        service = {"hosts": hosts, "endpoints": ["*:80"]}
        with Mesh({"discovery": [], "services": {"any": service}}) as mesh:
            (static,) = mesh._wiring.settings.discovery
        assert isinstance(static.services, WrittenEndpoints)
        return static.services

    table = written("*.a.example")
    assert "x.a.example" in table
    assert "x.b.example" not in table
    assert table.get("x.b.example") is None
    assert [endpoint.address for endpoint in table.get("x.a.example")] == ["x.a.example:80"]
    assert table == written("*.a.example")
    assert table != written("*.b.example")
    assert OwnHosts.among(()) is None


@pytest.mark.parametrize("host", ["*.", "*x.example", "a.*.example", "*.*.example", "**"])
def test_a_wildcard_stands_alone_and_first(host: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        Mesh({"services": {"orders": {"hosts": [host]}}})


@pytest.mark.parametrize(
    ("how", "path", "query", "sent"),
    [
        ("base", "/a/%2E%2E/v2//x", "", b"/v2//x"),
        ("merge_slashes", "//v2///x", "?a=//", b"/v2/x?a=//"),
        ("decode_and_merge_slashes", "/v2%2Fx", "", b"/v2/x"),
        ("none", "/v2%2Fx", "", b"/v2%2Fx"),
    ],
)
@pytest.mark.parametrize("lean", [True, False])
def test_a_path_is_matched_and_sent_in_its_normal_form(
    how: str, path: str, query: str, sent: bytes, lean: bool
) -> None:
    routes = [{"name": "v2", "match": [{"path": {"path_prefix": "/v2"}}]}]
    service = {"endpoints": ["127.0.0.1:1"], "routes": routes}
    with noted({"path_normalization": how, "services": {"orders": service}}) as (mesh, plain, wire):
        client = mesh.client("orders") if lean else plain
        response = client.get(f"http://orders{path}{query}")
        assert [request.target for _, request in wire.sent] == [sent]
        record = meshlib.record(response)
        assert record is not None
        assert record.route == ("default" if how == "none" else "v2")


def test_a_path_without_a_normal_form_is_answered_here() -> None:
    services = {name: {"endpoints": ["127.0.0.1:1"]} for name in ("orders", "users")}
    with noted({"path_normalization": "base", "services": services}) as (_, client, wire):
        responses = [client.get(f"http://{name}/a%00b") for name in ("orders", "users", "orders")]
        assert [response.status_code for response in responses] == [400, 400, 400]
        assert wire.sent == []
        records = [meshlib.record(response) for response in responses]
        assert [record and record.route for record in records] == ["no-normal-path"] * 3


def test_a_dry_run_draws_nothing() -> None:
    routes = [{"name": "few", "match": [{"percent": 1}]}]
    with noted({"services": {"orders": {"endpoints": ["127.0.0.1:1"], "routes": routes}}}) as (mesh, client, _):
        state = mesh._wiring.plane.rng.getstate()
        assert {mesh.plan("GET", "http://orders/").route for _ in range(20)} == {"few"}
        assert mesh._wiring.plane.rng.getstate() == state
        found = [meshlib.record(client.get("http://orders/")) for _ in range(100)]
        assert sum(record is not None and record.route == "few" for record in found) < 20


def test_conditions_of_every_client_see_each_value_of_a_repeated_header() -> None:
    match = {"headers": {"x-user": {"exact": "b"}}}
    service = {"endpoints": ["127.0.0.1:1"], "routes": [{"name": "b", "match": [match]}]}
    with noted({"services": {"orders": service}}) as (mesh, client, _):
        for each in (client, mesh.client("orders")):
            for pairs, route in (
                ([("x-user", "a"), ("x-user", "b")], "b"),
                ([("X-User", "a,b")], "default"),
                ([("X-User", "b")], "b"),
            ):
                record = meshlib.record(each.get("http://orders/", headers=pairs))
                assert record is not None
                assert record.route == route
