"""Opens an `AsyncStream`: names resolved, addresses tried, the TLS handshake the check of the peer's identity."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import Any

from meshlib.errors import ConnectFailed
from meshlib.net.async_stream import AsyncStream
from meshlib.net.connection import TIMER_SLACK_S, DeadlinePassed, VerifyPeer, earlier, time_is_up
from meshlib.net.wire import Progress, Target, WireLimits
from meshlib.security.tls import client_context, tls_failed

__all__ = ["open_async_stream"]


async def open_async_stream(
    target: Target, limits: WireLimits, progress: Progress, verify_peer: VerifyPeer | None
) -> AsyncStream:
    """Connect, and handshake where the target wants TLS; all within the connect timeout and the deadline.

    Raises:
        ConnectTimeout, ConnectFailed, TLSFailed: with the socket closed, as after a cancellation.
    """
    endpoint = target.endpoint
    deadline = earlier(limits.connect_s, limits.deadline)
    progress.phase = "connect"
    began = time.monotonic()
    context = client_context(target.tls, http2=target.http2) if target.tls else None
    stream: AsyncStream | None = None
    try:
        stream = await _connect(endpoint.host, endpoint.port, deadline)
        if target.tls and context:
            progress.phase = "tls"
            server_name = target.server_name or target.tls.server_name or endpoint.host
            try:
                await stream.start_tls(context, server_name, deadline)
                if verify_peer is not None:
                    verify_peer(target, stream.get_extra_info("ssl_object"))
            except (OSError, ValueError) as error:
                raise tls_failed(error, endpoint.address, server_name) from error
        return stream
    except BaseException as error:
        if stream is not None:
            stream.abort()
        if isinstance(error, DeadlinePassed):
            raise time_is_up(progress.phase, limits, endpoint.address) from error
        if isinstance(error, OSError) and not isinstance(error, ConnectFailed):
            reason = error.strerror or str(error) or type(error).__name__
            message = f"cannot connect to {endpoint.address}: {reason}"
            raise ConnectFailed(message, endpoint=endpoint.address) from error
        raise
    finally:
        progress.connect_s += time.monotonic() - began


async def _connect(host: str, port: int, deadline: float | None) -> AsyncStream:
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {}
    if not _is_address(host) and isinstance(loop, asyncio.BaseEventLoop):
        options["happy_eyeballs_delay"] = 0.25
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            transport, stream = await loop.create_connection(lambda: AsyncStream(loop), host, port, **options)
    except TimeoutError:
        if deadline is not None and time.monotonic() >= deadline - TIMER_SLACK_S:
            raise DeadlinePassed from None
        raise
    except ValueError as error:
        # A label that is empty or too long, or a null character: registries hold what people enter.
        raise OSError(f"{host!r} is not the name of a host") from error
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return stream


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
