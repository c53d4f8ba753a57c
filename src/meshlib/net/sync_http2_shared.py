"""A blocking stream with HTTP/2 on it, shared by threads without a thread of its own: who reads and who writes.

Of the threads that wait for something, one reads the socket for all; the others wait until it has brought what they
need, or has what it needs itself, or its time is up, and then one of them reads on. So each keeps its own deadline.
Two locks: `_lock` for the state, held for no I/O; `_write_lock` for the order of what is written. A write that is cut
by a deadline leaves its rest to whoever writes next, so that no one's deadline harms the others.

Who waits in steps reads only what is there already, and never for longer; its bell rings when another has read.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable

from meshlib.errors import WireError
from meshlib.net.connection import DeadlinePassed, earlier, has_passed, time_is_up
from meshlib.net.http2 import Http2, Stream
from meshlib.net.steps import Bell, Steps
from meshlib.net.sync_http1 import SyncNetworkStream
from meshlib.net.sync_stream import SyncStream
from meshlib.net.wire import Target, WireLimits

__all__ = ["SharedStream"]


class SharedStream:
    """What threads share of one HTTP/2 connection; `meshlib.net.sync_http2.SyncHttp2` adds the exchanges."""

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
        self._bells: dict[object, Bell] = {}
        """Of those who wait in steps; one bell may be there for several of them. Changed without a lock, as by a
        finalizer too."""

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

    def _flush_now(self) -> bool:
        """Write what can be written without a wait; the rest goes with what is written next. Whether that was all."""
        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            while self._take_outgoing():
                sent = self._stream.write_some(self._unwritten)
                del self._unwritten[:sent]
                if not sent:
                    return False
        except OSError:
            pass  # whoever reads will see it
        finally:
            self._write_lock.release()
        return True

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
        if self._bells:
            self._ring()
        self._flush_now()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._state.fail(error)
            self._changed.notify_all()
        self._ring()

    def _ring(self) -> None:
        for bell in list(self._bells.values()):
            bell.ring()

    # In steps

    def _write_steps(self, limits: WireLimits) -> Steps[None]:
        try:
            yield from self._flush_steps(earlier(limits.write_s, limits.deadline))
        except DeadlinePassed as error:
            raise time_is_up("write", limits, self._endpoint) from error
        except OSError as error:
            self._fail(error.with_traceback(None))

    def _flush_steps(self, until: float | None) -> Steps[None]:
        while not self._flush_now():
            if has_passed(until):
                raise DeadlinePassed
            yield self._stream.waiting(select.POLLOUT, until)

    def _wait_steps(
        self, done: Callable[[], bool], until: float | None, limits: WireLimits, phase: str, bell: Bell
    ) -> Steps[None]:
        """Be done when `done` says so; it is asked under the lock."""
        waiter = object()
        try:
            heard = bell.fileno()  # one that is not open yet would not ring
            self._bells[waiter] = bell  # before looking: what another thread reads after that rings it
            while True:
                with self._lock:
                    self._drop_forgotten()
                    if done():
                        return
                    reads = not self._reading
                    self._reading = True
                if reads:
                    self._read(None, wait=False)
                    with self._lock:
                        if done():
                            return
                if has_passed(until):
                    raise time_is_up(phase, limits, self._endpoint)
                wait = self._stream.waiting(select.POLLIN, until)
                wait.files[heard] = select.POLLIN
                yield wait
        except WireError:  # an OSError too
            raise
        except OSError as error:
            self._fail(error.with_traceback(None))
        finally:
            self._bells.pop(waiter, None)

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
