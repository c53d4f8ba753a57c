"""What a process serves: counted exactly, however requests end, and told by metrics and the status."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.responses import PlainTextResponse

from meshlib import Mesh
from meshlib.config.health_settings import HealthSettings
from meshlib.config.server_settings import HopelessSettings
from meshlib.context import ServedRequest
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import DEADLINE_MS
from meshlib.server.asgi import MeshMiddleware, Message, Receive, Scope, Send
from meshlib.server.intake import Arrival
from meshlib.server.serving import Serving, serving_of
from meshlib.server.wsgi import MeshMiddleware as WsgiMiddleware
from meshlib.testing import MeshFixture
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio


def arrival() -> Arrival:
    return Arrival(ServedRequest(None))


@pytest.mark.parametrize(
    ("status", "cancelled", "outcome"),
    [
        (200, "", ("ok", "")),
        (404, "", ("ok", "")),
        (500, "", ("error", "")),
        (0, "", ("error", "")),
        (200, "disconnect", ("cancelled", "disconnect")),
        (504, "deadline", ("cancelled", "deadline")),
    ],
)
def test_a_request_ends_once(status: int, cancelled: str, outcome: tuple[str, str]) -> None:
    now = [10.0]
    serving = Serving(clock=lambda: now[0])
    served = serving.begin(arrival())
    assert serving.in_flight == 1
    now[0] += 2.5
    served.end(status, cancelled)
    served.end(500)
    assert (serving.in_flight, serving.outcomes, serving.busy_s) == (0, {outcome: 1}, 2.5)
    assert served.arrival.request.closed
    assert repr(serving) == f"<Serving [0 in flight, 1 {outcome[0]}]>"


def test_a_clock_that_goes_back_takes_no_time_away() -> None:
    now = [10.0]
    serving = Serving(clock=lambda: now[0])
    served = serving.begin(arrival())
    now[0] = 3.0
    served.end(200)
    assert serving.busy_s == 0.0


def test_numbers_are_exact_under_threads() -> None:
    serving = Serving()

    def serve() -> None:
        for n in range(500):
            serving.begin(arrival()).end(200 if n % 5 else 500)
            if n % 10 == 0:
                serving.refuse("expired")

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert serving.in_flight == 0
    assert serving.outcomes == {("ok", ""): 3200, ("error", ""): 800, ("refused", "expired"): 400}
    assert serving.ended == {"ok": 3200, "error": 800, "refused": 400}


def plain_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"x"]


class Gone:
    """What another thread takes away while a request is on its way: the configuration was read anew."""

    def __init__(self, serving: Serving, name: str) -> None:
        self._serving = serving
        self._name = name
        self._kept = getattr(serving, name)

    def __getattr__(self, name: str) -> Any:
        setattr(self._serving, self._name, None)
        return getattr(self._kept, name)


@pytest.mark.parametrize("path", ["/", "/readyz"])
@pytest.mark.parametrize("what", ["admission", "endpoints", "hopeless"])
async def test_a_request_goes_by_what_it_found_when_the_configuration_changes_meanwhile(what: str, path: str) -> None:
    server = {"admission": AdmissionSettings(8), "health": HealthSettings(), "hopeless": HopelessSettings()}
    wsgi = WsgiMiddleware(plain_wsgi, StandInMesh(**server))
    asgi = MeshMiddleware(PlainTextResponse("x"), StandInMesh(**server))
    statuses: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1"}
    scope = {"type": "http", "method": "GET", "path": path, "client": ("127.0.0.1", 1)}

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    for middleware in (wsgi, asgi):
        setattr(middleware._serving, what, Gone(middleware._serving, what))
    wsgi({**environ, "HTTP_X_MESHLIB_DEADLINE_MS": "9000"}, lambda status, *_: statuses.append(status))  # type: ignore[arg-type]
    await asgi({**scope, "headers": [(b"x-meshlib-deadline-ms", b"9000")]}, silent, send)

    assert statuses[:2] == ["200 OK", 200]


async def silent() -> Message:
    return {"type": "http.request"}


def test_a_response_may_be_ended_by_its_finalizer_wherever_the_collector_runs() -> None:
    serving = Serving(None)
    served = serving.begin(arrival())

    with serving._lock:  # where this very thread may be when the collector comes by
        served.end(200)

    assert (serving.in_flight, serving.ended) == (0, {"ok": 1})


def test_a_forked_child_begins_anew() -> None:
    serving = Serving()
    before = serving.begin(arrival())
    serving.begin(arrival()).end(200)
    serving._lock.acquire()  # as a thread would hold it that the child does not have
    serving.intake.counts._lock.acquire()
    pid = os.fork()
    if pid == 0:
        before.end(200)
        serving.intake.counts.add("untrusted")
        serving.begin(arrival()).end(500)
        os._exit(0 if (serving.in_flight, serving.outcomes) == (0, {("error", ""): 1}) else 1)
    serving._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert serving.in_flight == 1


def test_threads_that_ask_first_at_the_same_time_share_what_they_know() -> None:
    ready = threading.Barrier(2)

    class Slow(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            ready.wait(10)
            return found

    with Mesh({"discovery": []}) as mesh:
        for what in ("serving", "lifecycle"):
            mesh._callee = Slow(mesh._callee)
            made: list[Any] = []
            threads = [threading.Thread(target=lambda: made.append(getattr(mesh, what))) for _ in range(2)]  # noqa: B023
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            mesh._callee = dict(mesh._callee)
            assert made[0] is made[1] is getattr(mesh, what)


def test_all_middlewares_of_a_mesh_share_what_they_know() -> None:
    with Mesh({"discovery": []}) as mesh:
        assert serving_of(mesh) is mesh.serving
        asgi = MeshMiddleware(PlainTextResponse("x"), mesh)
        wsgi = WsgiMiddleware(lambda environ, start: [], mesh)
        assert asgi._serving is wsgi._serving is mesh.serving
    assert serving_of(None) is not serving_of(None)
    assert serving_of(StandInMesh()) is not serving_of(StandInMesh())


# How requests end, in both middlewares


def failing_wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
    path = environ["PATH_INFO"]
    if path == "/raises":
        raise KeyError
    start_response("200 OK" if path != "/500" else "500 Oh", [])

    def chunks() -> Iterator[bytes]:
        yield b"x"
        if path == "/breaks":
            raise KeyError
        yield b"y"

    return chunks()


@pytest.mark.parametrize(
    ("path", "outcome"), [("/", "ok"), ("/500", "error"), ("/raises", "error"), ("/breaks", "error")]
)
def test_wsgi(path: str, outcome: str) -> None:
    middleware = WsgiMiddleware(failing_wsgi)
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "REMOTE_ADDR": "127.0.0.1"}
    try:
        response = middleware(environ, lambda *_: None)  # type: ignore[arg-type]
        assert middleware._serving.in_flight == 1
        try:
            list(response)
        finally:
            response.close()  # type: ignore[attr-defined]
    except KeyError:
        pass
    assert middleware._serving.in_flight == 0
    assert middleware._serving.ended == {outcome: 1}


def test_a_wsgi_response_that_its_client_leaves_half_way_ends_by_its_close() -> None:
    middleware = WsgiMiddleware(failing_wsgi)
    environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "REMOTE_ADDR": "127.0.0.1"}
    response = iter(middleware(environ, lambda *_: None))  # type: ignore[arg-type]
    assert next(response) == b"x"
    assert middleware._serving.in_flight == 1
    response.close()  # type: ignore[attr-defined]
    assert middleware._serving.in_flight == 0
    assert middleware._serving.outcomes == {("cancelled", "disconnect"): 1}


async def test_an_asgi_response_that_is_not_finished_had_nobody_to_finish_it_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begins":
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Message) -> None: ...

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    middleware = MeshMiddleware(app)
    for path in ("/begins", "/nothing"):
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "client": ("127.0.0.1", 1)}
        await middleware(scope, receive, send)
    assert middleware._serving.outcomes == {("cancelled", "disconnect"): 1, ("error", ""): 1}


# Telemetry and status


async def test_a_process_that_only_serves_is_measured_and_has_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", MeterProvider([reader]))
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> None:
        began.set()
        await asyncio.sleep(10)

    @app.get("/")
    async def quick() -> str:
        return "quick"

    began = asyncio.Event()
    with Mesh({"discovery": []}) as mesh:
        assert mesh.status().serving is None
        app.add_middleware(MeshMiddleware, mesh=mesh)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
            await http.get("/")
            await http.get("/missing")
            await http.get("/", headers={DEADLINE_MS: "0"})
            await http.get("/slow", headers={DEADLINE_MS: "20"})
            began.clear()
            waiting = asyncio.create_task(http.get("/slow"))
            await began.wait()
            data = reader.get_metrics_data()
            text = str(mesh.status())
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        status = mesh.status().serving
    assert data is not None
    points = {
        metric.name: {
            tuple((point.attributes or {}).values()): point.value  # type: ignore[union-attr]
            for point in metric.data.data_points
        }
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("meshlib.server.")
    }
    assert points["meshlib.server.in_flight"] == {(): 1}
    assert points["meshlib.server.requests"] == {
        ("ok",): 2,
        ("refused", "expired"): 1,
        ("cancelled", "deadline"): 1,
    }
    assert points["meshlib.server.time"][()] >= 0.015
    assert points["meshlib.server.untrusted"] == {(): 0}
    assert "serving: 1 in flight, 2 ok, 1 refused (expired 1), 1 cancelled (deadline 1)" in text
    assert status is not None
    assert (status.in_flight, status.outcomes[("cancelled", "server")], status.draining) == (0, 1, False)


@pytest.mark.parametrize("line", ["none", "lifespan", "by hand", "not written", "soon"])
def test_a_registration_that_nobody_acts_on_is_told_once(
    line: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if line != "soon":
        monkeypatch.setattr("meshlib.server.serving._ENTRY_S", 0.0)
    written = {} if line == "not written" else {"register": {"port": 1, "host": "127.0.0.1"}}
    with MeshFixture({"service": "orders", **written}) as mesh:
        serving = mesh.serving
        if line == "lifespan":
            mesh.lifecycle.begin()
        if line == "by hand":
            mesh.register(port=1)
        for _ in range(2):
            mesh.clock.advance("2s")
            serving.begin(arrival()).end(200)
    assert caplog.text.count("nobody acts on it") == (line == "none")
