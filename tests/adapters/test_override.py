"""What an override makes of calls: where they go, what their record says, and what it is not let do."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from meshlib.adapters.override import FORGET_S, MAX_TARGETS
from meshlib.context import Override, scoped
from meshlib.dataclass import replace
from meshlib.errors import NoEndpoint
from meshlib.routing.override import overriding, sign_override
from meshlib.testing import MeshFixture
from tests.adapters.support import address, origins

KEY = "a-key-that-nobody-guesses"


def fixture(overrides: Any = None, **fields: Any) -> MeshFixture:
    given = {"key": KEY, "max_age": "3650000m", **(overrides or {})}
    mesh = MeshFixture({"service": "checkout", "overrides": given, **fields})
    for name in ("users", "users-dev-alice", "orders"):
        mesh.serve(name, lambda request, name=name: name)
    return mesh


def get(mesh: Mesh, text: str = "users=users-dev-alice", url: str = "http://users/", **options: Any) -> tuple[str, Any]:
    with overriding(text), mesh.client() as client:
        response = client.get(url, **options)
        record = meshlib.record(response)
    assert record is not None
    return response.text, record.override


def test_the_replacement_is_called_and_nothing_else_changes() -> None:
    with fixture(
        services={"users": {"timeout": "2s", "routes": [{"headers": {"request": {"set": {"x-a": "1"}}}}]}}
    ) as mesh:
        assert get(mesh) == ("users-dev-alice", "users-dev-alice")
        assert get(mesh, url="http://orders/") == ("orders", None)
        (request,) = [each for each in mesh.calls() if each.service == "users-dev-alice"]
        assert request.headers["x-a"] == "1"
        assert request.headers["x-meshlib-deadline-ms"] == "2000"
        assert request.headers["x-meshlib-override"] == "users=users-dev-alice"
        assert mesh._wiring.plane.replacements.read() == {("users", "replaced"): 1}


@pytest.mark.parametrize("text", ["users=users", "users=checkout", "billing=users", "users-dev-alice=users"])
def test_what_would_lead_in_a_circle_or_concerns_others_does_nothing(text: str) -> None:
    with fixture() as mesh:
        mesh.serve("checkout", "checkout")
        assert get(mesh, text) == ("users", None)


def test_an_override_is_not_followed_twice() -> None:
    with fixture() as mesh:
        assert get(mesh, "users=orders; orders=users")[0] == "orders"
        assert get(mesh, "users=orders; orders=users", "http://orders/")[0] == "users"


def test_while_nobody_serves_the_replacement_the_service_is_called() -> None:
    with fixture() as mesh:
        mesh.serve("users-dev-bob", "bob", instances=0)
        assert get(mesh, "users=users-dev-bob") == ("users", "users-dev-bob (missing)")
        mesh.serve("users-dev-bob", "bob")
        assert get(mesh, "users=users-dev-bob") == ("bob", "users-dev-bob")


def test_or_the_call_fails_and_does_not_go_outside_the_mesh() -> None:
    with fixture({"missing": "fail"}) as mesh, pytest.raises(NoEndpoint, match="users-dev-bob"):
        get(mesh, "users=users-dev-bob")


def test_a_first_call_waits_for_discovery_then_calls_whoever_is_there() -> None:
    # A directory with nobody in it: discovery has to answer before that is known.
    with origins(None) as ((real,), servers):
        services = {"users": {"endpoints": [address(servers[0])]}}
        with Mesh({"services": services, "overrides": {"key": KEY}}) as mesh:
            body, told = get(mesh, "users=nobody-serves-this")
            assert (body, told) in [("ok", "nobody-serves-this"), ("ok", "nobody-serves-this (missing)")]
            assert get(mesh, "users=nobody-serves-this") == ("ok", "nobody-serves-this (missing)")
        assert len(real.seen) == 2


def test_an_address_takes_the_place_of_a_service_only_in_networks_that_are_named() -> None:
    with origins(None, lambda seen, number: b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ndev") as (_, servers):
        dev = address(servers[1])
        services = {"users": {"endpoints": [address(servers[0])]}}
        for networks, body in (([], "ok"), (["10.0.0.0/8"], "ok"), (["127.0.0.0/8"], "dev")):
            overrides = {"key": KEY, "addresses": networks}
            with Mesh({"discovery": [], "services": services, "overrides": overrides}) as mesh:
                assert get(mesh, f"users={dev}")[0] == body


def test_discovery_is_not_asked_about_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with origins(None, None) as (_, servers):
        dev, services = address(servers[1]), {"users": {"endpoints": [address(servers[0])]}}
        overrides = {"key": KEY, "addresses": ["127.0.0.0/8"]}
        with Mesh({"discovery": [], "services": services, "overrides": overrides}) as mesh:
            directory, asked = mesh._wiring.directory, set()
            use = directory.use
            monkeypatch.setattr(directory, "use", lambda name: (asked.add(name), use(name)))
            assert get(mesh, f"users={dev}") == ("ok", dev)
            assert asked == {"users"}


@pytest.mark.parametrize("target", ["evil.example.com", "10.0.0.1", "localhost"])
def test_what_is_outside_the_mesh_never_takes_the_place_of_a_service(target: str) -> None:
    with fixture() as mesh:
        assert get(mesh, f"users={target}") == ("users", None)
        assert mesh._wiring.plane.replacements.read() == {("users", "refused"): 1}


def test_a_backend_of_a_route_is_replaced_and_the_others_are_not() -> None:
    backends = [{"service": "users", "weight": 1}, {"service": "orders", "weight": 1}]
    with fixture(services={"shop": {"routes": [{"backends": backends}]}}) as mesh:
        found = {get(mesh, url="http://shop/")[0] for _ in range(50)}
    assert found == {"users-dev-alice", "orders"}


def test_who_sends_requests_cannot_have_any_number_of_services_watched() -> None:
    with fixture() as mesh:
        for n in range(MAX_TARGETS + 20):
            get(mesh, f"users=users-dev-{n}")
        told = mesh._wiring.plane.replacements.read()
        assert told["users", "refused"] == 20
        assert len(mesh._wiring.snapshots.current.services) <= MAX_TARGETS + 3
        assert get(mesh)[0] == "users"
        mesh.clock.advance(FORGET_S + 1)
        assert get(mesh)[0] == "users-dev-alice"


def test_when_its_time_is_up_it_neither_holds_nor_travels() -> None:
    with fixture() as mesh:
        for expires_at, body in ((mesh.clock.wall() + 10, "users-dev-alice"), (mesh.clock.wall() - 10, "users")):
            text = sign_override({"users": "users-dev-alice"}, KEY, expires_at=max(expires_at, 0.0))
            override = Override((("users", "users-dev-alice"),), text, expires_at)
            with scoped(lambda scope, it=override: replace(scope, override=it)), mesh.client() as client:  # type: ignore[misc]
                assert client.get("http://users/").text == body
            assert ("x-meshlib-override" in mesh.calls()[-1].headers) is (body != "users")


def test_without_a_configuration_nothing_holds_and_nothing_travels() -> None:
    with MeshFixture() as mesh:
        mesh.serve("users", "users")
        assert get(mesh, headers={"x-meshlib-override": "users=b"}) == ("users", None)
        assert "x-meshlib-override" not in mesh.calls()[-1].headers


def test_what_code_writes_by_hand_into_a_meshed_request_is_left_out() -> None:
    with fixture({"header": "x-dev"}) as mesh, mesh.client() as client:
        client.get("http://users/", headers={"X-Dev": "users=users-dev-alice", "x-meshlib-override": "users=b"})
        assert {"x-dev", "x-meshlib-override"}.isdisjoint(mesh.calls()[-1].headers)


def test_an_overridden_call_is_not_mirrored() -> None:
    with fixture(services={"users": {"routes": [{"mirror": {"service": "orders"}}]}}) as mesh:
        assert get(mesh)[0] == "users-dev-alice"
        assert "orders" not in [each.service for each in mesh.calls()]


def test_a_plan_says_what_takes_the_place_of_a_service() -> None:
    with fixture() as mesh, overriding("users=users-dev-alice"):
        plan = mesh.plan("GET", "http://users/")
    assert plan.backends == (("users-dev-alice", 100.0),)
    assert any("users-dev-alice" in note for note in plan.notes)


def test_calls_of_one_kind_share_what_is_made_of_their_route() -> None:
    with fixture() as mesh:
        for _ in range(300):
            get(mesh)
        state = mesh._wiring.snapshots.service("users").state
        assert len(state.kinds) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_overrides_too() -> None:
    with fixture() as mesh:
        mesh._wiring.plane.replacements._lock.acquire()
        pid = os.fork()
        if pid == 0:
            found = ""
            try:
                found = get(mesh)[0]
            finally:
                os._exit(found != "users-dev-alice")
        mesh._wiring.plane.replacements._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_async_calls_are_overridden_as_well() -> None:
    import asyncio

    async def ask(mesh: Mesh) -> httpx.Response:
        with overriding("users=users-dev-alice"):
            async with mesh.async_client("users") as client:
                return await client.get("/")

    with fixture() as mesh:
        assert asyncio.run(ask(mesh)).text == "users-dev-alice"
