"""The fixture under a team's own configuration: hosts, subsets, modes, egress, and no way into the network."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import ConfigError, Service
from meshlib.testing import MeshFixture
from tests.testing.support import Async, Sync

CONFIG = """
service: checkout
mode: on
discovery: [{consul: {}}]
register: {port: 8000}
services:
  orders:
    hosts: ["orders.internal:8080"]
    endpoints:
      - "10.0.0.1:8080"
      - {address: "10.0.0.2:8080", metadata: {version: v2}}
    subsets: {v2: {version: v2}}
    routes:
      - match: [{path: {path_prefix: /v2}}]
        backends: [{subset: v2}]
  users: {timeout: 2s}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(CONFIG)
    return path


def test_a_team_s_own_file_is_used_and_its_endpoints_are_served(config: Path, caller: Sync) -> None:
    with MeshFixture(config) as mesh:
        served = mesh.serve("orders", "served")
        assert [instance.endpoint.address for instance in served] == ["10.0.0.1:8080", "10.0.0.2:8080"]
        for _ in range(5):
            assert caller.get(mesh, "http://orders.internal:8080/v2/x").text == "served"
        assert {call.instance for call in mesh.calls("orders")} == {"orders-1"}
        assert mesh.calls("orders")[0].headers["host"] == "orders.internal:8080"
        assert mesh.plan("GET", "http://orders/v2/x").route == "route-1"
        mesh.serve("users", 200)
        caller.get(mesh, "http://users/")
        assert mesh.calls("users")[0].headers["x-meshlib-deadline-ms"] == "2000"


def test_what_is_said_of_instances_replaces_the_file_s_endpoints(config: Path) -> None:
    with MeshFixture(config) as mesh:
        mesh.serve("orders", "v1", metadata={"version": "v1"})
        canary = mesh.serve("orders", "v2", metadata={"version": "v2"}, name="canary")
        assert mesh.client("orders").get("/v2/x").text == "v2"
        assert len(canary.calls) == 1


def test_configuration_as_mapping_and_as_fields() -> None:
    for mesh in (
        MeshFixture({"services": {"orders": {"timeout": "3s"}}}),
        MeshFixture(services={"orders": Service(timeout="3s")}),
    ):
        with mesh:
            mesh.serve("orders", 200)
            mesh.client("orders").get("/")
            assert mesh.calls()[0].headers["x-meshlib-deadline-ms"] == "3000"


def test_a_wrong_configuration_is_said_as_ever() -> None:
    with pytest.raises(ConfigError, match="retries"):
        MeshFixture({"services": {"orders": {"retries": 3}}})


