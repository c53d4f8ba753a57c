"""A blocking socket whose every operation ends by a deadline.

The socket itself is non-blocking: an operation is tried, and if it cannot go on, the thread waits in `poll` for what is
left until the deadline. So the deadline is exact however a peer drips its bytes, in the TLS handshake too.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from meshlib.net.connection import NO_GOODBYE, DeadlinePassed, has_passed
from meshlib.net.steps import LONGEST_WAIT_S, Steps, Wait

__all__ = ["SyncStream"]

T = TypeVar("T")

READ_BYTES = 64 * 1024
WRITE_BYTES = 256 * 1024


class SyncStream:
    """A connected socket, plain or TLS."""

    __slots__ = ("_early", "_lock", "_pollers", "_sock", "eof", "is_tls", "sent_any", "truncated")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        # HTTP/2 reads in one thread while another writes, which OpenSSL does not allow on one connection. Held only for
        # calls that cannot block.
        self._lock = threading.Lock() if self.is_tls else None
        self._early = b""
        # Those that nobody waits with just now, as one takes a while to make. HTTP/2 waits in several threads at once,
        # each with its own.
        self._pollers: list[select.poll] = []
        self.eof = False
        self.truncated = False
        """Whether the end came without a goodbye in TLS: anybody on the way could have cut what the peer sent."""
        self.sent_any = False
        """Whether `write` has handed over a byte since this was last set to False."""

    def read(self, deadline: float | None) -> bytes:
        """Some bytes; ``b""`` at the end of the stream.

        Raises:
            DeadlinePassed: if none came by `deadline`.
            OSError: if the connection broke, or its end is `truncated`.
        """
        if self._early:
            early, self._early = self._early, b""
            return early
        data = b"" if self.eof else self._blocking(self._recv, select.POLLIN, deadline)
        if not data:
            self.eof = True
            if self.truncated:
                raise ConnectionResetError(errno.ECONNRESET, NO_GOODBYE)
        return data

    def write(self, data: bytes | memoryview, deadline: float | None) -> int:
        """Write all of `data`, or stop where the peer has something to say first: how many bytes were written.

        Raises:
            DeadlinePassed: if not all was taken by `deadline`.
            OSError: if the connection broke.
        """
        view = memoryview(data)
        while view:
            try:
                # TLS may have to be given the same bytes again, and may send a part of them before it fails.
                sent = self._send(view[:WRITE_BYTES])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.wait(select.POLLIN | select.POLLOUT, deadline)
                if self.peer_spoke():
                    break
                continue
            except ssl.SSLWantReadError:
                self.wait(select.POLLIN, deadline)
                continue
            self.sent_any = True
            view = view[sent:]
        return len(data) - len(view)

    def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Write what the socket takes at once; how many bytes that was."""
        try:
            sent = self._send(memoryview(data)[:WRITE_BYTES])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        self.sent_any = self.sent_any or sent > 0
        return sent

    def read_now(self) -> bytes | None:
        """What is there; ``b""`` at the end of the stream, None if nothing is there yet."""
        try:
            data = self._recv()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        if not data:
            self.eof = True
        return data

    def peer_spoke(self) -> bool:
        """Whether the peer has sent something, or closed. Does not wait."""
        if self._early or self.eof:
            return True
        if not self.readable():
            return False
        data = self.read_now()
        if data:
            self._early = data
        return data is not None

    def readable(self) -> bool:
        """Whether there is something to read, the stream's end included."""
        return bool(self._early) or self._poll(0) or self._pending() > 0

    def wait_for_answer(self, deadline: float | None) -> None:
        """Wait for what cannot be there yet, so that to try to read it first would be in vain.

        Raises:
            DeadlinePassed: if it was not there by `deadline`.
        """
        if not (self.is_tls or self._early or self.eof):
            self.wait(select.POLLIN, deadline)

    def wait(self, events: int, deadline: float | None) -> None:
        """Wait until the socket is ready.

        Raises:
            DeadlinePassed: if it was not by `deadline`.
        """
        if deadline is None:
            self._poll(None, events)
            return
        left = deadline - time.monotonic()
        # Rounded up: poll counts in milliseconds, and to wake too early would be to spin.
        if left <= 0 or not self._poll(int(min(left, LONGEST_WAIT_S) * 1000) + 1, events):
            raise DeadlinePassed

    def close(self) -> None:
        """Close the socket. A forked child may call it too: nothing is sent but by the last holder's kernel."""
        self._sock.close()

    def get_extra_info(self, name: str) -> Any:
        """As httpx users know it: ``ssl_object``, ``socket``, ``client_addr``, ``server_addr``, ``is_readable``."""
        if name == "socket":
            return self._sock
        if name == "ssl_object":
            return self._sock if self.is_tls else None
        if name in ("client_addr", "server_addr"):
            try:
                return self._sock.getsockname() if name == "client_addr" else self._sock.getpeername()
            except OSError:
                return None
        if name == "is_readable":
            return self._sock.fileno() < 0 or self.readable()
        return None

    # In steps

    def waiting(self, events: int, until: float | None) -> Wait:
        """To yield where a blocking operation would wait for the socket.

        Raises:
            OSError: if the connection was closed.
        """
        fd = self._sock.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, "the connection was closed")
        return Wait({fd: events}, until)

    def read_steps(self, deadline: float | None) -> Steps[bytes]:
        """`read`, in steps.

        Raises:
            DeadlinePassed: if none came by `deadline`.
            OSError: if the connection broke, or its end is `truncated`.
        """
        data, self._early = self._early, b""
        while not data:
            came = b"" if self.eof else self.read_now()
            if came == b"" and self.truncated:
                raise ConnectionResetError(errno.ECONNRESET, NO_GOODBYE)
            if came is not None:
                return came
            if has_passed(deadline):
                raise DeadlinePassed
            yield self.waiting(select.POLLIN, deadline)
        return data

    def tls_steps(self, context: ssl.SSLContext, server_name: str, deadline: float | None) -> Steps[None]:
        """Handshake. On any failure the socket is closed.

        Raises:
            DeadlinePassed: if it took too long.
            OSError: if it failed.
        """
        try:
            sock = self._sock = context.wrap_socket(
                self._sock, server_hostname=server_name, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            self.is_tls = True
            self._lock = threading.Lock()
            while True:
                try:
                    sock.do_handshake()
                except ssl.SSLWantReadError:
                    events = select.POLLIN
                except ssl.SSLWantWriteError:
                    events = select.POLLOUT
                else:
                    return
                if has_passed(deadline):
                    raise DeadlinePassed
                yield self.waiting(events, deadline)
        except BaseException:
            self.close()
            raise

    def _recv(self) -> bytes:
        if self._lock is None:
            return self._sock.recv(READ_BYTES)
        try:
            with self._lock:
                return self._sock.recv(READ_BYTES)
        except ssl.SSLEOFError:
            self.truncated = True
            return b""

    def _send(self, view: memoryview) -> int:
        if self._lock is None:
            return self._sock.send(view)
        with self._lock:
            return self._sock.send(view)

    def _poll(self, timeout_ms: int | None, events: int = select.POLLIN) -> bool:
        fd = self._sock.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, "the connection was closed")
        if events == select.POLLIN and self._pollers:
            try:
                poller = self._pollers.pop()
            except IndexError:  # another thread was faster
                poller = select.poll()
                poller.register(fd, events)
        else:
            poller = select.poll()
            poller.register(fd, events)
        ready = bool(poller.poll(timeout_ms))
        if events == select.POLLIN:
            self._pollers.append(poller)
        return ready

    def _pending(self) -> int:
        return self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0

    def _blocking(self, operation: Callable[[], T], events: int, deadline: float | None) -> T:
        while True:
            try:
                return operation()
            except (BlockingIOError, ssl.SSLWantReadError):
                self.wait(events, deadline)
            except ssl.SSLWantWriteError:
                self.wait(select.POLLOUT, deadline)
