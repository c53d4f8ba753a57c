"""httpx clients of the mesh: they know more of each request than a transport is told, and pass it on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import httpx

from meshlib.adapters.body import FileBody
from meshlib.adapters.httpx import AsyncMeshTransport, MeshTransport
from meshlib.adapters.httpx_lean import LeanHeaders, log_call, supported
from meshlib.adapters.httpx_lean_client import COMPLETE, completing, functions, lean_call, lean_send, limited
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

_INNER = tuple(
    name
    for name in {*dir(httpx.Client), *dir(httpx.AsyncClient)}
    if not name.startswith("__")
    and name not in ("request", "get", "options", "head", "post", "put", "patch", "delete", "stream", "close", "aclose")
)
"""All that a subclass may have changed so that only httpx's own way does what it wants."""


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
    the mesh's policy. To tell that there are none, it walks through its jar.
    """

    def __bool__(self) -> bool:
        kept = getattr(self.jar, "_cookies", None)  # of the standard library, by domain
        return super().__bool__() if kept is None or kept else False

    def extract_cookies(self, response: httpx.Response) -> None:
        if "set-cookie" in response.headers:
            super().extract_cookies(response)


class _Requests:
    """How the mesh's own clients build requests: what they know of each they tell the transport."""

    _total_s: float | None = None
    _kept: _Cookies
    _unpatched: tuple[Any, ...]
    _lean_headers: LeanHeaders = LeanHeaders([])
    _opened = False

    def _prepare(
        self, own: type[httpx.Client | httpx.AsyncClient], total_s: float | None, given: dict[str, Any]
    ) -> None:
        """Note down what each call needs to know of how the client was made. `own` is which of the two below it is."""
        self._total_s = total_s
        self._complete = COMPLETE if total_s is None else replace(COMPLETE, timeout_s=total_s)
        self._text_encoding = given.get("default_encoding", "utf-8")
        cls = type(self)
        self._ordinary = all(getattr(cls, name) is getattr(own, name) for name in _INNER if hasattr(own, name))
        self.cookies = given.get("cookies")

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of the client, sent with each request."""
        return self._kept

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._kept = _Cookies(cookies)

    def _times(self, timeout: Any) -> tuple[float | None, float | None, Any]:
        """What ``timeout`` means: the call's total, the same where the mesh does not hold, and what httpx is told."""
        if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
            return _total(timeout), None, None
        if timeout is httpx.USE_CLIENT_DEFAULT:
            return self._total_s, None, timeout
        return None, math.inf, timeout

    def _told(self, build: Callable[..., httpx.Request], args: Any, kwargs: dict[str, Any]) -> httpx.Request:
        timeout = kwargs.get("timeout", httpx.USE_CLIENT_DEFAULT)
        total_s, plain_s, kwargs["timeout"] = self._times(timeout)
        request = build(*args, **kwargs)
        if total_s is not None or plain_s is not None:
            request.extensions[EXTENSION] = limited(_options(request), total_s, plain_s)
        content = kwargs.get("content")
        if content is not None and not isinstance(content, (str, bytes)):
            _keep_file(request, content)
        return request


