"""aiohttp's own responses, over what the mesh's wire gives.

A response of aiohttp begins by reading a head from its connection's protocol, and ends by giving that back. A
`Connection` of the mesh stands in for both, so that the response is the very class that aiohttp, or its user, would
have: what it does further up is its own matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import cache
from http.client import responses
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientResponse, HttpVersion, StreamReader, compression_utils
from multidict import CIMultiDict, CIMultiDictProxy, istr

from meshlib.adapters.aiohttp_errors import as_aiohttp
from meshlib.adapters.exchange import Exchange
from meshlib.adapters.options import EXTENSION
from meshlib.adapters.reading import Reading
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWireResponse, Headers
from meshlib.signature import signature_of

__all__ = ["Connection", "Incoming", "response_of"]

_VERSIONS = {b"HTTP/1.0": HttpVersion(1, 0), b"HTTP/1.1": HttpVersion(1, 1), b"HTTP/2": HttpVersion(2, 0)}
_LIMIT_BYTES = 65536


def response_of(
    request: ClientRequest,
    exchange: Exchange | None,
    response: AsyncWireResponse,
    content: bytes | None,
    decompress: bool,
) -> Coroutine[Any, Any, ClientResponse]:
    """The response as aiohttp has it, to be awaited, with the call for whoever asks for its record.

    Args:
        request: as sent.
        exchange: the call; None for a request that is none of the mesh, and whose body is there.
        response: of the wire.
        content: the whole body, if it is there already.
        decompress: whether the body is to be decoded.
    """
    held = Connection(request, response, response.headers if exchange is None else exchange.edited(response.headers))
    decoder = _decoder_of(held.headers) if decompress else None
    if content is None and exchange is not None:
        held.payload = Incoming(exchange, request, response, decoder)
        made = _make(request, getattr(request, "_timer", None))
    else:
        held.payload = _whole(request, content or b"", decoder)
        made = _make(request, None)  # nobody waits for what is there
    made.extensions = {} if exchange is None else {EXTENSION: exchange}
    started: Coroutine[Any, Any, ClientResponse] = made.start(held)
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
    parameters = signature_of(make).parameters.values()
    asks = any(each.name == "stream_writer" or each.kind is each.VAR_KEYWORD for each in parameters)
    return {"stream_writer": _Sent()} if asks else {}


class _Sent:
    output_size = 0


_names: dict[bytes, istr] = {}
_MAX_KNOWN = 1024
_MAX_KNOWN_BYTES = 64


def _name(raw: bytes) -> istr:
    """A name that was not met before, remembered within bounds: responses have the headers of those before them."""
    name = istr(raw.decode("latin-1"))
    if len(_names) < _MAX_KNOWN and len(raw) <= _MAX_KNOWN_BYTES:
        _names[raw] = name
    return name


class Connection:
    """What a response reads first, and holds until its body has ended.

    That is `aiohttp.client_reqrep.Connection`, its protocol, and the head of the response which that reads, in one.

    Args:
        request: as sent.
        response: of the wire.
        headers: of the response, with the route's edits.

    Attributes:
        payload: the body.
    """

    transport = None
    upgraded = False
    payload: StreamReader

    def __init__(self, request: ClientRequest, response: AsyncWireResponse, headers: Headers) -> None:
        self.protocol: Connection | None = self
        self.loop = request.loop
        self.version = _VERSIONS.get(response.http_version, _VERSIONS[b"HTTP/1.1"])
        self.code = response.status
        self.reason = response.reason.decode("latin-1") or responses.get(response.status, "")
        fields: CIMultiDict[str] = CIMultiDict()
        add, known = fields.add, _names.get
        for name, value in headers:
            add(known(name) or _name(name), value.decode("utf-8", "surrogateescape"))
        self.headers = CIMultiDictProxy(fields)
        self.raw_headers = tuple(headers)
        self._callbacks: list[Callable[[], None]] | None = None

    async def read(self) -> tuple[Connection, StreamReader]:
        """The head of the response, and its body."""
        return self, self.payload

    @property
    def closed(self) -> bool:
        """Whether it was given back."""
        return self.protocol is None

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is given back."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def release(self) -> None:
        """Give it back. If there is more to come nobody wants it: the connection of the wire is closed."""
        self.protocol = None
        if isinstance(self.payload, Incoming):
            self.payload.forget()
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
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


class Whole(StreamReader):
    """A body that is in memory. Most are read once and whole: what a stream has for more is made when somebody asks."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes, timer: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._content: bytes | None = content
        self._timer = timer
        self._loop = loop
        self._eof = True
        self._exception = None
        self.total_bytes = len(content)

    def __getattr__(self, name: str) -> Any:
        content, error, total_bytes = self._content, self._exception, self.total_bytes
        if content is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._content = None
        super().__init__(_PROTOCOL, _LIMIT_BYTES, timer=self._timer, loop=self._loop)
        if content:
            self.feed_data(content)
        self.feed_eof()
        self._exception, self.total_bytes = error, total_bytes
        return getattr(self, name)

    async def read(self, n: int = -1) -> bytes:
        """So many bytes, or all."""
        content = self._content
        if n >= 0 or not content or self._exception is not None:
            return await super().read(n)
        if self._timer is not None:
            self._timer.assert_timeout()
        self._content = b""
        return content

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """Have who reads from now on see it."""
        if self._content is None:
            super().set_exception(exc, *cause)
        else:
            self._exception = exc  # nobody waits


def _whole(request: ClientRequest, content: bytes, decoder: _Decoder | None) -> StreamReader:
    """A body that is in memory."""
    error = None
    if decoder is not None and content:
        try:
            content = decoder(content)
        except aiohttp.ClientPayloadError as broken:
            content, error = b"", broken
    stream = Whole(content, getattr(request, "_timer", None), request.loop)
    if error is not None:
        stream.set_exception(error)
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
