"""How names are looked up: within the time that the caller has, and never twice at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from meshlib.balance.endpoint import Endpoint
from meshlib.errors import ConnectFailed, ConnectTimeout
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, Target, WireLimits
from tests.net.test_chaos import in_child
from tests.net.wire_servers import AsyncDriver, Resolver, SyncDriver, Wire, get, keep_alive, serving, soon

NAME = "orders.internal"


def test_a_lookup_that_does_not_end_costs_the_connect_timeout(wire: Wire, resolver: Resolver) -> None:
    resolver.names[NAME] = ["127.0.0.1"]
    resolver.hold = threading.Event()
    for _ in range(2):
        progress = Progress()
        with pytest.raises(ConnectTimeout):
            wire.send(Target(Endpoint(NAME, 1)), get(), progress, connect_s=0.1)
        assert 0.09 < progress.connect_s < 5
    assert resolver.asked == 1, "the second call waits for the answer that the first one asked for"
    resolver.hold.set()
    soon(lambda: not any(thread.name.startswith("lookup") for thread in threading.enumerate()))
    with pytest.raises(ConnectFailed):
        wire.send(Target(Endpoint(NAME, 1)), get())
    assert resolver.asked == 2


def test_the_deadline_bounds_a_lookup_too(wire: Wire, resolver: Resolver) -> None:
    resolver.names[NAME] = ["127.0.0.1"]
    resolver.hold = threading.Event()
    with pytest.raises(ConnectTimeout, match="before the attempt's deadline"):
        wire.send(Target(Endpoint(NAME, 1)), get(), connect_s=60, deadline=time.monotonic() + 0.1)


def test_addresses_written_as_numbers_start_no_thread(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(keep_alive) as server:
        names: list[str | None] = []
        real = threading.Thread

        def noting(*args: Any, **options: Any) -> threading.Thread:
            names.append(options.get("name"))
            return real(*args, **options)

        monkeypatch.setattr(threading, "Thread", noting)
        assert wire.call(server.target()).body == b"ok"
        assert not [name for name in names if name and name.startswith("lookup")]


@pytest.mark.parametrize("name", ["nowhere.invalid", "a..b", "x" * 64 + ".internal", "nul\0.internal"])
def test_what_is_the_name_of_no_host_is_connect_failed(wire: Wire, name: str) -> None:
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            wire.send(Target(Endpoint(name, 80)), get(), connect_s=10)


def test_sync_calls_go_on_where_no_thread_can_be_started(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(keep_alive) as server:
        resolver.names[NAME] = ["127.0.0.1"]
        wire = SyncDriver()
        wire.call(server.target())
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith("lookup"):
                raise RuntimeError("can't start new thread")
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)
        assert wire.call(Target(Endpoint(NAME, server.port))).body == b"ok"
        wire.shut()
        loop_wire = AsyncDriver()
        with pytest.raises(ConnectFailed, match="cannot be looked up"):
            loop_wire.send(Target(Endpoint(NAME, server.port)), get())
        loop_wire.shut()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_during_a_lookup_looks_up_for_itself(resolver: Resolver) -> None:
    with serving(keep_alive) as server:
        resolver.names[NAME] = ["127.0.0.1"]
        resolver.hold = threading.Event()
        engine = SyncEngine()
        with pytest.raises(ConnectTimeout):
            engine.send(Target(Endpoint(NAME, server.port)), get(), WireLimits(connect_s=0.05), Progress())

        def child() -> None:
            resolver.hold = None
            limits = WireLimits(connect_s=10)
            assert engine.send(Target(Endpoint(NAME, server.port)), get(), limits, Progress()).status == 200

        in_child(child)
        engine.close()


def test_a_loop_ends_without_waiting_for_a_lookup(resolver: Resolver) -> None:
    resolver.names[NAME] = ["127.0.0.1"]
    resolver.hold = threading.Event()
    engine = AsyncEngine()

    async def main() -> None:
        limits = WireLimits(connect_s=0.05)
        with pytest.raises(ConnectTimeout):
            await engine.send(Target(Endpoint(NAME, 1)), get(), limits, Progress())
        abandoned = asyncio.ensure_future(engine.send(Target(Endpoint(NAME, 1)), get(), WireLimits(), Progress()))
        await asyncio.sleep(0)
        abandoned.cancel()

    asyncio.run(main())
    assert any(thread.name == f"lookup {NAME}" for thread in threading.enumerate())


def test_who_asks_again_after_an_answer_gets_a_new_one(wire: Wire, resolver: Resolver) -> None:
    resolver.names[NAME] = ["127.0.0.1#1"]
    for times in range(1, 20):
        with pytest.raises(ConnectFailed):
            wire.send(Target(Endpoint(NAME, 1)), get())
        assert resolver.asked == times


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lookup_that_breaks_off_is_connect_failed_and_the_next_one_goes_well(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    asked: list[Any] = []

    def breaks(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return real(host, port, *args, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        asked.append(host)
        if len(asked) == 1:
            raise MemoryError
        return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", breaks)
    with serving(keep_alive) as server:
        target = Target(Endpoint(NAME, server.port))
        with pytest.raises(ConnectFailed, match="broke off"):
            wire.send(target, get(), connect_s=10)
        assert wire.call(target, connect_s=10).body == b"ok"
    # The error in the thread is told of when it ends: here, and not in the middle of the next test.
    soon(lambda: not any(thread.name.startswith("lookup ") for thread in threading.enumerate()))
