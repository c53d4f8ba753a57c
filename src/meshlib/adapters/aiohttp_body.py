"""The bodies of aiohttp's requests, as the mesh sends them, and whether they can be had again.

aiohttp's payloads write themselves into a stream; the mesh reads. A payload in memory gives its bytes, any other writes
into a queue of one chunk, as fast as the wire takes from it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientRequest, MultipartWriter
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload, IOBasePayload, Payload

from meshlib.adapters.body import AsyncBufferedBody

__all__ = ["PayloadBody", "body_of"]

_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def body_of(request: ClientRequest) -> Any:
    """What to send for a request: bytes, or something that yields them."""
    payload = request.body
    if not isinstance(payload, Payload):
        return bytes(payload)
    coding = request.compress if isinstance(request.compress, str) else None
    announced = request.headers.get("Content-Length", "")
    length = int(announced) if announced.isdecimal() else None  # no more is sent, as with aiohttp
    if isinstance(payload, BytesPayload):
        content = bytes(await payload.as_bytes())[:length]
        return content if coding is None else _compressed(content, coding)
    body = PayloadBody(payload, length, coding)
    # What writes itself anew: aiohttp's files go back to where they began. Others can be had once.
    again = isinstance(payload, (IOBasePayload, MultipartWriter))
    return body if again else AsyncBufferedBody(body)


class PayloadBody:
    """A payload that writes itself each time that it is iterated."""

    def __init__(self, payload: Payload, length: int | None, coding: str | None) -> None:
        self._payload = payload
        self._length = length
        self._coding = coding

    @property
    def replayable(self) -> bool:
        """Whether it can be produced from the start once more."""
        return not self._payload.consumed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pipe = _Pipe()
        write = asyncio.ensure_future(self._write(pipe))
        coder = None if self._coding is None else zlib.compressobj(wbits=_WBITS[self._coding])
        try:
            while (chunk := await pipe.chunks.get()) is not None:
                data = bytes(chunk) if coder is None else coder.compress(chunk)
                if data:
                    yield data
            await write  # if it failed, this says why
            if coder is not None:
                yield coder.flush()
        finally:
            if not write.cancel() and not write.cancelled():
                write.exception()  # looked at, so that nobody reports that it was not

    async def _write(self, pipe: _Pipe) -> None:
        try:
            await self._payload.write_with_length(pipe, self._length)
        except Exception:
            await pipe.chunks.put(None)
            raise
        await pipe.chunks.put(None)


class _Pipe(AbstractStreamWriter):
    def __init__(self) -> None:
        self.chunks: asyncio.Queue[Any] = asyncio.Queue(1)

    async def write(self, chunk: Any) -> None:
        if chunk:
            await self.chunks.put(chunk)

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self.write(chunk)

    async def drain(self) -> None:
        pass

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        pass

    def enable_chunking(self) -> None:
        pass

    async def write_headers(self, status_line: str, headers: Any) -> None:
        pass


def _compressed(content: bytes, coding: str) -> bytes:
    coder = zlib.compressobj(wbits=_WBITS[coding])
    return coder.compress(content) + coder.flush()
