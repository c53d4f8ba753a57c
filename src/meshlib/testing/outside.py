"""Requests that the mesh passes on untouched: for hosts outside it, and in the modes ``off`` and ``observe``.

A fixture has no network, so they go to what is served under the host's name, to each instance in turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from meshlib.adapters.httpx_errors import as_httpx
from meshlib.adapters.plane import DataPlane
from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import TlsSettings
from meshlib.errors import MeshError, UnknownService
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
from meshlib.testing.services import Registry

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.httpx_library import Library
    from meshlib.adapters.httpx_wire import AsyncStockTransport, StockTransport

__all__ = ["AsyncOutside", "Hosts", "Outside"]


class Hosts:
    """What answers for hosts.

    Args:
        plane: knows which host is which service.
        registry: what is served.
    """

    def __init__(self, plane: DataPlane, registry: Registry) -> None:
        self._plane = plane
        self._registry = registry

    def endpoint(self, host: str, port: int | None) -> Endpoint | None:
        """The next that answers for a host; None for nobody."""
        instance = self._registry.next(self._plane.locate(host, port) or host)
        return None if instance is None else instance.endpoint

    def nobody(self, host: str) -> UnknownService:
        """The error that says what to write."""
        text = f"no network in a MeshFixture ({self._registry.described()}); mesh.serve({host!r}, ...) answers for it"
        return UnknownService(text, service=host)


class _Way:
    def __init__(self, library: Library, hosts: Hosts) -> None:
        self._library = library
        self._hosts = hosts

    def _endpoint(self, request: httpx.Request) -> Endpoint | None:
        return self._hosts.endpoint(request.url.host, request.url.port)

    def _attempt(self, request: httpx.Request, endpoint: Endpoint, body: Any) -> tuple[Target, WireRequest, WireLimits]:
        url = request.url
        timeout = request.extensions.get("timeout") or {}
        limits = WireLimits(connect_s=timeout.get("connect"), read_s=timeout.get("read"))
        target = Target(endpoint, TlsSettings() if url.scheme == "https" else None)
        return target, WireRequest(request.method.encode("ascii"), url.raw_path, request.headers.raw, body), limits

    def _response(self, answer: SyncWireResponse | AsyncWireResponse, body: Any) -> httpx.Response:
        made: httpx.Response = self._library.httpx.Response(answer.status, headers=answer.headers, stream=body)
        return made

    def _nobody(self, request: httpx.Request) -> MeshError:
        return as_httpx(self._hosts.nobody(request.url.host), request)


class Outside(_Way):
    """For a client of threads. `network` is used for what is not served; None to refuse it."""

    def __init__(self, library: Library, hosts: Hosts, wire: SyncWire, network: StockTransport | None) -> None:
        super().__init__(library, hosts)
        self._wire = wire
        self._network = network
        self._body = library.own(_Body, library.httpx.SyncByteStream)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Have the request answered by what is served under its host."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            if self._network is not None:
                return self._network.handle_request(request)
            raise self._nobody(request)
        try:
            answer = self._wire.send(*self._attempt(request, endpoint, request.read()), Progress())
        except MeshError as error:
            raise as_httpx(error, request) from error.__cause__
        return self._response(answer, self._body(answer, request))

    def close(self) -> None:
        """Close the network."""
        if self._network is not None:
            self._network.close()


class AsyncOutside(_Way):
    """For a client of event loops; see `Outside`."""

    def __init__(self, library: Library, hosts: Hosts, wire: AsyncWire, network: AsyncStockTransport | None) -> None:
        super().__init__(library, hosts)
        self._wire = wire
        self._network = network
        self._body = library.own(_AsyncBody, library.httpx.AsyncByteStream)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Have the request answered by what is served under its host."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            if self._network is not None:
                return await self._network.handle_async_request(request)
            raise self._nobody(request)
        try:
            answer = await self._wire.send(*self._attempt(request, endpoint, await request.aread()), Progress())
        except MeshError as error:
            raise as_httpx(error, request) from error.__cause__
        return self._response(answer, self._body(answer, request))

    async def aclose(self) -> None:
        """Close the network."""
        if self._network is not None:
            await self._network.aclose()


class _Body:
    def __init__(self, answer: SyncWireResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._answer.body
        except MeshError as error:
            raise as_httpx(error, self._request) from error.__cause__

    def close(self) -> None:
        self._answer.close()


class _AsyncBody:
    def __init__(self, answer: AsyncWireResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.body:
                yield chunk
        except MeshError as error:
            raise as_httpx(error, self._request) from error.__cause__

    async def aclose(self) -> None:
        await self._answer.aclose()
