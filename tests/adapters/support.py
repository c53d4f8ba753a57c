"""One way to use the sync and the async client, and servers that tell what they got."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from meshlib import Mesh
from tests.net.wire_servers import Peer, RawServer, serving


@dataclass(frozen=True)
class Seen:
    """One request, as a server got it."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def count(self, name: str) -> int:
        return sum(key.lower() == name for key, _ in self.headers)


class Origin:
    """A server that records what it gets and answers as told: by a function of the request and its number."""

    def __init__(self, answer: Callable[[Seen, int], bytes | None] | None = None) -> None:
        self.answer = answer or (lambda seen, number: ok())
        self.seen: list[Seen] = []
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while (raw := peer.request()) is not None:
            head, _, body = raw.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            pairs = tuple((name, value.strip()) for name, _, value in (each.partition(":") for each in fields))
            with self._lock:
                seen = Seen(line, pairs, body)
                self.seen.append(seen)
                number = len(self.seen)
            answer = self.answer(seen, number)
            if answer is None:
                peer.reset()
                return
            peer.send(answer)
            if b"connection: close" in answer.lower():
                return


def ok(body: bytes = b"ok", status: str = "200 OK", **headers: str) -> bytes:
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


@contextlib.contextmanager
def origins(*answers: Any) -> Iterator[tuple[list[Origin], list[RawServer]]]:
    with contextlib.ExitStack() as stack:
        all_origins = [answer if isinstance(answer, Origin) else Origin(answer) for answer in answers]
        servers = [stack.enter_context(serving(origin)) for origin in all_origins]
        yield all_origins, servers


def address(server: RawServer) -> str:
    return f"127.0.0.1:{server.port}"


def mesh_of(*servers: RawServer, **service: Any) -> Mesh:
    """A mesh with one service, `orders`, at these servers."""
    options = {name: service.pop(name) for name in ("mode", "egress", "wire", "domains") if name in service}
    orders = {"endpoints": [address(server) for server in servers], **service}
    return Mesh({"discovery": [], "services": {"orders": orders}, **options})


class SyncCaller:
    name = "sync"

    def run(self, mesh: Mesh, make: Callable[[Any], Any] | None = None, **options: Any) -> SyncCall:
        return SyncCall(make(mesh) if make else mesh.client("orders", **options))


class SyncCall:
    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def __call__(self, method: str, url: str, **options: Any) -> httpx.Response:
        if "content" in options:
            options["content"] = sync_body(options["content"])
        return self.client.request(method, url, **options)

    def stream(self, method: str, url: str, **options: Any) -> tuple[httpx.Response, bytes]:
        with self.client.stream(method, url, **options) as response:
            return response, response.read()

    def close(self) -> None:
        self.client.close()


class AsyncCaller:
    name = "async"

    def run(self, mesh: Mesh, make: Callable[[Any], Any] | None = None, **options: Any) -> AsyncCall:
        return AsyncCall(lambda: make(mesh) if make else mesh.async_client("orders", **options))


class AsyncCall:
    """Each call in an event loop of its own: connections of the one before must not matter."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self.client = make()

    def __call__(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            if "content" in options:
                options["content"] = async_body(options["content"])
            return await self.client.request(method, url, **options)

        return asyncio.run(call())

    def stream(self, method: str, url: str, **options: Any) -> tuple[httpx.Response, bytes]:
        async def call() -> tuple[httpx.Response, bytes]:
            async with self.client.stream(method, url, **options) as response:
                return response, await response.aread()

        return asyncio.run(call())

    def close(self) -> None:
        asyncio.run(self.client.aclose())


class Chunks:
    """A body that can be read once only."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    def __repr__(self) -> str:
        return f"Chunks{self.chunks}"  # without an address: a test's name must be the same in every process


def sync_body(content: Any) -> Any:
    def once() -> Iterable[bytes]:
        yield from content.chunks

    return once() if isinstance(content, Chunks) else content


def async_body(content: Any) -> Any:
    async def once() -> AsyncIterable[bytes]:
        for chunk in content.chunks:
            yield chunk

    return once() if isinstance(content, Chunks) else content
