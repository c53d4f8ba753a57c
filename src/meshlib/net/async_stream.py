"""A connection of an asyncio loop that keeps what comes until it is read: for TLS to start on, and for HTTP/2."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from meshlib.net.async_link import MAX_BUFFERED, AsyncLink
from meshlib.net.connection import TIMER_SLACK_S, DeadlinePassed

__all__ = ["AsyncStream"]


class AsyncStream(AsyncLink, asyncio.Protocol):
    """A connected transport, plain or TLS, and what has come over it."""

    __slots__ = ("_chunks", "_size", "on_change")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._chunks: list[bytes] = []
        self._size = 0
        self.on_change: Callable[[], None] | None = None
        """Called when something came or changed, for a connection that does not wait in `read_raw`."""

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > MAX_BUFFERED and not self._read_paused:
            self._pause_reading()
        self._changed()

    def _changed(self) -> None:
        super()._changed()
        if self.on_change is not None:
            self.on_change()

    def read_now(self) -> bytes:
        """What has come and was not read; ``b""`` if nothing."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._read_paused:
            self._resume_reading()
        return data

    _take_raw = read_now

    async def start_tls(self, context: ssl.SSLContext, server_name: str, deadline: float | None) -> None:
        """Handshake; on failure the transport is closed."""
        self.is_tls = True
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                transport = await self._loop.start_tls(self._raw, self, context, server_hostname=server_name)
        except TimeoutError:
            if deadline is not None and time.monotonic() >= deadline - TIMER_SLACK_S:
                raise DeadlinePassed from None
            raise
        if transport is None:  # what uvloop and asyncio say when the peer left in the middle
            raise ConnectionResetError("the peer closed the connection in the handshake")
        self._transport = transport
