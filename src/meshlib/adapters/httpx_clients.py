"""httpx clients of the mesh: they know more of each request than a transport is told, and pass it on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx

from meshlib.adapters.body import FileBody
from meshlib.adapters.httpx import AsyncMeshTransport, MeshTransport
from meshlib.adapters.httpx_streams import FileStream
from meshlib.adapters.httpx_wire import AsyncTransportWire, SyncTransportWire
from meshlib.adapters.options import EXTENSION, NO_OPTIONS, CallOptions
from meshlib.adapters.plane import DataPlane
from meshlib.dataclass import replace
from meshlib.durations import parse_duration

__all__ = ["AsyncMeshClient", "MeshClient", "make_async_client", "make_client"]

_HTTPX_TIMEOUT_S = 5.0
"""What an httpx client has for each phase unless told otherwise: what holds where the mesh does not."""

_ABOUT_CONNECTIONS = ("verify", "cert", "http1", "http2", "limits", "proxy")

_COMPLETE = replace(NO_OPTIONS, complete_body=True)


def make_client(
    plane: DataPlane, service: str | None, options: dict[str, Any], *, stock: httpx.BaseTransport | None = None
) -> MeshClient:
    """A client; see `meshlib.Mesh.client`. `stock` serves what goes outside the mesh."""
    transport = options.pop("transport", None)
    wire = None if transport is None else SyncTransportWire(transport, plane.clock.now, logical=False)
    plain_s = None if "timeout" in options else _HTTPX_TIMEOUT_S
    through = MeshTransport(
        plane, service=service, wire=wire, stock=stock, plain_timeout_s=plain_s, plain_options=_plain(options)
    )
    return MeshClient(transport=through, **_defaults(service, options))


def make_async_client(
    plane: DataPlane, service: str | None, options: dict[str, Any], *, stock: httpx.AsyncBaseTransport | None = None
) -> AsyncMeshClient:
    """A client; see `meshlib.Mesh.async_client`. `stock` serves what goes outside the mesh."""
    transport = options.pop("transport", None)
    wire = None if transport is None else AsyncTransportWire(transport, plane.clock.now, logical=False)
    plain_s = None if "timeout" in options else _HTTPX_TIMEOUT_S
    through = AsyncMeshTransport(
        plane, service=service, wire=wire, stock=stock, plain_timeout_s=plain_s, plain_options=_plain(options)
    )
    return AsyncMeshClient(transport=through, **_defaults(service, options))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of a client's options those that are about connections: they hold for hosts outside the mesh."""
    return {name: options.pop(name) for name in _ABOUT_CONNECTIONS if name in options}


