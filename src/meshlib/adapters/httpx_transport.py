"""Transports that make meshed calls; `meshlib.adapters.httpx` and `httpx2` make them those of their library.

A transport sees one request at a time, below redirects, authentication, cookies and event hooks, which stay the
library's. Hosts outside the mesh, and calls with ``mode: off``, go through the library's own transport unchanged.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from meshlib.adapters import async_driver, sync_driver
from meshlib.adapters.body import AsyncBufferedBody, BufferedBody
from meshlib.adapters.httpx_core import (
    NO_PLAIN_OPTIONS,
    OUTSIDE,
    Core,
    again,
    delivered,
    hand_over,
    handed_over,
)
from meshlib.adapters.httpx_lean import LeanCall
from meshlib.adapters.httpx_lean_response import LeanResponse, to_be_replayed
from meshlib.adapters.httpx_streams import FileStream
from meshlib.adapters.httpx_wire import stock_wires
from meshlib.adapters.options import EXTENSION
from meshlib.adapters.plane import DataPlane
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWire, SyncWire

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    import httpx

__all__ = ["AsyncTransport", "SyncTransport", "attach_client"]


class SyncTransport(Core):
    """The transport of a client whose calls go through the mesh.

    Args:
        plane: the mesh's data plane.
        service: a name that is a service of the mesh whatever its form.
        wire: the last hop; None for the mesh's own.
        stock: for what goes outside the mesh; None for a plain ``HTTPTransport``.
        plain_timeout_s: of each phase of what goes outside the mesh, unless the request says otherwise; None for none.
        plain_options: of the ``HTTPTransport`` for what goes outside the mesh.
        trusts_env: whether that goes through the proxies of the environment.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        service: str | None = None,
        wire: SyncWire | None = None,
        stock: Any = None,
        plain_timeout_s: float | None = None,
        plain_options: Mapping[str, Any] = NO_PLAIN_OPTIONS,
        trusts_env: bool = False,
    ) -> None:
        super().__init__(plane, service, plain_timeout_s, trusts_env)
        self._plain_options = plain_options
        if wire is None:
            wire = plane.sync_wire if plane.stock is None else stock_wires(self.library, plane, plane.stock)[0]
        self._wire = wire
        if stock is None and plane.outside is not None:
            stock = plane.outside(self.library)[0]
        self._given = stock
        self._stocks: dict[str | None, Any] = {}  # by proxy
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
        exchange = self._exchange(service, request, self._body(request))
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
            stream: Any = self.library.sync_stream(exchange, request, response)
        else:
            stream = self.library.httpx.ByteStream(body)
        return delivered(self.library, exchange, response, stream)

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
            stream = self.library.sync_stream(exchange, call.request, response)
            try:
                body = b"".join(stream)
            finally:
                stream.close()
        elapsed_s = perf_counter() - began_s
        headers = exchange.edited(response.headers)
        if to_be_replayed(response.status, headers):
            hand_over(call.request, again(self.library, exchange, response, headers, body, elapsed_s))
            return None
        extensions = response.extensions
        return self.library.response(call, exchange, response.status, headers, body, extensions, elapsed_s)

    def _body(self, request: httpx.Request) -> Any:
        stream, httpx = request.stream, self.library.httpx
        if isinstance(stream, httpx.ByteStream):
            return b"".join(stream)
        if isinstance(stream, FileStream):
            return stream.body
        if isinstance(stream, httpx.SyncByteStream):
            return BufferedBody(stream)
        raise RuntimeError("Attempted to send an async request with a sync Client instance.")

    def _observe(self, service: str, request: httpx.Request) -> httpx.Response:
        shadow = self._shadow(service, request)
        if shadow is None:
            return self._outside(request)
        try:
            response = self._outside(request)
        except BaseException as error:
            shadow.raised(error, self._meant(error))
            raise
        shadow.answered(response.status_code, response.headers.get("retry-after"))
        response.extensions[EXTENSION] = shadow.exchange
        return response

    def _stock_here(self, proxy: str | None = None) -> Any:
        stock = self._given
        if stock is None:
            stock = self._stocks.get(proxy)
            if stock is None or self._pid != os.getpid():
                stock = self._open(proxy)
        return stock

    def _outside(self, request: httpx.Request) -> httpx.Response:
        stock = self._stock_here(self._proxy_of(request) if self._trusts_env else None)
        response: httpx.Response = stock.handle_request(self._plainly(request))
        return response

    def _open(self, proxy: str | None) -> httpx.BaseTransport:
        pid = os.getpid()
        if self._pid != pid:
            # The connections of a forked parent are the parent's; nor can its lock be trusted.
            self._lock, self._stocks, self._pid = threading.Lock(), {}, pid
        with self._lock:
            stock: httpx.BaseTransport | None = self._stocks.get(proxy)
            if stock is None:
                stock = self.library.httpx.HTTPTransport(**_through(proxy, self._plain_options))
                self._stocks[proxy] = stock
            return stock

    def close(self) -> None:
        """Close what goes outside the mesh. The pools belong to the mesh and stay open."""
        if self._given is not None:
            self._given.close()
        while self._stocks:
            self._stocks.popitem()[1].close()


