"""Opens an `AsyncStream`: the name looked up, the addresses tried, TLS agreed on, the peer's identity checked."""

from __future__ import annotations

import asyncio
import socket
import time

from meshlib.errors import ConnectFailed
from meshlib.net.async_stream import AsyncStream
from meshlib.net.connection import DeadlinePassed, VerifyPeer, earlier, time_is_up
from meshlib.net.dial import Race, cannot_connect, peer_name, unix_address
from meshlib.net.lookup import lookup_async, pause
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
        stream = await _open(await _connect(target, deadline))
        if context is not None:
            progress.phase = "tls"
            server_name = peer_name(target)
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
            raise cannot_connect(endpoint, error) from error
        raise
    finally:
        progress.connect_s += time.monotonic() - began


async def _connect(target: Target, deadline: float | None) -> socket.socket:
    # Not by the loops' own means: those of asyncio have lost sockets when two addresses answered at once, uvloop has
    # none, and neither binds and configures a socket before it connects.
    endpoint = target.endpoint
    path = endpoint.socket_path
    addresses = [unix_address(path)] if path is not None else await lookup_async(endpoint.host, endpoint.port, deadline)
    race = Race(addresses, target.pool, time.monotonic(), deadline)
    try:
        writable: list[int] = []
        while True:
            connected = race.step(writable, time.monotonic())
            if connected is not None:
                return connected
            writable = await _wait(race, deadline)
    finally:
        race.close()


async def _wait(race: Race, deadline: float | None) -> list[int]:
    """The sockets that can be written to, when there is one, or when the next address is due."""
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlinePassed
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    writable: list[int] = []

    def wake(fd: int) -> None:
        loop.remove_writer(fd)
        writable.append(fd)
        if not woken.done():
            woken.set_result(None)

    try:
        for fd in race.under_way:
            loop.add_writer(fd, wake, fd)
        await pause(woken, min((end for end in (deadline, race.next_at) if end is not None), default=None))
    finally:
        for fd in race.under_way:
            loop.remove_writer(fd)
    return writable


async def _open(sock: socket.socket) -> AsyncStream:
    loop = asyncio.get_running_loop()
    create = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    try:
        return (await create(lambda: AsyncStream(loop), sock=sock))[1]
    except BaseException:
        # asyncio's transport closes its socket. uvloop's closes the descriptor behind the socket's back, so the socket
        # must not close it again: the number may be another's by then.
        if not isinstance(loop, asyncio.BaseEventLoop):
            sock.detach()
        raise