def _defaults(service: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the client: the mesh's own timeouts hold, unless others are given."""
    timeout = options.pop("timeout", None)
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
        options["total_s"] = _total(timeout)
        timeout = None
    options["timeout"] = timeout
    if service is not None:
        _check_name(service)
        base = httpx.URL(options.get("base_url", ""))
        if base.is_relative_url:
            options["base_url"] = httpx.URL(f"http://{service}").join(base)
    return options


def _total(timeout: float) -> float | None:
    """A number given as ``timeout``, as a total; infinity is none.

    Raises:
        ValueError: if it is negative, or no number.
    """
    return None if timeout == math.inf else parse_duration(timeout)


def _check_name(service: str) -> None:
    host, _, port = service.partition(":")
    try:
        fits = bool(host) and httpx.URL(f"http://{service}").host == host.lower() and (port.isdigit() or not port)
    except httpx.InvalidURL:
        fits = False
    if not fits:
        raise ValueError(f"{service!r} is not the name of a service; a client takes one such as 'orders', or none")


class _Cookies(httpx.Cookies):
    """Cookies that are looked for only in responses that set some.

    To look, httpx makes a request and a message of the standard library of each response, which costs more than all of
    the mesh's policy.
    """

    def extract_cookies(self, response: httpx.Response) -> None:
        if "set-cookie" in response.headers:
            super().extract_cookies(response)


class _Requests:
    """How the mesh's own clients build requests: what they know of each they tell the transport."""

    _total_s: float | None = None
    _kept: _Cookies

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of the client, sent with each request."""
        return self._kept

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._kept = _Cookies(cookies)

    def _told(self, build: Callable[..., httpx.Request], args: Any, kwargs: dict[str, Any]) -> httpx.Request:
        timeout = kwargs.get("timeout", httpx.USE_CLIENT_DEFAULT)
        total_s, plain_s = self._total_s, None
        if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
            total_s = _total(timeout)
            kwargs["timeout"] = None
        elif timeout is not httpx.USE_CLIENT_DEFAULT:
            total_s, plain_s = None, math.inf
        request = build(*args, **kwargs)
        if total_s is not None or plain_s is not None:
            options = _options(request)
            given = [each for each in (total_s, options.timeout_s) if each is not None]
            least_s = min(given, default=None)
            request.extensions[EXTENSION] = replace(options, timeout_s=least_s, plain_timeout_s=plain_s)
        content = kwargs.get("content")
        if content is not None and not isinstance(content, (str, bytes)):
            _keep_file(request, content)
        return request


def _options(request: httpx.Request) -> CallOptions:
    options = request.extensions.get(EXTENSION, NO_OPTIONS)
    return options if isinstance(options, CallOptions) else NO_OPTIONS


def _completing(options: CallOptions, complete_body: bool) -> CallOptions:
    """The options, with whether the whole body is wanted; most calls have no others."""
    if options is NO_OPTIONS:
        return _COMPLETE if complete_body else NO_OPTIONS
    return replace(options, complete_body=complete_body)


def _keep_file(request: httpx.Request, content: Any) -> None:
    """A file can be sent again from where it stood. (httpx sends what is left of it, but announces all of it.)"""
    if not all(hasattr(content, name) for name in ("read", "seek", "tell")):
        return
    if not getattr(content, "seekable", lambda: True)():
        return
    offset = content.tell()
    if offset and "content-length" in request.headers:
        left = int(request.headers["content-length"]) - offset
        request.headers["content-length"] = str(max(0, left))
    request.stream = FileStream(FileBody(content))


class MeshClient(_Requests, httpx.Client):
    """An `httpx.Client` whose calls go through the mesh. Closing it closes no pool."""

    def __init__(self, *, total_s: float | None = None, **kwargs: Any) -> None:
        self._total_s = total_s
        super().__init__(**kwargs)
        self.cookies = kwargs.get("cookies")

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """Build a request as httpx does; a number given as ``timeout`` is the call's total."""
        return self._told(super().build_request, args, kwargs)

    def send(self, request: httpx.Request, *, stream: bool = False, **kwargs: Any) -> httpx.Response:
        """Send a request as httpx does; unless streamed, the call succeeds only when its body is there."""
        request.extensions[EXTENSION] = _completing(_options(request), not stream)
        return super().send(request, stream=stream, **kwargs)


class AsyncMeshClient(_Requests, httpx.AsyncClient):
    """An `httpx.AsyncClient` whose calls go through the mesh. Closing it closes no pool."""

    def __init__(self, *, total_s: float | None = None, **kwargs: Any) -> None:
        self._total_s = total_s
        super().__init__(**kwargs)
        self.cookies = kwargs.get("cookies")

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """Build a request as httpx does; a number given as ``timeout`` is the call's total."""
        return self._told(super().build_request, args, kwargs)

    async def send(self, request: httpx.Request, *, stream: bool = False, **kwargs: Any) -> httpx.Response:
        """Send a request as httpx does; unless streamed, the call succeeds only when its body is there."""
        request.extensions[EXTENSION] = _completing(_options(request), not stream)
        return await super().send(request, stream=stream, **kwargs)
