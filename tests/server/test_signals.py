"""The mesh hears that the process is to end before its server does. With signals that end nothing by themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypercorn.config import Config

from meshlib import Mesh
from meshlib.server.hypercorn import serve
from meshlib.server.lifecycle import Lifecycle
from meshlib.server.signals import Signals
from meshlib.server.werkzeug import run
from tests.discovery.support import until

TERM, INT = signal.SIGUSR1, signal.SIGUSR2


class Server:
    """What a server's handler hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.in_main_thread = True

    def handle(self, number: int, frame: Any) -> None:
        self.heard.append(number)
        self.in_main_thread = self.in_main_thread and threading.current_thread() is threading.main_thread()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    before = {number: signal.signal(number, server.handle) for number in (TERM, INT)}
    yield server
    for number, handler in before.items():
        signal.signal(number, handler)


def mesh_of(notice: Any = "200ms", timeout: Any = "30s") -> Mesh:
    return Mesh({"discovery": [], "server": {"drain": {"notice": notice, "timeout": timeout}}})


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def take() -> Iterator[Callable[..., Signals]]:
    taken: list[Signals] = []

    def take(*meshes: Mesh, **options: Any) -> Signals:
        signals = Signals([mesh.lifecycle for mesh in meshes], (TERM, INT), **options)
        assert signals.take()
        taken.append(signals)
        return signals

    yield take
    for each in taken:
        each.give_back()


def test_the_server_hears_it_when_callers_have_heard(server: Server, take: Callable[..., Signals]) -> None:
    with mesh_of() as mesh:
        take(mesh)
        began = time.monotonic()
        send(TERM)
        until(lambda: mesh.serving.draining)
        assert server.heard == []
        until(lambda: server.heard)
        assert time.monotonic() - began >= 0.2
        assert mesh.serving.closing
        assert server.heard == [TERM]
        assert server.in_main_thread


def test_a_second_signal_ends_at_once(server: Server, take: Callable[..., Signals]) -> None:
    with mesh_of("60s") as mesh:
        dropped: list[bool] = []
        take(mesh, force=lambda: dropped.append(True))
        send(TERM)
        until(lambda: mesh.serving.draining)
        send(INT)
        until(lambda: dropped)
        assert server.heard == [TERM], "it hears the first one as well"


def test_a_second_signal_after_the_notice_has_the_server_drop_what_is_in_flight(
    server: Server, take: Callable[..., Signals]
) -> None:
    with mesh_of(0) as mesh:
        dropped: list[bool] = []
        take(mesh, force=lambda: dropped.append(True))
        send(TERM)
        until(lambda: server.heard)
        assert not dropped
        send(TERM)
        until(lambda: dropped)
        assert server.heard == [TERM]


def test_what_takes_too_long_is_dropped(server: Server, take: Callable[..., Signals]) -> None:
    with mesh_of(0, "100ms") as mesh:
        dropped: list[bool] = []
        take(mesh, force=lambda: dropped.append(True))
        send(TERM)
        until(lambda: dropped)
        assert server.heard == [TERM]


def test_that_of_a_parent_after_that_of_a_terminal_adds_nothing(server: Server) -> None:
    terminal, parent = signal.SIGINT, signal.SIGTERM
    before = {number: signal.signal(number, server.handle) for number in (terminal, parent)}
    try:
        with mesh_of() as mesh:
            signals = Signals([mesh.lifecycle])
            assert signals.take()
            send(terminal)
            until(lambda: mesh.serving.draining)
            send(parent)
            assert server.heard == []
            until(lambda: server.heard)
            assert server.heard == [terminal]
            signals.give_back()
            assert [signal.getsignal(number) for number in before] == [server.handle] * 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_was_there_before_is_put_back_unless_somebody_has_replaced_ours(
    server: Server, take: Callable[..., Signals]
) -> None:
    with mesh_of() as mesh:
        signals = take(mesh)
        other: Callable[[int, Any], None] = lambda number, frame: None  # noqa: E731
        signal.signal(INT, other)
        signals.give_back()
        assert signal.getsignal(TERM) == server.handle
        assert signal.getsignal(INT) == other
        assert not mesh.lifecycle.heeds_signals


def test_a_mesh_that_is_closed_meanwhile_leaves_nobody_waiting(server: Server, take: Callable[..., Signals]) -> None:
    mesh = mesh_of("60s")
    signals = take(mesh)
    send(TERM)
    until(lambda: mesh.serving.draining)
    mesh.close()
    until(lambda: server.heard == [TERM])
    signals.give_back()

    closed = mesh_of("60s")
    other = take(closed)
    closed.close()
    until(lambda: other._bell is None)
    send(TERM)
    assert server.heard == [TERM, TERM], "at once"


def test_several_meshes_drain_at_the_same_time_and_each_is_drained_once(
    server: Server, take: Callable[..., Signals]
) -> None:
    with mesh_of("100ms") as one, mesh_of("200ms") as two:
        take(one, two)
        take(one)  # as an application's own lifespan does inside of one that the server's adapter made
        began = time.monotonic()
        send(TERM)
        until(lambda: server.heard)
        assert 0.2 <= time.monotonic() - began < 2.0
        assert one.serving.closing
        assert two.serving.closing
        time_of_the_second = threading.Event()
        assert not time_of_the_second.wait(0.05)
        assert server.heard == [TERM]


def test_not_in_another_thread(server: Server) -> None:
    taken: list[bool] = []
    with mesh_of() as mesh:
        thread = threading.Thread(target=lambda: taken.append(Signals([mesh.lifecycle], (TERM,)).take()))
        thread.start()
        thread.join()
    assert taken == [False]
    assert signal.getsignal(TERM) == server.handle


def test_hypercorn_in_another_thread_is_refused_and_serves_nothing() -> None:
    left: list[Any] = []

    async def begin() -> None:
        try:
            await serve(app, Config.from_mapping(bind="127.0.0.1:0"), mesh=mesh)
        finally:
            await asyncio.sleep(0)
            left.extend(asyncio.all_tasks() - {asyncio.current_task()})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    def run() -> None:
        with pytest.raises(RuntimeError, match="in the main thread"):
            asyncio.run(begin())

    with Mesh({"discovery": []}) as mesh:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert left == []


def test_flask_s_server_in_another_thread_is_refused_and_leaves_its_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run_it() -> None:
        with pytest.raises(RuntimeError, match="in the main thread"):
            run(lambda environ, start_response: [], mesh, port=port)

    with Mesh({"discovery": []}) as mesh:
        thread = threading.Thread(target=run_it)
        thread.start()
        thread.join()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_not_where_a_loop_hears_by_itself(server: Server) -> None:
    async def main(lifecycle: Lifecycle) -> bool:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(TERM, server.heard.append, TERM)
        try:
            return Signals([lifecycle], (TERM,)).take()
        finally:
            loop.remove_signal_handler(TERM)

    with mesh_of() as mesh:
        assert asyncio.run(main(mesh.lifecycle)) is False


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_was_forked_is_ended_as_if_there_were_no_mesh(
    server: Server, take: Callable[..., Signals]
) -> None:
    signal.signal(TERM, signal.SIG_DFL)
    with mesh_of() as mesh:
        take(mesh)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"!")  # Python forgets a signal that comes before the child is its own
            time.sleep(20)
            os._exit(1)
        assert os.read(reader, 1) == b"!"
        os.close(reader)
        os.close(writer)
        os.kill(pid, TERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -TERM
        assert not mesh.serving.draining
