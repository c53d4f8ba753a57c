"""A blocking socket whose every operation ends by a deadline.

The socket itself is non-blocking: an operation is tried, and if it cannot go on, the thread waits in `poll` for what is
left until the deadline. So the deadline is exact however a peer drips its bytes, in the TLS handshake too.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from meshlib.errors import ConnectFailed
from meshlib.net.connection import DeadlinePassed, VerifyPeer, earlier, time_is_up
from meshlib.net.wire import Progress, Target, WireLimits
from meshlib.security.tls import client_context, tls_failed

__all__ = ["SyncStream", "open_sync_stream"]

T = TypeVar("T")

READ_BYTES = 64 * 1024
WRITE_BYTES = 256 * 1024
LONGEST_WAIT_S = 2_000_000.0
"""Poll counts milliseconds in 31 bits; nobody waits three weeks for a byte."""


class SyncStream:
    """A connected socket, plain or TLS."""

    __slots__ = ("_early", "_lock", "_sock", "eof", "is_tls", "sent_any")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        # HTTP/2 reads in one thread while another writes, which OpenSSL does not allow on one connection. Held only for
        # calls that cannot block.
        self._lock = threading.Lock() if self.is_tls else None
        self._early = b""
        self.eof = False
        self.sent_any = False
        """Whether `write` has handed over a byte since this was last set to False."""

    def read(self, deadline: float | None) -> bytes:
        """Some bytes; ``b""`` at the end of the stream.

        Raises:
            DeadlinePassed: if none came by `deadline`.
            OSError: if the connection broke.
        """
        if self._early:
            early, self._early = self._early, b""
            return early
        if self.eof:
            return b""
        data = self._blocking(self._recv, select.POLLIN, deadline)
        if not data:
            self.eof = True
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
        """Whether the socket has something to read, its end included."""
        return bool(self._poller(select.POLLIN).poll(0)) or self._pending() > 0

    def wait(self, events: int, deadline: float | None) -> None:
        """Wait until the socket is ready.

        Raises:
            DeadlinePassed: if it was not by `deadline`.
        """
        poller = self._poller(events)
        if deadline is None:
            poller.poll()
            return
        left = deadline - time.monotonic()
        # Rounded up: poll counts in milliseconds, and to wake too early would be to spin.
        if left <= 0 or not poller.poll(int(min(left, LONGEST_WAIT_S) * 1000) + 1):
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

    def start_tls(self, context: ssl.SSLContext, server_name: str, deadline: float | None) -> None:
        """Handshake. On any failure the socket is closed.

        Raises:
            DeadlinePassed: if it took too long.
            OSError: if it failed.
        """
        try:
            self._sock = context.wrap_socket(self._sock, server_hostname=server_name, do_handshake_on_connect=False)
            self.is_tls = True
            self._lock = threading.Lock()
            self._blocking(self._sock.do_handshake, select.POLLIN, deadline)
        except BaseException:
            self.close()
            raise

    def _recv(self) -> bytes:
        if self._lock is None:
            return self._sock.recv(READ_BYTES)
        with self._lock:
            return self._sock.recv(READ_BYTES)

    def _send(self, view: memoryview) -> int:
        if self._lock is None:
            return self._sock.send(view)
        with self._lock:
            return self._sock.send(view)

    def _poller(self, events: int) -> select.poll:
        # One for each wait: HTTP/2 waits in several threads, which one object refuses, and to make one costs little.
        fd = self._sock.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, "the connection was closed")
        poller = select.poll()
        poller.register(fd, events)
        return poller

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


def open_sync_stream(
    target: Target, limits: WireLimits, progress: Progress, verify_peer: VerifyPeer | None
) -> SyncStream:
    """Connect, and handshake where the target wants TLS; all within the connect timeout and the deadline.

    Raises:
        ConnectTimeout, ConnectFailed, TLSFailed: with the socket closed.
    """
    endpoint = target.endpoint
    deadline = earlier(limits.connect_s, limits.deadline)
    progress.phase = "connect"
    began = time.monotonic()
    context = client_context(target.tls, http2=target.http2) if target.tls else None
    try:
        stream = _connect(endpoint.host, endpoint.port, deadline)
        if target.tls and context:
            progress.phase = "tls"
            server_name = target.server_name or target.tls.server_name or endpoint.host
            try:
                stream.start_tls(context, server_name, deadline)
                if verify_peer is not None:
                    verify_peer(target, stream.get_extra_info("ssl_object"))
            except (OSError, ValueError) as error:
                stream.close()
                raise tls_failed(error, endpoint.address, server_name) from error
            except BaseException:
                stream.close()
                raise
        return stream
    except DeadlinePassed as error:
        raise time_is_up(progress.phase, limits, endpoint.address) from error
    except OSError as error:
        if isinstance(error, ConnectFailed):
            raise
        raise ConnectFailed(
            f"cannot connect to {endpoint.address}: {_reason(error)}", endpoint=endpoint.address
        ) from error
    finally:
        progress.connect_s += time.monotonic() - began


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _connect(host: str, port: int, deadline: float | None) -> SyncStream:
    try:
        addresses = _interleaved(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except ValueError as error:
        # A label that is empty or too long, or a null character: registries hold what people enter.
        raise OSError(f"{host!r} is not the name of a host") from error
    last: BaseException | None = None
    for index, (family, kind, proto, _, address) in enumerate(addresses):
        # Each address gets an even share of what is left, so that one black hole does not use up all of it.
        until = deadline
        if deadline is not None and index + 1 < len(addresses):
            now = time.monotonic()
            until = now + max(deadline - now, 0.0) / (len(addresses) - index)
        try:
            return _connect_one(family, kind, proto, address, until)
        except (OSError, DeadlinePassed) as error:
            last = error
    try:
        raise last or OSError("the host's name has no address")
    finally:
        last = None  # its own frame would hold it


def _interleaved(infos: list[Any]) -> list[Any]:
    # One of each family in turn, the resolver's first choice first (RFC 8305, section 4).
    if len(infos) < 3:
        return infos
    first = [info for info in infos if info[0] == infos[0][0]]
    other = [info for info in infos if info[0] != infos[0][0]]
    mixed: list[Any] = []
    while first or other:
        mixed.extend(family.pop(0) for family in (first, other) if family)
    return mixed


def _connect_one(family: int, kind: int, proto: int, address: Any, deadline: float | None) -> SyncStream:
    sock = socket.socket(family, kind, proto)
    try:
        stream = SyncStream(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            sock.connect(address)
        except BlockingIOError:
            stream.wait(select.POLLOUT, deadline)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None
        return stream
    except BaseException:
        sock.close()
        raise
