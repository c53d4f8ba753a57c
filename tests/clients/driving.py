"""One way to drive every client, sync and async, so that the same cases run on each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import httpx2
import requests

import meshlib
from meshlib import Mesh
from meshlib.adapters import aiohttp as meshed_aiohttp
from meshlib.adapters import httpx2 as meshed_httpx2
from meshlib.adapters import requests as meshed_requests
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
    """A client as its users use it; a variant is a session of one's own, or one that was attached."""

    is_async = False
    variant = False
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
    "requests": ByRequests(lambda mesh: meshed_requests.session(mesh, "orders")),
    "requests mounted": ByRequests(_mounted, variant=True),
    "requests attached": ByRequests(_attached(requests.Session), variant=True),
    "aiohttp": ByAiohttp(lambda mesh: meshed_aiohttp.session(mesh, "orders")),
    "aiohttp middleware": ByAiohttp(_own, variant=True),
    "aiohttp attached": ByAiohttp(_attached(aiohttp.ClientSession), variant=True),
}