class AsyncTransport(Core):
    """The transport of a client whose calls go through the mesh; see `SyncTransport`."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        service: str | None = None,
        wire: AsyncWire | None = None,
        stock: Any = None,
        plain_timeout_s: float | None = None,
        plain_options: Mapping[str, Any] = NO_PLAIN_OPTIONS,
        trusts_env: bool = False,
    ) -> None:
        super().__init__(plane, service, plain_timeout_s, trusts_env)
        self._plain_options = plain_options
        if wire is None:
            wire = plane.async_wire if plane.stock is None else stock_wires(self.library, plane, plane.stock)[1]
        self._wire = wire
        if stock is None and plane.outside is not None:
            stock = plane.outside(self.library)[1]
        self._given = stock
        # httpx's own connections belong to the loop that made them.
        self._stocks: weakref.WeakKeyDictionary[AbstractEventLoop, dict[str | None, Any]] = weakref.WeakKeyDictionary()

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
        exchange = self._exchange(service, request, self._body(request))
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
            stream: Any = self.library.async_stream(exchange, request, response)
        else:
            stream = self.library.httpx.ByteStream(body)
        return delivered(self.library, exchange, response, stream)

    async def call(self, call: LeanCall) -> LeanResponse | None:
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
            stream = self.library.async_stream(exchange, call.request, response)
            try:
                body = b"".join([chunk async for chunk in stream])
            finally:
                await stream.aclose()
        elapsed_s = perf_counter() - began_s
        headers = exchange.edited(response.headers)
        if to_be_replayed(response.status, headers):
            hand_over(call.request, again(self.library, exchange, response, headers, body, elapsed_s))
            return None
        extensions = response.extensions
        return self.library.async_response(call, exchange, response.status, headers, body, extensions, elapsed_s)

    def _body(self, request: httpx.Request) -> Any:
        stream, httpx = request.stream, self.library.httpx
        if isinstance(stream, httpx.ByteStream):
            return b"".join(stream)
        if isinstance(stream, FileStream):
            return stream.body
        if isinstance(stream, httpx.AsyncByteStream):
            return AsyncBufferedBody(stream)
        raise RuntimeError("Attempted to send an sync request with an AsyncClient instance.")

    async def _observe(self, service: str, request: httpx.Request) -> httpx.Response:
        shadow = self._shadow(service, request)
        if shadow is None:
            return await self._outside(request)
        try:
            response = await self._outside(request)
        except BaseException as error:
            shadow.raised(error, self._meant(error))
            raise
        shadow.answered(response.status_code, response.headers.get("retry-after"))
        response.extensions[EXTENSION] = shadow.exchange
        return response

    def _stock_here(self, proxy: str | None = None) -> Any:
        stock = self._given
        if stock is None:
            from asyncio import get_running_loop

            stocks = self._stocks.setdefault(get_running_loop(), {})
            stock = stocks.get(proxy)
            if stock is None:
                options = _through(proxy, self._plain_options)
                stock = stocks[proxy] = self.library.httpx.AsyncHTTPTransport(**options)
        return stock

    async def _outside(self, request: httpx.Request) -> httpx.Response:
        stock = self._stock_here(self._proxy_of(request) if self._trusts_env else None)
        response: httpx.Response = await stock.handle_async_request(self._plainly(request))
        return response

    async def aclose(self) -> None:
        """Close what goes outside the mesh. The pools belong to the mesh and stay open."""
        from asyncio import get_running_loop

        if self._given is not None:
            await self._given.aclose()
        stocks = self._stocks.pop(get_running_loop(), {})
        while stocks:
            await stocks.popitem()[1].aclose()


def _through(proxy: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    return options if proxy is None else {**options, "proxy": proxy}


def attach_client(plane: DataPlane, client: Any, sync: type[Any], asynchronous: type[Any]) -> None:
    """Give an existing client a transport of the mesh; its own serves what stays outside.

    Args:
        plane: of the mesh.
        client: of the library whose transports these are.
        sync, asynchronous: the transports.

    Raises:
        TypeError: if it is no client of that library, or one whose transport cannot be replaced.
    """
    httpx = sync.library.httpx
    # There is no public way to exchange the transport of a client that exists; a version in which this attribute has
    # another meaning is refused below.
    own = getattr(client, "_transport", None)
    for kind, base, ours in (
        (httpx.Client, httpx.BaseTransport, sync),
        (httpx.AsyncClient, httpx.AsyncBaseTransport, asynchronous),
    ):
        if isinstance(client, kind) and isinstance(own, base):
            if plane.outside is not None and type(own) in (httpx.HTTPTransport, httpx.AsyncHTTPTransport):
                client._transport = ours(plane)
            elif not isinstance(own, ours):
                client._transport = ours(plane, stock=own)
            elif own._plane is not plane:  # it changes over to this mesh, and keeps what served the outside
                client._transport = ours(plane, stock=own._given)
            return
    name = httpx.__name__
    raise TypeError(f"an {name}.Client or {name}.AsyncClient is expected, not {type(client).__name__}")
