"""An httpx transport as the wire beneath the mesh: ``wire: stock``, and ``transport=`` of `Mesh.client()`.

With `logical` the last hop keeps the URL that the caller wrote, so that mocks which patch httpx's own transport (respx,
pytest-httpx) see the requests that they know. Without, it goes to the endpoint that was picked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from meshlib.adapters.httpx_errors import from_httpx
from meshlib.errors import BodyBroken, MeshError
from meshlib.net.wire import AsyncWireResponse, Progress, SyncWireResponse, Target, WireLimits, WireRequest

__all__ = ["AsyncTransportWire", "SyncTransportWire", "stock_wires"]


class _TransportWire:
    def __init__(self, now: Callable[[], float], *, logical: bool) -> None:
        self._now = now
        self._logical = logical

    def _request(self, target: Target, request: WireRequest, limits: WireLimits, stream: Any) -> httpx.Request:
        scheme = "https" if target.tls is not None else "http"
        authority = target.endpoint.address
        if self._logical:
            authority = next(value.decode("latin-1") for name, value in request.headers if name.lower() == b"host")
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
        return httpx.Request(
            request.method.decode("ascii"),
            f"{scheme}://{authority}{request.target.decode('ascii')}",
            headers=request.headers,
            stream=stream,
            extensions=extensions,
        )


class SyncTransportWire(_TransportWire):
    """Sends attempts through an `httpx.BaseTransport`."""

    def __init__(self, transport: httpx.BaseTransport, now: Callable[[], float], *, logical: bool) -> None:
        super().__init__(now, logical=logical)
        self._transport = transport

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        body = request.body
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else _SyncUpload(body)
        address = target.endpoint.address
        outgoing = self._request(target, request, limits, stream)
        progress.phase = "headers"
        try:
            response = self._transport.handle_request(outgoing)
        except httpx.HTTPError as error:
            raise _translated(error, address, progress) from error
        return SyncWireResponse(
            response.status_code,
            list(response.headers.raw),
            _sync_body(response, address),
            response.close,
            response.extensions.get("http_version", b"HTTP/1.1"),
            response.extensions.get("reason_phrase", b""),
            dict(response.extensions),
        )


class AsyncTransportWire(_TransportWire):
    """Sends attempts through an `httpx.AsyncBaseTransport`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, now: Callable[[], float], *, logical: bool) -> None:
        super().__init__(now, logical=logical)
        self._transport = transport

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        body = request.body
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else _AsyncUpload(body)
        address = target.endpoint.address
        outgoing = self._request(target, request, limits, stream)
        progress.phase = "headers"
        try:
            response = await self._transport.handle_async_request(outgoing)
        except httpx.HTTPError as error:
            raise _translated(error, address, progress) from error
        return AsyncWireResponse(
            response.status_code,
            list(response.headers.raw),
            _async_body(response, address),
            response.aclose,
            response.extensions.get("http_version", b"HTTP/1.1"),
            response.extensions.get("reason_phrase", b""),
            dict(response.extensions),
        )


def stock_wires(now: Callable[[], float]) -> tuple[SyncTransportWire, AsyncTransportWire]:
    """The last hops through httpx's own transports, with the URLs that the caller wrote."""
    return (
        SyncTransportWire(httpx.HTTPTransport(), now, logical=True),
        AsyncTransportWire(httpx.AsyncHTTPTransport(), now, logical=True),
    )


class _SyncUpload(httpx.SyncByteStream):
    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


class _AsyncUpload(httpx.AsyncByteStream):
    def __init__(self, body: Any) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        iterator: AsyncIterator[bytes] = aiter(self._body)
        return iterator


def _translated(error: httpx.HTTPError, address: str, progress: Progress) -> MeshError:
    # A transport does not tell how far it came; only a failed connection is sure to have sent nothing.
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        progress.phase = "connect"
    else:
        progress.bytes_written = True
    return from_httpx(error, address)


def _sync_body(response: httpx.Response, address: str) -> Iterator[bytes]:
    assert isinstance(response.stream, httpx.SyncByteStream)
    try:
        yield from response.stream
    except httpx.HTTPError as error:
        raise BodyBroken(str(error), endpoint=address) from error


async def _async_body(response: httpx.Response, address: str) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        async for chunk in response.stream:
            yield chunk
    except httpx.HTTPError as error:
        raise BodyBroken(str(error), endpoint=address) from error
