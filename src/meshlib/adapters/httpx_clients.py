"""Clients of the mesh: they know more of each request than a transport is told, and pass it on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from meshlib.adapters.body import FileBody
from meshlib.adapters.httpx_lean import LeanHeaders, log_call
from meshlib.adapters.httpx_lean_client import COMPLETE, completing, functions, lean_call, lean_send, limited
from meshlib.adapters.httpx_library import Foreign
from meshlib.adapters.httpx_wire import AsyncTransportWire, SyncTransportWire
from meshlib.adapters.options import EXTENSION, NO_OPTIONS, CallOptions
from meshlib.adapters.plane import DataPlane
from meshlib.dataclass import replace
from meshlib.durations import parse_duration

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.httpx_library import Library

__all__ = ["AsyncClient", "Cookies", "SyncClient", "client_of", "make_client"]

C = TypeVar("C", bound="_Requests")
K = TypeVar("K")

_HTTPX_TIMEOUT_S = 5.0
"""What an httpx client has for each phase unless told otherwise: what holds where the mesh does not."""

_ABOUT_CONNECTIONS = ("verify", "cert", "http1", "http2", "limits", "proxy")

_PLAIN_NAMES = frozenset(
    ("request", "get", "options", "head", "post", "put", "patch", "delete", "query", "stream", "close", "aclose")
)


@cache
def _inner(library: Library) -> tuple[str, ...]:
    """All that a subclass may have changed so that only the library's own way does what it wants."""
    names = {*dir(library.httpx.Client), *dir(library.httpx.AsyncClient)}
    return tuple(name for name in names if not name.startswith("__") and name not in _PLAIN_NAMES)


class _Unset:
    """An argument that was not given, where the library's own sign for that is not known yet."""

    def __repr__(self) -> str:
        return "USE_CLIENT_DEFAULT"


_UNSET: Any = _Unset()


def make_client(cls: type[C], plane: DataPlane, service: str | None, options: dict[str, Any]) -> C:
    """A client of this class; see `meshlib.Mesh.client`."""
    transport = options.pop("transport", None)
    if service is not None:
        _check_name(cls.library.httpx, service)
    wire = None if transport is None else cls._wire(cls.library, transport, plane.clock.now, logical=False)
    plain_s = None if "timeout" in options else _HTTPX_TIMEOUT_S
    # As httpx: of the environment, unless a proxy or a transport is given.
    trusts = bool(options.get("trust_env", True)) and options.get("proxy") is None and transport is None
    through = cls._through(
        plane,
        service=service,
        wire=wire,
        plain_timeout_s=plain_s,
        plain_options=_plain(options),
        trusts_env=trusts,
    )
    return cls(transport=through, **_defaults(cls.library.httpx, service, options))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of a client's options those that are about connections: they hold for hosts outside the mesh."""
    return {name: options.pop(name) for name in _ABOUT_CONNECTIONS if name in options}


