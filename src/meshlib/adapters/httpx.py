"""httpx: transports that make meshed calls. The clients that use them are in `httpx_clients`.

A transport sees one request at a time, below redirects, authentication, cookies and event hooks, which stay httpx's.
Hosts outside the mesh, and calls with ``mode: off``, go through httpx's own transport unchanged.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import httpx

from meshlib.adapters import async_driver, sync_driver
from meshlib.adapters.body import AsyncBufferedBody, BufferedBody
from meshlib.adapters.exchange import NO_CAPS, Exchange, PhaseCaps
from meshlib.adapters.httpx_errors import as_httpx, from_httpx
from meshlib.adapters.httpx_streams import AsyncResponseStream, FileStream, SyncResponseStream
from meshlib.adapters.observe import Shadow
from meshlib.adapters.options import EXTENSION, NO_OPTIONS, CallOptions
from meshlib.adapters.plane import DEFAULT_PORTS, DataPlane, RequestFacts
from meshlib.config.settings import Mode
from meshlib.context import current_scope
from meshlib.errors import DeadlineExceeded, EgressRefused, MeshError, Reset, UnknownService
from meshlib.net.wire import AsyncWire, AsyncWireResponse, SyncWire, SyncWireResponse

__all__ = ["AsyncMeshTransport", "MeshTransport", "attach"]

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

_log = logging.getLogger("meshlib")

_NO_TIMEOUTS = httpx.Timeout(None).as_dict()
"""What httpx tells a transport where no timeout is set."""

_PHASES = tuple(_NO_TIMEOUTS)

NO_PLAIN_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class _Core:
    """What the sync and the async transport share: which way a request goes, and the call that is made of it."""

    def __init__(self, plane: DataPlane, service: str | None, plain_timeout_s: float | None) -> None:
        self._plane = plane
        self._host = None if service is None else service.lower()
        self._service = None if service is None else plane.locate(service, None) or service.lower()
        self._plain_timeout_s = plain_timeout_s

    def _locate(self, request: httpx.Request) -> tuple[str | None, Mode]:
        """The service that the request is for, and what to do with it; None is a host outside the mesh."""
        url = request.url
        host = url.raw_host.decode("ascii")
        service = self._service
        if service is None or host.lower() != self._host:
            service = self._plane.locate(host, url.port or DEFAULT_PORTS.get(url.scheme))
        if service is not None:
            return service, self._plane.mode_of(service)
        if self._plane.mode == "on" and self._plane.settings.egress == "refuse":
            text = f"{host} is outside the mesh, and the configuration says `egress: refuse`; name it under `services`"
            raise as_httpx(EgressRefused(text), request)
        return None, self._plane.mode

    def _exchange(self, service: str, request: httpx.Request, body: Any, *, observe: bool = False) -> Exchange:
        plane, url = self._plane, request.url
        options = request.extensions.get(EXTENSION, NO_OPTIONS)
        if not isinstance(options, CallOptions):
            options = NO_OPTIONS
        raw_path = url.raw_path
        path, _, query = raw_path.partition(b"?")
        facts = RequestFacts(
            method=request.method,
            scheme=url.scheme,
            host=url.raw_host.decode("ascii"),
            port=url.port,
            path=path.decode("ascii"),
            query=query.decode("ascii"),
            headers=request.headers,
        )
        caps, timeout = NO_CAPS, request.extensions.get("timeout")
        if timeout is not None and timeout != _NO_TIMEOUTS:
            caps = PhaseCaps(timeout.get("connect"), timeout.get("read"), timeout.get("write"), timeout.get("pool"))
        try:
            view = plane.service(service)
        except MeshError as error:
            raise as_httpx(error, request) from error.__cause__
        call = plane.call(view, plane.route(view, facts), facts, options, observe=observe)
        return Exchange(
            plane,
            call,
            method=request.method.encode("ascii"),
            target=request.extensions.get("target", raw_path),
            headers=request.headers.raw,
            body=body,
            caps=caps,
            secure=url.scheme == "https",
            server_name=request.extensions.get("sni_hostname"),
            preview=lambda status, headers: httpx.Response(status, headers=headers, request=request),
            url=url,
        )

    def _failed(self, error: MeshError, service: str, request: httpx.Request) -> MeshError | None:
        """What to raise; None where the request is to go outside the mesh after all."""
        if isinstance(error, UnknownService) and self._is_outside(service):
            if self._plane.settings.egress == "refuse":
                text = f"no discovery source knows {service}, and the configuration says `egress: refuse`"
                refused = EgressRefused(text, service=service, record=error.record)
                return as_httpx(refused, request)
            return None
        return as_httpx(error, request)

    def _plainly(self, request: httpx.Request) -> httpx.Request:
        """The request with the timeouts that a plain client would have: the mesh's do not bound it outside."""
        options, limit_s = request.extensions.get(EXTENSION), self._plain_timeout_s
        if isinstance(options, CallOptions):
            given = [each for each in (options.timeout_s, options.plain_timeout_s) if each is not None]
            limit_s = min(given, default=limit_s)
        if limit_s is not None and not any((request.extensions.get("timeout") or {}).values()) and limit_s < math.inf:
            request.extensions["timeout"] = httpx.Timeout(limit_s).as_dict()
        deadline = current_scope().deadline
        if deadline is not None and self._plane.mode == "on":
            self._bound(request, deadline - self._plane.clock.now())
        return request

    def _bound(self, request: httpx.Request, left_s: float) -> None:
        """Let no phase of a request outside the mesh go on beyond a deadline that was set or inherited.

        Raises:
            DeadlineExceeded: if it has passed.
        """
        if left_s <= 0:
            text = f"the deadline had passed before the request to {request.url.host} began"
            raise as_httpx(DeadlineExceeded(text, limit="deadline"), request)
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            phase: left_s if given.get(phase) is None else min(given[phase], left_s) for phase in _PHASES
        }

    def _shadow(self, service: str, request: httpx.Request) -> Shadow | None:
        """What would have been done; None where that cannot be told, which must not disturb the call."""
        try:
            return Shadow(self._exchange(service, request, b"", observe=True))
        except Exception as error:
            _log.warning("a call to %s was not observed: %s", service, error, exc_info=not isinstance(error, MeshError))
            return None

    def _is_outside(self, service: str) -> bool:
        """Whether a name that no source knows may be a host outside the mesh: nobody called it a service."""
        return service != self._service and service not in self._plane.settings.services


