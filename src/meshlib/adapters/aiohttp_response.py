"""aiohttp's own responses, over what the mesh's wire gives.

A response of aiohttp begins by reading a head from its connection's protocol, and ends by giving that back. A
`Connection` of the mesh stands in for both, so that the response is the very class that aiohttp, or its user, would
have: what it does further up is its own matter.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from http.client import responses
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientResponse, HttpVersion, StreamReader, compression_utils
from multidict import CIMultiDict, CIMultiDictProxy

from meshlib.adapters.aiohttp_errors import as_aiohttp
from meshlib.adapters.exchange import Exchange
from meshlib.adapters.options import EXTENSION
from meshlib.adapters.reading import Reading
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWireResponse, Headers

__all__ = ["Connection", "Incoming", "response_of"]

_VERSIONS = {b"HTTP/1.0": HttpVersion(1, 0), b"HTTP/1.1": HttpVersion(1, 1), b"HTTP/2": HttpVersion(2, 0)}
_LIMIT_BYTES = 65536


async def response_of(
    request: ClientRequest,
    exchange: Exchange | None,
    response: AsyncWireResponse,
    content: bytes | None,
    decompress: bool,
) -> ClientResponse:
    """The response as aiohttp has it, with the call for whoever asks for its record.

    Args:
        request: as sent.
        exchange: the call; None for a request that is none of the mesh, and whose body is there.
        response: of the wire.
        content: the whole body, if it is there already.
        decompress: whether the body is to be decoded.
    """
    raw_headers = response.headers if exchange is None else exchange.edited(response.headers)
    head = _Head(response, raw_headers)
    decoder = _decoder_of(head.headers) if decompress else None
    if content is None and exchange is not None:
        payload: StreamReader = Incoming(exchange, request, response, decoder)
        made = _make(request, getattr(request, "_timer", None))
    else:
        payload = _whole(request, content or b"", decoder)
        made = _make(request, None)  # nobody waits for what is there
    made.extensions = {} if exchange is None else {EXTENSION: exchange}
    started: ClientResponse = await made.start(Connection(request, head, payload))
    return started


def _make(request: ClientRequest, timer: Any) -> Any:
    make: Any = request.response_class
    return make(
        request.method,
        request.original_url,
        writer=None,
        continue100=None,
        timer=timer,
        request_info=request.request_info,
        traces=getattr(request, "_traces", []),
        loop=request.loop,
        session=request.session,
        **_written_to(make),
    )


@cache
def _written_to(make: Any) -> dict[str, Any]:
    """Where the request was written to, for a class of responses that asks, as aiohttp's does since 3.14."""
    parameters = inspect.signature(make).parameters.values()
    asks = any(each.name == "stream_writer" or each.kind is each.VAR_KEYWORD for each in parameters)
    return {"stream_writer": _Sent()} if asks else {}


class _Sent:
    output_size = 0


class _Head:
    """What a response of aiohttp reads first."""

    __slots__ = ("code", "headers", "raw_headers", "reason", "version")

    def __init__(self, response: AsyncWireResponse, headers: Headers) -> None:
        self.version = _VERSIONS.get(response.http_version, _VERSIONS[b"HTTP/1.1"])
        self.code = response.status
        self.reason = response.reason.decode("latin-1") or responses.get(response.status, "")
        fields = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in headers]
        self.headers = CIMultiDictProxy(CIMultiDict(fields))
        self.raw_headers = tuple(headers)


class Connection:
    """What a response holds until its body has ended: `aiohttp.client_reqrep.Connection` and its protocol, in one."""

    transport = None
    upgraded = False

    def __init__(self, request: ClientRequest, head: _Head, payload: StreamReader) -> None:
        self.protocol: Connection | None = self
        self.loop = request.loop
        self._head = head
        self._payload = payload
        self._callbacks: list[Callable[[], None]] = []

    async def read(self) -> tuple[_Head, StreamReader]:
        """The head of the response, and its body."""
        return self._head, self._payload

    @property
    def closed(self) -> bool:
        """Whether it was given back."""
        return self.protocol is None

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is given back."""
        self._callbacks.append(callback)

    def release(self) -> None:
        """Give it back. If there is more to come nobody wants it: the connection of the wire is closed."""
        self.protocol = None
        if isinstance(self._payload, Incoming):
            self._payload.forget()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    close = release


class _Protocol:
    """What a stream of aiohttp asks to pause and to go on. The mesh's wire is read as the stream is."""

    connected = True
    _reading_paused = False  # what the streams of aiohttp 3.12 look at

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass


