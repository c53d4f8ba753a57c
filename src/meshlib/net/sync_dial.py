"""Opens a `SyncStream`: names resolved, addresses tried, the TLS handshake the check of the peer's identity."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

from meshlib.errors import ConnectFailed
from meshlib.net.connection import DeadlinePassed, VerifyPeer, earlier, time_is_up
from meshlib.net.sync_stream import SyncStream
from meshlib.net.wire import Progress, Target, WireLimits
from meshlib.security.tls import client_context, tls_failed

__all__ = ["open_sync_stream"]


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
