"""One way to drive every client, sync and async, so that the same cases run on each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp
import httpx
import httpx2
import requests

import meshlib
from meshlib import Mesh
from meshlib.adapters import aiohttp as meshed_aiohttp
from meshlib.adapters import httpx2 as meshed_httpx2
from meshlib.adapters import requests as meshed_requests
from meshlib.adapters.declarative import StatusError, request
from tests.adapters.support import Chunks, async_body, sync_body


@dataclass
class Answer:
    """What a call gave."""

    status: int
    headers: dict[str, str]
    body: bytes
    record: Any
    pieces: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Errors:
    """What the users of a client catch."""

    connect: type[Exception]
    timeout: type[Exception]
    reset: type[Exception]
    broken: type[Exception]
    closed: type[Exception]


class Driver:
    """A client as its users use it.

    Attributes:
        is_async: whether it is used in event loops.
        variant: whether it is a session of one's own, or one that was attached.
        goes_outside: whether it can call hosts that are no services.
        errors: what its users catch.
    """

    is_async = False
    variant = False
    goes_outside = True
    errors: Errors

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        """Make one call. Options: body, json, headers, timeout in seconds, stream."""
        raise NotImplementedError

    async def acall(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        """The same in the running loop."""
        raise NotImplementedError


def _fields(pairs: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in pairs}


class ByHttpx(Driver):
    def __init__(self, library: Any, make: Callable[[Mesh], Any]) -> None:
        self._make = make
        self.errors = Errors(
            library.ConnectError,
            library.TimeoutException,
            library.ReadError,
            library.RemoteProtocolError,
            library.TransportError,
        )

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        stream, options = options.pop("stream", False), _for_httpx(options, sync_body)
        with self._make(mesh) as client:
            if not stream:
                response = client.request(method, url, **options)
                return _answer_of_httpx(response, response.content)
            with client.stream(method, url, **options) as response:
                pieces = list(response.iter_bytes())
                return _answer_of_httpx(response, b"".join(pieces), pieces)


class ByAsyncHttpx(ByHttpx):
    is_async = True

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        return asyncio.run(self.acall(mesh, method, url, **options))

    async def acall(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        stream, options = options.pop("stream", False), _for_httpx(options, async_body)
        async with self._make(mesh) as client:
            if not stream:
                response = await client.request(method, url, **options)
                return _answer_of_httpx(response, response.content)
            async with client.stream(method, url, **options) as response:
                pieces = [piece async for piece in response.aiter_bytes()]
                return _answer_of_httpx(response, b"".join(pieces), pieces)


def _for_httpx(options: dict[str, Any], made: Callable[[Any], Any]) -> dict[str, Any]:
    if "body" in options:
        options["content"] = made(options.pop("body"))
    return options


def _answer_of_httpx(response: Any, body: bytes, pieces: list[bytes] | None = None) -> Answer:
    fields = _fields(response.headers.items())
    return Answer(response.status_code, fields, body, meshlib.record(response), pieces or [body])


class ByRequests(Driver):
    errors = Errors(
        requests.ConnectionError,
        requests.Timeout,
        requests.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        requests.ConnectionError,
    )

    def __init__(self, make: Callable[[Mesh], Any], *, variant: bool = False) -> None:
        self._make = make
        self.variant = variant

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        if "body" in options:
            options["data"] = sync_body(options.pop("body"))
        with self._make(mesh) as session, session.request(method, url, **options) as response:
            pieces = list(response.iter_content(65536)) if options.get("stream") else [response.content]
            fields = _fields(response.headers.items())
            return Answer(response.status_code, fields, b"".join(pieces), meshlib.record(response), pieces)


class ByAiohttp(Driver):
    is_async = True
    errors = Errors(
        aiohttp.ClientConnectorError,
        aiohttp.ServerTimeoutError,
        aiohttp.ServerDisconnectedError,
        aiohttp.ClientPayloadError,
        aiohttp.ClientConnectionError,
    )

    def __init__(self, make: Callable[[Mesh], Any], *, variant: bool = False) -> None:
        self._make = make
        self.variant = variant

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        return asyncio.run(self.acall(mesh, method, url, **options))

    async def acall(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        stream, body = options.pop("stream", False), options.pop("body", None)
        if body is not None:
            options["data"] = async_body(body) if isinstance(body, Chunks) else body
        if "timeout" in options:
            options["timeout"] = aiohttp.ClientTimeout(total=options["timeout"])
        async with self._make(mesh) as session, session.request(method, url, **options) as response:
            pieces = [each async for each in response.content.iter_any()] if stream else [await response.read()]
            fields = _fields(response.headers.items())
            return Answer(response.status, fields, b"".join(pieces), meshlib.record(response), pieces)


class ByDeclarative(Driver):
    """Each call is declared, bound and made."""

    goes_outside = False
    errors = Errors(
        httpx.ConnectError, httpx.TimeoutException, httpx.ReadError, httpx.RemoteProtocolError, httpx.TransportError
    )

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        stream, given = options.get("stream", False), _given(options, sync_body)

        def made(self: Any, body: Any) -> Any: ...

        call = _declared(mesh, method, url, made, given, Iterator[bytes] if stream else httpx.Response, options)
        if not stream:
            return _answer_of_httpx(response := call(*given), response.content)
        try:
            return _answer_of_stream(list(call(*given)))
        except StatusError as error:
            return _answer_of_failure(error)


class ByAsyncDeclarative(ByDeclarative):
    is_async = True

    def call(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        return asyncio.run(self.acall(mesh, method, url, **options))

    async def acall(self, mesh: Mesh, method: str, url: str, **options: Any) -> Answer:
        given = _given(options, async_body)
        if not options.get("stream", False):

            async def made(self: Any, body: Any) -> Any: ...

            response = await _declared(mesh, method, url, made, given, httpx.Response, options)(*given)
            return _answer_of_httpx(response, response.content)

        def streamed(self: Any, body: Any) -> Any: ...

        call = _declared(mesh, method, url, streamed, given, AsyncIterator[bytes], options)
        try:
            return _answer_of_stream([piece async for piece in call(*given)])
        except StatusError as error:
            return _answer_of_failure(error)


def _given(options: dict[str, Any], made: Callable[[Any], Any]) -> list[Any]:
    return [options["json"]] if "json" in options else [made(options["body"])] if "body" in options else []


def _declared(
    mesh: Mesh, method: str, url: str, function: Any, given: list[Any], returned: Any, options: dict[str, Any]
) -> Any:
    """The bound method of a class that declares this one call."""
    kinds: dict[bool, Any] = {True: dict[str, Any], False: type(*given) if given else None}
    if given and not isinstance(given[0], (dict, bytes)):
        readable = hasattr(given[0], "read")
        kinds[False] = (
            BinaryIO if readable else AsyncIterator[bytes] if hasattr(given[0], "__anext__") else Iterator[bytes]
        )
    function.__annotations__ = {"return": returned, **({"body": kinds["json" in options]} if given else {})}
    parts = urlsplit(url)
    function.__signature__ = inspect.Signature(list(inspect.signature(function).parameters.values())[: 1 + len(given)])
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    shape = type("Calls", (), {"made": request(method, path, timeout=options.get("timeout"))(function)})
    bound: Any = mesh.bind(shape, parts.netloc, headers=options.get("headers"), follow_redirects=True)
    return bound.made


def _answer_of_stream(pieces: list[bytes]) -> Answer:
    return Answer(200, {}, b"".join(pieces), None, pieces)


def _answer_of_failure(error: StatusError[Any]) -> Answer:
    return Answer(error.status, _fields(error.headers.items()), b"", error.record)


def _attached(make: Callable[[], Any]) -> Callable[[Mesh], Any]:
    return lambda mesh: mesh.attach(make())


def _mounted(mesh: Mesh) -> requests.Session:
    session = requests.Session()
    session.mount("http://", meshed_requests.adapter(mesh))
    return session


def _own(mesh: Mesh) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=[meshed_aiohttp.middleware(mesh)])


DRIVERS: dict[str, Driver] = {
    "httpx": ByHttpx(httpx, lambda mesh: mesh.client("orders")),
    "httpx async": ByAsyncHttpx(httpx, lambda mesh: mesh.async_client("orders")),
    "httpx2": ByHttpx(httpx2, lambda mesh: meshed_httpx2.client(mesh, "orders")),
    "httpx2 async": ByAsyncHttpx(httpx2, lambda mesh: meshed_httpx2.async_client(mesh, "orders")),
    "declarative": ByDeclarative(),
    "declarative async": ByAsyncDeclarative(),
    "requests": ByRequests(lambda mesh: meshed_requests.session(mesh, "orders")),
    "requests mounted": ByRequests(_mounted, variant=True),
    "requests attached": ByRequests(_attached(requests.Session), variant=True),
    "aiohttp": ByAiohttp(lambda mesh: meshed_aiohttp.session(mesh, "orders")),
    "aiohttp middleware": ByAiohttp(_own, variant=True),
    "aiohttp attached": ByAiohttp(_attached(aiohttp.ClientSession), variant=True),
}
