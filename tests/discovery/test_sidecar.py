"""A sidecar of another mesh is found by how it answers on loopback, and told of once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.cli import doctor
from meshlib.config.settings import MeshSettings
from meshlib.discovery import sidecar
from meshlib.discovery.sidecar import SIGNS, Sidecar, Sign, find_sidecar, in_a_pod, wait_for_sidecar
from meshlib.telemetry.events import SidecarFound
from tests.peers.process import wait_until

pytestmark = pytest.mark.anyio


@contextmanager
def answering(head: str, body: bytes = b"", *, version: str = "HTTP/1.1") -> Iterator[int]:
    """A server on loopback whose every answer is this."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(f"{version} {head}\r\n\r\n".encode() + body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


# The answers of Envoy 1.40's admin interface, of Istio's health port while it is not ready, and of linkerd2-proxy's
# admin server (app/admin/src/server.rs).
ENVOY = "200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\nserver: envoy\r\ncontent-length: 5", b"LIVE\n"
NOT_READY = "503 Service Unavailable\r\nx-envoy-upstream-service-time: 1\r\nserver: envoy\r\ncontent-length: 0", b""
LINKERD = "200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5", b"live\n"
NGINX = "404 Not Found\r\nserver: nginx\r\ncontent-length: 5", b"envoy"


def at(port: int, number: int) -> tuple[Sign, ...]:
    """That sign, and the others where nobody listens."""
    one = SIGNS[number]
    return (Sign("Nobody", 1, "/", b""), Sign(one.proxy, port, one.path, one.tells))


@pytest.mark.parametrize(
    ("answer", "number", "proxy"), [(ENVOY, 1, "Istio"), (NOT_READY, 0, "Istio"), (LINKERD, 2, "Linkerd")]
)
async def test_each_proxy_is_known_by_its_answer(answer: tuple[str, bytes], number: int, proxy: str) -> None:
    with answering(*answer) as port:
        found = await find_sidecar(at(port, number))
    assert found == Sidecar(proxy, f"127.0.0.1:{port}{SIGNS[number].path} answers as its proxy does")


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_another_server_at_its_port_is_none(number: int) -> None:
    with answering(*NGINX) as port:
        assert await find_sidecar(at(port, number)) is None


async def test_a_server_that_does_not_answer_is_waited_for_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "_TIMEOUT_S", 0.01)
    silent = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            silent.wait(10)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert await find_sidecar(at(server.server_port, 2)) is None
        silent.set()
        server.shutdown()
        thread.join()


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    with answering("200 OK", b"x" * 1_000_000) as port:
        assert await find_sidecar(at(port, 2)) is None


async def test_one_that_starts_later_is_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "LOOKS_AFTER_S", (0.0, 0.0, 0.0))
    looks = iter([None, Sidecar("Istio", "it is there"), None])

    async def find(signs: object) -> Sidecar | None:
        return next(looks)

    monkeypatch.setattr(sidecar, "find_sidecar", find)
    assert await wait_for_sidecar() == Sidecar("Istio", "it is there")
    looks = iter([None] * 3)
    assert await wait_for_sidecar() is None


def test_a_pod_is_known_by_what_kubernetes_tells_it() -> None:
    assert in_a_pod({"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert not in_a_pod({})


@pytest.fixture
def linkerd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with answering(*LINKERD) as port:
        monkeypatch.setattr(find_sidecar, "__defaults__", (at(port, 2),))
        monkeypatch.setattr(wait_for_sidecar, "__defaults__", (at(port, 2),))
        yield


def started(**config: Any) -> Mesh:
    return Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}, **config}).start()


def told_of(mesh: Mesh) -> tuple[list[SidecarFound], threading.Event]:
    found: list[SidecarFound] = []
    told = threading.Event()

    @mesh.on_event
    def listen(event: object) -> None:
        if isinstance(event, SidecarFound):
            found.append(event)
            told.set()

    return found, told


@pytest.mark.usefixtures("linkerd")
def test_a_mesh_in_a_pod_tells_of_its_sidecar(caplog: pytest.LogCaptureFixture) -> None:
    mesh = Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}})
    found, told = told_of(mesh)
    with caplog.at_level(logging.WARNING, "meshlib"), mesh:
        assert told.wait(10)
        assert [event.proxy for event in found] == ["Linkerd"]
        status = mesh.status()
        assert status.sidecar == "Linkerd"
        assert "beside a sidecar of Linkerd" in str(status)
    assert sum("sidecar of Linkerd" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.usefixtures("linkerd")
def test_a_mesh_that_observes_tells_of_it_when_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "_LOOKS_EVERY_S", 0.001)
    mesh = Mesh({"discovery": [], "mode": "observe", "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}})
    found, told = told_of(mesh)
    with mesh:
        wait_until(lambda: mesh.status().sidecar == "Linkerd", "the sidecar is found")
        assert found == []
        mesh.mode = "on"
        assert told.wait(10)
    assert len(found) == 1


@pytest.mark.usefixtures("linkerd")
def test_it_may_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(mesh: Mesh) -> bool:
        with mesh:
            return mesh._wiring.control.looping

    assert not look(started(sidecar="ignore"))
    assert look(started())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert not look(started())


@pytest.mark.usefixtures("linkerd")
def test_doctor_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = doctor._sidecar(MeshSettings())
    assert (finding.level, finding.about) == ("warning", "sidecar")
    assert finding.text.startswith("Linkerd: 127.0.0.1:")
    assert list(doctor._sidecar(MeshSettings(sidecar="ignore"))) == []
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert list(doctor._sidecar(MeshSettings())) == []