def test_without_configuration_neither_file_nor_environment_counts(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("MESHLIB_CONFIG", "missing.yaml")
    monkeypatch.setenv("MESHLIB_MODE", "off")
    monkeypatch.setenv("MESHLIB_WIRE", "stock")
    with MeshFixture() as mesh:
        assert mesh.settings.services == {}
        assert (mesh.mode, mesh.settings.wire) == ("on", "native")


def test_wire_stock_in_a_file_does_not_lead_into_the_network(caller: Sync) -> None:
    with MeshFixture(wire="stock") as mesh:
        mesh.serve("orders", 200)
        assert caller.get(mesh, "http://orders/").status_code == 200


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_the_other_modes_are_plain_calls_to_what_is_served(caller: Sync, mode: str) -> None:
    with MeshFixture(mode=mode) as mesh:
        mesh.serve("orders", 200)
        mesh.fail_next("orders")
        assert [caller.get(mesh, "http://orders/x").status_code for _ in range(2)] == [503, 200]
        assert "x-meshlib-deadline-ms" not in mesh.calls("orders")[0].headers
        mesh.fail_next("orders", error=meshlib.BodyBroken)
        with pytest.raises(httpx.RemoteProtocolError):
            caller.get(mesh, "http://orders/x")
        mesh.hang("orders")
        with pytest.raises(httpx.ReadTimeout):
            caller.get(mesh, "http://orders/x", timeout=httpx.Timeout(3))
        mesh.kill("orders")
        with pytest.raises(httpx.ConnectError):
            caller.get(mesh, "http://orders/x")


def test_a_service_that_is_not_served_is_unknown_and_the_error_says_what_to_do(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    with pytest.raises(meshlib.UnknownService, match=r"served are orders.*mesh.serve\('users', ...\)") as caught:
        caller.get(mesh, "http://users/")
    assert isinstance(caught.value, httpx.ConnectError)
    mesh.serve("users", 200)
    assert caller.get(mesh, "http://users/").status_code == 200


def test_a_client_made_for_a_service_that_is_not_served(mesh: MeshFixture) -> None:
    with pytest.raises(meshlib.UnknownService, match=r"nothing is served; mesh.serve\('users'"):
        mesh.client("users").get("/")


def test_hosts_outside_the_mesh_are_refused_or_served(mesh: MeshFixture, caller: Sync) -> None:
    with pytest.raises(meshlib.UnknownService, match="no network in a MeshFixture"):
        caller.get(mesh, "https://api.example.com/v1")
    mesh.serve("api.example.com", lambda request: {"url": str(request.url)})
    assert caller.get(mesh, "https://api.example.com/v1").json() == {"url": "https://api.example.com/v1"}
    assert "x-meshlib-deadline-ms" not in mesh.calls("api.example.com")[0].headers


def test_egress_refuse_holds(caller: Sync) -> None:
    with MeshFixture(egress="refuse") as mesh, pytest.raises(meshlib.EgressRefused):
        caller.get(mesh, "https://api.example.com/v1")


def test_a_client_of_one_s_own_by_transport_and_by_attach(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200, instances=2)
    mesh.fail_next("orders", times=2)
    with httpx.Client(transport=mesh.transport(), timeout=None) as client:
        assert client.get("http://orders/").status_code == 200
    with mesh.attach(httpx.Client(trust_env=False)) as attached:
        assert attached.get("http://orders/").status_code == 200
        with pytest.raises(meshlib.UnknownService):
            attached.get("http://example.com/")
    others = httpx.MockTransport(lambda request: httpx.Response(299))
    with mesh.attach(httpx.Client(transport=others)) as attached:
        assert attached.get("http://orders/").status_code == 200
        assert attached.get("http://example.com/").status_code == 299
    with pytest.raises(TypeError):
        mesh.attach(object())


def test_async_clients_of_one_s_own(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200, instances=2)
    mesh.fail_next("orders", times=2)

    async def test() -> None:
        async with httpx.AsyncClient(transport=mesh.async_transport(), timeout=None) as client:
            assert (await client.get("http://orders/")).status_code == 200
        async with mesh.attach(httpx.AsyncClient(trust_env=False)) as attached:
            assert (await attached.get("http://orders/")).status_code == 200
            with pytest.raises(meshlib.UnknownService):
                await attached.get("http://example.com/")

    asyncio.run(test())


@pytest.mark.parametrize("kind", [Sync, Async])
def test_with_network_other_hosts_are_left_to_httpx(kind: type[Sync], respx_mock: Any) -> None:
    respx_mock.get("https://api.example.com/").respond(204)
    with MeshFixture(network=True) as mesh:
        mesh.serve("orders", 200)
        assert kind().get(mesh, "http://orders/").status_code == 200
        assert kind().get(mesh, "https://api.example.com/").status_code == 204


def test_readiness(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200)
    asyncio.run(mesh.ready("orders"))
    with pytest.raises(meshlib.DeadlineExceeded, match="no healthy endpoint within 5s"):
        asyncio.run(mesh.ready("users", timeout="5s"))


def test_registering_is_noted_and_nothing_else(config: Path) -> None:
    with MeshFixture(config) as mesh:
        with mesh.register() as registration:
            inside = registration.active
        assert (inside, registration.active) == (True, False)
        assert registration.instance.service == "checkout"

        async def both() -> None:
            async with mesh.register(port=9000) as second:
                assert second.active

        asyncio.run(both())
        assert [each.instance.port for each in mesh.registrations] == [8000, 9000]


def test_no_thread_is_started(config: Path) -> None:
    before = threading.enumerate()
    with MeshFixture(config) as mesh:
        mesh.serve("orders", 200)
        mesh.client("orders").get("/")
        asyncio.run(mesh.ready("orders"))
        with mesh.register():
            pass
        assert threading.enumerate() == before
    assert threading.enumerate() == before


def test_after_close_calls_are_refused(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200)
    client = mesh.client("orders")
    mesh.close()
    mesh.close()
    with pytest.raises(meshlib.MeshClosed):
        client.get("/")
