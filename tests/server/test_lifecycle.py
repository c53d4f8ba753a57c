"""How a process that serves goes: unready, out of the registry, and only after a notice does it
ask to be left alone.

And how it comes: with the lifespan of its application, never by a middleware alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypercorn.asyncio.run import asyncio_worker

from meshlib import Mesh
from meshlib.config.settings import RegisterSettings
from meshlib.discovery.registration import Registration, make_instance
from meshlib.discovery.source import Instance
from meshlib.server import lifecycle as module
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.asgi_lifespan import Lifespan
from meshlib.server.fastapi import lifespan
from meshlib.server.lifecycle import lifecycles
from meshlib.telemetry.events import DrainingBegan, DrainingEnded, Event
from meshlib.testing import MeshFixture
from tests.discovery.support import until


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def config(directory: Path, port: int, **drain: Any) -> dict[str, Any]:
    return {
        "service": "orders",
        "discovery": [{"local": {"directory": str(directory)}}],
        "register": {"port": port},
        "server": {"drain": drain},
    }


def entries(directory: Path) -> list[Path]:
    return list(directory.glob("v1/orders/*.json"))


def test_a_process_is_unready_and_gone_at_once_and_says_goodbye_when_callers_have_heard(
    tmp_path: Path, port: int
) -> None:
    events: list[Event] = []
    with Mesh(config(tmp_path / "r", port, notice="200ms")) as mesh:
        mesh.on_event(events.append)
        mesh.lifecycle.begin()
        mesh.lifecycle.begin()
        until(lambda: entries(tmp_path / "r"))
        draining = threading.Thread(target=mesh.lifecycle.drain)
        began = time.monotonic()
        draining.start()
        until(lambda: mesh.serving.draining)
        until(lambda: not entries(tmp_path / "r"))
        assert not mesh.serving.closing
        until(lambda: mesh.serving.closing)
        assert time.monotonic() - began >= 0.1
        draining.join()
        assert time.monotonic() - began >= 0.2
        mesh.lifecycle.end()
        until(lambda: len(events) == 2)
    assert [type(event) for event in events] == [DrainingBegan, DrainingEnded]
    assert events[0].text == "this process drains: 0 requests in flight; it takes more for 0.2 s"
    assert events[1].text.startswith("this process is drained after 0.")


@pytest.mark.parametrize(("written", "notice_s"), [({}, 0.8), ({"notice": "3s"}, 3.0), ({"notice": 0}, 0.0)])
def test_the_notice_is_what_the_registry_needs_unless_it_is_written(
    tmp_path: Path, port: int, written: dict[str, Any], notice_s: float
) -> None:
    with Mesh(config(tmp_path / "r", port, **written)) as mesh, mesh.register():
        assert mesh.lifecycle._notice_s() == pytest.approx(notice_s)


def test_who_is_in_no_registry_has_nobody_to_tell(tmp_path: Path) -> None:
    with Mesh({"service": "orders", "discovery": [{"local": {"directory": str(tmp_path)}}]}) as mesh:
        mesh.lifecycle.begin()
        began = time.monotonic()
        mesh.lifecycle.drain()
        assert time.monotonic() - began < 0.5
        assert mesh.serving.draining
        assert mesh.serving.closing
        mesh.lifecycle.begin()
        assert mesh.serving.draining, "it has begun already"
        mesh.lifecycle.end()
        mesh.lifecycle.begin()
        assert not mesh.serving.draining, "an application may start once more"


def test_a_registry_that_is_down_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Down:
        name = "down"

        async def register(self, instance: Instance) -> None: ...

        async def deregister(self, instance: Instance) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "_LEAVE_S", 0.1)
    with Mesh({"service": "orders", "discovery": [], "server": {"drain": {"notice": 0}}}) as mesh:
        settings = RegisterSettings(port=8000, host="127.0.0.1")
        registration = Registration(mesh._wiring.control, Down(), make_instance(settings, "orders")).start()
        mesh._registrations.append(registration)
        began = time.monotonic()
        mesh.lifecycle.drain()
        mesh.lifecycle.end()
        assert time.monotonic() - began < 2.0
        assert "goes without its leave" in caplog.text


def test_where_nobody_takes_registrations_that_is_said_and_serving_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with Mesh({"service": "orders", "discovery": [], "register": {"port": 8000}}) as mesh:
        mesh.lifecycle.begin()
        mesh.lifecycle.end()
    assert "`register` has no effect: no discovery source takes registrations" in caplog.text
    assert "In Kubernetes" in caplog.text


def test_the_lifecycles_of_a_process_are_those_of_its_meshes() -> None:
    with Mesh({"discovery": []}) as one, Mesh({"discovery": []}) as two:
        assert lifecycles(one) == [one.lifecycle]
        assert {one.lifecycle, two.lifecycle} <= set(lifecycles(None))
        one.close()
        assert one.lifecycle not in lifecycles(None)
        assert two.lifecycle in lifecycles(None)


def test_a_mesh_for_tests_enters_nothing_anywhere() -> None:
    mesh = MeshFixture(service="orders")
    registration = mesh.register(port=8000).begin()
    assert registration.held
    mesh.lifecycle.begin()
    mesh.lifecycle.drain()
    assert not registration.active
    mesh.lifecycle.end()
    mesh.close()


# ASGI


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Connection", b"keep-alive")]})
    await send({"type": "http.response.body", "body": b""})


async def headers_of(app: Any, http_version: str) -> list[tuple[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "http_version": http_version}
    await app({**scope, "client": ("127.0.0.1", 1)}, receive, send)
    headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
    return headers


@pytest.mark.parametrize(
    ("version", "then"), [("1.1", [(b"connection", b"close")]), ("2", [(b"Connection", b"keep-alive")])]
)
def test_those_who_keep_a_connection_are_told_to_go_elsewhere(version: str, then: list[tuple[bytes, bytes]]) -> None:
    with Mesh({"discovery": []}) as mesh:
        served = MeshMiddleware(app, mesh)
        mesh.serving.draining = True
        assert asyncio.run(headers_of(served, version)) == [(b"Connection", b"keep-alive")]
        mesh.serving.closing = True
        assert asyncio.run(headers_of(served, version)) == then


async def live(application: Any) -> list[str]:
    """A lifespan, as a server has it: startup, then shutdown."""
    sent: list[str] = []
    started = asyncio.Event()
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        message = next(asked)
        if message["type"] == "lifespan.shutdown":
            await started.wait()
        return message

    async def send(message: Any) -> None:
        sent.append(message["type"])
        started.set()

    await application({"type": "lifespan", "state": {}}, receive, send)
    return sent


async def knows_it(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def leaves_half_way(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def raises_late(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise RuntimeError("only HTTP")


@pytest.mark.parametrize("application", [app, knows_it, leaves_half_way, raises_late])
def test_any_application_has_a_lifespan_around_it(application: Any, tmp_path: Path, port: int) -> None:
    with Mesh(config(tmp_path / "r", port)) as mesh:
        begun: list[bool] = []

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def see() -> Any:
                message = await receive()
                if message["type"] == "lifespan.shutdown":
                    begun.append(await asyncio.to_thread(lambda: bool(until(lambda: entries(tmp_path / "r")))))
                return message

            await application(scope, see, send)

        sent = asyncio.run(live(Lifespan(watched, mesh, take_signals=False)))
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert begun in ([True], [])
        assert entries(tmp_path / "r") == []


def test_an_application_that_fails_to_start_is_not_begun() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    with Mesh({"discovery": []}) as mesh, pytest.raises(RuntimeError, match="no database"):
        asyncio.run(live(Lifespan(fails, mesh, take_signals=False)))
    assert mesh.lifecycle._begun_in is None


def test_a_framework_is_given_a_lifespan_and_keeps_its_own(caplog: pytest.LogCaptureFixture) -> None:
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    @asynccontextmanager
    async def own(app: Any) -> Any:
        yield {"own": True}

    mesh = Mesh({"discovery": []})
    application = Starlette(lifespan=lifespan(mesh, own))
    with caplog.at_level(logging.INFO, "meshlib.server"), TestClient(application) as client:
        assert client.app_state["own"] is True
        assert mesh.lifecycle._begun_in is not None
    assert mesh.lifecycle._begun_in is None
    assert "does not drain" in caplog.text, "a test client runs it in a thread"


def test_a_worker_of_the_command_hypercorn_says_that_it_does_not_drain(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_target", asyncio_worker, raising=False)
    with Mesh({"discovery": []}) as mesh:
        asyncio.run(live(Lifespan(app, mesh, take_signals=False)))
        assert "hypercorn" not in caplog.text
        asyncio.run(live(Lifespan(app, mesh)))
        assert "the command hypercorn ends its workers by no signal" in caplog.text


@pytest.mark.parametrize(("count", "says"), [(0, "0 requests"), (1, "1 request"), (2, "2 requests")])
def test_what_is_in_flight_is_told_in_words(count: int, says: str) -> None:
    assert (
        DrainingBegan(in_flight=count, notice_s=1.0).text
        == f"this process drains: {says} in flight; it takes more for 1 s"
    )
    assert (
        DrainingEnded(in_flight=count, took_s=1.0).text == f"this process is drained after 1 s, with {says} in flight"
    )


def test_middleware_alone_registers_nothing(tmp_path: Path, port: int) -> None:
    with Mesh(config(tmp_path / "r", port)) as mesh:
        asyncio.run(headers_of(MeshMiddleware(app, mesh), "1.1"))
        assert json.dumps([str(path) for path in entries(tmp_path / "r")]) == "[]"
        assert not mesh._registrations
