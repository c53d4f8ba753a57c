"""HTTP/2 over a blocking stream, shared by threads without a thread of its own.

Of the threads that wait for something, one reads the socket for all; the others wait until it has brought what they
need, or has what it needs itself, or its time is up, and then one of them reads on. So each keeps its own deadline.
Two locks: `_lock` for the state, held for no I/O; `_write_lock` for the order of what is written. A write that is cut
by a deadline leaves its rest to whoever writes next, so that no one's deadline harms the others.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from meshlib.errors import ConnectFailed, RequestBodyError
from meshlib.net.connection import DeadlinePassed, Head, Prefetched, body_broken, earlier, has_passed, reset, time_is_up
from meshlib.net.http2 import Http2, Refused, Stream
from meshlib.net.sync_http1 import SyncNetworkStream
from meshlib.net.sync_stream import SyncStream
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest

__all__ = ["SyncHttp2"]


class SyncHttp2:
    """One HTTP/2 connection for threads, shared by many."""

    def __init__(self, stream: SyncStream, target: Target) -> None:
        self._stream = stream
        self._endpoint = target.endpoint.address
        self._state = Http2(b"https" if target.tls else b"http")
        self._network_stream = SyncNetworkStream(stream)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._reading = False
        self._write_lock = threading.Lock()
        self._unwritten = bytearray()
        self._dropped: deque[Stream] = deque()

    def __repr__(self) -> str:
        return f"<SyncHttp2 {self._endpoint} [{len(self._state.streams)} streams]>"

    @classmethod
    def open(cls, stream: SyncStream, target: Target, limits: WireLimits) -> SyncHttp2:
        """Greet the peer and wait for its settings, so that its limits hold from the first request on.

        Raises:
            ConnectFailed, ConnectTimeout: if the peer does not speak HTTP/2.
        """
        self = cls(stream, target)
        until = earlier(limits.connect_s, limits.deadline)
        self._state.start()
        try:
            self._flush(until)
            while not self._state.settled:
                self._state.receive(stream.read(until))
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
            self._wait_for(lambda: stream.head is not None or stream.error is not None, until, limits, "headers")
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

    def _write(self, until: float | None, limits: WireLimits) -> None:
        try:
            self._flush(until)
        except DeadlinePassed as error:
            raise time_is_up("write", limits, self._endpoint) from error
        except OSError as error:
            self._fail(error.with_traceback(None))

    def _flush(self, until: float | None) -> None:
        left = -1.0 if until is None else max(0.0, until - time.monotonic())
        if not self._write_lock.acquire(timeout=left):
            raise DeadlinePassed
        try:
            while self._take_outgoing():
                sent = self._stream.write_some(self._unwritten)
                del self._unwritten[:sent]
                if not sent:
                    self._stream.wait(select.POLLOUT, until)
        finally:
            self._write_lock.release()

    def _flush_now(self) -> None:
        """Write what can be written without a wait; the rest goes with what is written next."""
        if self._write_lock.acquire(blocking=False):
            try:
                while self._take_outgoing():
                    sent = self._stream.write_some(self._unwritten)
                    del self._unwritten[:sent]
                    if not sent:
                        break
            except OSError:
                pass  # whoever reads will see it
            finally:
                self._write_lock.release()

    def _take_outgoing(self) -> bool:
        with self._lock:
            self._unwritten += self._state.outgoing()
        return bool(self._unwritten)

    def _wait_for(self, done: Callable[[], bool], until: float | None, limits: WireLimits, phase: str) -> None:
        """Return when `done` says so; it is asked under the lock."""
        looked = False
        try:
            while True:
                with self._lock:
                    self._drop_forgotten()
                    while not done():
                        if looked and has_passed(until):
                            raise DeadlinePassed  # a read that finds something does not look at the time
                        if not self._reading:
                            self._reading = True
                            break
                        left = None if until is None else until - time.monotonic()
                        if (left is not None and left <= 0) or not self._changed.wait(left):
                            raise DeadlinePassed
                    else:
                        return
                self._read(until)
                looked = True
        except DeadlinePassed as error:
            raise time_is_up(phase, limits, self._endpoint) from error

    def _read(self, until: float | None, *, wait: bool = True) -> None:
        data: bytes | None = None
        error: OSError | None = None
        try:
            data = self._stream.read_now()
            if data is None and wait:
                self._stream.wait(select.POLLIN, until)
                data = self._stream.read_now()
        except OSError as failure:
            error = failure.with_traceback(None)
        finally:
            with self._lock:
                self._reading = False
                if error is not None:
                    self._state.fail(error)
                elif data is not None:
                    self._state.receive(data)
                self._state.touched.clear()
                self._changed.notify_all()
        self._flush_now()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._state.fail(error)
            self._changed.notify_all()

    def _drop_forgotten(self) -> None:
        while self._dropped:
            self._state.drop(self._dropped.popleft())

    def _drop(self, stream: Stream) -> None:
        # Also called by finalizers, which may interrupt any thread at any point: so it waits for nothing. What it
        # cannot do, the next one who has the lock does.
        self._dropped.append(stream)
        if self._lock.acquire(blocking=False):
            try:
                self._drop_forgotten()
            finally:
                self._lock.release()
            self._flush_now()


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
            "reason_phrase": b"",
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

        def came() -> bool:
            return bool(stream.chunks) or stream.ended or stream.error is not None

        connection._wait_for(came, earlier(limits.body_idle_s, limits.body_deadline), limits, "body")
        data = b""
        with connection._lock:
            if stream.chunks:
                data = connection._state.consume(stream)
            elif not stream.ended:
                raise body_broken(connection._endpoint, stream.error)
        connection._flush_now()
        return data

    def finish(self) -> bool:
        """End the exchange; True if the connection may take another request."""
        self._connection._drop(self._stream)
        return self._connection.capacity > 0
