"""A connection of an asyncio loop, as an `asyncio.Protocol` of our own.

`asyncio.StreamReader` and anyio cost more per read than the rest of a small request, and neither has deadlines. Here an
operation that finds what it needs does not touch the loop at all; one that has to wait sets one future, and a timer
unless one is running already. The timer fails the future, so no task is ever cancelled by us, and a cancellation from
outside passes through as it came.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import ssl
import time
from collections.abc import Callable
from typing import Any, cast

from meshlib.net.connection import NO_GOODBYE, TIMER_SLACK_S, DeadlinePassed

__all__ = ["AsyncStream"]

MAX_BUFFERED = 256 * 1024
"""Bytes that may wait here unread before the peer is made to wait."""
WRITE_BYTES = 256 * 1024
_TIMER_SLACK_S = 0.001
"""A loop's clock is coarser than ours, so a timer may come this much before its time."""


class AsyncStream(asyncio.Protocol):
    """A connected transport, plain or TLS."""

    __slots__ = (
        "_chunks",
        "_deadline",
        "_loop",
        "_poll",
        "_raw",
        "_read_paused",
        "_size",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "_write_paused",
        "eof",
        "error",
        "is_tls",
        "lost",
        "on_change",
        "truncated",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._raw: asyncio.Transport = self._transport
        self._chunks: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: float | None = None
        """Of the wait under way."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll: select.poll | None = None
        self._read_paused = False
        self._write_paused = False
        self.is_tls = False
        self.eof = False
        self.lost = False
        self.truncated = False
        """Whether the end came without a goodbye in TLS: anybody on the way could have cut what the peer sent."""
        self.error: Exception | None = None
        self.on_change: Callable[[], None] | None = None
        """Called when something came or changed, for a connection that does not wait in `read`."""

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._raw = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > MAX_BUFFERED and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()
        self._changed()

    def eof_received(self) -> bool:
        self.eof = True
        self.truncated = self.is_tls and not self._said_goodbye()
        self._changed()
        # A peer that has sent its answer and half-closed may still be reading what we upload.
        return not self.is_tls

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.eof:
            if self.is_tls:
                self.truncated = not self._said_goodbye()
            elif exc is not None:
                self._salvage()
        self.lost = self.eof = True
        self.error = exc
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._changed()

    def _salvage(self) -> None:
        """Read what had come before a write failed: a server that refuses an upload answers, closes, and so resets it.

        A transport whose write fails never looks at what there is to read. That of asyncio still has its socket here;
        that of uvloop does not, and its descriptor may be another's by now.
        """
        if isinstance(self._loop, asyncio.BaseEventLoop) and (fd := self.fileno()) >= 0:
            try:
                while data := os.read(fd, MAX_BUFFERED):
                    self._chunks.append(data)
            except OSError:
                pass

    def _said_goodbye(self) -> bool:
        """Whether the peer ended TLS as it should: loops do not tell, but a further read from OpenSSL does."""
        ssl_object = self._transport.get_extra_info("ssl_object")
        try:
            return ssl_object is not None and not ssl_object.read(1)
        except ssl.SSLZeroReturnError:
            return True
        except OSError:
            return False

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._changed()

    def _changed(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self.on_change is not None:
            self.on_change()

    # What a connection calls

    async def read(self, deadline: float | None) -> bytes:
        """Some bytes; ``b""`` at the end of the stream.

        Raises:
            DeadlinePassed: if none came by `deadline`.
            OSError: if the connection broke, or its end is `truncated`.
        """
        while not self._chunks:
            if self.eof:
                if isinstance(self.error, OSError):
                    raise type(self.error)(*self.error.args)  # a copy: what is kept must not hold its readers
                if self.truncated:
                    raise ConnectionResetError(errno.ECONNRESET, NO_GOODBYE)
                return b""
            await self.wait(deadline)
        return self.read_now()

    def read_now(self) -> bytes:
        """What has come and was not read; ``b""`` if nothing."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._read_paused:
            self._read_paused = False
            if not self.lost:
                self._transport.resume_reading()
        return data

    async def write(self, data: bytes, deadline: float | None) -> bool:
        """Write all of `data`, or stop where the peer has something to say first, or has gone (False).

        All is with the transport when it returns, or is cancelled.

        Raises:
            DeadlinePassed: if the peer did not take it by `deadline`.
        """
        if not self._transport.is_closing():
            self._transport.write(data)
            if not self._write_paused:
                return True
        return await self.drain(deadline)

    def write_now(self, data: bytes) -> None:
        """Hand `data` to the transport."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self, deadline: float | None) -> bool:
        """Wait until the transport takes more: True; False if the peer has something to say first, or has gone."""
        while not self.lost and (self._write_paused or self._transport.is_closing()):
            if self._chunks or self.eof:
                return False
            await self.wait(deadline)
        return not self.lost

    async def wait(self, deadline: float | None) -> None:
        """Wait for any change.

        Raises:
            DeadlinePassed: if there was none by `deadline`.
        """
        waiter = self._waiter = self._loop.create_future()
        self._deadline = deadline
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            self._set_timer(deadline)
        try:
            await waiter
        finally:
            self._waiter = None
            del waiter  # the error in it holds this frame, and with it all callers

    def _set_timer(self, at: float) -> None:
        """Be woken at `at`, or before.

        The timer of one wait is left running for the next, which as a rule ends later: it then finds that its time has
        not come and is set anew. So a connection that is busy sets one timer in many requests.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(at - time.monotonic(), self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        waiter, deadline = self._waiter, self._deadline
        if waiter is None or waiter.done() or deadline is None:
            return
        if time.monotonic() < deadline - _TIMER_SLACK_S:
            self._set_timer(deadline)
        else:
            waiter.set_exception(DeadlinePassed())

    async def peer_spoke(self) -> bool:
        """Whether the peer has sent something or closed; lets the loop look if the socket says so."""
        if not self._chunks and not self.eof and self.readable():
            await asyncio.sleep(0)
        return bool(self._chunks) or self.eof

    @property
    def writable(self) -> bool:
        """Whether the transport takes more without a wait."""
        return not self._write_paused

    @property
    def has_data(self) -> bool:
        """Whether something has come that was not read."""
        return bool(self._chunks)

    def readable(self) -> bool:
        """Whether the socket has something to read that the loop has not seen yet, its end included."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def fileno(self) -> int:
        """The socket's file descriptor; -1 if it has none any more."""
        sock = self._raw.get_extra_info("socket")
        return -1 if sock is None else cast(int, sock.fileno())

    def close(self) -> None:
        """Close, after what was written has gone out."""
        self._transport.close()
        if self._raw is not self._transport:
            # Our goodbye in TLS is on its way; without this the transport would wait for the peer's, for 30 s.
            self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._raw.abort()

    def abandon(self) -> None:
        """In a forked child: free the descriptor, and keep its number from being used by anything else.

        Neither transport nor loop may be touched: an epoll set is shared with the parent, and to leave it would
        be to make the parent deaf. So the child's copy of the socket is replaced by one of nothing.
        """
        fd = self.fileno()
        if fd >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd, inheritable=False)
            os.close(null)

    def forsake(self) -> None:
        """Free the socket after the loop was closed under it."""
        for transport in (self._transport, self._raw):
            try:
                transport.abort()
            except RuntimeError:  # it cannot schedule its end on a closed loop
                pass
        # So that end is called here; asyncio has no public way to drop a transport with its loop.
        lost = getattr(self._raw, "_call_connection_lost", None)
        if lost is not None and self.fileno() >= 0:
            try:
                lost(None)
            except RuntimeError:  # TLS passes it on through the loop, but by then the socket is closed
                pass

    def get_extra_info(self, name: str) -> Any:
        """As httpx users know it: ``ssl_object``, ``socket``, ``client_addr``, ``server_addr``, ``is_readable``."""
        if name == "is_readable":
            return self.eof or self.has_data or self.fileno() < 0 or self.readable()
        transport_name = {"client_addr": "sockname", "server_addr": "peername"}.get(name, name)
        return self._transport.get_extra_info(transport_name)

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
