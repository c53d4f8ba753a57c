"""What the two ways to open a connection share: sockets made as configured, and the race between a host's addresses.

The race is that of RFC 8305 (Happy Eyeballs), without the waiting: the addresses are tried in turn of family, the next
one when the last has failed or has had its time, and the first to connect wins. A name with an address that swallows
everything so costs a quarter of a second, and not the connect timeout.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import PoolSettings
from meshlib.errors import ConnectFailed
from meshlib.net.lookup import AddressInfo
from meshlib.net.wire import Target

__all__ = ["Race", "cannot_connect", "peer_name", "unix_address"]

ATTEMPT_DELAY_S = 0.25
"""How long an address has before the next one is tried as well (RFC 8305, section 8)."""
LEAST_DELAY_S = 0.01
BACKLOG_FULL_S = 0.005
"""How long to wait where a Unix socket has no room in its backlog: nothing tells when there is some."""
TOLD_ADDRESSES = 4
"""How many addresses an error names."""

_BIND_WITHOUT_PORT = 24 if sys.platform == "linux" else None
"""IP_BIND_ADDRESS_NO_PORT: the port is chosen when connecting, so that one may serve for several peers."""


class Race:
    """Attempts to connect to the addresses of one host.

    Call `step`, and again when a socket of `under_way` can be written to, or at `next_at`; at the end `close`.

    Attributes:
        under_way: the sockets that are connecting, by file descriptor.
        next_at: when the next address is due, on the monotonic clock; None if there is none.
    """

    __slots__ = ("_delay_s", "_failed", "_left", "_settings", "next_at", "under_way")

    def __init__(
        self, addresses: list[AddressInfo], settings: PoolSettings, now: float, deadline: float | None
    ) -> None:
        local = settings.local_address
        if local is not None and addresses and addresses[0][0] != socket.AF_UNIX:
            family = socket.AF_INET6 if ":" in local else socket.AF_INET
            addresses = [info for info in addresses if info[0] == family]
            if not addresses:
                raise OSError(f"it has no address of the kind of local_address {local}")
        if not addresses:
            raise OSError("the host's name has no address")
        self._settings = settings
        self._left = deque(_interleaved(addresses))
        self._failed: list[tuple[AddressInfo, OSError]] = []
        # Each is to have its turn before the time is up.
        share_s = ATTEMPT_DELAY_S if deadline is None else (deadline - now) / len(addresses)
        self._delay_s = max(LEAST_DELAY_S, min(ATTEMPT_DELAY_S, share_s))
        self.under_way: dict[int, tuple[socket.socket, AddressInfo]] = {}
        self.next_at: float | None = now

    def step(self, writable: Iterable[int], now: float) -> socket.socket | None:
        """Take in which sockets can be written to, and begin what is due.

        Returns:
            The socket that has connected, which is the caller's from now on; None if none has yet.

        Raises:
            OSError: if all addresses have failed.
        """
        for fd in writable:
            sock, info = self.under_way.pop(fd)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return sock
            sock.close()
            self._fail(info, OSError(code, os.strerror(code)), now)
        while self.next_at is not None and now >= self.next_at:
            connected = self._begin(self._left.popleft(), now)
            if connected is not None:
                return connected
        if not self.under_way and self.next_at is None:
            raise self._failure()
        return None

    def close(self) -> None:
        """Close all that is still under way."""
        while self.under_way:
            self.under_way.popitem()[1][0].close()

    def _begin(self, info: AddressInfo, now: float) -> socket.socket | None:
        try:
            sock = _new_socket(info, self._settings)
        except OSError as error:
            self._fail(info, error, now)
            return None
        try:
            sock.connect(info[4])
        except BlockingIOError:
            if info[0] == socket.AF_UNIX:
                sock.close()
                self._left.appendleft(info)
                self.next_at = now + BACKLOG_FULL_S
            else:
                self.under_way[sock.fileno()] = sock, info
                self.next_at = now + self._delay_s if self._left else None
            return None
        except OSError as error:
            sock.close()
            self._fail(info, error, now)
            return None
        except BaseException:
            sock.close()
            raise
        return sock

    def _fail(self, info: AddressInfo, error: OSError, now: float) -> None:
        self._failed.append((info, error.with_traceback(None)))  # its frames would hold this race, and so itself
        self.next_at = now if self._left else None

    def _failure(self) -> OSError:
        (_, last) = self._failed[-1]
        if len(self._failed) == 1:
            return type(last)(*last.args)
        told = [f"{_shown(info)}: {_reason(error)}" for info, error in self._failed[:TOLD_ADDRESSES]]
        more = len(self._failed) - len(told)
        return OSError("; ".join(told) + (f"; and {more} more" if more else ""))


def _shown(info: AddressInfo) -> str:
    host = info[4][0]
    return f"[{host}]" if ":" in host else str(host)


def _interleaved(infos: list[AddressInfo]) -> list[AddressInfo]:
    # One of each family in turn, the resolver's first choice first (RFC 8305, section 4).
    if len(infos) < 3:
        return infos
    first = [info for info in infos if info[0] == infos[0][0]]
    other = [info for info in infos if info[0] != infos[0][0]]
    mixed: list[AddressInfo] = []
    while first or other:
        mixed.extend(family.pop(0) for family in (first, other) if family)
    return mixed


def _new_socket(info: AddressInfo, settings: PoolSettings) -> socket.socket:
    family, kind, proto, _, _ = info
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock, settings)
            if settings.local_address is not None:
                _bind(sock, settings.local_address)
    except BaseException:
        sock.close()
        raise
    return sock


def _keep_alive(sock: socket.socket, settings: PoolSettings) -> None:
    keepalive = settings.tcp_keepalive
    if keepalive is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        # What macOS calls the first one.
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": keepalive.time_s,
        "TCP_KEEPINTVL": keepalive.interval_s,
        "TCP_KEEPCNT": keepalive.probes,
    }
    for name, value in options.items():
        # Where the system has no such setting, it probes in its own time.
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), math.ceil(value))


def _bind(sock: socket.socket, local_address: str) -> None:
    if _BIND_WITHOUT_PORT is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _BIND_WITHOUT_PORT, 1)
    try:
        sock.bind((local_address, 0))
    except OSError as error:
        raise OSError(
            error.errno, f"no connection can begin at local_address {local_address}: {_reason(error)}"
        ) from None


def unix_address(path: str) -> AddressInfo:
    """The address of a Unix socket; a path that begins with ``@`` is a name of Linux's that is in no file system."""
    return socket.AF_UNIX, socket.SOCK_STREAM, 0, "", f"\0{path[1:]}" if path.startswith("@") else path


def peer_name(target: Target) -> str:
    """Whom TLS asks for, and whose certificate it wants to see."""
    given = target.server_name or (target.tls and target.tls.server_name)
    # A Unix socket has no name; gRPC and nginx take it for one of localhost.
    return given or ("localhost" if target.endpoint.socket_path is not None else target.endpoint.host)


def cannot_connect(endpoint: Endpoint, error: OSError) -> ConnectFailed:
    """The error for an endpoint to which no connection could be made."""
    return ConnectFailed(f"cannot connect to {endpoint.address}: {_reason(error)}", endpoint=endpoint.address)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
