"""One active check of one endpoint: a request that is answered, or a connection that opens. On an event loop.

What the answer means is `meshlib.policy.health_check`'s business. A check has a connection of its own, outside any
pool: it is to say whether the endpoint takes one, and must not wait in line behind calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from meshlib.dataclass import replace
from meshlib.errors import MeshError, Reset
from meshlib.net.connect import connect_async
from meshlib.net.connection import AsyncConnection, AsyncExchange, DeadlinePassed, may_resend
from meshlib.net.framing import Framing
from meshlib.net.wire import Headers, Progress, Target, WireLimits, WireRequest
from meshlib.policy.health_check import (
    Finding,
    HealthCheckSettings,
    HttpCheck,
    TcpCheck,
    judge_bytes,
    judge_response,
)

__all__ = ["MAX_ANSWER", "HealthProbe"]

MAX_ANSWER = 65_536
"""How many bytes of an answer are read. A longer one is judged by its head, and costs its connection."""

_TURNS = 5


class HealthProbe:
    """Checks one endpoint, and keeps the connection for the next time if that is wanted.

    Args:
        target: where to.
        settings: what is asked, and for how long.
        host: the ``Host`` header, where the settings have none.
        framing: what parses HTTP/1.1; None for the default.
    """

    __slots__ = ("_connect", "_connection", "_request", "_settings", "_target")

    def __init__(
        self,
        target: Target,
        settings: HealthCheckSettings,
        host: bytes,
        framing: Callable[[], Framing] | None = None,
    ) -> None:
        port = settings.http.port if settings.http is not None else settings.tcp.port if settings.tcp else None
        if port is not None and target.endpoint.socket_path is None:
            target = replace(target, endpoint=replace(target.endpoint, port=port))
        self._target = target
        self._settings = settings
        self._connect = connect_async if framing is None else partial(connect_async, framing=framing)
        self._connection: AsyncConnection | None = None
        self._request: WireRequest | None = None
        if settings.http is not None:
            self._request = _request(settings.http, host, settings.reuse_connection)

    async def check(self) -> tuple[Finding, str]:
        """Ask once, within the settings' time. Returns what was found, and what is wrong in words if anything is."""
        timeout_s = self._settings.timeout_s
        deadline = time.monotonic() + timeout_s
        limits = WireLimits(deadline=deadline, connect_s=timeout_s, body_deadline=deadline)
        try:
            async with asyncio.timeout(timeout_s):
                if self._settings.tcp is not None:
                    return await self._converse(self._settings.tcp, limits)
                if self._settings.http is not None and self._request is not None:
                    return await self._ask(self._settings.http, self._request, limits)
        except MeshError as error:
            return Finding.NO_ANSWER, error.message
        except (TimeoutError, DeadlinePassed):
            return Finding.NO_ANSWER, f"no answer within {timeout_s:g} s"
        except OSError as error:
            return Finding.NO_ANSWER, error.strerror or str(error) or type(error).__name__
        return Finding.PASSED, ""

    def close(self) -> None:
        """Close the kept connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def abandon(self) -> None:
        """Let go of the kept connection in a forked child: it is the parent's."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    async def _ask(self, check: HttpCheck, request: WireRequest, limits: WireLimits) -> tuple[Finding, str]:
        connection = await self._kept()
        while True:
            reused = connection is not None
            if connection is None:
                connection = await self._connect(self._target, limits, Progress(), None)
            progress = Progress(reused=reused)
            whole = False
            try:
                exchange = await connection.exchange(request, limits, progress)
                try:
                    whole = await _read_up(exchange)
                finally:
                    free = exchange.finish()
                break
            except Reset as error:
                connection.abort()
                if not may_resend(request, progress, error):
                    raise
                connection = None
            except BaseException:
                connection.abort()
                raise
        if whole and free and self._settings.reuse_connection and connection.capacity:
            self._connection = connection
        else:
            connection.close()
        status = exchange.head.status
        finding = judge_response(check, status, {name.lower(): value for name, value in exchange.head.headers})
        return finding, "" if finding in (Finding.PASSED, Finding.DEGRADED) else f"HTTP status {status}"

    async def _kept(self) -> AsyncConnection | None:
        """The connection of the last check, if it is still good."""
        connection, self._connection = self._connection, None
        if connection is None:
            return None
        usable = connection.usable()
        for _ in range(_TURNS):
            if usable is not None:
                break
            await asyncio.sleep(0)
            usable = connection.usable()
        if usable:
            return connection
        connection.abort()
        return None

    async def _converse(self, check: TcpCheck, limits: WireLimits) -> tuple[Finding, str]:
        from meshlib.net.async_dial import open_async_stream

        stream = await open_async_stream(self._target, limits, Progress(), None)
        try:
            if check.send:
                stream.write_now(check.send)
            received = b""
            while not judge_bytes(check, received):
                data = await stream.read_raw(limits.deadline)
                received += data
                if not data or len(received) > MAX_ANSWER:
                    return Finding.NO_ANSWER, "the answer is not the expected one"
            return Finding.PASSED, ""
        finally:
            stream.close()

    def __repr__(self) -> str:
        kept = "kept" if self._connection is not None else "no"
        return f"<HealthProbe {self._target.endpoint.address} [{kept} connection]>"


def _request(check: HttpCheck, host: bytes, keep: bool) -> WireRequest:
    own = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in check.headers.items()]
    names = {name for name, _ in own}
    given = host if check.host is None else check.host.encode("latin-1")
    headers: Headers = [(b"host", given), (b"user-agent", b"meshlib-health-check"), (b"accept", b"*/*")]
    if check.method == "POST":
        headers.append((b"content-length", b"0"))
    if not keep:
        headers.append((b"connection", b"close"))
    headers = [header for header in headers if header[0] not in names]
    return WireRequest(check.method.encode("ascii"), check.path.encode("ascii"), [*headers, *own], resendable=True)


async def _read_up(exchange: AsyncExchange) -> bool:
    """Read the body to its end. Returns whether it came to one before it was too long."""
    if exchange.content is not None:
        return True
    fetched = exchange.prefetch()
    if fetched.error is not None:
        raise fetched.error
    size = sum(map(len, fetched.chunks))
    if fetched.complete:
        return True
    while size <= MAX_ANSWER:
        data = await exchange.read()
        if not data:
            return True
        size += len(data)
    return False
