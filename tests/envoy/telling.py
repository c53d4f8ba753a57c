"""Servers that tell what they saw, clients that keep all that came back, and the form in which the two are compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from meshlib import Mesh
from meshlib.errors import MeshError
from tests.envoy.upstream import Endpoint, Upstream

__all__ = ["NOT_COMPARED", "Asked", "Got", "Telling", "ask_envoy", "ask_mesh"]

NOT_COMPARED = frozenset(
    {"date", "server", "x-forwarded-proto", "x-request-id", "x-envoy-attempt-count", "x-envoy-upstream-service-time"}
    | {"x-envoy-expected-rq-timeout-ms", "x-meshlib-deadline-ms", "connection", "content-length", "transfer-encoding"}
)
"""Headers that each of the two adds of its own."""

LISTS = frozenset({"accept", "cache-control", "cookie", "if-match", "via"})
"""Those that are sent here, of the headers that are one list."""

Pairs: TypeAlias = "Sequence[tuple[str, str]]"
Fields: TypeAlias = "dict[str, str]"


@dataclass(frozen=True)
class Asked:
    """A request. `host` has the port, if it has one; `target` the path and the query."""

    method: str
    scheme: str
    host: str
    target: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Got:
    """What came of it: the answer, and what the server that gave it saw; no port for an answer given on the way."""

    status: int
    headers: Fields
    body: str
    port: int | None = None
    target: str | None = None
    seen: Fields | None = None

    @property
    def route(self) -> str | None:
        """The name of the route, which each tells in its answers."""
        return self.headers.get("x-route")


class _Witness(Endpoint):
    def data_received(self, data: bytes) -> None:
        if data[:1] == b"\x16":  # a caller who wants TLS
            self._transport.abort()
        else:
            super().data_received(data)

    def _answer(self, head: bytes, headers: dict[str, str]) -> None:
        line, *fields = head.decode("latin-1").split("\r\n")
        seen = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        told = json.dumps([self._port, line.split(" ")[1], seen])
        said = f"HTTP/1.1 200 OK\r\nx-told: {told}\r\nx-server: s\r\nx-one: server\r\nx-two: server"
        self._transport.write(f"{said}\r\ncontent-length: 0\r\n\r\n".encode("latin-1"))


class Telling(Upstream):
    """Endpoints that answer everything with 200, and tell what they saw in the header ``x-told``."""

    endpoint = _Witness


def _compared(status: int, headers: Pairs, body: str) -> Got:
    """An answer in the form in which answers are compared."""
    fields = _fields(headers)
    told = fields.pop("x-told", None)
    if told is None:
        return Got(status, fields, body)
    port, target, seen = json.loads(told)
    return Got(status, fields, body, port, target, _fields(seen))


def _fields(pairs: Pairs) -> Fields:
    """All values of each name, in their order: which of two headers is first says nothing."""
    made: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.lower() not in NOT_COMPARED:
            made.setdefault(name.lower(), []).append(value)
    return {name: _joined(name, values) for name, values in made.items()}


def _joined(name: str, values: list[str]) -> str:
    # What Envoy reads as one list it sends as one header, without what is empty.
    return ("; " if name == "cookie" else ",").join(filter(None, values) if name in LISTS else values)


def ask_envoy(port: int, requests: Sequence[Asked], connections: int = 4) -> list[Got]:
    """Send requests over some connections that are kept."""

    async def all_of_them() -> list[Got]:
        answers: dict[int, Got] = {}
        queue = iter(enumerate(requests))

        async def worker() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for at, request in queue:
                writer.write(_written(request))
                try:
                    answers[at], closed = await asyncio.wait_for(_read(reader, request.method), 30)
                except asyncio.IncompleteReadError as error:
                    raise AssertionError(f"no answer to {request}") from error
                if closed:
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()

        await asyncio.gather(*(worker() for _ in range(connections)))
        return [answers[at] for at in range(len(requests))]

    return asyncio.run(all_of_them())


def _written(request: Asked) -> bytes:
    # Of the scheme Envoy is told by a header, as by a proxy in front of it that ends TLS.
    headers = [("host", request.host), ("x-forwarded-proto", request.scheme), *request.headers]
    lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


async def _read(reader: asyncio.StreamReader, method: str) -> tuple[Got, bool]:
    head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    of = {name.lower(): value for name, value in headers}
    status = int(head.split(" ")[1])
    length = 0 if method == "HEAD" or status in (204, 304) else int(of.get("content-length", 0))
    body = (await reader.readexactly(length)).decode()
    return _compared(status, headers, body), of.get("connection") == "close"


def ask_mesh(config: Mapping[str, Any], requests: Sequence[Asked]) -> list[Got | str]:
    """Send them through a mesh of this configuration. Of a call that fails there is the name of its route."""

    async def all_of_them() -> list[Got | str]:
        answers: dict[int, Got | str] = {}
        queue = iter(enumerate(requests))

        async def worker(client: httpx.AsyncClient) -> None:
            for at, request in queue:
                answers[at] = await _one(client, request)

        with Mesh(config) as mesh:
            async with mesh.async_client() as client:
                await asyncio.gather(*(worker(client) for _ in range(4)))
        return [answers[at] for at in range(len(requests))]

    return asyncio.run(all_of_them())


async def _one(client: httpx.AsyncClient, asked: Asked) -> Got | str:
    headers = [(name.encode(), value.encode()) for name, value in (("host", asked.host), *asked.headers)]
    request = httpx.Request(asked.method, f"{asked.scheme}://{asked.host}{asked.target}", headers=headers)
    try:
        response = await client.send(request)
    except MeshError as error:
        return (error.record and error.record.route) or repr(error)
    raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
    return _compared(response.status_code, raw, response.text)
