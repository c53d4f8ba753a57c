"""Opens a `SyncStream`, in steps: name looked up, addresses tried, TLS agreed on, the peer's identity checked."""

from __future__ import annotations

import select
import socket
import time

from meshlib.errors import ConnectFailed
from meshlib.net.connection import DeadlinePassed, VerifyPeer, earlier, has_passed, time_is_up
from meshlib.net.dial import Race, cannot_connect, peer_name, unix_address
from meshlib.net.lookup import lookup_steps, lookup_sync
from meshlib.net.steps import Bell, Steps, Wait
from meshlib.net.sync_stream import SyncStream
from meshlib.net.wire import Progress, Target, WireLimits
from meshlib.security.tls import client_context, tls_failed

__all__ = ["stream_steps"]


def stream_steps(
    target: Target, limits: WireLimits, progress: Progress, verify_peer: VerifyPeer | None, bell: Bell | None
) -> Steps[SyncStream]:
    """Connect, and handshake where the target wants TLS; all within the connect timeout and the deadline.

    Args:
        target: where to.
        limits, progress: of the attempt.
        verify_peer: to check the peer's identity, if it is to be checked.
        bell: rung when a name has been looked up; without it that blocks.

    Raises:
        ConnectTimeout, ConnectFailed, TLSFailed: with the socket closed.
    """
    endpoint = target.endpoint
    deadline = earlier(limits.connect_s, limits.deadline)
    progress.phase = "connect"
    began = time.monotonic()
    context = client_context(target.tls, http2=target.http2) if target.tls else None
    try:
        stream = SyncStream((yield from _connect(target, deadline, bell)))
        if context is not None:
            progress.phase = "tls"
            server_name = peer_name(target)
            try:
                yield from stream.tls_steps(context, server_name, deadline)
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


def _connect(target: Target, deadline: float | None, bell: Bell | None) -> Steps[socket.socket]:
    endpoint = target.endpoint
    path = endpoint.socket_path
    if path is not None:
        addresses = [unix_address(path)]
    elif bell is None:
        addresses = lookup_sync(endpoint.host, endpoint.port, deadline)
    else:
        addresses = yield from lookup_steps(endpoint.host, endpoint.port, deadline, bell)
    race = Race(addresses, target.pool, time.monotonic(), deadline)
    try:
        writable: list[int] = []
        while True:
            connected = race.step(writable, time.monotonic())
            if connected is not None:
                return connected
            if has_passed(deadline):
                raise DeadlinePassed
            ends = [end for end in (deadline, race.next_at) if end is not None]
            yield Wait(dict.fromkeys(race.under_way, select.POLLOUT), min(ends, default=None))
            writable = _writable(race)
    finally:
        race.close()


def _writable(race: Race) -> list[int]:
    poller = select.poll()
    for fd in race.under_way:
        poller.register(fd, select.POLLOUT)
    return [fd for fd, _ in poller.poll(0)]
