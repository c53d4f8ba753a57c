"""Users stick to their endpoints: by hash, and by cookie, through both kinds of httpx client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.balance.affinity import bound_to
from meshlib.balance.hash_policy import hash_of_key
from meshlib.balance.settings import SessionAffinity
from meshlib.context import ServedRequest
from meshlib.policy.sticky import source_of_calls
from meshlib.testing import MeshFixture
from tests.server.standin import serving

RING = {"policy": "ring_hash"}
STICKY = {"session_affinity": {"cookie": "at", "path": "/shop", "ttl": "1m"}}


def mesh_of(balancing: Mapping[str, Any], instances: int = 4, **service: Any) -> MeshFixture:
    mesh = MeshFixture({"services": {"orders": {"load_balancing": balancing, **service}}})
    mesh.serve("orders", {"ok": True}, instances=instances)
    return mesh


def endpoint(response: httpx.Response) -> str:
    record = meshlib.record(response)
    assert record is not None
    return record.attempts[-1].endpoint


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_the_same_key_goes_to_the_same_endpoint(policy: str) -> None:
    with mesh_of({"policy": policy}) as mesh, mesh_of({"policy": policy}) as another:
        client, other = mesh.client("orders"), another.client("orders")
        seen = Counter()
        for number in range(60):
            key = meshlib.call(hash_key=f"user-{number}")
            at = endpoint(client.get("/", extensions=key))
            assert endpoint(other.post("/x", extensions=key)) == at
            seen[at] += 1
        assert len(seen) == 4
        assert len({endpoint(client.get("/")) for _ in range(40)}) == 4  # without a key: any


@pytest.mark.parametrize(
    "hash_on",
    [{"header": "X-User"}, {"query": "user"}, {"cookie": {"name": "user"}}],
    ids=lambda hash_on: next(iter(hash_on)),
)
def test_calls_are_hashed_by_what_the_configuration_names(hash_on: dict[str, Any]) -> None:
    with mesh_of(RING, hash_on=[hash_on]) as mesh:
        client = mesh.client("orders")

        def call(user: str) -> str:
            where = {"headers": {"x-user": user, "cookie": f"user={user}"}, "params": {"user": user}}
            return endpoint(client.get("/", **where))

        users = {user: call(user) for user in ("ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal")}
        assert len(set(users.values())) > 1
        assert all(call(user) == at for user, at in users.items())


def test_a_route_may_hash_by_something_else() -> None:
    routes = [{"match": [{"path": {"prefix": "/by-query"}}], "hash_on": [{"query": "user"}]}]
    with mesh_of({"policy": "maglev"}, hash_on=[{"header": "x-user"}], routes=routes) as mesh:
        client = mesh.client("orders")
        by_header = {endpoint(client.get(f"/?user={n}", headers={"x-user": "ann"})) for n in range(20)}
        by_query = {endpoint(client.get("/by-query?user=ann", headers={"x-user": str(n)})) for n in range(20)}
        assert len(by_header) == len(by_query) == 1


def test_the_caller_may_be_who_is_hashed() -> None:
    own = source_of_calls()
    assert own
    with mesh_of(RING, hash_on=[{"source": True}]) as mesh:
        client = mesh.client("orders")
        assert len({endpoint(client.get("/")) for _ in range(20)}) == 1
        by_peer = set()
        for number in range(20):
            with serving(ServedRequest(None, f"10.0.0.{number}")):
                assert source_of_calls() == f"10.0.0.{number}"
                by_peer.add(endpoint(client.get("/")))
        assert len(by_peer) > 1
    assert source_of_calls() == own


def run(mesh: MeshFixture, sync: bool, script: Callable[[Callable[..., httpx.Response]], None]) -> None:
    """Run a script of calls with one client, which keeps cookies."""
    if sync:
        client = mesh.client("orders")
        script(client.get)
        return
    with asyncio.Runner() as runner:
        async_client = mesh.async_client("orders")
        script(lambda *args, **kwargs: runner.run(async_client.get(*args, **kwargs)))


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
def test_a_cookie_that_the_mesh_made_keeps_a_client_at_its_endpoint(sync: bool) -> None:
    def script(get: Callable[..., httpx.Response]) -> None:
        first = get("/shop")
        assert first.headers["set-cookie"].endswith("; Max-Age=60; HttpOnly")
        for _ in range(10):
            again = get("/shop")
            assert "set-cookie" not in again.headers
            assert endpoint(again) == endpoint(first)

    with mesh_of({"policy": "maglev"}, hash_on=[{"cookie": {"name": "route", "ttl": "1m"}}]) as mesh:
        run(mesh, sync, script)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
def test_a_session_stays_at_its_endpoint_while_that_is_well(sync: bool) -> None:
    settings = SessionAffinity("at")

    with mesh_of(STICKY) as mesh:

        def script(get: Callable[..., httpx.Response]) -> None:
            first = get("/shop/cart")
            at = endpoint(first)
            cookie = first.headers["set-cookie"]
            assert bound_to(settings, cookie.partition(";")[0]) == at
            assert cookie.endswith("; Max-Age=60; Path=/shop; HttpOnly")
            for _ in range(12):
                again = get("/shop")
                assert endpoint(again) == at
                assert meshlib.record(again).attempts[0].how == "bound"  # type: ignore[union-attr]
                assert "set-cookie" not in again.headers
            assert len({endpoint(get("/elsewhere")) for _ in range(30)}) > 1  # the cookie is not for that path
            mesh.kill("orders", instance=at.removesuffix(":80"))
            moved = get("/shop")
            assert endpoint(moved) != at
            assert meshlib.record(moved).attempts[0].endpoint == at  # type: ignore[union-attr]
            assert bound_to(settings, moved.headers["set-cookie"].partition(";")[0]) == endpoint(moved)
            assert endpoint(get("/shop")) == endpoint(moved)

        run(mesh, sync, script)


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_calls_of_an_ejected_endpoint_move_and_come_back(policy: str) -> None:
    outliers = {"consecutive_errors": 1, "base_ejection": "10s"}
    with mesh_of({"policy": policy}, outlier_detection=outliers, circuit_breaker=False) as mesh:
        client = mesh.client("orders")

        def places() -> list[str]:
            return [endpoint(client.get("/", extensions=meshlib.call(hash_key=str(number)))) for number in range(40)]

        before = places()
        mesh.fail_next("orders", status=503, instance="orders-1")
        client.get("/", extensions=meshlib.call(hash_key=str(before.index("orders-1:80"))))
        during = places()
        assert "orders-1:80" not in during
        moved = sum(one != other for one, other in zip(before, during, strict=True))
        assert moved <= 16  # few of the others, as the table is another one
        mesh.clock.advance("11s")
        for _ in range(3):
            client.get("/")  # one of these is the probe
        assert places() == before


def test_a_session_whose_endpoint_is_ejected_moves() -> None:
    with mesh_of(STICKY, outlier_detection={"consecutive_errors": 1}, retry={"max_retries": 0}) as mesh:
        client = mesh.client("orders")
        at = endpoint(client.get("/shop"))
        mesh.fail_next("orders", status=503, instance=at.removesuffix(":80"))
        assert client.get("/shop").status_code == 503
        moved = client.get("/shop")
        assert endpoint(moved) != at
        assert "set-cookie" in moved.headers


def test_a_cookie_that_names_nothing_is_replaced() -> None:
    with mesh_of(STICKY) as mesh:
        for value in ("", "%%%", "MS4yLjMuNDo4MA=="):
            response = mesh.client("orders").get("/shop", headers={"cookie": f"at={value}"})
            assert bound_to(SessionAffinity("at"), response.headers["set-cookie"]) == endpoint(response)


def test_a_streamed_response_has_the_cookie_too() -> None:
    with mesh_of(STICKY) as mesh, mesh.client("orders").stream("GET", "/shop") as response:
        assert "set-cookie" in response.headers


def test_the_plan_names_the_endpoints_of_a_hash_balancer() -> None:
    with mesh_of(RING) as mesh:
        plan = mesh.plan("GET", "http://orders/")
        assert len(plan.candidates) == 4


def test_the_reasons_tell_of_the_hash_and_the_bond() -> None:
    balancing = {**STICKY, "policy": "maglev"}
    with mesh_of(balancing, hash_on=[{"header": "x-user"}]) as mesh:
        client = mesh.client("orders")

        def reasons(path: str, **options: Any) -> str:
            made = meshlib.record(client.get(path, headers={"x-user": "ann"}, extensions=meshlib.call(**options)))
            return "\n".join(made.why)  # type: ignore[union-attr]

        assert f"hash {hash_of_key('ann'):016x}, of the request" in reasons("/shop", explain=True)
        again = reasons("/shop", explain=True, hash_key="bob")
        assert f"hash {hash_of_key('bob'):016x}, of its key" in again
        assert "its session is bound to orders-" in again


def test_a_key_that_is_no_text_is_refused_where_it_is_given() -> None:
    with pytest.raises(TypeError, match="hash_key is to be text, not int"):
        meshlib.call(hash_key=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("metadata", [{"version": 2}, {2: "v2"}])
def test_metadata_that_are_no_text_are_refused_where_they_are_given(metadata: Any) -> None:
    with pytest.raises(TypeError, match="a map of text to text"):
        meshlib.call(metadata_match=metadata)
