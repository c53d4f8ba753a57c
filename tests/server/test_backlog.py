"""Connections that wait to be accepted are seen, of sockets that belong to somebody else, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest

from meshlib import Mesh
from meshlib.balance.load_report import HEADER, parse_report
from meshlib.propagation import LOAD
from meshlib.server import backlog as module
from meshlib.server.asgi import MeshMiddleware, Receive, Scope, Send
from meshlib.server.backlog import FIND_S, READ_S, Backlog, Listeners
from meshlib.telemetry.gauges_serving import SERVING_GAUGES
from tests.peers.process import wait_until
from tests.server.conftest import Serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


class Here:
    """Two listening sockets, one of them with two numbers, and a clock that is set by hand."""

    def __init__(self, within: ExitStack) -> None:
        self.now = 100.0
        self.listeners = Listeners(lambda: self.now)
        before = self.listeners.backlog() or Backlog(0, 0)  # of other tests
        self.sockets = [within.enter_context(socket.create_server(("127.0.0.1", 0), backlog=n)) for n in (7, 9)]
        within.enter_context(self.sockets[0].dup())
        self._within, self._before = within, before
        self.now += FIND_S

    def connect(self, number: int) -> None:
        self._within.enter_context(socket.create_connection(self.sockets[number].getsockname()))

    def becomes(self, waiting: int) -> None:
        """Another read says so, at the latest when the system has done its work."""

        def said() -> bool:
            self.now += 2 * READ_S
            return self.read()[0] == waiting

        wait_until(said, f"{waiting} wait")

    def read(self) -> tuple[int, int]:
        found = self.listeners.backlog() or Backlog(0, 0)
        return found.waiting - self._before.waiting, found.limit - self._before.limit


@pytest.fixture
def here() -> Iterator[Here]:
    gc.collect()
    with ExitStack() as within:
        yield Here(within)


def test_who_waits_at_any_port_is_counted_until_it_is_accepted(here: Here) -> None:
    assert here.read() == (0, 16)
    for number in (0, 0, 1):
        here.connect(number)
    assert here.read() == (0, 16), "not so soon again"
    here.becomes(3)
    with closing(here.sockets[0].accept()[0]):
        here.becomes(2)


def test_a_socket_that_is_closed_is_forgotten_and_one_that_is_opened_is_found(here: Here) -> None:
    assert here.read() == (0, 16)
    here.sockets[1].close()
    here.now += 2 * READ_S
    assert here.read() == (0, 7)
    with socket.create_server(("127.0.0.1", 0), backlog=3):
        here.now += 2 * READ_S
        assert here.read() == (0, 10)
    here.now = 0.0  # the clock goes back
    assert here.read() == (0, 7)


def test_nothing_is_kept_open_and_other_files_are_left_alone(here: Here) -> None:
    address = here.sockets[1].getsockname()
    assert here.read() == (0, 16)
    reader, writer = os.pipe()
    for turn in range(20):
        here.now = FIND_S * turn
        assert here.read() == (0, 16)
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    here.sockets[1].close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Listeners().backlog() is None
    monkeypatch.setattr(module, "_here", None)
    assert module.backlog() is None


def test_a_server_that_is_held_up_tells_who_waits_and_so_do_the_metrics(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_here", None)
    mesh = Mesh(discovery=[])
    waiting: list[socket.socket] = []
    read: dict[str, float] = {}

    async def held_up(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.extend(socket.create_connection(scope["server"]) for _ in range(3))
        fresh = Listeners(lambda: float("nan"))  # reads each time
        wait_until(lambda: (fresh.backlog() or Backlog(0, 0)).waiting >= 3, "three wait")  # in the loop, which stands
        for gauge in SERVING_GAUGES:
            if "backlog" in gauge.name:
                read[gauge.name] = sum(value for _, value in gauge.read(None, mesh._wiring.view))  # type: ignore[arg-type]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    answer = httpx.get(serve(MeshMiddleware(held_up, mesh)), headers={LOAD: "orca"})
    for each in waiting:
        each.close()
    mesh.close()
    report = parse_report(answer.headers[HEADER])
    assert report is not None
    assert report.named_metrics["backlog"] >= 3
    assert read["meshlib.server.backlog"] >= 3
    assert read["meshlib.server.backlog.limit"] >= 128
