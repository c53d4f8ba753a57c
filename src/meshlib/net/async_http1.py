"""HTTP/1.1 as an asyncio protocol: the loop gives what comes to a `Framing`, and the one who waits is woken once.

A small reply costs one write, one call of `data_received`, one future and one turn of the loop: when the task is woken,
head and body are parsed, and the connection is free. Between exchanges the protocol notes what a peer says unasked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from meshlib.errors import MeshError, RequestBodyError
from meshlib.net.async_link import MAX_BUFFERED, AsyncLink, AsyncNetworkStream
from meshlib.net.async_stream import AsyncStream
from meshlib.net.connection import (
    DeadlinePassed,
    Head,
    Prefetched,
    body_broken,
    earlier,
    has_passed,
    not_http,
    reset,
    time_is_up,
)
from meshlib.net.framing import CONTINUE_WAIT_S, Framing, Truncated
from meshlib.net.wire import Progress, WireLimits, WireRequest

__all__ = ["AsyncHttp1", "take_over"]


_NONE: dict[str, Any] = {}
_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """What all connections of a loop read into: each takes out what came before another one can."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(MAX_BUFFERED))
    return buffer


class AsyncHttp1(AsyncLink, asyncio.BufferedProtocol):
    """One HTTP/1.1 connection of an event loop.

    It has one exchange at a time, so it is also the exchange that `exchange` returns. asyncio allocates 256 KiB
    for each read unless it is given a buffer, which can cost more than the rest of the call; so it is given one.

    Attributes:
        head, content, extensions: of the exchange under way.
    """

    __slots__ = (
        "_answered",
        "_buffer",
        "_cut",
        "_endpoint",
        "_framing",
        "_limits",
        "_network_stream",
        "_reads",
        "_second_fd",
        "_unread",
        "capacity",
        "content",
        "extensions",
        "head",
    )

    def __init__(self, stream: AsyncStream, endpoint: str, framing: Callable[[], Framing]) -> None:
        super().__init__(stream._loop)
        self._endpoint = endpoint
        self._framing = framing()
        self._buffer = _buffer_of(stream._loop)
        self._answered = False
        self._cut = False
        """Whether some of a request was not written, since the peer answered or left before."""
        self._reads = False
        """Whether somebody waits for more of a body: if another task ends the exchange, he may wake in the next one."""
        self._unread = 0
        """Bytes of a body that came since somebody last read."""
        self._second_fd = -1
        """The socket once more, while something is uploaded over a loop that closes it when a write fails."""
        self._limits: WireLimits
        self._network_stream: AsyncNetworkStream | None = None
        self.capacity = 1
        self.head: Head
        self.content: bytes | None = None
        self.extensions = _NONE
        self._take_over(stream)
        if early := stream.read_now():
            self._framing.receive(early)  # unasked, so it is no answer: it only marks the connection
        if self.eof:
            self.capacity = 0

    def __repr__(self) -> str:
        return f"<AsyncHttp1 {self._endpoint} [{'closed' if self.lost else 'open'}]>"

    # What the loop calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._buffer[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        framing = self._framing
        framing.receive(data)
        self._answered = True
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if not framing.complete:
            if framing.head is not None:
                self._unread += len(data)
                if self._unread > MAX_BUFFERED and not self._read_paused:
                    self._pause_reading()
        elif framing.stained:
            self.capacity = 0

    def eof_received(self) -> bool:
        stay_open = super().eof_received()
        self.capacity = 0
        if not self.truncated:
            self._framing.receive(b"")
        return stay_open

    def connection_lost(self, exc: Exception | None) -> None:
        # The framing is not told: without an end from the peer itself, what came may not be all.
        super().connection_lost(exc)
        self.capacity = 0
        self._close_second()
        self._network_stream = None  # it holds this connection
        self._framing.close()

    def _salvage(self) -> None:
        if self._second_fd >= 0:
            self._read_all(self._second_fd)
        else:
            super()._salvage()

    # What a pool calls

    @property
    def closed(self) -> bool:
        """Whether its socket is gone."""
        return self.lost

    def usable(self) -> bool:
        """Whether the peer has neither closed it nor said anything unasked."""
        return self.capacity > 0 and not self.readable()

    def abort(self) -> None:
        """Close it at once."""
        self.capacity = 0
        self._close_second()
        super().abort()

    def abandon(self) -> None:
        """Let go of it in a forked child."""
        self._close_second()
        super().abandon()

    def forsake(self) -> None:
        """Free the socket after its loop was closed."""
        self._close_second()
        super().forsake()
        self._network_stream = None
        self._framing.close()

    # An exchange

    async def exchange(self, request: WireRequest, limits: WireLimits, progress: Progress) -> AsyncHttp1:
        """Send a request and return when the response's head is there.

        Raises:
            WireError, RequestBodyError, or what the request's body raised.
        """
        framing, transport = self._framing, self._transport
        try:
            progress.phase = "write"
            first = framing.begin(request)
            self._answered = False
            if has_passed(limits.deadline):
                raise DeadlinePassed
            if not (self.eof or transport.is_closing()):
                progress.bytes_written = True
                transport.write(first)
            if framing.body_open or self._write_paused:
                self._cut = not await self._send_rest(request.body, limits)
            progress.phase = "headers"
            head = framing.head
            while head is None:
                if self.eof or framing.broken is not None:
                    raise self._no_head()
                await self.wait(earlier(limits.read_s, limits.deadline))
                head = framing.head
                # News may come for ever, as 1xx responses, and a wait that ends by news does not look at the time.
                if head is None and has_passed(limits.deadline):
                    raise DeadlinePassed
        except BaseException as error:
            # Whatever it was, a half-spoken connection is of no use to anybody.
            progress.answered = progress.answered or self._answered
            self.abort()
            if isinstance(error, DeadlinePassed):
                raise time_is_up(progress.phase, limits, self._endpoint) from error
            raise
        progress.answered = True
        progress.phase = "body"
        self.head = head
        network_stream = self._network_stream
        if network_stream is None:
            network_stream = self._network_stream = AsyncNetworkStream(self)
        self.extensions = {
            "http_version": head.http_version,
            "reason_phrase": head.reason,
            "network_stream": network_stream,
        }
        if framing.complete:
            self.content = self._take_chunks()
            if framing.trailers:
                self.extensions["trailers"] = framing.trailers
        else:
            self._limits = limits
        return self

    def _no_head(self) -> MeshError:
        broken = self._framing.broken
        if broken is None or isinstance(broken, Truncated):
            return reset(self._endpoint, self.ending() or broken)
        return not_http(self._endpoint, broken)

    # The request's body

    async def _send_rest(self, body: Any, limits: WireLimits) -> bool:
        """See to it that all of it goes out; False if the peer answered or left before, so that it wants no more."""
        framing = self._framing
        if not (self.of_asyncio or self.is_tls) and not self.lost:
            with suppress(OSError):  # where there are too many open files, an early answer may be lost
                self._second_fd = os.dup(self.fileno())
        if not await self._drained(limits):
            return False
        if not framing.body_open:
            return True
        if framing.awaits_continue and not await self._invited(limits):
            return False
        if isinstance(body, bytes):
            if not await self._put(framing.data(body), limits):
                return False
        elif hasattr(body, "__aiter__"):
            # What the iterator raises passes through as it is: it is not the wire's.
            unseen = 0
            async for chunk in body:
                data = framing.data(chunk)
                unseen += len(data)
                if unseen >= MAX_BUFFERED:
                    unseen = 0
                    if self.readable():
                        await asyncio.sleep(0)  # the iterator may never have let the loop look
                if has_passed(limits.deadline):  # the timer cannot tell, as long as neither we nor the iterator wait
                    raise DeadlinePassed
                if self._has_news() or not await self._put(data, limits):
                    return False
        else:
            raise RequestBodyError(f"the request's body, {type(body).__name__}, is not bytes nor an async iterable")
        return await self._put(framing.end(), limits)

    def _has_news(self) -> bool:
        """Whether there is an answer, or will be none."""
        return self._framing.head is not None or self._framing.broken is not None or self.eof

    async def _put(self, data: bytes, limits: WireLimits) -> bool:
        if self._transport.is_closing():
            return False
        self._transport.write(data)
        return not self._write_paused or await self._drained(limits)

    async def _drained(self, limits: WireLimits) -> bool:
        if self._write_paused:
            until = earlier(limits.write_s, limits.deadline)
            while self._write_paused:
                if self._has_news():
                    return False
                await self.wait(until)
        return not self.lost

    async def _invited(self, limits: WireLimits) -> bool:
        """Wait to be asked for the body, or long enough; False if there is a final answer already."""
        framing, deadline = self._framing, limits.deadline
        until = cast(float, earlier(CONTINUE_WAIT_S, deadline))
        while not framing.continued:
            if self._has_news():
                return False
            try:
                await self.wait(until)
            except DeadlinePassed:
                if deadline is not None and until >= deadline:
                    raise
                return True
        return True

    def _close_second(self) -> None:
        if self._second_fd >= 0:
            os.close(self._second_fd)
            self._second_fd = -1

    # The response's body

    def prefetch(self) -> Prefetched:
        """What of the body came with the head."""
        broken = self._framing.broken
        error = None if broken is None else body_broken(self._endpoint, broken)
        data = self._take_chunks()
        return Prefetched([data] if data else [], self._framing.complete, error)

    def _take_chunks(self) -> bytes:
        framing = self._framing
        chunks, framing.chunks = framing.chunks, []
        self._unread = 0
        if self._read_paused:
            self._resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout, BodyBroken.
        """
        framing, limits = self._framing, self._limits
        try:
            # The time is looked at for each piece: they may come for ever.
            while not framing.complete or framing.chunks:
                if not framing.complete and has_passed(limits.body_deadline):
                    raise DeadlinePassed
                if framing.chunks:
                    return self._take_chunks()
                if framing.switched:
                    return b""
                if self.eof or framing.broken is not None:
                    cause = self.ending() or framing.broken
                    raise body_broken(self._endpoint, cause) from cause
                self._reads = True
                await self.wait(earlier(limits.body_idle_s, limits.body_deadline))
                self._reads = False
        except DeadlinePassed as error:
            raise time_is_up("body", limits, self._endpoint) from error
        if framing.trailers:
            self.extensions["trailers"] = framing.trailers
        return b""

    def _take_raw(self) -> bytes:
        framing = self._framing
        data, framing.leftover = framing.leftover, b""
        self._unread = 0
        if self._read_paused:
            self._resume_reading()
        return data

    def finish(self) -> bool:
        """End the exchange; True if the connection may take another request."""
        self.content, self.extensions = None, _NONE  # they hold this connection, and what it brought
        if self._second_fd >= 0:
            self._close_second()
        if self._framing.finish() and not (self._cut or self._reads or self.eof or self._write_paused):
            return True
        self.abort()
        return False


class _Unbuffered(AsyncHttp1, asyncio.Protocol):
    """The same for loops that have a buffer of their own, as uvloop."""

    __slots__ = ()


def take_over(stream: AsyncStream, endpoint: str, framing: Callable[[], Framing]) -> AsyncHttp1:
    """Go on with a stream's transport in HTTP/1.1."""
    return (AsyncHttp1 if stream.of_asyncio else _Unbuffered)(stream, endpoint, framing)
