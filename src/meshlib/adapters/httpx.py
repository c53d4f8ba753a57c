"""httpx: transports that make meshed calls. The clients that use them are in `httpx_clients`.

A transport sees one request at a time, below redirects, authentication, cookies and event hooks, which stay httpx's.
Hosts outside the mesh, and calls with ``mode: off``, go through httpx's own transport unchanged.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from meshlib.adapters import async_driver, sync_driver
from meshlib.adapters.body import AsyncBufferedBody, BufferedBody
from meshlib.adapters.httpx_core import (
    NO_PLAIN_OPTIONS,
    OUTSIDE,
    Core,
    again,
    delivered,
    failed_outside,
    hand_over,
    handed_over,
)
from meshlib.adapters.httpx_lean import LeanCall
from meshlib.adapters.httpx_lean_response import AsyncLeanResponse, LeanResponse, to_be_replayed
from meshlib.adapters.httpx_streams import AsyncResponseStream, FileStream, SyncResponseStream
from meshlib.adapters.options import EXTENSION
from meshlib.adapters.plane import DataPlane
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWire, SyncWire

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["AsyncMeshTransport", "MeshTransport", "attach"]

C = TypeVar("C", httpx.Client, httpx.AsyncClient)


class MeshTransport(Core, httpx.BaseTransport):
    """The transport of an `httpx.Client` whose calls go through the mesh.

    Args:
        plane: the mesh's data plane.
        service: a name that is a service of the mesh whatever its form.
        wire: the last hop; None for the mesh's own.
        stock: for what goes outside the mesh; None for a plain `httpx.HTTPTransport`.
        plain_timeout_s: of each phase of what goes outside the mesh, unless the request says otherwise; None for none.
        plain_options: of the `httpx.HTTPTransport` for what goes outside the mesh.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        service: str | None = None,
        wire: SyncWire | None = None,
        stock: httpx.BaseTransport | None = None,
        plain_timeout_s: float | None = None,
        plain_options: Mapping[str, Any] = NO_PLAIN_OPTIONS,
    ) -> None:
        super().__init__(plane, service, plain_timeout_s)
        self._plain_options = plain_options
        self._wire = plane.sync_wire if wire is None else wire
        self._given = stock
        self._stock = stock
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Make the call.

        Raises:
            MeshError: which is an httpx exception too.
        """
        known = handed_over(request)
        if known is not None:
            return self._outside(request) if known is OUTSIDE else known
        service, mode = self._locate(request)
        if service is None or mode == "off":
            return self._outside(request)
        if mode == "observe":
            return self._observe(service, request)
        exchange = self._exchange(service, request, _sync_body(request))
        try:
            response, body = sync_driver.drive(exchange, self._wire)
        except MeshError as error:
            translated = self._failed(error, service, request)
            if translated is None:
                return self._outside(request)
            try:
                raise translated from error.__cause__
            finally:
                translated = None  # its own frame would hold it
        if body is None:
            n = len(exchange.call.attempts)
            stream: httpx.SyncByteStream = SyncResponseStream(exchange, n, request, response)
        else:
            stream = httpx.ByteStream(body)
        return delivered(exchange, response, stream)

    def call(self, call: LeanCall) -> LeanResponse | None:
        """Make a lean call.

        Returns:
            The response. None where httpx has more to do: send the call's request through it, which will make no
            further call; it goes on with what this one gave.

        Raises:
            MeshError: which is an httpx exception too.
        """
        began_s = perf_counter()
        service = call.place.origin.service
        assert service is not None, "only calls to services are lean"
        exchange = self._lean_exchange(call, service)
        try:
            response, body = sync_driver.drive(exchange, self._wire)
        except MeshError as error:
            translated = self._failed(error, service, call.request)
            if translated is None:
                hand_over(call.request, OUTSIDE)
                return None
            try:
                raise translated from error.__cause__
            finally:
                translated = None  # its own frame would hold it
        if body is None:
            # An answer that counts as a failure is delivered as it comes in.
            stream = SyncResponseStream(exchange, len(exchange.call.attempts), call.request, response)
            try:
                body = b"".join(stream)
            finally:
                stream.close()
        elapsed_s = perf_counter() - began_s
        headers = exchange.edited(response.headers)
        if to_be_replayed(response.status, headers):
            hand_over(call.request, again(exchange, response, headers, body, elapsed_s))
            return None
        return LeanResponse(call, exchange, response.status, headers, body, response.extensions, elapsed_s)

    def _observe(self, service: str, request: httpx.Request) -> httpx.Response:
        shadow = self._shadow(service, request)
        if shadow is None:
            return self._outside(request)
        try:
            response = self._outside(request)
        except BaseException as error:
            failed_outside(shadow, error)
            raise
        shadow.answered(response.status_code, response.headers.get("retry-after"))
        response.extensions[EXTENSION] = shadow.exchange
        return response

    def _outside(self, request: httpx.Request) -> httpx.Response:
        stock = self._given
        if stock is None:
            stock = self._stock
            if stock is None or self._pid != os.getpid():
                stock = self._open()
        return stock.handle_request(self._plainly(request))

    def _open(self) -> httpx.BaseTransport:
        pid = os.getpid()
        if self._pid != pid:
            # The connections of a forked parent are the parent's; nor can its lock be trusted.
            self._lock, self._stock, self._pid = threading.Lock(), None, pid
        with self._lock:
            if self._stock is None:
                self._stock = httpx.HTTPTransport(**self._plain_options)
            return self._stock

    def close(self) -> None:
        """Close what goes outside the mesh. The pools belong to the mesh and stay open."""
        if self._stock is not None:
            self._stock.close()
            if self._given is None:
                self._stock = None


class AsyncMeshTransport(Core, httpx.AsyncBaseTransport):
    """The transport of an `httpx.AsyncClient` whose calls go through the mesh; see `MeshTransport`."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        service: str | None = None,
        wire: AsyncWire | None = None,
        stock: httpx.AsyncBaseTransport | None = None,
        plain_timeout_s: float | None = None,
        plain_options: Mapping[str, Any] = NO_PLAIN_OPTIONS,
    ) -> None:
        super().__init__(plane, service, plain_timeout_s)
        self._plain_options = plain_options
        self._wire = plane.async_wire if wire is None else wire
        self._given = stock
        # httpx's own connections belong to the loop that made them.
        self._stock: weakref.WeakKeyDictionary[AbstractEventLoop, httpx.AsyncBaseTransport] = (
            weakref.WeakKeyDictionary()
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make the call.

        Raises:
            MeshError: which is an httpx exception too.
        """
        known = handed_over(request)
        if known is not None:
            return await self._outside(request) if known is OUTSIDE else known
        service, mode = self._locate(request)
        if service is None or mode == "off":
            return await self._outside(request)
        if mode == "observe":
            return await self._observe(service, request)
        exchange = self._exchange(service, request, _async_body(request))
        try:
            response, body = await async_driver.drive(exchange, self._wire)
        except MeshError as error:
            translated = self._failed(error, service, request)
            if translated is None:
                return await self._outside(request)
            try:
                raise translated from error.__cause__
            finally:
                translated = None  # its own frame would hold it
        if body is None:
            n = len(exchange.call.attempts)
            stream: httpx.AsyncByteStream = AsyncResponseStream(exchange, n, request, response)
        else:
            stream = httpx.ByteStream(body)
        return delivered(exchange, response, stream)

    async def call(self, call: LeanCall) -> AsyncLeanResponse | None:
        """Make a lean call.

        Returns:
            The response. None where httpx has more to do: send the call's request through it, which will make no
            further call; it goes on with what this one gave.

        Raises:
            MeshError: which is an httpx exception too.
        """
        began_s = perf_counter()
        service = call.place.origin.service
        assert service is not None, "only calls to services are lean"
        exchange = self._lean_exchange(call, service)
        try:
            response, body = await async_driver.drive(exchange, self._wire)
        except MeshError as error:
            translated = self._failed(error, service, call.request)
            if translated is None:
                hand_over(call.request, OUTSIDE)
                return None
            try:
                raise translated from error.__cause__
            finally:
                translated = None  # its own frame would hold it
        if body is None:
            # An answer that counts as a failure is delivered as it comes in.
            stream = AsyncResponseStream(exchange, len(exchange.call.attempts), call.request, response)
            try:
                body = b"".join([chunk async for chunk in stream])
            finally:
                await stream.aclose()
        elapsed_s = perf_counter() - began_s
        headers = exchange.edited(response.headers)
        if to_be_replayed(response.status, headers):
            hand_over(call.request, again(exchange, response, headers, body, elapsed_s))
            return None
        return AsyncLeanResponse(call, exchange, response.status, headers, body, response.extensions, elapsed_s)

    async def _observe(self, service: str, request: httpx.Request) -> httpx.Response:
        shadow = self._shadow(service, request)
        if shadow is None:
            return await self._outside(request)
        try:
            response = await self._outside(request)
        except BaseException as error:
            failed_outside(shadow, error)
            raise
        shadow.answered(response.status_code, response.headers.get("retry-after"))
        response.extensions[EXTENSION] = shadow.exchange
        return response

    async def _outside(self, request: httpx.Request) -> httpx.Response:
        stock = self._given
        if stock is None:
            from asyncio import get_running_loop

            loop = get_running_loop()
            stock = self._stock.get(loop)
            if stock is None:
                stock = self._stock[loop] = httpx.AsyncHTTPTransport(**self._plain_options)
        return await stock.handle_async_request(self._plainly(request))

    async def aclose(self) -> None:
        """Close what goes outside the mesh. The pools belong to the mesh and stay open."""
        from asyncio import get_running_loop

        if self._given is not None:
            await self._given.aclose()
        stock = self._stock.pop(get_running_loop(), None)
        if stock is not None:
            await stock.aclose()


def _sync_body(request: httpx.Request) -> Any:
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream)
    if isinstance(stream, FileStream):
        return stream.body
    if isinstance(stream, httpx.SyncByteStream):
        return BufferedBody(stream)
    raise RuntimeError("Attempted to send an async request with a sync Client instance.")


def _async_body(request: httpx.Request) -> Any:
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream)
    if isinstance(stream, FileStream):
        return stream.body
    if isinstance(stream, httpx.AsyncByteStream):
        return AsyncBufferedBody(stream)
    raise RuntimeError("Attempted to send an sync request with an AsyncClient instance.")


def attach(plane: DataPlane, client: C) -> C:
    """Let the calls of an existing client go through the mesh; its own transport serves what stays outside.

    Raises:
        TypeError: if it is no httpx client, or one whose transport cannot be replaced.
    """
    own: Any = getattr(client, "_transport", None)
    # httpx has no public way to exchange the transport of a client that exists; a version in which this attribute has
    # another meaning is refused below.
    if isinstance(client, httpx.Client):
        if isinstance(own, httpx.BaseTransport):
            if not isinstance(own, MeshTransport):
                client._transport = MeshTransport(plane, stock=own)
            elif own._plane is not plane:  # it changes over to this mesh, and keeps what served the outside
                client._transport = MeshTransport(plane, stock=own._given)
            return client
    elif isinstance(own, httpx.AsyncBaseTransport):
        if not isinstance(own, AsyncMeshTransport):
            client._transport = AsyncMeshTransport(plane, stock=own)
        elif own._plane is not plane:
            client._transport = AsyncMeshTransport(plane, stock=own._given)
        return client
    raise TypeError(f"an httpx.Client or httpx.AsyncClient is expected, not {type(client).__name__}")
