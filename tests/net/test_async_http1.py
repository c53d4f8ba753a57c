"""The asyncio protocol of HTTP/1.1: whole replies, back-pressure, being asked for a body, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from meshlib.errors import AttemptTimeout, BodyBroken, MeshError, Reset
from meshlib.net import async_http1
from meshlib.net.async_dial import open_async_stream
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.async_http1 import AsyncHttp1, take_over
from meshlib.net.async_stream import AsyncStream
from meshlib.net.connect import connect_async
from meshlib.net.connection import VerifyPeer
from meshlib.net.http1 import Http1Framing
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest
from tests.net.wire_servers import OK, Peer, Wire, answering, get, keep_alive, post, serving, soon

EXPECT = (b"Expect", b"100-continue")


def test_a_body_that_comes_with_its_head_is_content_and_holds_nothing(wire: Wire) -> None:
    with serving(keep_alive) as server:
        response = wire.send(server.target(), get())
        assert response.content == b"ok"
        assert wire.counts() == (1, 1, 0, 0)
        assert wire.read(response) == b"ok"


def test_a_body_that_comes_later_is_read_from_the_wire(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK[:-2])
            peer.sock.recv(1)  # until the test has the head
            peer.send(OK[-2:])

    with serving(script) as server:
        response = wire.send(server.target(), get())
        assert response.content is None
        assert wire.counts() == (1, 0, 1, 0)
        wire.runner.run(response.extensions["network_stream"].write(b"!"))  # type: ignore[attr-defined]
        assert wire.read(response) == b"ok"
        assert wire.counts() == (1, 1, 0, 0)


def test_trailers_are_among_the_extensions_once_the_body_is_read(wire: Wire) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nDigest: abc\r\n\r\n"

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b" /slow " in request:
                peer.send(answer[:-15])
                peer.sock.recv(1)
                peer.send(answer[-15:])
            else:
                peer.send(answer)

    with serving(script) as server:
        whole = wire.send(server.target(), get())
        assert [(n.lower(), v) for n, v in whole.extensions["trailers"]] == [(b"digest", b"abc")]
        slow = wire.send(server.target(), get(b"/slow"))
        assert "trailers" not in slow.extensions
        wire.runner.run(slow.extensions["network_stream"].write(b"!"))  # type: ignore[attr-defined]
        assert wire.read(slow) == b"ok"
        assert [(n.lower(), v) for n, v in slow.extensions["trailers"]] == [(b"digest", b"abc")]
        assert server.accepted == 1


def test_trailers_of_a_request_are_sent_after_its_body(wire: Wire) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        while not peer.buffer.endswith(b"\r\n\r\n"):
            assert peer._more()
        seen.append(peer.buffer)
        peer.send(OK)

    with serving(script) as server:
        request = post(wire.body([b"abc"]))
        request.trailers = [(b"Digest", b"abc")]
        assert wire.call(server.target(), request).status == 200
    assert seen == [b"3\r\nabc\r\n0\r\nDigest: abc\r\n\r\n"]


# Expect: 100-continue


def asking(wire: Wire, kind: str) -> WireRequest:
    request = post(b"body" if kind == "bytes" else wire.body([b"bo", b"dy"]), length=4)
    request.headers.append(EXPECT)
    return request


@pytest.mark.parametrize("kind", ["bytes", "iterator"])
def test_a_body_waits_until_the_peer_asks_for_it(wire: Wire, kind: str) -> None:
    early: list[bytes] = []

    def script(peer: Peer) -> None:
        while peer.head() is not None:
            peer.sock.settimeout(0.05)
            assert not peer._more()  # nothing comes unasked
            early.append(peer.buffer)
            peer.sock.settimeout(5)
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            while len(peer.buffer) < 4:
                assert peer._more()
            body, peer.buffer = peer.buffer, b""
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)

    with serving(script) as server:
        for _ in range(2):
            assert wire.call(server.target(), asking(wire, kind)).body == b"body"
        assert (early, server.accepted) == ([b"", b""], 1)


@pytest.mark.parametrize("kind", ["bytes", "iterator"])
def test_a_body_that_the_peer_does_not_want_is_not_sent_and_the_connection_not_kept(wire: Wire, kind: str) -> None:
    rest: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        while peer._more():
            pass
        rest.append(peer.buffer)

    with serving(script) as server:
        reply = wire.call(server.target(), asking(wire, kind))
        assert (reply.status, reply.body) == (417, b"no")
        assert wire.counts() == (0, 0, 0, 0)
        soon(lambda: rest)
    assert rest == [b""]


def test_a_peer_that_does_not_know_of_asking_gets_the_body_after_a_while(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_http1, "CONTINUE_WAIT_S", 0.05)
    with serving(keep_alive) as server:
        for _ in range(2):
            assert wire.call(server.target(), asking(wire, "bytes"), deadline=time.monotonic() + 5).body == b"body"
        assert server.accepted == 1


def test_the_deadline_holds_while_a_body_waits_to_be_asked_for(wire: Wire) -> None:
    with serving(lambda peer: peer.wait_until_gone()) as server:
        began = time.monotonic()
        with pytest.raises(AttemptTimeout):
            wire.send(server.target(), asking(wire, "bytes"), deadline=began + 0.1)
        assert time.monotonic() - began < async_http1.CONTINUE_WAIT_S


# What comes unasked, and what nobody reads


async def slowly(target: Target, limits: WireLimits, progress: Progress, verify: VerifyPeer | None) -> AsyncHttp1:
    """Connects, and goes on only when the peer has said something."""
    stream = await open_async_stream(target, limits, progress, verify)
    while not stream._chunks:
        await stream.wait(None)
    return take_over(stream, target.endpoint.address, Http1Framing)


def test_what_a_peer_says_before_it_is_asked_is_no_answer_and_ends_the_connection() -> None:
    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        keep_alive(peer)

    async def main(target: Target) -> None:
        engine = AsyncEngine(connect=slowly)
        for _ in range(2):
            progress = Progress()
            response = await engine.send(target, get(), WireLimits(), progress)
            assert (response.content, progress.reused) == (b"ok", False)

    with serving(script) as server:
        asyncio.run(main(server.target()))


def test_what_a_peer_says_between_two_requests_is_no_answer_to_the_second(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK)
            if peer.number == 0:
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                said.append(peer)

    said: list[Peer] = []
    with serving(script) as server:
        assert wire.call(server.target()).body == b"ok"
        soon(lambda: said)
        time.sleep(0.002)  # else nobody could tell the one from the other
        reply = wire.call(server.target())
        assert (reply.body, reply.progress.reused) == (b"ok", False)


def test_a_peer_has_to_wait_while_nobody_reads(wire: Wire) -> None:
    size = 30_000_000

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    with serving(script) as server:
        response = wire.send(server.target(), get())
        connection = response.body._exchange
        soon(lambda: wire.settle() or not connection._transport.is_reading())
        assert connection._unread < 2_000_000
        assert len(wire.read(response)) == size


# Nothing is left behind


def collected() -> list[Any]:
    """What only the garbage collector can free now, of this package."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        ours = [one for one in gc.garbage if type(one).__module__.startswith("meshlib")]
        # uvloop and its protocol hold each other where it is cancelled while it makes a transport of a socket.
        return [repr(one)[:200] for one in ours if not isinstance(one, AsyncStream)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def closes(peer: Peer) -> None:
    peer.request()


def breaks(peer: Peer) -> None:
    peer.request()
    peer.send(OK[:-1])


def silent(peer: Peer) -> None:
    peer.wait_until_gone()


@pytest.mark.parametrize(
    "script",
    [keep_alive, answering(OK + b"junk"), closes, breaks, silent],
    ids=["well", "junk", "reset", "broken", "mute"],
)
@pytest.mark.parametrize("cancel", [False, True], ids=["served", "cancelled"])
def test_a_call_leaves_nothing_for_the_garbage_collector(wire: Wire, script: Any, cancel: bool) -> None:
    if wire.engine._connect is not connect_async:
        pytest.skip("an error of h11 holds its own frames")

    async def call(target: Target) -> None:
        limits = WireLimits(read_s=0.02, body_idle_s=0.02)
        with suppress(MeshError, asyncio.CancelledError):
            response = await wire.engine.send(target, get(resendable=False), limits, Progress())
            async for _ in response.body:
                pass
            await response.aclose()

    async def main(target: Target) -> None:
        for turns in range(12):
            task = asyncio.ensure_future(call(target))
            for _ in range(turns if cancel else 0):
                await asyncio.sleep(0)
            if cancel:
                task.cancel()
            await asyncio.wait([task])
        await wire.engine.aclose()

    with serving(script) as server:
        target = server.target()
        wire.runner.run(asyncio.sleep(0))  # type: ignore[attr-defined]
        gc.collect()
        gc.disable()
        try:
            wire.runner.run(main(target))  # type: ignore[attr-defined]
            assert collected() == []
        finally:
            gc.enable()


def test_a_reset_while_an_iterator_uploads_is_a_reset(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.reset()

    def chunks() -> Iterator[bytes]:
        for _ in range(2000):
            yield b"x" * 10_000

    with serving(script) as server, pytest.raises(Reset):
        wire.send(server.target(), post(wire.body(chunks()), length=20_000_000))


@pytest.mark.parametrize("how", ["asked", "slowly", "at once"])
def test_an_upload_cancelled_at_every_turn_leaves_the_pool_whole(wire: Wire, how: str) -> None:
    def script(peer: Peer) -> None:
        while peer.head() is not None:
            if how == "asked":
                peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            while len(peer.buffer) < 400_000:
                if not peer._more():
                    return
            peer.buffer = peer.buffer[400_000:]
            peer.send(OK)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            if how == "slowly":
                await asyncio.sleep(0)
            yield b"x" * 50_000

    async def main(target: Target) -> None:
        for turns in range(25):
            request = post(pieces(), length=400_000)
            if how == "asked":
                request.headers.append(EXPECT)
            task = asyncio.ensure_future(wire.engine.send(target, request, WireLimits(), Progress()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert sum(stats.busy + stats.pending for stats in wire.engine.stats()) == 0
            response = await wire.engine.send(target, post(b"y" * 400_000), WireLimits(), Progress())
            assert response.content == b"ok"

    with serving(script) as server:
        wire.runner.run(main(server.target(max_connections=1)))  # type: ignore[attr-defined]


def test_a_body_that_only_the_end_of_the_loop_ends_is_broken(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        peer.wait_until_gone()

    async def main(target: Target) -> None:
        response = await wire.engine.send(target, get(), WireLimits(), Progress())
        assert await anext(response.body) == b"half of it"
        reading = asyncio.ensure_future(anext(response.body))
        await asyncio.sleep(0)
        response.body._exchange.abort()
        with pytest.raises(BodyBroken):
            await reading

    with serving(script) as server:
        wire.runner.run(main(server.target()))  # type: ignore[attr-defined]


def test_a_task_that_waits_for_a_body_which_another_closes_does_not_read_the_next_one(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            peer.send(OK[:-2])
            if b" /first " in request:
                peer.sock.recv(1)
                peer.send(b"ok")
            else:
                time.sleep(0.05)
                peer.send(b"no")

    async def main(target: Target) -> None:
        engine = AsyncEngine()
        first = await engine.send(target, get(b"/first"), WireLimits(), Progress())
        reading = asyncio.create_task(anext(first.body, b""))
        await first.extensions["network_stream"].write(b"!")
        framing = first.body._exchange._framing
        while not framing.complete:
            await turn()
        await first.aclose()
        # Without a turn of the loop in between: whoever waits has been woken, and does not run yet.
        second = await engine.send(target, get(), WireLimits(), Progress())
        assert b"".join([chunk async for chunk in second.body]) == b"no"
        assert await reading == b"ok"
        await engine.aclose()

    with serving(script) as server:
        wire.runner.run(main(server.target()))  # type: ignore[attr-defined]


async def turn() -> None:
    await asyncio.sleep(0)
