"""The limit: how little a request can cost in Python. An asyncio protocol with `httptools`, and no client API.

No timeout, no check of a header, no object for a request or a response; the bytes of the request are made once. It
shows how much of a call is the price of the interpreter and the event loop, which no client can avoid.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools


class _Connection(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[tuple[int, bytes]] | None = None
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        done, chunks = self._done, self._chunks
        self._chunks = []
        if done is not None:
            done.set_result((self._parser.get_status_code(), b"".join(chunks)))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def request(self, data: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._done = self._loop.create_future()
        self._transport.write(data)
        return self._done

    def close(self) -> None:
        self._transport.close()


class LimitClient:
    """Sends one fixed request over kept connections, the last one used first."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: */*\r\n\r\n".encode("ascii")
        self._idle: list[_Connection] = []

    async def get(self) -> tuple[int, bytes]:
        """The reply's status and body."""
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(loop), "127.0.0.1", self._port)
        reply = await connection.request(self._request)
        self._idle.append(connection)
        return reply

    def close(self) -> None:
        """Close all connections; none is in use."""
        for connection in self._idle:
            connection.close()
