"""Mirrors over real sockets: the copy is what was sent, and the caller never notices what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from meshlib.testing import MeshFixture
from tests.adapters.support import AsyncCaller, Chunks, Origin, Seen, SyncCaller, address, ok, origins
from tests.net.wire_servers import RawServer, soon

Caller = SyncCaller | AsyncCaller


def closing(seen: Seen, number: int) -> bytes:
    """An answer that leaves no connection to a loop that ends."""
    return ok(connection="close")


def counts(mesh: Mesh) -> dict[tuple[str, str], int]:
    assert mesh._wiring.plane.mirrors is not None
    mirrors = mesh._wiring.plane.mirrors()
    return mirrors.counts.read()


def is_quiet(mesh: Mesh) -> bool:
    """Whether nothing is under way, nowhere."""
    assert mesh._wiring.plane.mirrors is not None
    mirrors, views = mesh._wiring.plane.mirrors(), mesh._wiring.snapshots.current.services.values()
    members = [member for view in views for cluster in view.clusters.values() for member in cluster.members]
    states = [state for view in views for state in view.state.clusters.values()]
    busy = [member for member in members if member.node.in_flight] + [s for s in states if s.limit.in_flight]
    return not busy and mirrors.room.at_once == 0 and mirrors.room.held == 0


def mesh_with(live: RawServer, *shadows: RawServer | str, mirror: Any = None, **fields: Any) -> Mesh:
    route = {"name": "all", "mirror": mirror or {"service": "shadow"}, **fields.pop("route", {})}
    endpoints = [each if isinstance(each, str) else address(each) for each in shadows]
    services = {
        "orders": {"endpoints": [address(live)], "routes": [route], **fields.pop("orders", {})},
        "shadow": {"endpoints": endpoints, **fields.pop("shadow", {})},
    }
    return Mesh({"discovery": [], "services": services, **fields})


@contextlib.contextmanager
def mirrored(shadow: Any = None, live: Any = None, **fields: Any) -> Iterator[tuple[Mesh, Origin, Origin]]:
    with origins(live, shadow) as ((a, b), servers), mesh_with(*servers, **fields) as mesh:
        yield mesh, a, b


def test_the_copy_is_the_request_as_it_was_sent(caller: Caller) -> None:
    edits = {
        "headers": {"request": {"set": {"x-canary": "1"}, "remove": ["x-debug"]}},
        "rewrite": {"path": "/new"},
        "timeout": "3s",
    }
    with mirrored(route=edits) as (mesh, live, shadow):
        call = caller.run(mesh)
        sent = {"x-debug": "1", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
        response = call("POST", "/a?b=c", json={"d": 1}, headers=sent)
        record = meshlib.record(response)
        assert record is not None
        assert record.mirrored == ("shadow",)
        assert "mirrored to shadow" in str(record)
        soon(lambda: is_quiet(mesh) and shadow.seen)
        one, other = live.seen[0], shadow.seen[0]
        assert (other.line, other.body) == (one.line, one.body) == ("POST /new?b=c HTTP/1.1", b'{"d":1}')
        theirs = ("x-meshlib-deadline-ms", "x-envoy-expected-rq-timeout-ms", "traceparent")
        assert {n.lower(): v for n, v in other.headers if n.lower() not in theirs} == {
            n.lower(): v for n, v in one.headers if n.lower() not in theirs
        }
        assert other.header("x-canary") == "1"
        assert other.header("host") == "orders"
        assert other.header("traceparent") == f"00-{'1' * 32}-{'2' * 16}-00"
        assert 0 < int(other.header("x-meshlib-deadline-ms") or 0) <= 3000
        assert counts(mesh) == {("shadow", "answered"): 1}
        call.close()


def test_several_mirrors_each_get_their_share(caller: Caller) -> None:
    mirror = [{"service": "shadow"}, {"service": "shadow", "percent": 0}, {"service": "off"}]
    with mirrored(mirror=mirror) as (mesh, live, shadow):
        mesh.set_mode("off", service="off")
        call = caller.run(mesh)
        for _ in range(3):
            call("GET", "/")
        soon(lambda: is_quiet(mesh) and len(shadow.seen) == 3)
        assert len(live.seen) == 3
        assert counts(mesh) == {("shadow", "answered"): 3, ("off", "off"): 3}
        call.close()


@pytest.mark.parametrize("wire", ["native", "h11", "stock"])
def test_on_each_wire_the_copy_goes_to_the_mirror(caller: Caller, wire: str) -> None:
    # With the stock wire the caller's URL says where the call itself goes.
    with mirrored(live=closing, wire=wire, orders={"hosts": ["127.0.0.1"]}) as (mesh, live, shadow):
        port = mesh._wiring.snapshots.look("orders").endpoints[0].port
        call = caller.run(mesh)
        call("GET", f"http://127.0.0.1:{port}/x")
        soon(lambda: is_quiet(mesh) and len(shadow.seen) == 1)
        assert [seen.line for seen in live.seen] == ["GET /x HTTP/1.1"]
        assert [seen.line for seen in shadow.seen] == ["GET /x HTTP/1.1"]
        call.close()


def test_a_streamed_body_is_copied_if_it_was_kept(caller: Caller) -> None:
    with mirrored() as (mesh, _, shadow):
        call = caller.run(mesh)
        small = call("POST", "/small", content=Chunks(b"ab", b"cd"))
        large = call("POST", "/large", content=Chunks(b"a" * 40_000, b"b" * 40_000))
        soon(lambda: is_quiet(mesh) and counts(mesh).get(("shadow", "body")))
        assert [meshlib.record(each).mirrored for each in (small, large)] == [("shadow",), ()]  # type: ignore[union-attr]
        assert [(seen.line, seen.body, seen.header("content-length")) for seen in shadow.seen] == [
            ("POST /small HTTP/1.1", b"abcd", "4")
        ]
        assert counts(mesh) == {("shadow", "answered"): 1, ("shadow", "body"): 1}
        call.close()


def test_a_mirror_that_fails_changes_nothing_for_the_caller(caller: Caller) -> None:
    def fails(seen: Seen, number: int) -> bytes | None:
        return ok(status="503 Service Unavailable") if number % 2 else None

    with mirrored(fails) as (mesh, live, shadow):
        call = caller.run(mesh)
        assert [call("GET", f"/{n}").status_code for n in range(4)] == [200] * 4
        soon(lambda: is_quiet(mesh) and len(shadow.seen) >= 4)
        assert len(live.seen) == 4
        assert sum(counts(mesh).values()) == 4
        orders = mesh._wiring.snapshots.service("orders").state
        assert orders.budget.refused == 0
        assert orders.budget.may_retry(time.monotonic())
        call.close()


def test_a_retried_call_is_copied_once(caller: Caller) -> None:
    def flaky(seen: Seen, number: int) -> bytes:
        return ok(status="503 Service Unavailable") if number == 1 else ok()

    with mirrored(live=flaky) as (mesh, live, shadow):
        call = caller.run(mesh)
        assert call("GET", "/").status_code == 200
        soon(lambda: is_quiet(mesh) and shadow.seen)
        assert (len(live.seen), len(shadow.seen)) == (2, 1)
        call.close()


def test_what_is_answered_here_or_only_observed_is_not_copied(caller: Caller) -> None:
    with origins(closing, None) as ((_, shadow), servers):
        for fields in ({"mode": "observe"}, {"orders": {"fault": {"abort": {"status": 503, "percent": 100}}}}):
            with mesh_with(*servers, **fields) as mesh:
                call = caller.run(mesh)
                with contextlib.suppress(httpx.HTTPError):
                    call("GET", "/")
                assert counts(mesh) == {}
                call.close()
        assert shadow.seen == []


def test_a_copy_goes_on_when_the_caller_gives_up() -> None:
    came, go = threading.Event(), threading.Event()

    def slow(seen: Seen, number: int) -> bytes:
        came.set()
        go.wait(5)
        return ok()

    with mirrored(slow, slow) as (mesh, _, shadow):

        async def give_up() -> None:
            async with mesh.async_client("orders") as client:
                task = asyncio.create_task(client.get("/"))
                await asyncio.to_thread(came.wait, 5)
                await asyncio.to_thread(soon, lambda: shadow.seen)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(give_up())
        go.set()
        soon(lambda: is_quiet(mesh))
        assert counts(mesh) == {("shadow", "answered"): 1}


def test_copies_end_with_the_mesh() -> None:
    go = threading.Event()

    def hangs(seen: Seen, number: int) -> bytes:
        go.wait(10)
        return ok()

    with mirrored(hangs) as (mesh, _, shadow):
        client = mesh.client("orders")
        for _ in range(5):
            client.get("/")
        soon(lambda: len(shadow.seen) == 5)
        began = time.monotonic()
        mesh.close()
        assert time.monotonic() - began < 2.0
        assert counts(mesh) == {("shadow", "cancelled"): 5}
        assert is_quiet(mesh)
        go.set()


def test_a_hung_mirror_ends_at_the_routes_timeout_and_a_full_one_is_left_out() -> None:
    go = threading.Event()

    def hangs(seen: Seen, number: int) -> bytes:
        go.wait(10)
        return ok()

    with mirrored(hangs, route={"timeout": "300ms"}) as (mesh, _, _):
        mirrors = mesh._wiring.plane.mirrors()
        assert mirrors is not None
        mirrors.room._max_at_once = 3
        client = mesh.client("orders")
        records = [meshlib.record(client.post("/", content=b"x" * 10)) for _ in range(6)]
        assert [record.mirrored for record in records if record] == [("shadow",)] * 3 + [()] * 3
        assert (mirrors.room.at_once, mirrors.room.held) == (3, 30)
        soon(lambda: is_quiet(mesh))
        assert counts(mesh) == {("shadow", "too_many"): 3, ("shadow", "failed"): 3}
        go.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_sends_no_copy_of_its_parents() -> None:
    go = threading.Event()

    def hangs(seen: Seen, number: int) -> bytes:
        go.wait(10)
        return ok()

    with mirrored(hangs) as (mesh, _, shadow):
        client = mesh.client("orders")
        for _ in range(3):
            client.get("/parent")
        soon(lambda: len(shadow.seen) == 3)
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(BaseException):
                mirrors = mesh._wiring.plane.mirrors()
                assert mirrors is not None
                assert mirrors.room.at_once == 0
                assert client.get("/child").status_code == 200
                mesh.close()
                status = 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        go.set()
        soon(lambda: is_quiet(mesh))
        assert [seen.line for seen in shadow.seen if "parent" in seen.line] == ["GET /parent HTTP/1.1"] * 3
        assert counts(mesh) == {("shadow", "answered"): 3}


def test_thousands_of_copies_to_mirrors_that_are_dead_slow_or_rude_leave_nothing_behind() -> None:
    def rude(seen: Seen, number: int) -> bytes | None:
        return (ok(), None, ok(status="500 Oops"), b"nonsense\r\n\r\n", ok(b"x" * 9000))[number % 5]

    mirror = [{"service": "shadow"}, {"service": "dead"}]
    with origins(None, rude) as ((live, _), servers):
        services = {
            "orders": {
                "endpoints": [address(servers[0])],
                "routes": [{"mirror": mirror, "timeout": "2s"}],
            },
            "shadow": {"endpoints": [address(servers[1])], "outlier_detection": False, "circuit_breaker": False},
            "dead": {"endpoints": ["127.0.0.1:1"], "outlier_detection": False, "circuit_breaker": False},
        }
        with Mesh({"discovery": [], "services": services}) as mesh:

            async def many() -> list[int]:
                async with mesh.async_client("orders") as client:
                    found = []
                    for _ in range(15):
                        answers = await asyncio.gather(*(client.get("/") for _ in range(50)))
                        found += [answer.status_code for answer in answers]
                    return found

            assert asyncio.run(many()) == [200] * 750
            client = mesh.client("orders")
            assert [client.get("/").status_code for _ in range(50)] == [200] * 50
            soon(lambda: is_quiet(mesh), 20)
            told = counts(mesh)
            assert sum(count for (name, _), count in told.items() if name == "shadow") == 800
            assert sum(count for (name, _), count in told.items() if name == "dead") == 800
            assert set(told) <= {
                (name, outcome) for name in ("shadow", "dead") for outcome in ("answered", "failed", "too_many")
            }
            assert len(live.seen) == 800


def test_in_a_test_suite_copies_arrive_without_threads_or_a_network() -> None:
    threads = threading.active_count()
    with MeshFixture({"services": {"orders": {"routes": [{"mirror": {"service": "shadow"}}]}}}) as mesh:
        for name in ("orders", "shadow"):
            mesh.serve(name, name)
        assert mesh.client("orders").get("/a").text == "orders"
        assert [each.path for each in mesh.calls("shadow")] == ["/a"]

        async def ask() -> None:
            assert (await mesh.async_client("orders").get("/b")).text == "orders"
            for _ in range(50):
                await asyncio.sleep(0)  # the copy is a task of this loop
            assert len(mesh.calls("shadow")) == 2

        asyncio.run(asyncio.wait_for(ask(), 5))
        assert threading.active_count() == threads


def test_a_plan_names_the_mirrors() -> None:
    mirror = [{"service": "shadow", "percent": 5}]
    with MeshFixture({"services": {"orders": {"routes": [{"mirror": mirror}]}}}) as mesh:
        assert any("shadow" in line and "5" in line for line in str(mesh.plan("GET", "http://orders/")).splitlines())
