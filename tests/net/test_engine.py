"""Pools over real sockets: reuse, stale connections, bounds, draining, loops, and what nobody closed."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from types import FrameType
from typing import Any, cast

import pytest

from meshlib.adapters.body import BUFFER_BYTES, AsyncBufferedBody, BufferedBody
from meshlib.errors import MeshClosed, PoolTimeout, RequestBodyError, Reset
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.pool import KEEP_EMPTY_S
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, WireLimits
from tests.net.wire_servers import OK, AsyncDriver, Peer, Wire, get, keep_alive, open_sockets, post, serving, soon


def one_then_close(peer: Peer) -> None:
    """Answers one request on each connection, says nothing of closing, and closes."""
    if peer.request() is not None:
        peer.send(OK)


def closes_on_second(peer: Peer) -> None:
    """Keeps the first connection until it has read its second request, then closes without an answer."""
    if peer.number:
        keep_alive(peer)
    elif peer.request() is not None:
        peer.send(OK)
        peer.request()


def test_a_kept_connection_that_was_closed_is_replaced_for_any_request(wire: Wire) -> None:
    with serving(one_then_close) as server:
        wire.call(server.target())
        server.closed.acquire(timeout=5)
        reply = wire.call(server.target(), post(b"pay", resendable=False))
        assert reply.body == b"ok"
        assert not reply.progress.reused
        assert not reply.progress.resent
        assert server.accepted == 2


def test_a_resendable_request_on_a_stale_connection_goes_once_more_on_a_new_one(wire: Wire) -> None:
    with serving(closes_on_second) as server:
        wire.call(server.target())
        reply = wire.call(server.target(), post(b"again", resendable=True))
        assert reply.body == b"again"
        assert reply.progress.resent
        assert not reply.progress.reused
        assert server.accepted == 2


def read_once(wire: Wire, *chunks: bytes) -> Any:
    source = wire.body(chunks)
    return BufferedBody(source) if wire.name == "sync" else AsyncBufferedBody(source)


def test_an_upload_that_outgrew_its_buffer_is_never_resumed_from_its_middle(wire: Wire) -> None:
    def closes_in_the_second_upload(peer: Peer) -> None:
        if peer.number:
            keep_alive(peer)
            return
        peer.request()
        peer.send(OK)
        peer.head()
        while len(peer.buffer) < 2 * BUFFER_BYTES and peer._more():
            pass
        peer.reset()

    with serving(closes_in_the_second_upload) as server:
        wire.call(server.target())
        body = read_once(wire, *[b"x" * 32768] * 400)
        request = post(b"", resendable=True)
        request.headers = [(b"Host", b"orders"), (b"Transfer-Encoding", b"chunked")]
        request.body = body
        progress = Progress()
        with pytest.raises(Reset):
            wire.send(server.target(), request, progress)
        assert progress.reused
        assert not progress.resent
        assert not body.replayable
        assert server.accepted == 1
        with pytest.raises(RequestBodyError, match="cannot be sent again"):
            wire.send(server.target(), request)


def test_a_request_that_may_not_be_sent_twice_is_reset_on_a_stale_connection(wire: Wire) -> None:
    with serving(closes_on_second) as server:
        wire.call(server.target())
        progress = Progress()
        with pytest.raises(Reset):
            wire.send(server.target(), post(b"pay", resendable=False), progress)
        assert progress.reused
        assert progress.bytes_written
        assert not progress.resent
        assert not progress.answered
        assert server.accepted == 1


def test_it_is_resent_only_once(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        if peer.request() is not None and peer.number == 0:
            peer.send(OK)
            peer.request()

    with serving(script) as server:
        wire.call(server.target())
        with pytest.raises(Reset):
            wire.send(server.target(), get())
        assert server.accepted == 2


def test_a_reset_after_a_part_of_the_answer_is_not_resent(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if peer.requests == 2:
                peer.send(b"HTTP/1.1 200 OK\r\n")
                return
            peer.send(OK)

    with serving(script) as server:
        wire.call(server.target())
        with pytest.raises(Reset):
            wire.send(server.target(), get())
        assert server.accepted == 1


def test_a_server_that_closes_idle_connections_loses_no_call_in_the_race(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        if peer.request() is None:
            return
        peer.send(OK)
        peer.sock.settimeout(0.02)  # from the first request on: one that closes new connections is another matter
        keep_alive(peer)

    with serving(script) as server:
        for index in range(60):
            assert wire.call(server.target()).status == 200
            threading.Event().wait(0.0185 + index % 7 * 0.0005)
        assert server.accepted > 3


def test_too_old_connections_are_not_used_and_sooner_so_for_unsafe_requests(wire: Wire) -> None:
    with serving(keep_alive) as server:
        target = server.target(idle_s=0.3, idle_unsafe_s=0.1)
        wire.call(target)
        time.sleep(0.15)
        assert wire.call(target, get(resendable=True)).progress.reused
        time.sleep(0.15)
        assert not wire.call(target, get(resendable=False)).progress.reused
        time.sleep(0.35)
        assert not wire.call(target, get(resendable=True)).progress.reused
        assert wire.counts()[:2] == (1, 1)


def test_the_control_plane_closes_what_is_idle_for_too_long(wire: Wire) -> None:
    with serving(keep_alive) as server:
        wire.call(server.target())
        wire.engine.reap(time.monotonic() + 3.9)
        assert wire.counts() == (1, 1, 0, 0)
        wire.engine.reap(time.monotonic() + 4.1)
        assert wire.counts() == (0, 0, 0, 0)
        assert server.closed.acquire(timeout=5)


def test_connections_and_pending_requests_are_bounded(wire: Wire) -> None:
    with serving(keep_alive) as server:
        target = server.target(max_connections=1, max_pending=1)
        with Busy(wire, target) as response:
            assert response.status == 200
            began = time.monotonic()
            with pytest.raises(PoolTimeout):
                wire.send(target, get(), pool_s=0.1)
            assert 0.05 < time.monotonic() - began < 3
            with pytest.raises(PoolTimeout):
                wire.send(target, get(), deadline=time.monotonic() + 0.1)
            assert wire.counts() == (1, 0, 1, 0)
        none = server.target(max_connections=1, max_pending=0)
        with Busy(wire, none), pytest.raises(PoolTimeout, match="max_pending"):
            wire.send(none, get())


class Busy:
    """Holds a connection by a response that is not read."""

    def __init__(self, wire: Wire, target: Any) -> None:
        self.wire, self.target = wire, target

    def __enter__(self) -> Any:
        self.response = self.wire.send(self.target, post(b"x" * 3_000_000))
        return self.response

    def __exit__(self, *_: object) -> None:
        self.wire.close(self.response)


@pytest.mark.parametrize("by", ["target", "endpoint"])
def test_an_endpoint_that_left_is_drained(wire: Wire, by: str) -> None:
    with serving(keep_alive) as server:
        target = server.target()
        key = target.key if by == "target" else target.endpoint.key
        response = wire.send(target, post(b"x" * 3_000_000))
        other = wire.send(target, get())
        wire.close(other)
        assert wire.counts() == (2, 1, 1, 0)
        wire.engine.drain(key)
        assert wire.counts() == (1, 0, 1, 0)
        assert len(wire.read(response)) == 3_000_000
        assert wire.counts() == (0, 0, 0, 0)
        assert wire.call(target).body == b"ok"


def test_pools_are_kept_apart_by_instance_and_identity(wire: Wire) -> None:
    with serving(keep_alive) as server:
        wire.call(server.target())
        assert not wire.call(server.target(server_name="other")).progress.reused
        assert len(wire.engine.stats()) == 2
        assert "other 127.0.0.1:" in repr(wire.engine)
        assert "[0 busy, 1 idle]" in repr(wire.engine)


def test_a_closed_engine_says_so(wire: Wire) -> None:
    with serving(keep_alive) as server:
        wire.call(server.target())
        wire.engine.close()
        with pytest.raises(MeshClosed):
            wire.send(server.target(), get())
        assert wire.counts() == (0, 0, 0, 0)


def test_a_response_that_nobody_closes_gives_its_connection_back_when_it_is_collected(wire: Wire) -> None:
    with serving(keep_alive) as server:
        target = server.target(max_connections=2)
        for _ in range(5):
            response = wire.send(target, post(b"x" * 3_000_000))
            assert wire.counts()[2] == 1
            del response
            gc.collect()
            assert wire.counts() == (0, 0, 0, 0)
        assert wire.call(target).body == b"ok"


def test_a_collected_response_wakes_who_waits_for_its_connection() -> None:
    engine = SyncEngine()
    with serving(keep_alive) as server:
        target = server.target(max_connections=1)
        held = [engine.send(target, post(b"x" * 3_000_000), WireLimits(), Progress())]
        done: list[int] = []
        thread = threading.Thread(
            target=lambda: done.append(engine.send(target, get(), WireLimits(pool_s=5), Progress()).status)
        )
        thread.start()
        soon(lambda: engine.stats()[0].pending == 1)
        held.clear()
        gc.collect()
        thread.join(5)
        assert done == [200]
        engine.close()


# Loops


def test_one_asyncio_run_after_another_leaves_nothing_open() -> None:
    engine = AsyncEngine()
    before = open_sockets()

    async def main(target: Any) -> bool:
        progress = Progress()
        for _ in range(2):
            await engine.send(target, get(), WireLimits(), progress)
        unread = await engine.send(target, post(b"x" * 3_000_000), WireLimits(), Progress())
        assert unread.status == 200
        return progress.reused

    with serving(keep_alive) as server:
        for _ in range(3):
            assert asyncio.run(main(server.target()))
            gc.collect()
            assert engine.stats() == []
    assert open_sockets() == before


def test_a_loop_that_is_closed_without_a_goodbye_leaves_nothing_open() -> None:
    engine = AsyncEngine()
    before = open_sockets()
    with serving(keep_alive) as server:
        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(engine.send(server.target(), get(), WireLimits(), Progress()))
            unread = loop.run_until_complete(
                engine.send(server.target(), post(b"x" * 3_000_000), WireLimits(), Progress())
            )
            loop.close()
            del unread, loop
            gc.collect()
        engine.reap(time.monotonic())
        gc.collect()
        assert engine.stats() == []
    assert open_sockets() == before


def test_a_loop_that_ends_while_it_is_looked_for_does_no_harm() -> None:
    engine = AsyncEngine()

    class Ending:
        def is_closed(self) -> bool:
            engine._loops.clear()  # as the loop's own thread does
            return True

    engine._loops[cast(Any, Ending())] = cast(Any, None)
    engine.reap(time.monotonic())

    assert engine.stats() == []


def test_loops_in_two_threads_do_not_meet() -> None:
    engine = AsyncEngine()
    failures: list[BaseException] = []

    async def main(target: Any) -> None:
        async def call() -> None:
            response = await engine.send(target, get(), WireLimits(), Progress())
            assert [chunk async for chunk in response.body] == [b"ok"]

        for _ in range(20):
            await asyncio.gather(*(call() for _ in range(10)))

    def run(target: Any) -> None:
        try:
            asyncio.run(main(target))
        except BaseException as error:
            failures.append(error)

    with serving(keep_alive) as server:
        target = server.target(max_connections=5)
        threads = [threading.Thread(target=run, args=(target,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            engine.reap(time.monotonic() + 10)
            assert all(s.open <= 5 for s in engine.stats())
        assert not failures
        assert engine.stats() == []


def test_the_numbers_and_the_drain_may_come_from_another_thread() -> None:
    driver = AsyncDriver()
    with serving(keep_alive) as server:
        driver.call(server.target())
        thread = threading.Thread(target=lambda: driver.engine.drain(server.target().key))
        thread.start()
        thread.join()
        assert driver.counts() == (0, 0, 0, 0)
        driver.shut()


def test_a_pool_that_stays_empty_is_given_up_and_made_anew_when_needed(wire: Wire) -> None:
    with serving(keep_alive) as server:
        wire.call(server.target())
        now = time.monotonic() + 60.0
        for later in (0.0, KEEP_EMPTY_S - 1.0):
            wire.engine.reap(now + later)
            wire.settle()
            assert len(wire.engine.stats()) == 1
        wire.engine.reap(now + KEEP_EMPTY_S + 0.001)  # a difference of times may be rounded down
        wire.settle()
        assert wire.engine.stats() == []
        assert wire.call(server.target()).body == b"ok"
        assert wire.counts() == (1, 1, 0, 0)


@pytest.mark.parametrize("line", range(6))
def test_a_finalizer_may_give_a_connection_to_the_very_thread_that_it_interrupts(line: int) -> None:
    def sends_half(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK[:-1])

    with serving(sends_half) as server:
        engine = SyncEngine()
        target = server.target(max_connections=1, max_pending=1)
        forgotten = [engine.send(target, get(), WireLimits(), Progress())]
        lines = 0

        def collect(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal lines
            if frame.f_code.co_name == "wait" and event == "line":
                if lines == line:
                    forgotten.clear()
                lines += 1
            return collect

        def call() -> None:
            sys.settrace(collect)
            response = engine.send(target, get(), WireLimits(), Progress())
            sys.settrace(None)
            response.close()

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        soon(lambda: engine.stats()[0].pending or not forgotten)
        soon(lambda: lines or not forgotten)
        thread.join(0.2)
        forgotten.clear()  # where the wait has fewer lines than that
        thread.join(5)
        assert not thread.is_alive()
        engine.close()
