"""aiohttp: a client middleware that makes meshed calls, and sessions that have it.

A middleware sees one request at a time, below redirects, cookies, authentication and traces, which stay those of
aiohttp. Hosts outside the mesh, websockets, and calls with ``mode: off`` go through the session's own connector
unchanged.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

try:
    import aiohttp
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, ClientTimeout
except ImportError as error:
    text = 'this adapter needs aiohttp, 3.12.15 or later: pip install "meshlib-http[aiohttp]"'
    raise ImportError(text, name="aiohttp") from error
from aiohttp.client import DEFAULT_TIMEOUT
from yarl import URL

from meshlib.adapters import async_driver
from meshlib.adapters.aiohttp_body import body_of
from meshlib.adapters.aiohttp_errors import as_aiohttp, from_aiohttp
from meshlib.adapters.aiohttp_response import response_of
from meshlib.adapters.aiohttp_stock import StockWire, delivered
from meshlib.adapters.attach import plane_of
from meshlib.adapters.exchange import NO_CAPS, Exchange, PhaseCaps
from meshlib.adapters.options import EXTENSION, NO_OPTIONS
from meshlib.adapters.plane import DataPlane, RequestFacts
from meshlib.adapters.ways import Ways, base_of
from meshlib.errors import DeadlineExceeded, MeshError
from meshlib.net.wire import AsyncWire, Headers
from meshlib.policy.retry import IDEMPOTENT_METHODS
from meshlib.routing.fields import HeaderFields

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["MeshMiddleware", "attach", "middleware", "session"]

_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})
_SLACK = 0.1
_SLACK_S = 0.02
"""So much earlier than aiohttp's own timer, which only knows that the time is up, the mesh says why."""

_failed: ContextVar[tuple[object, MeshError] | None] = ContextVar("meshlib.aiohttp.failed", default=None)


def middleware(mesh: Mesh) -> MeshMiddleware:
    """Make a client middleware for a session of one's own: ``aiohttp.ClientSession(middlewares=[middleware(mesh)])``.

    Args:
        mesh: a `meshlib.Mesh`.
    """
    return MeshMiddleware(plane_of(mesh))


def session(mesh: Mesh, service: str | None = None, **options: Any) -> ClientSession:
    """An `aiohttp.ClientSession` whose calls go through the mesh. It belongs to the running loop, as any of aiohttp's.

    Args:
        mesh: a `meshlib.Mesh`.
        service: to which relative URLs go, as in ``session(mesh, "orders").get("/orders/42")``; None for none.
        options: those of `aiohttp.ClientSession`. What they say of connections (``connector``, and its TLS and limits)
            holds for hosts outside the mesh.

    Raises:
        TypeError: if `mesh` is no mesh, or `service` no text.
        ValueError: if `service` cannot be a name.
    """
    plane, host = plane_of(mesh), None
    if service is not None:
        base, host = base_of(service)
        options["base_url"] = URL(base).join(URL(options.get("base_url") or ""))
    through = MeshMiddleware(plane, host)
    return ClientSession(**{**options, "middlewares": (*options.get("middlewares", ()), through)})


def attach(plane: DataPlane, client: ClientSession) -> None:
    """Let the calls of an existing session go through the mesh, behind its own middlewares.

    Raises:
        TypeError: if it is no session, or one whose middlewares cannot be added to.
    """
    if not isinstance(client, ClientSession):
        raise TypeError(f"an aiohttp.ClientSession is expected, not {type(client).__name__}")
    # aiohttp has no public way to give a session that exists another middleware; a version in which this attribute has
    # another meaning is refused.
    own = getattr(client, "_middlewares", None)
    if not isinstance(own, (list, tuple)):
        raise TypeError(
            "the installed aiohttp lets nobody add to a session that exists: make it with "
            "aiohttp.ClientSession(middlewares=[meshlib.adapters.aiohttp.middleware(mesh)])"
        )
    others = [each for each in own if not isinstance(each, MeshMiddleware)]
    service = next((each.service for each in own if isinstance(each, MeshMiddleware)), None)
    client._middlewares = (*others, MeshMiddleware(plane, service))