_PROTOCOL: Any = _Protocol()


class Incoming(StreamReader):
    """A body that comes over the wire as it is read; who stops waiting for it can go on later."""

    def __init__(
        self, exchange: Exchange, request: ClientRequest, response: AsyncWireResponse, decoder: Any = None
    ) -> None:
        timer = getattr(request, "_timer", None)
        super().__init__(_PROTOCOL, _LIMIT_BYTES, timer=timer, loop=request.loop)
        self._reading = Reading(exchange)
        self._request = request
        self._response: AsyncWireResponse | None = response
        self._decoder = decoder
        self._pull: asyncio.Task[None] | None = None
        self._within = nullcontext() if timer is None else timer

    async def wait_eof(self) -> None:
        """Wait until all of it is there."""
        while not self._eof:
            await self._wait("wait_eof")

    def forget(self) -> None:
        """Nobody wants the rest. May be called by a finalizer."""
        if self._response is None:
            return
        self._response = None
        self._reading.forget()
        loop, plane = self._request.loop, self._reading.exchange.plane
        if not loop.is_closed():
            if self._pull is not None:
                loop.call_soon_threadsafe(self._pull.cancel)
            loop.call_soon_threadsafe(plane.settle)

    async def _wait(self, func_name: str) -> None:
        if self._pull is None:
            self._pull = self._request.loop.create_task(self._next())
        with self._within:
            await asyncio.shield(self._pull)
        if self._exception is not None:
            raise self._exception

    async def _next(self) -> None:
        """Take the next piece, or the end, into the buffer."""
        response = self._response
        if response is None:
            self.set_exception(aiohttp.ClientConnectionError("Connection closed"))
            return
        try:
            data = await anext(response.body, None)
            if data is not None:
                self.feed_data(data if self._decoder is None else self._decoder(data))
                return
            self._response = None
            self._reading.ended()
            self.feed_eof()
        except MeshError as error:
            self._reading.broken(error)
            broken = as_aiohttp(error, self._request)
            broken.__cause__ = error.__cause__
            self._fail(broken)
        except aiohttp.ClientPayloadError as error:
            self._reading.left()
            self._fail(error)
        finally:
            self._pull = None
        await response.aclose()

    def _fail(self, error: Exception) -> None:
        self._response = None
        self.set_exception(error)


def _whole(request: ClientRequest, content: bytes, decoder: _Decoder | None) -> StreamReader:
    """A body that is in memory."""
    stream = StreamReader(_PROTOCOL, _LIMIT_BYTES, timer=getattr(request, "_timer", None), loop=request.loop)
    if decoder is not None and content:
        try:
            content = decoder(content)
        except aiohttp.ClientPayloadError as error:
            stream.set_exception(error)
            content = b""
    if content:
        stream.feed_data(content)
    stream.feed_eof()
    return stream


class _Decoder:
    """Undoes the coding of a body, with what aiohttp has for it.

    Raises:
        aiohttp.ClientPayloadError: if the body is not so coded.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inner: Any = None

    def __call__(self, data: bytes) -> bytes:
        if not data:
            return b""
        try:
            if self._inner is None:
                self._inner = self._make(data)
            made: bytes = self._inner.decompress_sync(data)
        except Exception as error:
            text = f"Can not decode content-encoding: {self._coding}"
            raise aiohttp.ClientPayloadError(text) from error
        return made

    def _make(self, first: bytes) -> Any:
        if self._coding == "br":
            return compression_utils.BrotliDecompressor()
        if self._coding == "zstd":
            return compression_utils.ZSTDDecompressor()
        # Of `deflate` there are two: in the frame of zlib, as it should be, and without.
        bare = self._coding == "deflate" and first[0] & 0x0F != 8
        return compression_utils.ZLibDecompressor(encoding=self._coding, suppress_deflate_header=bare)


_CODINGS = {
    "gzip": True,
    "deflate": True,
    "br": compression_utils.HAS_BROTLI,
    "zstd": getattr(compression_utils, "HAS_ZSTD", False),
}
"""Whether the aiohttp that is installed can undo a coding; it leaves others as they are."""


def _decoder_of(headers: CIMultiDictProxy[str]) -> _Decoder | None:
    coding = headers.get("content-encoding", "").lower()
    return _Decoder(coding) if _CODINGS.get(coding) else None
