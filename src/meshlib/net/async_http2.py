"""HTTP/2 over an asyncio stream: what comes is taken in as it comes, and wakes the tasks whose streams it concerns."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from meshlib.errors import ConnectFailed, RequestBodyError
from meshlib.net.async_link import AsyncNetworkStream
from meshlib.net.async_stream import AsyncStream
from meshlib.net.connection import DeadlinePassed, Head, Prefetched, body_broken, earlier, has_passed, reset, time_is_up
from meshlib.net.http2 import Http2, Refused, Stream
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest

__all__ = ["AsyncHttp2"]


class AsyncHttp2:
    """One HTTP/2 connection of an event loop, shared by many tasks."""

    def __init__(self, stream: AsyncStream, target: Target) -> None:
        self._stream = stream
        self._endpoint = target.endpoint.address
        self._state = Http2(b"https" if target.tls else b"http")
        self._network_stream = AsyncNetworkStream(stream)
        self._loop = asyncio.get_running_loop()
        self._waiting: set[Stream] = set()
        """Streams that wait for room to write."""

    def __repr__(self) -> str:
        return f"<AsyncHttp2 {self._endpoint} [{len(self._state.streams)} streams]>"

    @classmethod
    async def open(cls, stream: AsyncStream, target: Target, limits: WireLimits) -> AsyncHttp2:
        """Greet the peer and wait for its settings, so that its limits hold from the first request on.

        Raises:
            ConnectFailed, ConnectTimeout: if the peer does not speak HTTP/2.
        """
        self = cls(stream, target)
        self._state.start()
        stream.write_now(self._state.outgoing())
        until = earlier(limits.connect_s, limits.deadline)
        while not self._state.settled:
            try:
                self._state.receive(await stream.read_raw(until))
            except DeadlinePassed as error:
                raise time_is_up("connect", limits, self._endpoint) from error
            except OSError as error:
                raise ConnectFailed(f"no HTTP/2 from {self._endpoint}: {error}", endpoint=self._endpoint) from error
            if self._state.error is not None:
                message = f"{self._endpoint} does not speak HTTP/2: {self._state.error}"
                raise ConnectFailed(message, endpoint=self._endpoint)
        stream.on_change = self._on_change
        self._on_change()
        return self

    @property
    def capacity(self) -> int:
        """How many exchanges it can have at once; 0 when it takes no more."""
        return self._state.capacity

    @property
    def closed(self) -> bool:
        """Whether its socket is gone."""
        return self._stream.lost

    def usable(self) -> bool | None:
        """Whether the peer has neither closed it nor said goodbye; None if the loop must first read what it says."""
        if self._state.error is not None or self._stream.eof:
            return False
        return True if self._state.streams or not self._stream.readable() else None

    def close(self) -> None:
        """Close it, at peace with the peer, without waiting."""
        self._state.goodbye()
        self._flush()
        self._stream.close()

    def abort(self) -> None:
        """Close it at once."""
        self._state.fail(ConnectionError("the connection was aborted"))
        self._stream.abort()

    def abandon(self) -> None:
        """Let go of it in a forked child."""
        self._stream.abandon()

    def forsake(self) -> None:
        """Free the socket after its loop was closed."""
        self._stream.on_change = None
        self._stream.forsake()

    async def exchange(self, request: WireRequest, limits: WireLimits, progress: Progress) -> AsyncHttp2Exchange:
        """Send a request and return when the response's head is there.

        Raises:
            WireError, RequestBodyError, or what the request's body raised.
        """
        progress.phase = "write"
        if limits.deadline is not None and time.monotonic() >= limits.deadline:
            raise time_is_up("write", limits, self._endpoint)
        try:
            stream = self._state.begin(request)
        except Refused as error:
            raise reset(self._endpoint, error, refused=True) from error
        try:
            progress.bytes_written = True
            self._flush()
            if request.body != b"":
                await self._upload(stream, request.body, limits, progress)
            progress.phase = "headers"
            while stream.head is None:
                if stream.error is not None:
                    raise stream.failure(self._endpoint, progress)
                await self._wait(stream, earlier(limits.read_s, limits.deadline), limits, "headers")
        except BaseException:
            self._drop(stream)
            raise
        progress.answered = True
        progress.phase = "body"
        return AsyncHttp2Exchange(self, stream, stream.head, limits)

    async def _upload(self, stream: Stream, body: Any, limits: WireLimits, progress: Progress) -> None:
        if isinstance(body, bytes):
            if not await self._put(stream, body, limits):
                return
        elif hasattr(body, "__aiter__"):
            async for chunk in body:
                if not isinstance(chunk, bytes):
                    raise RequestBodyError(f"the request's body gave {type(chunk).__name__}, not bytes")
                if has_passed(limits.deadline):
                    raise time_is_up("write", limits, self._endpoint)
                if not await self._put(stream, chunk, limits):
                    return
        else:
            raise RequestBodyError(f"the request's body, {type(body).__name__}, is not bytes nor an async iterable")
        if stream.error is None and not stream.ended:
            self._state.end(stream)
            self._flush()

    async def _put(self, stream: Stream, data: bytes, limits: WireLimits) -> bool:
        """Write; False if the peer has answered, or wants no more."""
        view = memoryview(data)
        until = earlier(limits.write_s, limits.deadline)
        while view:
            if stream.head is not None or stream.error is not None:
                return False
            sent = self._state.send(stream, view) if self._stream.writable else 0
            self._flush()
            view = view[sent:]
            if not sent:
                self._waiting.add(stream)
                try:
                    await self._wait(stream, until, limits, "write")
                finally:
                    self._waiting.discard(stream)
        return stream.error is None

    async def _wait(self, stream: Stream, until: float | None, limits: WireLimits, phase: str) -> None:
        waiter = stream.waiter = self._loop.create_future()
        timer = None if until is None else self._loop.call_later(until - time.monotonic(), _expire, waiter)
        try:
            await waiter
        except DeadlinePassed as error:
            raise time_is_up(phase, limits, self._endpoint) from error
        finally:
            stream.waiter = None
            if timer is not None:
                timer.cancel()
            del waiter  # the error in it holds this frame, and with it all callers

    def _on_change(self) -> None:
        data = self._stream.read_now()
        if data:
            self._state.receive(data)
        if self._stream.eof:
            self._state.fail(self._stream.error or ConnectionError("the peer closed the connection"))
        self._flush()
        touched, self._state.touched = self._state.touched, []
        for stream in touched:
            _wake(stream)
        if self._waiting and self._stream.writable:
            for stream in list(self._waiting):
                _wake(stream)

    def _flush(self) -> None:
        data = self._state.outgoing()
        if data:
            self._stream.write_now(data)

    def _drop(self, stream: Stream) -> None:
        self._state.drop(stream)
        self._flush()


class AsyncHttp2Exchange:
    """One request and its response on an HTTP/2 connection."""

    __slots__ = ("_connection", "_limits", "_stream", "content", "extensions", "head")

    def __init__(self, connection: AsyncHttp2, stream: Stream, head: Head, limits: WireLimits) -> None:
        self._connection = connection
        self._stream = stream
        self._limits = limits
        self.head = head
        self.content = b"" if stream.ended and not stream.chunks else None
        self.extensions: dict[str, Any] = {
            "http_version": b"HTTP/2",
            "stream_id": stream.id,
            "network_stream": connection._network_stream,
        }

    def prefetch(self) -> Prefetched:
        """What of the body came with the head."""
        return self._stream.prefetch(self._connection._endpoint)

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout, BodyBroken.
        """
        connection, stream, limits = self._connection, self._stream, self._limits
        if not stream.ended and has_passed(limits.body_deadline):
            raise time_is_up("body", limits, connection._endpoint)
        while True:
            if stream.chunks:
                data = connection._state.consume(stream)
                connection._flush()
                return data
            if stream.ended:
                return b""
            if stream.error is not None:
                raise body_broken(connection._endpoint, stream.error)
            until = earlier(limits.body_idle_s, limits.body_deadline)
            await connection._wait(stream, until, limits, "body")

    def finish(self) -> bool:
        """End the exchange; True if the connection may take another request."""
        self._connection._drop(self._stream)
        return self._connection.capacity > 0


def _wake(stream: Stream) -> None:
    if stream.waiter is not None and not stream.waiter.done():
        stream.waiter.set_result(None)


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(DeadlinePassed())