class MeshMiddleware:
    """A client middleware of aiohttp that sends requests for services through the mesh.

    Args:
        plane: the mesh's data plane.
        service: a name that is a service of the mesh whatever its form.

    Attributes:
        service: it.
    """

    def __init__(self, plane: DataPlane, service: str | None = None) -> None:
        self.service = service
        self._ways = Ways(plane, service)
        self._wire = plane.async_wire
        self._stock = plane.stock is not None
        self._elsewhere = None if plane.outside is None else plane.outside("aiohttp")

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Make the call.

        Raises:
            MeshError: which is an exception of aiohttp too.
        """
        url, ways = request.url, self._ways
        host = url.raw_host or ""
        try:
            service, mode = ways.of(host, url.explicit_port, url.scheme)
        except MeshError as error:
            raise as_aiohttp(error, request) from None
        if service is None or mode == "off" or "Upgrade" in request.headers:
            return await self._outside(request, handler, host)
        if mode == "observe":
            return await self._observe(service, request, handler, host)
        _raise_again(request)
        timeout, decompress = _asked(handler, request)
        try:
            body = request.body
            if type(body) is not bytes:
                body = await body_of(request)
            exchange = self._exchange(service, request, body, timeout)
            wire: AsyncWire = self._wire
            if self._stock:
                wire = StockWire(request, handler, ways.plane.clock.now)
            response, content = await async_driver.drive(exchange, wire)
        except MeshError as error:
            failed = ways.failed(error, service)
            if failed is None:
                return await self._outside(request, handler, host)
            failed = as_aiohttp(failed, request)
            _note(request, failed)
            try:
                raise failed from error.__cause__
            finally:
                failed = None  # its own frame would hold it
        made = delivered(exchange, response) if self._stock else None
        return made or await response_of(request, exchange, response, content, decompress)

    def _exchange(
        self, service: str, request: ClientRequest, body: Any, timeout: ClientTimeout | None, *, observe: bool = False
    ) -> Exchange:
        plane, url, method = self._ways.plane, request.url, request.method
        scheme, headers = url.scheme, _headers(request)
        total_s, caps = (None, NO_CAPS) if timeout is None else _limits(timeout)
        # By position, which costs less.
        facts = RequestFacts(
            method,
            scheme,
            url.raw_host or "",
            url.explicit_port,
            url.raw_path,
            url.raw_query_string,
            HeaderFields(headers),
            True,
            total_s,
        )
        view = plane.service(service)
        call = plane.call(view, plane.route(view, facts), facts, NO_OPTIONS, observe=observe)
        target, secure = url.raw_path_qs.encode("ascii"), scheme == "https"
        server_name = request.server_hostname
        return Exchange(plane, call, method.encode("ascii"), target, headers, body, caps, secure, server_name, _Preview)

    async def _observe(
        self, service: str, request: ClientRequest, handler: ClientHandlerType, host: str
    ) -> ClientResponse:
        timeout, _ = _asked(handler, request)
        shadow = self._ways.shadow(service, lambda: self._exchange(service, request, b"", timeout, observe=True))
        if shadow is None:
            return await self._outside(request, handler, host)
        try:
            response: Any = await self._outside(request, handler, host)
        except BaseException as error:
            meant = from_aiohttp(error, "") if isinstance(error, aiohttp.ClientError) else None
            shadow.raised(error, meant)
            raise
        shadow.answered(response.status, response.headers.get("retry-after"))
        response.extensions = {EXTENSION: shadow.exchange}
        made: ClientResponse = response
        return made

    async def _outside(self, request: ClientRequest, handler: ClientHandlerType, host: str) -> ClientResponse:
        try:
            left_s = self._ways.left_s(host)
        except MeshError as error:
            raise as_aiohttp(error, request) from None
        withheld = self._ways.withheld
        if withheld is not None:
            request.headers.popall(withheld, None)  # what holds here is nobody else's business
        if self._elsewhere is not None:
            handler = partial(self._elsewhere, handler)
        if left_s is None:
            return await handler(request)
        try:
            async with asyncio.timeout(left_s) as limit:
                return await handler(request)
        except TimeoutError:
            if not limit.expired():
                raise
        text = f"the deadline passed before {host} answered"
        raise as_aiohttp(DeadlineExceeded(text, limit="deadline", phase="headers"), request)


class _Preview:
    """What a tenacity ``retry`` object sees of a response: `status` and `headers`, as aiohttp's has them."""

    def __init__(self, status: int, headers: Headers) -> None:
        from multidict import CIMultiDict, CIMultiDictProxy

        self.status = status
        pairs = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in headers]
        self.headers = CIMultiDictProxy(CIMultiDict(pairs))


