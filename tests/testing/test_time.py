"""Time that is set by hand: concurrency, deadlines that travel, and what is kept apart."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from flask import Flask

import meshlib
from meshlib import context
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from meshlib.testing import MeshFixture, ReceivedRequest, SettableClock
from tests.testing.support import Sync, fastapi_echo


def test_nothing_really_waits(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    mesh.slow("orders", "9s")
    began = time.monotonic()
    for _ in range(20):
        caller.get(mesh, "http://orders/")
    assert mesh.clock.elapsed == pytest.approx(180)
    assert time.monotonic() - began < 30


def test_calls_at_the_same_time_take_as_long_as_the_slowest(mesh: MeshFixture) -> None:
    ended: list[tuple[str, float]] = []
    for service, by in (("slow", "300ms"), ("quick", "100ms"), ("middling", "200ms")):
        mesh.serve(service, 200)
        mesh.slow(service, by)

    async def one(client: httpx.AsyncClient, url: str) -> None:
        await client.get(url)
        ended.append((url[7:], mesh.clock.elapsed))

    async def all_of_them() -> None:
        async with mesh.async_client() as client:
            await asyncio.gather(*(one(client, f"http://{name}") for name in ("slow", "quick", "middling")))
            await one(client, "http://quick")

    asyncio.run(all_of_them())
    assert [name for name, _ in ended] == ["quick", "middling", "slow", "quick"]
    assert [at for _, at in ended] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_handler_at_work_in_a_thread_is_not_overtaken(mesh: MeshFixture) -> None:
    app = FastAPI()

    @app.get("/")
    def works() -> float:
        time.sleep(0.05)  # real work, during which a call that waits must not let its virtual 25 seconds pass
        return mesh.clock.elapsed

    mesh.serve("worker", app)
    mesh.serve("orders", 200)
    mesh.hang("orders")

    async def both() -> Any:
        async with mesh.async_client(timeout=25) as client:
            return await asyncio.gather(
                client.get("http://worker"), client.get("http://orders"), return_exceptions=True
            )

    worked, hung = asyncio.run(both())
    assert worked.json() == 0
    assert isinstance(hung, meshlib.DeadlineExceeded)


def test_a_handler_s_own_calls_go_on_while_it_waits_for_them(mesh: MeshFixture, caller: Sync) -> None:
    async def front(request: ReceivedRequest) -> dict[str, float]:
        async with mesh.async_client() as client:
            await asyncio.gather(client.get("http://a"), client.get("http://b"))
        return {"at": mesh.clock.elapsed}

    mesh.serve("front", front)
    for name, by in (("a", "200ms"), ("b", "100ms")):
        mesh.serve(name, 200)
        mesh.slow(name, by)
    assert caller.get(mesh, "http://front").json() == {"at": pytest.approx(0.2)}


def test_a_cancelled_wait_leaves_the_clock_alone(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200)
    mesh.hang("orders")

    async def give_up() -> None:
        async with mesh.async_client("orders") as client:
            task = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(give_up())
    assert mesh.clock.elapsed == 0


def test_a_slow_call_of_a_handler_counts_against_its_caller(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("users", 200)
    mesh.slow("users", "4s")
    mesh.serve("orders", lambda request: mesh.client("users").get("/").status_code)
    with pytest.raises(meshlib.DeadlineExceeded):
        caller.get(mesh, "http://orders/", timeout=1)
    assert caller.get(mesh, "http://orders/", timeout=5).status_code == 200


def two_hops(mesh: MeshFixture, framework: str) -> Any:
    """An application behind the middleware, whose handler calls users."""
    if framework == "fastapi":
        app = FastAPI()
        app.add_middleware(MeshMiddleware, mesh=mesh)

        @app.get("/")
        async def handler() -> Any:
            async with mesh.async_client("users") as users:
                return {"users": (await users.get("/")).status_code, "left": meshlib.current().remaining}

        return app
    flask = Flask("orders")
    MeshExtension(mesh).init_app(flask)

    @flask.get("/")
    def view() -> Any:
        return {"users": mesh.client("users").get("/").status_code, "left": meshlib.current().remaining}

    return flask


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_deadlines_travel_over_two_hops_in_virtual_time(mesh: MeshFixture, caller: Sync, framework: str) -> None:
    mesh.serve("orders", two_hops(mesh, framework))
    mesh.serve("users", 200)
    mesh.slow("orders", "300ms")
    mesh.slow("users", "200ms")
    with meshlib.timeout("1s"):
        answer = caller.get(mesh, "http://orders/").json()
        assert meshlib.current().remaining == pytest.approx(0.5)
    assert answer == {"users": 200, "left": pytest.approx(0.8)}
    assert mesh.calls("orders")[0].headers["x-meshlib-deadline-ms"] == "1000"
    assert mesh.calls("users")[0].headers["x-meshlib-deadline-ms"] == "1000"


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_a_handler_whose_time_is_up_gives_up_with_its_caller(mesh: MeshFixture, caller: Sync, framework: str) -> None:
    mesh.serve("orders", two_hops(mesh, framework))
    mesh.serve("users", 200)
    mesh.hang("users")
    with meshlib.timeout("1s"), pytest.raises(meshlib.DeadlineExceeded):
        caller.get(mesh, "http://orders/")
    assert mesh.clock.elapsed == pytest.approx(1)


def test_what_an_application_does_behind_its_response_takes_none_of_the_caller_s_time(
    mesh: MeshFixture, caller: Sync
) -> None:
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=mesh)

    async def later() -> None:
        async with mesh.async_client("users") as users:
            await users.get("/")

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> int:
        tasks.add_task(later)
        return 1

    mesh.serve("orders", app)
    mesh.serve("users", 200)
    mesh.slow("users", "5s")
    assert caller.get(mesh, "http://orders/", timeout=1).json() == 1
    assert mesh.calls("users")[0].headers["x-meshlib-deadline-ms"] == "10000"


def test_what_the_caller_has_in_its_context_reaches_a_service_by_headers_alone(mesh: MeshFixture, caller: Sync) -> None:
    own: contextvars.ContextVar[str] = contextvars.ContextVar("own", default="unset")
    seen: list[Any] = []

    def handler(request: ReceivedRequest) -> int:
        seen.append((own.get(), meshlib.current().remaining, request.headers["x-meshlib-deadline-ms"]))
        mesh.client("users").get("/")
        return 200

    mesh.serve("orders", handler)
    mesh.serve("users", 200)
    own.set("the caller's")
    with meshlib.timeout("2s"), mesh.policy(per_try_timeout="1s"):
        caller.get(mesh, "http://orders/")
    assert seen == [("unset", None, "1000")]
    assert mesh.calls("users")[0].headers["x-meshlib-deadline-ms"] == "10000"


def test_an_asgi_application_sees_a_trusted_peer(mesh: MeshFixture) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"][0], scope["raw_path"], scope["query_string"], scope["scheme"]))
        assert (await receive())["more_body"] is False
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
        assert (await receive())["type"] == "http.disconnect"

    mesh.serve("orders", app)
    assert mesh.client("orders").get("/a%20b?c=d").content == b"ab"
    assert seen == [("127.0.0.1", b"/a%20b", b"c=d", "http")]


def test_an_asgi_application_that_answers_nothing_is_told_apart(mesh: MeshFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    mesh.serve("orders", app)
    with pytest.raises(RuntimeError, match="ASGI application of orders returned without a complete response"):
        mesh.client("orders").get("/")


def test_the_clock_is_everybody_s_only_while_the_fixture_is_open() -> None:
    clock = SettableClock()
    with MeshFixture(clock=clock) as outer:
        assert context.monotonic() == clock.now()
        with MeshFixture() as inner, MeshFixture(clock=clock):
            inner.clock.advance("1h")
            assert context.monotonic() == clock.now()
        assert context.monotonic() == outer.clock.now()
    assert context.monotonic is time.monotonic
    assert abs(clock.now() - time.monotonic()) < 60
    assert abs(clock.wall() - time.time()) < 60


def test_a_fixture_that_is_closed_in_a_loop_leaves_no_loop_behind() -> None:
    async def run() -> None:
        async with MeshFixture() as mesh:
            mesh.serve("orders", fastapi_echo())
            async with mesh.async_client("orders") as client:
                assert (await client.get("/async/x")).status_code == 200
            assert mesh.client("orders").get("/async/x").status_code == 200

    asyncio.run(run())
    assert context.monotonic is time.monotonic


def test_time_does_not_go_back(mesh: MeshFixture) -> None:
    before = mesh.clock.now()
    mesh.clock.move_to(before - 10)
    mesh.clock.sleep(-1)
    assert mesh.clock.now() == before
    with pytest.raises(ValueError, match="not a duration"):
        mesh.clock.advance("soon")
    assert repr(mesh.clock) == "<SettableClock at 0s>"


def test_a_turn_of_a_rate_limit_is_waited_for_in_no_time(caller: Sync) -> None:
    limit = {"total": {"rate": 0.1, "burst": 1}, "max_wait": "1m"}
    redis = {"url": "redis://:secret@10.255.255.1/0"}
    services = {"orders": {"rate_limit": limit, "timeout": "5m", "fleet": {"rate_limit": {"rate": 1}}}}
    with MeshFixture({"services": services, "redis": redis}) as mesh:
        mesh.serve("orders", 200)
        for _ in range(4):
            assert caller.get(mesh, "http://orders/").status_code == 200
        assert mesh.clock.elapsed == pytest.approx(30)


def test_a_wait_in_line_ends_by_real_time_where_others_hold_the_places(caller: Sync) -> None:
    inside, release = threading.Event(), threading.Event()

    def serve(request: ReceivedRequest) -> int:
        inside.set()
        release.wait(10)
        return 200

    limits = {"max_in_flight": 1, "max_wait": "20ms"}
    with MeshFixture({"services": {"orders": {"limits": limits}}}) as mesh, ThreadPoolExecutor(1) as pool:
        mesh.serve("orders", serve)
        first = pool.submit(mesh.client("orders").get, "/")
        assert inside.wait(10)
        with pytest.raises(meshlib.LimitExceeded, match="max_wait"):
            caller.get(mesh, "http://orders/")
        release.set()
        assert first.result().status_code == 200


@pytest.mark.parametrize("trouble", ["slow", "hang"])
def test_what_becomes_of_a_copy_takes_no_time_of_a_thread_that_calls_and_no_other_thread(trouble: str) -> None:
    services = {"orders": {"timeout": "2s", "routes": [{"mirror": {"service": "shadow"}}]}, "shadow": {}}
    threads = threading.active_count()
    with MeshFixture({"services": services}) as mesh:
        mesh.serve("orders", 200)
        mesh.serve("shadow", 200)
        if trouble == "slow":
            mesh.slow("shadow", "5s")
        else:
            mesh.hang("shadow")
        assert mesh.client("orders").get("/").status_code == 200
        assert (mesh.clock.elapsed, len(mesh.calls("shadow"))) == (0, 1)
        assert threading.active_count() == threads