def _options(request: httpx.Request) -> CallOptions:
    options = request.extensions.get(EXTENSION, NO_OPTIONS)
    return options if isinstance(options, CallOptions) else NO_OPTIONS


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

    _httpx: type[Any] = httpx.Client
    _handle = "handle_request"

    def __init__(self, *, total_s: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._prepare(MeshClient, total_s, kwargs)

    def __enter__(self) -> Self:
        super().__enter__()
        self._opened = supported()
        return self

    def request(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        content: Any = None,
        data: Any = None,
        files: Any = None,
        json: Any = None,
        params: Any = None,
        headers: Any = None,
        cookies: Any = None,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
        timeout: Any = httpx.USE_CLIENT_DEFAULT,
        extensions: Any = None,
    ) -> httpx.Response:
        """Make a call as httpx does, with less work where that makes no difference."""
        call = None
        if data is None and files is None and params is None and cookies is None and auth is httpx.USE_CLIENT_DEFAULT:
            call = lean_call(self, method, url, content, json, headers, timeout, extensions)
        if call is None:
            return super().request(
                method,
                url,
                content=content,
                data=data,
                files=files,
                json=json,
                params=params,
                headers=headers,
                cookies=cookies,
                auth=auth,
                follow_redirects=follow_redirects,
                timeout=timeout,
                extensions=extensions,
            )
        transport: Any = self._transport
        response: httpx.Response | None = transport.call(call)
        if response is None:
            return super().send(call.request, follow_redirects=follow_redirects)
        log_call(call, response)
        return response

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """Build a request as httpx does; a number given as ``timeout`` is the call's total."""
        return self._told(super().build_request, args, kwargs)

    def send(self, request: httpx.Request, *, stream: bool = False, **kwargs: Any) -> httpx.Response:
        """Send a request as httpx does; unless streamed, the call succeeds only when its body is there."""
        options = request.extensions[EXTENSION] = completing(_options(request), not stream)
        call = None
        if not stream:
            call = lean_send(self, request, options, kwargs.get("auth", httpx.USE_CLIENT_DEFAULT))
        if call is None:
            self._opened = supported()
            return super().send(request, stream=stream, **kwargs)
        transport: Any = self._transport
        response: httpx.Response | None = transport.call(call)
        if response is None:
            return super().send(request, **kwargs)
        log_call(call, response)
        return response


class AsyncMeshClient(_Requests, httpx.AsyncClient):
    """An `httpx.AsyncClient` whose calls go through the mesh. Closing it closes no pool."""

    _httpx: type[Any] = httpx.AsyncClient
    _handle = "handle_async_request"

    def __init__(self, *, total_s: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._prepare(AsyncMeshClient, total_s, kwargs)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._opened = supported()
        return self

    async def request(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        content: Any = None,
        data: Any = None,
        files: Any = None,
        json: Any = None,
        params: Any = None,
        headers: Any = None,
        cookies: Any = None,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
        timeout: Any = httpx.USE_CLIENT_DEFAULT,
        extensions: Any = None,
    ) -> httpx.Response:
        """Make a call as httpx does, with less work where that makes no difference."""
        call = None
        if data is None and files is None and params is None and cookies is None and auth is httpx.USE_CLIENT_DEFAULT:
            call = lean_call(self, method, url, content, json, headers, timeout, extensions)
        if call is None:
            return await super().request(
                method,
                url,
                content=content,
                data=data,
                files=files,
                json=json,
                params=params,
                headers=headers,
                cookies=cookies,
                auth=auth,
                follow_redirects=follow_redirects,
                timeout=timeout,
                extensions=extensions,
            )
        transport: Any = self._transport
        response: httpx.Response | None = await transport.call(call)
        if response is None:
            return await super().send(call.request, follow_redirects=follow_redirects)
        log_call(call, response)
        return response

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """Build a request as httpx does; a number given as ``timeout`` is the call's total."""
        return self._told(super().build_request, args, kwargs)

    async def send(self, request: httpx.Request, *, stream: bool = False, **kwargs: Any) -> httpx.Response:
        """Send a request as httpx does; unless streamed, the call succeeds only when its body is there."""
        options = request.extensions[EXTENSION] = completing(_options(request), not stream)
        call = None
        if not stream:
            call = lean_send(self, request, options, kwargs.get("auth", httpx.USE_CLIENT_DEFAULT))
        if call is None:
            self._opened = supported()
            return await super().send(request, stream=stream, **kwargs)
        transport: Any = self._transport
        response: httpx.Response | None = await transport.call(call)
        if response is None:
            return await super().send(request, **kwargs)
        log_call(call, response)
        return response


MeshClient._unpatched = functions(MeshClient, MeshTransport)
AsyncMeshClient._unpatched = functions(AsyncMeshClient, AsyncMeshTransport)
