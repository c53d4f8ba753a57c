"""Health and readiness endpoints, ASGI and WSGI."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from wsgiref.simple_server import demo_app
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
import pytest

from meshlib import Mesh
from meshlib.config.health_settings import HealthSettings
from meshlib.context import Criticality
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import DEADLINE_MS
from meshlib.server import asgi, wsgi
from meshlib.server.asgi import Receive, Scope, Send
from meshlib.server.health import FRESH_S
from meshlib.server.serving import Serving
from tests.server.conftest import Serve
from tests.server.standin import StandInMesh
from tests.server.test_wsgi import call

pytestmark = pytest.mark.anyio

STRANGER = "203.0.113.9"


class Callee(StandInMesh):
    """A mesh with health endpoints, under a clock that is set."""

    def __init__(self, mode: Any = "on", health: HealthSettings | None = None, **server: Any) -> None:
        super().__init__(mode=mode, health=health or HealthSettings(), **server)
        self.now = 100.0
        self.serving = Serving(self, clock=lambda: self.now)
        self.asked: list[str] = []

    async def get(
        self, path: str, peer: str = "127.0.0.1", method: str = "GET", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        transport = httpx.ASGITransport(asgi.MeshMiddleware(self._app, self), client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://callee") as client:
            return await client.request(method, path, headers=headers)

    def get_blocking(self, path: str, peer: str = "127.0.0.1", method: str = "GET", **more: Any) -> tuple[int, bytes]:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            self.asked.append(environ["PATH_INFO"])
            start_response("404 Not Found", [])
            return []

        answer = call(wsgi.MeshMiddleware(app, self), peer=peer, REQUEST_METHOD=method, PATH_INFO=path, **more)
        return int(answer.status[:3]), answer.body

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})


async def test_the_process_is_live_and_ready_and_says_so_in_json() -> None:
    callee = Callee()
    live, ready = await callee.get("/livez"), await callee.get("/readyz")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "in_flight": 0})
    assert (ready.headers["content-type"], ready.headers["cache-control"]) == ("application/json", "no-store")
    assert callee.get_blocking("/livez") == (200, b'{"status": "live"}\n')
    assert callee.get_blocking("/readyz")[0] == 200
    assert callee.asked == []


async def test_head_has_no_body_and_other_methods_and_paths_are_the_applications() -> None:
    callee = Callee(health=HealthSettings(live=None, ready="/internal/ready"))
    head = await callee.get("/internal/ready", method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert callee.get_blocking("/internal/ready", method="HEAD") == (200, b"")
    assert (await callee.get("/internal/ready", method="POST")).status_code == 404
    assert callee.get_blocking("/internal/ready", method="POST")[0] == 404
    for path in ("/livez", "/readyz", "/internal/ready/"):
        assert (await callee.get(path)).status_code == 404
    assert callee.get_blocking("/livez")[0] == 404


async def test_without_the_setting_there_are_none() -> None:
    mesh = StandInMesh()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(asgi.MeshMiddleware(Callee()._app, mesh)), base_url="http://callee"
    ) as client:
        assert (await client.get("/livez")).status_code == 404


@pytest.mark.parametrize("mode", ["on", "observe", "off"])
async def test_they_answer_in_every_mode_ahead_of_deadlines_and_admission_and_are_not_counted(mode: Any) -> None:
    callee = Callee(mode, admission=AdmissionSettings(max_in_flight=1, max_pending=0))
    assert callee.serving.admission is not None
    callee.serving.admission.queue.enter(callee.now, Criticality.CRITICAL)
    assert (await callee.get("/readyz", headers={DEADLINE_MS: "0"})).status_code == 200
    assert callee.get_blocking("/livez", HTTP_X_MESHLIB_DEADLINE_MS="0")[0] == 200
    assert callee.serving.outcomes == {}
    assert callee.serving.admission.queue.shed == {}


async def test_why_is_told_to_trusted_peers_alone() -> None:
    callee = Callee()
    callee.serving.draining = True
    ours, theirs = await callee.get("/readyz"), await callee.get("/readyz", STRANGER)
    assert (ours.status_code, theirs.status_code) == (503, 503)
    assert ours.json() == {"status": "unready", "reasons": ["draining"], "in_flight": 0}
    assert theirs.json() == {"status": "unready"}
    assert callee.get_blocking("/readyz", STRANGER) == (503, b'{"status": "unready"}\n')
    assert (await callee.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("options", "mode", "services", "status"),
    [
        ({b"master": True}, "on", ("orders",), 503),
        ({b"master": True}, "on", (), 200),
        ({b"master": True}, "observe", ("orders",), 200),
        ({b"enable-threads": True}, "on", ("orders",), 200),
    ],
)
def test_uwsgi_without_threads_is_not_ready_where_calls_are_to_be_made(
    monkeypatch: pytest.MonkeyPatch, options: dict[bytes, bool], mode: Any, services: tuple[str, ...], status: int
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt=options))
    mesh = Mesh(mode=mode, services={name: {} for name in services}, server={"health": {}})
    answer = call(wsgi.MeshMiddleware(demo_app, mesh), PATH_INFO="/readyz")
    assert int(answer.status[:3]) == status
    assert ("enable-threads" in answer.body.decode()) == (status == 503)
    mesh.close()


async def test_it_is_not_ready_while_a_service_that_it_needs_has_no_endpoint() -> None:
    mesh = Mesh(
        services={"orders": {"endpoints": ["127.0.0.1:1"]}, "billing": {"endpoints": []}},
        server={"health": {"services": ["orders", "billing"]}},
    )
    app = asgi.MeshMiddleware(Callee()._app, mesh)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["starting: no healthy endpoint of billing"]
    await mesh.aclose()


async def test_it_is_not_ready_while_all_places_are_taken_and_nothing_ends() -> None:
    callee = Callee(admission=AdmissionSettings(max_in_flight=1))
    assert callee.serving.admission is not None
    queue = callee.serving.admission.queue
    queue.enter(callee.now, Criticality.CRITICAL)
    callee.now += 29.0
    assert (await callee.get("/readyz")).status_code == 200
    callee.now += 1.0
    answer = await callee.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["stuck: all 1 places taken, and no request has ended for 30 s"]
    assert answer.json()["limit"] == 1
    queue.end(callee.now, 30.0)
    assert (await callee.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("overloaded_for_s", "criticality", "expected"),
    [(None, Criticality.CRITICAL, 200), (10.0, Criticality.CRITICAL, 503), (10.0, Criticality.SHEDDABLE, 200)],
)
async def test_overload_makes_it_unready_only_if_asked_for_and_if_critical_requests_are_lost(
    overloaded_for_s: float | None, criticality: Criticality, expected: int
) -> None:
    callee = Callee(
        health=HealthSettings(overloaded_for_s=overloaded_for_s, stuck_for_s=None),
        admission=AdmissionSettings(max_in_flight=1, max_pending=0),
    )
    assert callee.serving.admission is not None
    queue = callee.serving.admission.queue
    queue.enter(callee.now, Criticality.CRITICAL)
    for _ in range(12):
        queue.enter(callee.now, criticality)
        callee.now += 1.0
    assert (await callee.get("/readyz")).status_code == expected
    callee.now += 60.0
    queue.end(callee.now, 1.0)
    assert (await callee.get("/readyz")).status_code == 200


# Checks of the user's


async def _raise() -> None:
    raise ConnectionRefusedError("postgres://user:secret@db")


async def _cancel() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _exit() -> None:
    raise SystemExit


async def _hang() -> None:
    await asyncio.Event().wait()


def _raise_blocking() -> None:
    raise ConnectionRefusedError("postgres://user:secret@db")


async def _false() -> bool:
    return False


FAULTS: list[tuple[Callable[[], Any], str]] = [
    (_raise, "check: database raised ConnectionRefusedError"),
    (_raise_blocking, "check: database raised ConnectionRefusedError"),
    (lambda: _raise(), "check: database raised ConnectionRefusedError"),
    (_cancel, "check: database raised CancelledError"),
    (_exit, "check: database raised SystemExit"),
    (_hang, "check: database took longer than 0.01 s"),
    (lambda: False, "check: database returned False"),
    (_false, "check: database returned False"),
]


@pytest.mark.parametrize(("check", "reason"), FAULTS)
async def test_it_is_not_ready_while_a_check_fails(
    check: Callable[[], Awaitable[object]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    for blocking in (False, True):
        callee = Callee()
        callee.serving.add_check("database", check, timeout="10ms" if check is _hang else None)
        callee.serving.add_check("cache", lambda: True)
        with caplog.at_level(logging.WARNING, "meshlib.server"):
            if blocking:
                status, body = await asyncio.to_thread(callee.get_blocking, "/readyz")
                content = json.loads(body)
            else:
                answer = await callee.get("/readyz")
                status, content = answer.status_code, answer.json()
        assert (status, content["reasons"]) == (503, [reason])
    assert "secret" not in caplog.text
    assert "the check 'database' of readiness" in caplog.text


def test_what_is_no_function_is_refused_as_a_check() -> None:
    with pytest.raises(TypeError, match="the check 'database' has to be a function, sync or async, not False"):
        Callee().serving.add_check("database", False)  # type: ignore[arg-type]


async def test_a_result_holds_for_a_second_however_many_ask() -> None:
    callee, runs = Callee(), list[float]()
    callee.serving.add_check("counted", lambda: runs.append(callee.now))
    for _ in range(3):
        assert (await callee.get("/readyz")).status_code == 200
        assert callee.get_blocking("/readyz")[0] == 200
    assert runs == [100.0]
    callee.now += FRESH_S
    callee.get_blocking("/readyz")
    callee.now -= 50.0  # a clock that went back
    callee.get_blocking("/readyz")
    assert runs == [100.0, 101.0, 51.0]


async def test_a_check_that_takes_its_time_runs_once_for_all_who_ask_meanwhile_whoever_of_them_gives_up() -> None:
    callee, runs, begun, go = Callee(), list[int](), asyncio.Event(), asyncio.Event()

    async def check() -> None:
        runs.append(1)
        begun.set()
        await go.wait()

    callee.serving.add_check("database", check, timeout="20s")
    asking = [asyncio.ensure_future(callee.get("/readyz", peer=STRANGER)) for _ in range(20)]
    await begun.wait()
    asking.pop(0).cancel()
    for _ in range(50):
        await asyncio.sleep(0)
    go.set()
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert len(runs) == 1


async def test_a_blocking_check_that_hangs_is_not_begun_again_and_passes_when_it_comes_back() -> None:
    callee, begun, go = Callee(), list[int](), threading.Event()

    def check() -> None:
        begun.append(1)
        go.wait(20)

    callee.serving.add_check("slow", check, timeout="10ms")
    for _ in range(2):
        assert (await callee.get("/readyz")).status_code == 503
        assert (await asyncio.to_thread(callee.get_blocking, "/readyz"))[0] == 503
        callee.now += FRESH_S
    assert len(begun) == 1
    go.set()
    running = callee.serving.checks._checks["slow"].begin()
    await asyncio.wrap_future(running)
    callee.serving.add_check("slow", check, timeout="10s")
    assert (await callee.get("/readyz")).status_code == 200


@pytest.mark.timeout(20)
async def test_nobody_waits_for_a_check_that_hangs_longer_than_once() -> None:
    callee, go = Callee(), threading.Event()
    callee.serving.add_check("slow", lambda: go.wait(60), timeout="30s")
    callee.serving.checks._checks["slow"].begin()
    for _ in range(2):
        callee.now += 30.0
        assert (await callee.get("/readyz")).json()["reasons"] == ["check: slow took longer than 30 s"]
        callee.now += 30.0
        assert (await asyncio.to_thread(callee.get_blocking, "/readyz"))[0] == 503
    go.set()


async def test_a_check_of_the_same_name_is_replaced_and_one_may_be_taken_away() -> None:
    callee = Callee()
    callee.serving.add_check("database", _raise)
    callee.serving.add_check("database", lambda: None)
    assert (await callee.get("/readyz")).status_code == 200
    callee.serving.add_check("database", _raise)
    callee.serving.checks.remove("database")
    assert (await callee.get("/readyz")).status_code == 200
    with pytest.raises(ValueError, match="is not a duration"):
        callee.serving.add_check("database", _raise, timeout="soon")


async def test_in_a_forked_child_a_check_that_ran_in_the_parent_is_begun_anew() -> None:
    callee, go = Callee(), threading.Event()
    callee.serving.add_check("slow", go.wait, timeout="5ms")
    assert (await callee.get("/readyz")).status_code == 503
    parents = callee.serving.checks._checks["slow"].begin()
    callee.serving.after_fork_in_child()
    go.set()
    assert callee.serving.checks._checks["slow"].begin() is not parents


async def test_they_are_below_where_the_application_is_mounted() -> None:
    callee = Callee()
    app = asgi.MeshMiddleware(callee._app, callee)
    for root_path, path in (("", "/readyz"), ("/api", "/api/readyz"), ("/api/", "/readyz")):
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://callee") as client:
            assert (await client.get(path)).status_code == 200
    assert callee.get_blocking("/readyz", SCRIPT_NAME="/api")[0] == 200


async def test_after_a_reload_the_endpoints_are_where_it_says() -> None:
    mesh = Mesh(server={})
    app = asgi.MeshMiddleware(Callee()._app, mesh)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://callee") as client:
        assert (await client.get("/livez")).status_code == 404
        mesh.reload({"mode": "off", "server": {"health": {}}})
        assert (await client.get("/livez")).status_code == 200
        mesh.reload({"server": {"health": {"live": "/alive"}}})
        assert [(await client.get(path)).status_code for path in ("/livez", "/alive")] == [404, 200]
    mesh.close()


async def test_behind_uvicorn_a_check_runs_in_the_servers_own_loop(serve: Serve) -> None:
    callee, loops = Callee(), set[asyncio.AbstractEventLoop]()

    async def check() -> None:
        loops.add(asyncio.get_running_loop())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"

    callee.serving.add_check("loop", check)
    url = serve(asgi.MeshMiddleware(app, callee))
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready", "in_flight": 0}
        head = await client.head("/livez")
    assert (head.status_code, head.headers["content-length"]) == (200, "19")
    assert len(loops) == 1
