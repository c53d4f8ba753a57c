"""A transport of httpx or httpx2 as the wire beneath the mesh: ``wire: stock``, and ``transport=`` of `Mesh.client()`.

With `logical` the last hop keeps the URL that the caller wrote, so that mocks which patch httpx's own transport (respx,
pytest-httpx) see the requests that they know; where and how to connect is then its affair, TLS included. Without,
it goes to the endpoint that was picked.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from meshlib.adapters.httpx_errors import from_httpx
from meshlib.adapters.httpx_lean_url import Place
from meshlib.errors import BodyBroken, ConnectFailed, MeshError, RequestBodyError
from meshlib.net.wire import (
    AsyncWire,
    AsyncWireResponse,
    Progress,
    SyncWire,
    SyncWireResponse,
    Target,
    WireLimits,
    WireRequest,
)
from meshlib.telemetry.observer import hushed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    import httpx

    from meshlib.adapters.httpx_library import Library
    from meshlib.adapters.plane import DataPlane

__all__ = [
    "AsyncStockTransport",
    "AsyncStockWire",
    "AsyncTransportWire",
    "MirrorStockWire",
    "StockTransport",
    "StockWire",
    "SyncTransportWire",
    "stock_wires",
]


class _TransportWire:
    def __init__(self, library: Library, now: Callable[[], float], *, logical: bool) -> None:
        self._library = library
        self._now = now
        self._logical = logical

    def _request(self, target: Target, request: WireRequest, limits: WireLimits, stream: Any) -> httpx.Request:
        if request.trailers is not None:
            raise RequestBodyError(f"{self._library.httpx.__name__}'s own transports send no trailers", retryable=False)
        left_s = None if limits.deadline is None else max(0.001, limits.deadline - self._now())

        def cap(limit_s: float | None) -> float | None:
            return left_s if limit_s is None else limit_s if left_s is None else min(limit_s, left_s)

        extensions: dict[str, Any] = {
            "timeout": {
                "connect": cap(limits.connect_s),
                "read": cap(limits.read_s),
                "write": cap(limits.write_s),
                "pool": cap(limits.pool_s),
            }
        }
        if target.tls is not None and not self._logical:
            extensions["sni_hostname"] = target.server_name
        made: httpx.Request = self._library.httpx.Request(
            request.method.decode("ascii"),
            self._url(target, request),
            headers=request.headers,
            stream=stream,
            extensions=extensions,
        )
        return made

    def _url(self, target: Target, request: WireRequest) -> httpx.URL:
        url, known = request.url, self._library.httpx.URL
        if isinstance(url, Place):
            url = url.url
        if self._logical and isinstance(url, known):
            made: httpx.URL = url if url.raw_path == request.target else url.copy_with(raw_path=request.target)
            return made
        if target.endpoint.socket_path is not None:
            text = (
                f"cannot connect to {target.endpoint.address}: a `transport=` of httpx's is told a URL, which has none"
            )
            raise ConnectFailed(text, endpoint=target.endpoint.address)
        scheme = "https" if target.tls is not None else "http"
        made = known(f"{scheme}://{target.endpoint.address}{request.target.decode('ascii')}")
        return made


class SyncTransportWire(_TransportWire):
    """Sends attempts through a ``BaseTransport``."""

    def __init__(self, library: Library, transport: Any, now: Callable[[], float], *, logical: bool) -> None:
        super().__init__(library, now, logical=logical)
        self._transport = transport

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        body = request.body
        library = self._library
        stream = library.httpx.ByteStream(body) if isinstance(body, bytes) else library.sync_upload(body)
        address = target.endpoint.address
        outgoing = self._request(target, request, limits, stream)
        progress.phase = "headers"
        try:
            with hushed(progress.handle):
                response = self._transport.handle_request(outgoing)
        except library.httpx.HTTPError as error:
            raise _translated(library, error, address, progress) from error
        return SyncWireResponse(
            response.status_code,
            list(response.headers.raw),
            _sync_body(library, response, address),
            response.close,
            response.extensions.get("http_version", b"HTTP/1.1"),
            response.extensions.get("reason_phrase", b""),
            dict(response.extensions),
        )


class AsyncTransportWire(_TransportWire):
    """Sends attempts through an ``AsyncBaseTransport``."""

    def __init__(self, library: Library, transport: Any, now: Callable[[], float], *, logical: bool) -> None:
        super().__init__(library, now, logical=logical)
        self._transport = transport

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        body = request.body
        library = self._library
        stream = library.httpx.ByteStream(body) if isinstance(body, bytes) else library.async_upload(body)
        address = target.endpoint.address
        outgoing = self._request(target, request, limits, stream)
        progress.phase = "headers"
        try:
            with hushed(progress.handle):
                response = await self._transport.handle_async_request(outgoing)
        except library.httpx.HTTPError as error:
            raise _translated(library, error, address, progress) from error
        return AsyncWireResponse(
            response.status_code,
            list(response.headers.raw),
            _async_body(library, response, address),
            response.aclose,
            response.extensions.get("http_version", b"HTTP/1.1"),
            response.extensions.get("reason_phrase", b""),
            dict(response.extensions),
        )


class StockWire(SyncTransportWire):
    """``wire: stock`` for threads: through the library's own transport, with the URLs that the caller wrote."""

    def __init__(self, library: Library, now: Callable[[], float]) -> None:
        self._stock = StockTransport(library)
        super().__init__(library, self._stock, now, logical=True)

    def close(self) -> None:
        """Close the connections."""
        self._stock.close()


