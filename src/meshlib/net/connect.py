"""Opens the connection that a target asks for: the stream, then the protocol that speaks on it.

These are the default `connect` functions of the engines. h2 is an optional package, imported when first needed; so is
what only one of threads and loops needs. HTTP/1.1 is parsed by httptools unless another framing is given, as
`functools.partial` can for an engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshlib.errors import ConnectFailed
from meshlib.net.connection import AsyncConnection, SyncConnection, VerifyPeer
from meshlib.net.framing import Framing
from meshlib.net.wire import Progress, Target, WireLimits

if TYPE_CHECKING:
    from meshlib.net.steps import Bell, Steps

__all__ = ["connect_async", "connect_steps", "connect_sync"]


def connect_sync(
    target: Target,
    limits: WireLimits,
    progress: Progress,
    verify_peer: VerifyPeer | None,
    framing: Callable[[], Framing] | None = None,
) -> SyncConnection:
    """Open a connection for threads.

    Raises:
        ConnectFailed, ConnectTimeout, TLSFailed: with nothing left open.
    """
    from meshlib.net.steps import run

    return run(connect_steps(target, limits, progress, verify_peer, None, framing))


def connect_steps(
    target: Target,
    limits: WireLimits,
    progress: Progress,
    verify_peer: VerifyPeer | None,
    bell: Bell | None,
    framing: Callable[[], Framing] | None = None,
) -> Steps[SyncConnection]:
    """The same in steps; without a bell it blocks while a name is looked up.

    Raises:
        ConnectFailed, ConnectTimeout, TLSFailed: with nothing left open.
    """
    from meshlib.net.http1 import Http1Framing
    from meshlib.net.sync_dial import stream_steps
    from meshlib.net.sync_http1 import SyncHttp1

    if target.http2:
        _need_h2(target)
    stream = yield from stream_steps(target, limits, progress, verify_peer, bell)
    try:
        if _speaks_http2(target, stream.get_extra_info("ssl_object")):
            from meshlib.net.sync_http2 import SyncHttp2

            return (yield from SyncHttp2.open_steps(stream, target, limits))
        return SyncHttp1(stream, target.endpoint.address, framing or Http1Framing)
    except BaseException:
        stream.close()
        raise


async def connect_async(
    target: Target,
    limits: WireLimits,
    progress: Progress,
    verify_peer: VerifyPeer | None,
    framing: Callable[[], Framing] | None = None,
) -> AsyncConnection:
    """Open a connection for the running loop; may be cancelled at any point.

    Raises:
        ConnectFailed, ConnectTimeout, TLSFailed: with nothing left open.
    """
    from meshlib.net.async_dial import open_async_stream
    from meshlib.net.async_http1 import take_over
    from meshlib.net.http1 import Http1Framing

    if target.http2:
        _need_h2(target)
    stream = await open_async_stream(target, limits, progress, verify_peer)
    try:
        if _speaks_http2(target, stream.get_extra_info("ssl_object")):
            from meshlib.net.async_http2 import AsyncHttp2

            return await AsyncHttp2.open(stream, target, limits)
        return take_over(stream, target.endpoint.address, framing or Http1Framing)
    except BaseException:
        stream.abort()
        raise


def _speaks_http2(target: Target, ssl_object: Any) -> bool:
    if not target.http2:
        return False
    return target.tls is None or (ssl_object is not None and ssl_object.selected_alpn_protocol() == "h2")


def _need_h2(target: Target) -> None:
    try:
        import h2  # noqa: F401
    except ImportError:
        message = f'HTTP/2 to {target.endpoint.address} needs h2: pip install "meshlib-http[http2]"'
        raise ConnectFailed(message, endpoint=target.endpoint.address, retryable=False) from None
