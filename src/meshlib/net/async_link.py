"""What every connection of an asyncio loop is made of: a transport, whether it is well, and waiting for news of it.

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
from typing import Any, cast

from meshlib.net.connection import NO_GOODBYE, DeadlinePassed

__all__ = ["MAX_BUFFERED", "AsyncLink", "AsyncNetworkStream"]

MAX_BUFFERED = 256 * 1024
"""Bytes that may wait here unread before the peer is made to wait."""
_TIMER_SLACK_S = 0.001
"""A loop's clock is coarser than ours, so a timer may come this much before its time."""


class AsyncLink(asyncio.BaseProtocol):
    """A connected transport, plain or TLS.

    Attributes:
        of_asyncio: whether the loop is one of asyncio's own.
        eof: whether nothing more will come.
        lost: whether the socket is gone.
        error: why, if it broke.
        truncated: whether the end came without a goodbye in TLS: anybody on the way could have cut what the peer sent.
    """

    __slots__ = (
        "_deadline",
        "_loop",
        "_poll",
        "_raw",
        "_read_paused",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "_write_paused",
        "eof",
        "error",
        "is_tls",
        "lost",
        "of_asyncio",
        "truncated",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._raw: asyncio.Transport = self._transport
        self._waiter: asyncio.Future[None] | None = None
        """Of the wait under way; whoever ends it forgets it, since the error in it would hold all who wait."""
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll: select.poll | None = None
        self._read_paused = False
        self._write_paused = False
        self.of_asyncio = isinstance(loop, asyncio.BaseEventLoop)
        self.is_tls = False
        self.eof = False
        self.lost = False
        self.truncated = False
        self.error: Exception | None = None

    def _take_over(self, other: AsyncLink) -> None:
        """Go on with the transport of `other`, which hears no more of it."""
        self._transport, self._raw = other._transport, other._raw
        self._write_paused, self.is_tls = other._write_paused, other.is_tls
        self.eof, self.lost, self.truncated, self.error = other.eof, other.lost, other.truncated, other.error
        if not self.lost:
            self._transport.set_protocol(self)
            if other._read_paused:
                self._transport.resume_reading()

    # What the loop calls

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._raw = cast(asyncio.Transport, transport)

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

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._changed()

    def _salvage(self) -> None:
        """Take in what had come before a write failed: a server that refuses an upload answers, closes, and so resets.

        A transport whose write fails never looks at what there is to read. That of asyncio still has its socket here;
        that of uvloop does not, and its descriptor may be another's by now.
        """
        if self.of_asyncio:
            self._read_all(self.fileno())

    def _read_all(self, fd: int) -> None:
        try:
            while fd >= 0 and (data := os.read(fd, MAX_BUFFERED)):
                self.data_received(data)
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

    def _changed(self) -> None:
        """Wake who waits."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            _end(waiter)

    # Waiting

    def wait(self, deadline: float | None) -> asyncio.Future[None]:
        """What to await for any change; `DeadlinePassed` comes out of it if there was none by `deadline`."""
        before, waiter = self._waiter, self._loop.create_future()
        if before is not None and not before.done():
            # One reads and another one writes, after a switch of protocols: what ends this wait lets both look again.
            waiter.add_done_callback(lambda _: _end(before))
        self._waiter = waiter
        self._deadline = deadline
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            self._set_timer(deadline)
        return waiter

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
            self._waiter = None
            waiter.set_exception(DeadlinePassed())

    # What a connection calls

    def ending(self) -> OSError | None:
        """Why what the peer sent may not be all; a new one each time, since one that is kept must hold no frames."""
        if isinstance(self.error, OSError):
            return type(self.error)(*self.error.args)
        return ConnectionResetError(errno.ECONNRESET, NO_GOODBYE) if self.truncated else None

    async def read_raw(self, deadline: float | None) -> bytes:
        """Some bytes as they came; ``b""`` at the end of the stream.

        Raises:
            DeadlinePassed: if none came by `deadline`.
            OSError: if the connection broke, or its end is `truncated`.
        """
        while not (data := self._take_raw()):
            if self.eof:
                if (error := self.ending()) is not None:
                    raise error
                return b""
            await self.wait(deadline)
        return data

    def _take_raw(self) -> bytes:
        """What has come and was not read."""
        raise NotImplementedError

    def write_now(self, data: bytes) -> None:
        """Hand `data` to the transport."""
        if not self._transport.is_closing():
            self._transport.write(data)

    @property
    def writable(self) -> bool:
        """Whether the transport takes more without a wait."""
        return not self._write_paused

    def _pause_reading(self) -> None:
        self._read_paused = True
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._read_paused = False
        if not self.lost:
            self._transport.resume_reading()

    def readable(self) -> bool:
        """Whether the socket has something to read that the loop has not seen yet, its end included."""
        if self._poll is None:
            fd = self.fileno()
            if fd < 0:
                return True
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
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
            return self.eof or self.readable()
        transport_name = {"client_addr": "sockname", "server_addr": "peername"}.get(name, name)
        return self._transport.get_extra_info(transport_name)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class AsyncNetworkStream:
    """The connection beneath a response, as ``extensions["network_stream"]`` gives it to httpx users."""

    __slots__ = ("_leading", "_link")

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._leading = b""

    def get_extra_info(self, info: str) -> Any:
        """``ssl_object``, ``socket``, ``client_addr``, ``server_addr`` or ``is_readable``."""
        return self._link.get_extra_info(info)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read, after the connection switched to another protocol; `timeout` in seconds.

        Raises:
            TimeoutError, OSError: as for a socket.
        """
        if not self._leading:
            async with asyncio.timeout(timeout):
                self._leading = await self._link.read_raw(None)
        data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, after the connection switched to another protocol; `timeout` in seconds.

        Raises:
            TimeoutError, OSError: as for a socket.
        """
        link = self._link
        link.write_now(buffer)
        async with asyncio.timeout(timeout):
            while not (link.writable or link.lost):
                await link.wait(None)
        if link.lost:
            raise ConnectionResetError("the connection is closed")

    async def aclose(self) -> None:
        """Close the connection."""
        self._link.close()
