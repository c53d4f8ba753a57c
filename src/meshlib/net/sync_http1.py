"""HTTP/1.1 over a blocking stream: moves bytes between a `Framing` and a `SyncStream`."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, cast

from meshlib.errors import RequestBodyError, WireError
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
from meshlib.net.steps import Bell, Steps
from meshlib.net.sync_stream import SyncStream
from meshlib.net.wire import Progress, WireLimits, WireRequest

__all__ = ["SyncHttp1", "SyncNetworkStream"]


class SyncNetworkStream:
    """The connection beneath a response, as ``extensions["network_stream"]`` gives it to httpx users."""

    __slots__ = ("_leading", "_stream")

    def __init__(self, stream: SyncStream, leading: bytes = b"") -> None:
        self._stream = stream
        self._leading = leading

    def get_extra_info(self, info: str) -> Any:
        """``ssl_object``, ``socket``, ``client_addr``, ``server_addr`` or ``is_readable``."""
        return self._stream.get_extra_info(info)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read, after the connection switched to another protocol; `timeout` in seconds.

        Raises:
            TimeoutError, OSError: as for a socket.
        """
        if not self._leading:
            try:
                self._leading = self._stream.read(earlier(timeout, None))
            except DeadlinePassed:
                raise TimeoutError from None
        data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, after the connection switched to another protocol; `timeout` in seconds.

        Raises:
            TimeoutError, OSError: as for a socket.
        """
        until = earlier(timeout, None)
        view = memoryview(buffer)
        try:
            while view:
                sent = self._stream.write_some(view)
                if not sent:
                    self._stream.wait(select.POLLOUT, until)
                view = view[sent:]
        except DeadlinePassed:
            raise TimeoutError from None

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


class SyncHttp1:
    """One HTTP/1.1 connection for threads, and its exchange: used by one thread at a time."""

    __slots__ = (
        "_cut",
        "_endpoint",
        "_framing",
        "_limits",
        "_network_stream",
        "_reads",
        "_stream",
        "capacity",
        "extensions",
        "head",
    )

    def __init__(self, stream: SyncStream, endpoint: str, framing: Callable[[], Framing]) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._framing = framing()
        self._network_stream = SyncNetworkStream(stream)
        self._cut = False
        """Whether some of a request was not written, since the peer answered or left before."""
        self._reads = False
        """Whether somebody reads the body: if another thread ends the exchange, he may go on in the next one."""
        self._limits: WireLimits
        self.capacity = 1
        self.head: Head
        self.extensions: dict[str, Any]

    def __repr__(self) -> str:
        return f"<SyncHttp1 {self._endpoint} [{'closed' if self._stream.eof else 'open'}]>"

    def usable(self) -> bool:
        """Whether the peer has neither closed it nor said anything unasked."""
        try:
            return not (self._stream.eof or self._stream.readable())
        except OSError:
            return False

    def close(self) -> None:
        """Close it."""
        self._stream.close()
        self._framing.close()

    def abandon(self) -> None:
        """Let go of it in a forked child."""
        self._stream.close()

    # An exchange

    def exchange(self, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncHttp1:
        """Send a request and return when the response's head is there.

        Raises:
            WireError, RequestBodyError, or what the request's body raised.
        """
        framing = self._framing
        try:
            progress.phase = "write"
            first = framing.begin(request)
            if has_passed(limits.deadline):
                raise time_is_up("write", limits, self._endpoint)
            if not self._put(first, limits, progress) or (
                framing.body_open and not self._upload(request.body, limits, progress)
            ):
                self._cut = True
            progress.phase = "headers"
            head = framing.head or self._receive_head(limits, progress)
        except BaseException:
            # Whatever it was, a half-spoken connection is of no use to anybody.
            self.capacity = 0
            self.close()
            raise
        return self._answered(head, limits, progress)

    def _answered(self, head: Head, limits: WireLimits, progress: Progress) -> SyncHttp1:
        """The head is there: from now on this is its exchange."""
        framing = self._framing
        progress.phase = "body"
        self._limits = limits
        self.head = head
        network_stream = self._network_stream
        if framing.switched:
            network_stream = SyncNetworkStream(self._stream, framing.leftover)
        self.extensions = {
            "http_version": head.http_version,
            "reason_phrase": head.reason,
            "network_stream": network_stream,
        }
        if framing.trailers:
            self.extensions["trailers"] = framing.trailers
        return self

    # The request

    def _upload(self, body: Any, limits: WireLimits, progress: Progress) -> bool:
        """Send what is left of it; False if the peer answered or left before, so that it wants no more."""
        framing = self._framing
        if framing.awaits_continue and not self._invited(limits, progress):
            return False
        if isinstance(body, bytes):
            body = (body,)
        elif not hasattr(body, "__iter__"):
            raise RequestBodyError(f"the request's body, {type(body).__name__}, is not bytes nor an iterable")
        # What the iterator raises passes through as it is: it is not the wire's.
        for chunk in body:
            if has_passed(limits.deadline):  # as it may while the iterator works, and a write need not wait
                raise time_is_up("write", limits, self._endpoint)
            if not self._wants_more(progress) or not self._put(framing.data(chunk), limits, progress):
                return False
        return self._put(framing.end(), limits, progress)

    def _invited(self, limits: WireLimits, progress: Progress) -> bool:
        """Wait to be asked for the body, or long enough; False if there is a final answer already."""
        framing, stream, deadline = self._framing, self._stream, limits.deadline
        until = cast(float, earlier(CONTINUE_WAIT_S, deadline))
        while not framing.continued:
            try:
                stream.wait(select.POLLIN, until)
            except DeadlinePassed as error:
                if deadline is not None and until >= deadline:
                    raise time_is_up("headers", limits, self._endpoint) from error
                return True
            if not self._wants_more(progress):
                return False
        return True

    def _put(self, data: bytes, limits: WireLimits, progress: Progress) -> bool:
        """Write; False if the peer has gone or has answered, so that it wants no more."""
        stream = self._stream
        until = earlier(limits.write_s, limits.deadline)
        # TLS may have let a part of a record go when it fails; a plain socket that fails has taken nothing.
        progress.bytes_written = progress.bytes_written or stream.is_tls
        stream.sent_any = False
        written = 0
        try:
            while written < len(data):
                written += stream.write(memoryview(data)[written:] if written else data, until)
                if written < len(data) and not self._wants_more(progress):
                    return False
        except DeadlinePassed as error:
            raise time_is_up("write", limits, self._endpoint) from error
        except WireError:  # an OSError too
            raise
        except OSError:
            # The peer may have answered before it closed. If it has not, reading says so.
            return False
        finally:
            progress.bytes_written = progress.bytes_written or stream.sent_any
        return True

    def _wants_more(self, progress: Progress) -> bool:
        try:
            if not self._stream.peer_spoke():
                return True
            data = self._stream.read(None)
        except OSError:
            return False
        if not data:
            return False
        progress.answered = True
        return self._take(data) is None

    # The response

    def _receive_head(self, limits: WireLimits, progress: Progress) -> Head:
        stream = self._stream
        while True:
            try:
                until = earlier(limits.read_s, limits.deadline)
                stream.wait_for_answer(until)
                data = stream.read(until)
            except DeadlinePassed as error:
                raise time_is_up("headers", limits, self._endpoint) from error
            except OSError as error:
                raise reset(self._endpoint, error) from error
            if not data:
                raise reset(self._endpoint)
            progress.answered = True
            head = self._take(data)
            if head is not None:
                return head
            # A read that finds something does not look at the time, and a peer may go on for ever with 1xx responses.
            if has_passed(limits.deadline):
                raise time_is_up("headers", limits, self._endpoint)

    def _take(self, data: bytes) -> Head | None:
        """Take in what came; the head, if it is there now."""
        framing = self._framing
        framing.receive(data)
        if framing.head is None and framing.broken is not None:
            make = reset if isinstance(framing.broken, Truncated) else not_http
            raise make(self._endpoint, framing.broken)
        return framing.head

    def prefetch(self) -> Prefetched:
        """What of the body came with the head."""
        framing = self._framing
        chunks, framing.chunks = framing.chunks, []
        error = None if framing.broken is None else body_broken(self._endpoint, framing.broken)
        return Prefetched(chunks, framing.complete, error)

    def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout, BodyBroken.
        """
        limits, framing = self._limits, self._framing
        if framing.switched:
            return b""
        self._reads = True
        try:
            while not framing.chunks:
                if framing.complete:
                    if framing.trailers:
                        self.extensions["trailers"] = framing.trailers
                    self._reads = False
                    return b""
                if framing.broken is not None:
                    raise body_broken(self._endpoint, framing.broken) from framing.broken
                if has_passed(limits.body_deadline):
                    raise DeadlinePassed
                framing.receive(self._stream.read(earlier(limits.body_idle_s, limits.body_deadline)))
        except DeadlinePassed as error:
            raise time_is_up("body", limits, self._endpoint) from error
        except WireError:  # an OSError too
            raise
        except OSError as error:
            raise body_broken(self._endpoint, error) from error
        chunks, framing.chunks = framing.chunks, []
        self._reads = False
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # In steps: the same for one thread with several attempts under way, whose requests are in memory

    def exchange_steps(
        self, request: WireRequest, limits: WireLimits, progress: Progress, bell: Bell
    ) -> Steps[SyncHttp1]:
        """Send a request, and be done when the response's head is there.

        Raises:
            WireError, RequestBodyError.
        """
        framing = self._framing
        try:
            progress.phase = "write"
            first = framing.begin(request)
            if has_passed(limits.deadline):
                raise time_is_up("write", limits, self._endpoint)
            wanted = yield from self._put_steps(first, limits, progress)
            if wanted and framing.awaits_continue:
                wanted = yield from self._invited_steps(limits, progress)
            if wanted and framing.body_open:
                body = framing.data(request.body) + framing.end()
                wanted = yield from self._put_steps(body, limits, progress)
            self._cut = not wanted
            progress.phase = "headers"
            while framing.head is None:
                yield from self._head_steps(limits, progress)
        except BaseException:
            # Given up too: what comes yet would be taken for the answer to the next request.
            self.capacity = 0
            self.close()
            raise
        return self._answered(framing.head, limits, progress)

    def _put_steps(self, data: bytes, limits: WireLimits, progress: Progress) -> Steps[bool]:
        stream = self._stream
        until = earlier(limits.write_s, limits.deadline)
        progress.bytes_written = progress.bytes_written or stream.is_tls
        stream.sent_any = False
        view = memoryview(data)
        try:
            while view:
                sent = stream.write_some(view)
                view = view[sent:]
                if not sent:
                    yield stream.waiting(select.POLLIN | select.POLLOUT, until)
                    if not self._wants_more(progress):
                        return False
                    if has_passed(until):
                        raise time_is_up("write", limits, self._endpoint)
        except WireError:  # an OSError too
            raise
        except OSError:
            return False
        finally:
            progress.bytes_written = progress.bytes_written or stream.sent_any
        return True

    def _invited_steps(self, limits: WireLimits, progress: Progress) -> Steps[bool]:
        until = earlier(CONTINUE_WAIT_S, limits.deadline)
        while not self._framing.continued:
            if not self._wants_more(progress):
                return False
            if has_passed(limits.deadline):
                raise time_is_up("headers", limits, self._endpoint)
            if has_passed(until):
                return True
            yield self._stream.waiting(select.POLLIN, until)
        return True

    def _head_steps(self, limits: WireLimits, progress: Progress) -> Steps[None]:
        try:
            data = yield from self._stream.read_steps(earlier(limits.read_s, limits.deadline))
        except DeadlinePassed as error:
            raise time_is_up("headers", limits, self._endpoint) from error
        except OSError as error:
            raise reset(self._endpoint, error) from error
        if not data:
            raise reset(self._endpoint)
        progress.answered = True
        if self._take(data) is None and has_passed(limits.deadline):
            raise time_is_up("headers", limits, self._endpoint)

    def read_steps(self, bell: Bell) -> Steps[bytes]:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout, BodyBroken.
        """
        limits, framing = self._limits, self._framing
        try:
            while not (framing.chunks or framing.complete or framing.broken or framing.switched):
                if has_passed(limits.body_deadline):
                    raise DeadlinePassed
                framing.receive((yield from self._stream.read_steps(earlier(limits.body_idle_s, limits.body_deadline))))
        except DeadlinePassed as error:
            raise time_is_up("body", limits, self._endpoint) from error
        except OSError as error:
            raise body_broken(self._endpoint, error) from error
        return self.read()

    def finish(self) -> bool:
        """End the exchange; True if the connection may take another request."""
        if self._framing.finish() and not (self._cut or self._reads or self._stream.eof):
            return True
        self.capacity = 0
        self.close()
        return False
