"""Opens a `SyncStream`: the name looked up, the addresses tried, TLS agreed on, the peer's identity checked."""

from __future__ import annotations

import select
import socket
import time

from meshlib.errors import ConnectFailed
from meshlib.net.connection import DeadlinePassed, VerifyPeer, earlier, time_is_up
from meshlib.net.dial import Race, cannot_connect, peer_name, unix_address
from meshlib.net.lookup import lookup_sync
from meshlib.net.sync_stream import LONGEST_WAIT_S, SyncStream
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
        stream = SyncStream(_connect(target, deadline))
        if context is not None:
            progress.phase = "tls"
            server_name = peer_name(target)
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
        raise cannot_connect(endpoint, error) from error
    finally:
        progress.connect_s += time.monotonic() - began


def _connect(target: Target, deadline: float | None) -> socket.socket:
    endpoint = target.endpoint
    path = endpoint.socket_path
    addresses = [unix_address(path)] if path is not None else lookup_sync(endpoint.host, endpoint.port, deadline)
    race = Race(addresses, target.pool, time.monotonic(), deadline)
    try:
        writable: list[int] = []
        while True:
            connected = race.step(writable, time.monotonic())
            if connected is not None:
                return connected
            writable = _wait(race, deadline)
    finally:
        race.close()


def _wait(race: Race, deadline: float | None) -> list[int]:
    """The sockets that can be written to, when there is one, or when the next address is due."""
    now = time.monotonic()
    if deadline is not None and now >= deadline:
        raise DeadlinePassed
    ends = [end for end in (deadline, race.next_at) if end is not None]
    poller = select.poll()
    for fd in race.under_way:
        poller.register(fd, select.POLLOUT)
    # Rounded up: poll counts in milliseconds, and to wake too early would be to spin.
    timeout_ms = int(min(max(0.0, min(ends) - now), LONGEST_WAIT_S) * 1000) + 1 if ends else None
    return [fd for fd, _ in poller.poll(timeout_ms)]