def _delivered(exchange: Exchange, response: SyncWireResponse | AsyncWireResponse, stream: Any) -> httpx.Response:
    """The response as httpx has it, with the route's edits, and the call for whoever asks for its record."""
    return httpx.Response(
        response.status,
        headers=exchange.edited(response.headers),
        stream=stream,
        extensions={**response.extensions, EXTENSION: exchange},
    )


def _failed_outside(shadow: Shadow, error: BaseException) -> None:
    """Tell an observed call that what was done in its place failed."""
    if isinstance(error, httpx.HTTPError):
        connecting = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        shadow.failed(from_httpx(error, ""), "connect" if connecting else "headers")
    elif isinstance(error, Exception):
        shadow.failed(Reset(str(error) or type(error).__name__), "headers")
    else:
        shadow.cancelled()


class MeshTransport(_Core, httpx.BaseTransport):
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
        return _delivered(exchange, response, stream)

    def _observe(self, service: str, request: httpx.Request) -> httpx.Response:
        shadow = self._shadow(service, request)
        if shadow is None:
            return self._outside(request)
        try:
            response = self._outside(request)
        except BaseException as error:
            _failed_outside(shadow, error)
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


class AsyncMeshTransport(_Core, httpx.AsyncBaseTransport):
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
        return _delivered(exchange, response, stream)

    async def _observe(self, service: str, request: httpx.Request) -> httpx.Response:
        shadow = self._shadow(service, request)
        if shadow is None:
            return await self._outside(request)
        try:
            response = await self._outside(request)
        except BaseException as error:
            _failed_outside(shadow, error)
            raise
        shadow.answered(response.status_code, response.headers.get("retry-after"))
        response.extensions[EXTENSION] = shadow.exchange
        return response

    async def _outside(self, request: httpx.Request) -> httpx.Response:
        stock = self._given
        if stock is None:
            loop = get_running_loop()
            stock = self._stock.get(loop)
            if stock is None:
                stock = self._stock[loop] = httpx.AsyncHTTPTransport(**self._plain_options)
        return await stock.handle_async_request(self._plainly(request))

    async def aclose(self) -> None:
        """Close what goes outside the mesh. The pools belong to the mesh and stay open."""
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
