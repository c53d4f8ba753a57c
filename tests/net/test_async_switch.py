"""A connection of an event loop after a switch of protocols: it reads and writes at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from meshlib.net.async_engine import AsyncEngine
from meshlib.net.wire import Progress, Target, WireLimits
from tests.net.wire_servers import Peer, Wire, get, serving


async def switched(engine: AsyncEngine, target: Target) -> Any:
    return await engine.send(target, get(b"/", (b"Upgrade", b"echo")), WireLimits(), Progress())


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n"


def test_one_task_reads_while_another_waits_to_write(wire: Wire) -> None:
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(SWITCH)
        left = 8_000_000 - len(peer.sock.recv(1))
        peer.send(b"first")
        assert go_on.wait(5)
        while left:
            left -= len(peer.sock.recv(1 << 20))
        peer.send(b"second")
        peer.wait_until_gone()

    async def main(target: Target) -> None:
        engine = AsyncEngine()
        response = await switched(engine, target)
        stream = response.extensions["network_stream"]
        reading = asyncio.create_task(stream.read(100))
        await asyncio.sleep(0)
        writing = asyncio.create_task(stream.write(bytes(8_000_000)))
        assert await asyncio.wait_for(reading, 5) == b"first"
        with pytest.raises(TimeoutError):
            await stream.read(100, timeout=0.01)
        go_on.set()
        await asyncio.wait_for(writing, 5)
        assert await asyncio.wait_for(stream.read(100), 5) == b"second"
        await response.aclose()
        await engine.aclose()

    with serving(script) as server:
        wire.runner.run(main(server.target()))  # type: ignore[attr-defined]


def test_a_write_that_waits_ends_when_the_peer_resets(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(SWITCH)
        peer.sock.recv(1)
        peer.reset()

    async def main(target: Target) -> None:
        engine = AsyncEngine()
        response = await switched(engine, target)
        with pytest.raises(OSError, match="closed"):
            await asyncio.wait_for(response.extensions["network_stream"].write(bytes(20_000_000)), 5)
        await response.aclose()
        await engine.aclose()

    with serving(script) as server:
        wire.runner.run(main(server.target()))  # type: ignore[attr-defined]