def _headers(request: ClientRequest) -> Headers:
    """The headers that go out: those of aiohttp, and what it adds when it writes them.

    Raises:
        TypeError: if a value is no text, as with aiohttp.
    """
    known = _names.get
    try:
        fields = [(known(name) or _name(name), value.encode("utf-8")) for name, value in request.headers.items()]
    except AttributeError:
        wrong = next(name for name, value in request.headers.items() if not hasattr(value, "encode"))
        raise TypeError(f"the value of the header {wrong} is to be text") from None
    if request.method in _WITH_BODY and "Content-Type" not in request.headers:
        skipped = request.skip_auto_headers
        if "Content-Type" not in skipped:
            fields.append((b"Content-Type", b"application/octet-stream"))
    if request.chunked and "Transfer-Encoding" not in request.headers:
        fields.append((b"Transfer-Encoding", b"chunked"))
    return fields


_names: dict[str, bytes] = {}
_MAX_KNOWN = 1024
_MAX_KNOWN_BYTES = 64


def _name(name: str) -> bytes:
    """A name that was not met before, remembered within bounds: requests have the headers of those before them."""
    raw = name.encode("ascii")
    if len(_names) < _MAX_KNOWN and len(raw) <= _MAX_KNOWN_BYTES:
        _names[name] = raw
    return raw


_PLACES: dict[CodeType, tuple[int, int] | None] = {}


def _asked(handler: ClientHandlerType, request: ClientRequest) -> tuple[ClientTimeout | None, bool]:
    """The timeouts of one request, None for aiohttp's own defaults; and whether its body is to be decoded.

    A middleware is not told what was given for one request. Where it is the innermost, aiohttp's own function comes
    next, which knows; else what the session says holds.
    """
    code = getattr(handler, "__code__", None)
    if code is not None:
        try:
            places = _PLACES[code]
        except KeyError:
            names = code.co_freevars
            known = "real_timeout" in names and "auto_decompress" in names
            places = _PLACES[code] = (names.index("real_timeout"), names.index("auto_decompress")) if known else None
        if places is not None:
            cells: Any = getattr(handler, "__closure__", ())
            timeout = cells[places[0]].cell_contents
            return None if timeout is DEFAULT_TIMEOUT else timeout, cells[places[1]].cell_contents
    timeout = request.session.timeout
    return None if timeout is DEFAULT_TIMEOUT else timeout, request.session.auto_decompress


def _limits(timeout: ClientTimeout) -> tuple[float | None, PhaseCaps]:
    """The call's total, and what limits each attempt."""
    total_s = timeout.total if timeout.total and timeout.total > 0 else None  # to aiohttp what is below 0 is none, too
    if total_s is not None:
        total_s -= min(_SLACK * total_s, _SLACK_S)
    connect_s = [each for each in (timeout.connect, timeout.sock_connect) if each]
    caps = PhaseCaps(min(connect_s, default=None), timeout.sock_read or None, None, timeout.connect or None)
    return total_s, caps


def _note(request: ClientRequest, error: Any) -> None:
    """Note an error that aiohttp takes for that of a stale connection: it would send the request once more."""
    if isinstance(error, aiohttp.ServerDisconnectedError) and request.method in IDEMPOTENT_METHODS:
        kept: Any = error  # which is a MeshError as well
        _failed.set((getattr(request, "_timer", None), kept.without_frames()))


def _raise_again(request: ClientRequest) -> None:
    """Fail as before, if aiohttp sends a request once more of which the mesh has said that it failed."""
    noted = _failed.get()
    if noted is not None:
        _failed.set(None)
        timer, error = noted
        if timer is not None and timer is getattr(request, "_timer", None):
            try:
                raise error
            finally:
                del error, noted  # its own frame would hold it