class AsyncStockWire(AsyncTransportWire):
    """``wire: stock`` for event loops; see `StockWire`."""

    def __init__(self, library: Library, now: Callable[[], float], *, logical: bool = True) -> None:
        self._stock = AsyncStockTransport(library)
        super().__init__(library, self._stock, now, logical=logical)

    async def aclose(self) -> None:
        """Close the connections of the running loop. Those of other loops end with them."""
        await self._stock.aclose()


class MirrorStockWire(AsyncStockWire):
    """``wire: stock`` for mirrors, which are where the mesh says and not where the caller's URL does."""

    def __init__(self, library: Library, now: Callable[[], float]) -> None:
        super().__init__(library, now, logical=False)


def stock_wires(library: Library, plane: DataPlane, stock: dict[str, tuple[Any, Any]]) -> tuple[SyncWire, AsyncWire]:
    """The wires of a mesh with ``wire: stock`` for one library's clients."""
    name = library.httpx.__name__
    wires = stock.get(name)
    if wires is None:
        now = plane.clock.now
        wires = stock.setdefault(name, (StockWire(library, now), AsyncStockWire(library, now)))
    return wires


class StockTransport:
    """An ``HTTPTransport`` that is made when it is first used: it loads certificates. One per process, as a forked
    child must not use its parent's connections.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._made: dict[int, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request as the plain library does."""
        made = self._made.get(os.getpid())
        if made is None:
            made = self._made.setdefault(os.getpid(), self._library.httpx.HTTPTransport())
        return made.handle_request(request)

    def close(self) -> None:
        """Close the connections of this process; a further request makes new ones."""
        made = self._made.pop(os.getpid(), None)
        if made is not None:
            made.close()


class AsyncStockTransport:
    """One ``AsyncHTTPTransport`` per event loop, made when it is first used: its connections belong to the loop."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._made: dict[AbstractEventLoop, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request as the plain library does."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        made = self._made.get(loop)
        if made is None:
            # Open connections refer to their loop, so one that has ended would be kept by what it is the key of.
            for ended in [each for each in self._made if each.is_closed()]:
                del self._made[ended]
            made = self._made[loop] = self._library.httpx.AsyncHTTPTransport()
        return await made.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections of the running loop; a further request makes new ones."""
        from asyncio import get_running_loop

        made = self._made.pop(get_running_loop(), None)
        if made is not None:
            await made.aclose()


def _translated(library: Library, error: httpx.HTTPError, address: str, progress: Progress) -> MeshError:
    # A transport does not tell how far it came; only a failed connection is sure to have sent nothing.
    httpx = library.httpx
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        progress.phase = "connect"
    else:
        progress.bytes_written = True
    return from_httpx(error, address)


def _sync_body(library: Library, response: httpx.Response, address: str) -> Iterator[bytes]:
    stream: Any = response.stream
    try:
        yield from stream
    except library.httpx.HTTPError as error:
        raise BodyBroken(str(error), endpoint=address) from error


async def _async_body(library: Library, response: httpx.Response, address: str) -> AsyncIterator[bytes]:
    stream: Any = response.stream
    try:
        async for chunk in stream:
            yield chunk
    except library.httpx.HTTPError as error:
        raise BodyBroken(str(error), endpoint=address) from error