def _defaults(httpx: Any, service: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the client: the mesh's own timeouts hold, unless others are given."""
    timeout = options.pop("timeout", None)
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
        options["total_s"] = _total(timeout)
        timeout = None
    options["timeout"] = _phases(timeout)
    if service is not None:
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


def _phases(timeout: Any) -> Any:
    """What is no number, for httpx.

    Raises:
        TypeError: if it is a text: httpx would take it, and fail in the middle of a call.
    """
    if isinstance(timeout, str):
        raise TypeError(f"timeout is to be in seconds, not {timeout!r}, which meshlib.call(timeout={timeout!r}) takes")
    return timeout


def _check_name(httpx: Any, service: str) -> None:
    if not isinstance(service, str):
        raise TypeError(f"the name of a service is expected, such as 'orders', not {service!r}")
    host, _, port = service.partition(":")
    try:
        fits = bool(host) and httpx.URL(f"http://{service}").host == host.lower() and (port.isdigit() or not port)
    except httpx.InvalidURL:
        fits = False
    if not fits:
        raise ValueError(f"{service!r} is not the name of a service; a client takes one such as 'orders', or none")


class Cookies(Foreign):
    """Cookies that are looked for only in responses that set some.

    To look, httpx makes a request and a message of the standard library of each response, which costs more than all of
    the mesh's policy. To tell that there are none, it walks through its jar.
    """

    def __bool__(self) -> bool:
        kept = getattr(self.jar, "_cookies", None)  # of the standard library, by domain
        return bool(super().__bool__()) if kept is None or kept else False

    def extract_cookies(self, response: httpx.Response) -> None:
        if "set-cookie" in response.headers:
            super().extract_cookies(response)


class _Requests(Foreign):
    """How the mesh's own clients build requests: what they know of each they tell the transport.

    Attributes:
        library: whose client it is. This and what follows, `client_of` sets.
    """

    library: Library  # of the class; each has it again, as it is found sooner there
    _plainest: ClassVar[type[Any]]
    _own: ClassVar[type[Any]]
    _through: ClassVar[type[Any]]
    _unpatched: ClassVar[tuple[Any, ...]]
    _wire: ClassVar[type[Any]]

    _total_s: float | None = None
    _kept: httpx.Cookies
    _lean_headers: LeanHeaders = LeanHeaders([])
    _opened: bool | None = False
    """Whether calls may be lean: not before httpx's client is open. None where it is, and nobody has asked more."""

    def __init__(self, *, total_s: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.library = type(self).library
        self._total_s = total_s
        self._complete = COMPLETE if total_s is None else replace(COMPLETE, timeout_s=total_s)
        self._text_encoding = kwargs.get("default_encoding", "utf-8")
        cls, plainest = type(self), self._plainest
        names = _inner(self.library)
        self._ordinary = all(getattr(cls, name) is getattr(plainest, name) for name in names if hasattr(plainest, name))
        self.cookies = kwargs.get("cookies")

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of the client, sent with each request."""
        return self._kept

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._kept = self.library.cookies(cookies)

    def _times(self, timeout: Any) -> tuple[float | None, float | None, Any]:
        """What ``timeout`` means: the call's total, the same where the mesh does not hold, and what httpx is told."""
        if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
            return _total(timeout), None, None
        if timeout is self.library.unset:
            return self._total_s, None, timeout
        return None, math.inf, _phases(timeout)

    def _told(self, build: Callable[..., httpx.Request], args: Any, kwargs: dict[str, Any]) -> httpx.Request:
        timeout = kwargs.get("timeout", self.library.unset)
        total_s, plain_s, kwargs["timeout"] = self._times(timeout)
        request = build(*args, **kwargs)
        if total_s is not None or plain_s is not None:
            request.extensions[EXTENSION] = limited(_options(request), total_s, plain_s)
        content = kwargs.get("content")
        if content is not None and not isinstance(content, (str, bytes)):
            _keep_file(self.library, request, content)
        return request


def _options(request: httpx.Request) -> CallOptions:
    options = request.extensions.get(EXTENSION, NO_OPTIONS)
    return options if isinstance(options, CallOptions) else NO_OPTIONS


def _keep_file(library: Library, request: httpx.Request, content: Any) -> None:
    """A file can be sent again from where it stood. (httpx sends what is left of it, but announces all of it.)"""
    if not all(hasattr(content, name) for name in ("read", "seek", "tell")):
        return
    if not getattr(content, "seekable", lambda: True)():
        return
    offset = content.tell()
    if offset and "content-length" in request.headers:
        content.seek(0, os.SEEK_END)
        request.headers["content-length"] = str(max(0, content.tell() - offset))
        content.seek(offset)
    stream: Any = library.file_stream(FileBody(content))
    request.stream = stream


class SyncClient(_Requests):
    """A client for threads whose calls go through the mesh. Closing it closes no pool."""

    _handle = "handle_request"
    _wire = SyncTransportWire

    def __enter__(self) -> Self:
        super().__enter__()
        self._opened = None
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
        auth: Any = _UNSET,
        follow_redirects: Any = _UNSET,
        timeout: Any = _UNSET,
        extensions: Any = None,
    ) -> httpx.Response:
        """Make a call as the library does, with less work where that makes no difference."""
        call, unset = None, self.library.unset
        if auth is _UNSET:
            auth = unset
        if follow_redirects is _UNSET:
            follow_redirects = unset
        if timeout is _UNSET:
            timeout = unset
        if data is None and files is None and params is None and cookies is None and auth is unset:
            call = lean_call(self, method, url, content, json, headers, timeout, extensions)
        if call is None:
            made: httpx.Response = super().request(
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
            return made
        transport: Any = self._transport
        response: httpx.Response | None = transport.call(call)
        if response is None:
            response = super().send(call.request, follow_redirects=follow_redirects)
            assert response is not None
            return response
        log_call(self.library, call, response)
        return response

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """Build a request as the library does; a number given as ``timeout`` is the call's total."""
        return self._told(super().build_request, args, kwargs)

    def send(self, request: httpx.Request, *, stream: bool = False, **kwargs: Any) -> httpx.Response:
        """Send a request as the library does; unless streamed, the call succeeds only when its body is there."""
        options = request.extensions[EXTENSION] = completing(_options(request), not stream)
        call = None
        if not stream:
            call = lean_send(self, request, options, kwargs.get("auth", self.library.unset))
        if call is None:
            self._opened = self._opened or None
            sent: httpx.Response = super().send(request, stream=stream, **kwargs)
            return sent
        transport: Any = self._transport
        response: httpx.Response | None = transport.call(call)
        if response is None:
            response = super().send(request, **kwargs)
            assert response is not None
            return response
        log_call(self.library, call, response)
        return response


class AsyncClient(_Requests):
    """The same for event loops."""

    _handle = "handle_async_request"
    _wire = AsyncTransportWire

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._opened = None
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
        auth: Any = _UNSET,
        follow_redirects: Any = _UNSET,
        timeout: Any = _UNSET,
        extensions: Any = None,
    ) -> httpx.Response:
        """Make a call as the library does, with less work where that makes no difference."""
        call, unset = None, self.library.unset
        if auth is _UNSET:
            auth = unset
        if follow_redirects is _UNSET:
            follow_redirects = unset
        if timeout is _UNSET:
            timeout = unset
        if data is None and files is None and params is None and cookies is None and auth is unset:
            call = lean_call(self, method, url, content, json, headers, timeout, extensions)
        if call is None:
            made: httpx.Response = await super().request(
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
            return made
        transport: Any = self._transport
        response: httpx.Response | None = await transport.call(call)
        if response is None:
            response = await super().send(call.request, follow_redirects=follow_redirects)
            assert response is not None
            return response
        log_call(self.library, call, response)
        return response

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """Build a request as the library does; a number given as ``timeout`` is the call's total."""
        return self._told(super().build_request, args, kwargs)

    async def send(self, request: httpx.Request, *, stream: bool = False, **kwargs: Any) -> httpx.Response:
        """Send a request as the library does; unless streamed, the call succeeds only when its body is there."""
        options = request.extensions[EXTENSION] = completing(_options(request), not stream)
        call = None
        if not stream:
            call = lean_send(self, request, options, kwargs.get("auth", self.library.unset))
        if call is None:
            self._opened = self._opened or None
            sent: httpx.Response = await super().send(request, stream=stream, **kwargs)
            return sent
        transport: Any = self._transport
        response: httpx.Response | None = await transport.call(call)
        if response is None:
            response = await super().send(request, **kwargs)
            assert response is not None
            return response
        log_call(self.library, call, response)
        return response


def client_of(library: Library, own: type[Any], through: type[Any]) -> Callable[[type[K]], type[K]]:
    """Make a class the client of a library.

    Args:
        library: it.
        own: its class of clients, one base of ours.
        through: the transport of the mesh for them.
    """

    def made(cls: type[K]) -> type[K]:
        client: Any = cls
        client.library, client._own, client._through, client._plainest = library, own, through, cls
        client._unpatched = functions(client, through)
        return cls

    return made
