"""HTTP/2 for threads: the exchanges on a stream that they share (`meshlib.net.sync_http2_shared`)."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

from meshlib.errors import ConnectFailed, RequestBodyError
from meshlib.net.connection import DeadlinePassed, Head, Prefetched, body_broken, earlier, has_passed, reset, time_is_up
from meshlib.net.http2 import Refused, Stream
from meshlib.net.steps import Bell, Steps
from meshlib.net.sync_http2_shared import SharedStream
from meshlib.net.sync_stream import SyncStream
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest

__all__ = ["SyncHttp2"]


class SyncHttp2(SharedStream):
    """One HTTP/2 connection for threads, shared by many."""

    def __repr__(self) -> str:
        return f"<SyncHttp2 {self._endpoint} [{len(self._state.streams)} streams]>"

    @classmethod
    def open_steps(cls, stream: SyncStream, target: Target, limits: WireLimits) -> Steps[SyncHttp2]:
        """Greet the peer and wait for its settings, so that its limits hold from the first request on.

        Raises:
            ConnectFailed, ConnectTimeout: if the peer does not speak HTTP/2.
        """
        self = cls(stream, target)
        until = earlier(limits.connect_s, limits.deadline)
        self._state.start()
        try:
            yield from self._flush_steps(until)
            while not self._state.settled:
                self._state.receive((yield from stream.read_steps(until)))
                if self._state.error is not None:
                    message = f"{self._endpoint} does not speak HTTP/2: {self._state.error}"
                    raise ConnectFailed(message, endpoint=self._endpoint)
        except DeadlinePassed as error:
            raise time_is_up("connect", limits, self._endpoint) from error
        except OSError as error:
            if isinstance(error, ConnectFailed):
                raise
            raise ConnectFailed(f"no HTTP/2 from {self._endpoint}: {error}", endpoint=self._endpoint) from error
        return self

    @property
    def capacity(self) -> int:
        """How many exchanges it can have at once; 0 when it takes no more."""
        return self._state.capacity

    def usable(self) -> bool:
        """Whether the peer has neither closed it nor said goodbye. Takes in what an idle peer has sent meanwhile."""
        with self._lock:
            if self._reading or self._state.streams or self._state.error is not None:
                return self._state.error is None
            self._reading = True
        self._read(None, wait=False)
        return self._state.error is None

    def close(self) -> None:
        """Close it, at peace with the peer as far as that needs no wait."""
        with self._lock:
            self._state.goodbye()
        self._flush_now()
        self._stream.close()

    def abandon(self) -> None:
        """Let go of it in a forked child."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._write_lock = threading.Lock()
        self._bells = {}
        self._state.fail(ConnectionError("the connection is the parent process's"))
        self._stream.close()

    def exchange(self, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncHttp2Exchange:
        """Send a request and return when the response's head is there.

        Raises:
            WireError, RequestBodyError, or what the request's body raised.
        """
        progress.phase = "write"
        if limits.deadline is not None and time.monotonic() >= limits.deadline:
            raise time_is_up("write", limits, self._endpoint)
        try:
            with self._lock:
                stream = self._state.begin(request)
        except Refused as error:
            raise reset(self._endpoint, error, refused=True) from error
        try:
            progress.bytes_written = True
            self._write(earlier(limits.write_s, limits.deadline), limits)
            if request.body != b"":
                self._upload(stream, request.body, limits)
            progress.phase = "headers"
            until = earlier(limits.read_s, limits.deadline)
            self._wait_for(partial(_has_head, stream), until, limits, "headers")
            if stream.head is None:
                raise stream.failure(self._endpoint, progress)
        except BaseException:
            self._drop(stream)
            raise
        progress.answered = True
        progress.phase = "body"
        return SyncHttp2Exchange(self, stream, stream.head, limits)

    def _upload(self, stream: Stream, body: Any, limits: WireLimits) -> None:
        if isinstance(body, bytes):
            if not self._put(stream, body, limits):
                return
        elif hasattr(body, "__iter__"):
            for chunk in body:
                if not isinstance(chunk, bytes):
                    raise RequestBodyError(f"the request's body gave {type(chunk).__name__}, not bytes")
                if has_passed(limits.deadline):
                    raise time_is_up("write", limits, self._endpoint)
                if not self._put(stream, chunk, limits):
                    return
        else:
            raise RequestBodyError(f"the request's body, {type(body).__name__}, is not bytes nor an iterable")
        with self._lock:
            if stream.error is not None or stream.ended:
                return
            self._state.end(stream)
        self._write(earlier(limits.write_s, limits.deadline), limits)

    def _put(self, stream: Stream, data: bytes, limits: WireLimits) -> bool:
        """Write; False if the peer has answered, or wants no more."""
        view = memoryview(data)
        until = earlier(limits.write_s, limits.deadline)
        sent = 0

        def moved() -> bool:
            nonlocal sent
            if stream.head is not None or stream.error is not None:
                return True
            sent = self._state.send(stream, view)
            return sent > 0

        while view:
            sent = 0
            self._wait_for(moved, until, limits, "write")
            if not sent:
                return False
            view = view[sent:]
            self._write(until, limits)
        return stream.error is None

    # In steps: the same for one thread with several attempts under way, whose requests are in memory

    def exchange_steps(
        self, request: WireRequest, limits: WireLimits, progress: Progress, bell: Bell
    ) -> Steps[SyncHttp2Exchange]:
        """Send a request, and be done when the response's head is there.

        Raises:
            WireError, RequestBodyError.
        """
        progress.phase = "write"
        if has_passed(limits.deadline):
            raise time_is_up("write", limits, self._endpoint)
        try:
            with self._lock:
                stream = self._state.begin(request)
        except Refused as error:
            raise reset(self._endpoint, error) from error
        try:
            progress.bytes_written = True
            yield from self._write_steps(limits)
            if request.body != b"":
                yield from self._upload_steps(stream, request.body, limits, bell)
            progress.phase = "headers"
            until = earlier(limits.read_s, limits.deadline)
            done = partial(_has_head, stream)
            yield from self._wait_steps(done, until, limits, "headers", bell)
            if stream.head is None:
                raise stream.failure(self._endpoint, progress)
        except BaseException:
            self._drop(stream)
            raise
        progress.answered = True
        progress.phase = "body"
        return SyncHttp2Exchange(self, stream, stream.head, limits)

    def _upload_steps(self, stream: Stream, body: bytes, limits: WireLimits, bell: Bell) -> Steps[None]:
        view = memoryview(body)
        until = earlier(limits.write_s, limits.deadline)

        def may_send() -> bool:
            return _has_head(stream) or self._state.room(stream) > 0

        while view:
            yield from self._wait_steps(may_send, until, limits, "write", bell)
            with self._lock:
                if _has_head(stream):
                    return
                view = view[self._state.send(stream, view) :]
            yield from self._write_steps(limits)
        with self._lock:
            if stream.error is not None or stream.ended:
                return
            self._state.end(stream)
        yield from self._write_steps(limits)


class SyncHttp2Exchange:
    """One request and its response on an HTTP/2 connection."""

    __slots__ = ("_connection", "_limits", "_stream", "extensions", "head")

    def __init__(self, connection: SyncHttp2, stream: Stream, head: Head, limits: WireLimits) -> None:
        self._connection = connection
        self._stream = stream
        self._limits = limits
        self.head = head
        self.extensions: dict[str, Any] = {
            "http_version": b"HTTP/2",
            "stream_id": stream.id,
            "network_stream": connection._network_stream,
        }

    def prefetch(self) -> Prefetched:
        """What of the body came with the head."""
        return self._stream.prefetch(self._connection._endpoint)

    def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout, BodyBroken.
        """
        connection, stream, limits = self._connection, self._stream, self._limits
        if not stream.ended and has_passed(limits.body_deadline):
            raise time_is_up("body", limits, connection._endpoint)

        until = earlier(limits.body_idle_s, limits.body_deadline)
        connection._wait_for(partial(_has_body, stream), until, limits, "body")
        return self._take()

    def _take(self) -> bytes:
        connection, stream = self._connection, self._stream
        data = b""
        with connection._lock:
            if stream.chunks:
                data = connection._state.consume(stream)
            elif not stream.ended:
                raise body_broken(connection._endpoint, stream.error)
        connection._flush_now()
        return data

    def read_steps(self, bell: Bell) -> Steps[bytes]:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout, BodyBroken.
        """
        connection, stream, limits = self._connection, self._stream, self._limits
        if not stream.ended and has_passed(limits.body_deadline):
            raise time_is_up("body", limits, connection._endpoint)
        until = earlier(limits.body_idle_s, limits.body_deadline)
        yield from connection._wait_steps(partial(_has_body, stream), until, limits, "body", bell)
        return self._take()

    def finish(self) -> bool:
        """End the exchange; True if the connection may take another request."""
        self._connection._drop(self._stream)
        return self._connection.capacity > 0


def _has_head(stream: Stream) -> bool:
    """Whether the peer has answered, or will not."""
    return stream.head is not None or stream.error is not None


def _has_body(stream: Stream) -> bool:
    """Whether there is something to read, or nothing will come any more."""
    return bool(stream.chunks) or stream.ended or stream.error is not None
