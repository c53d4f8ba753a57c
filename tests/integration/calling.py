"""Sync and async clients driven alike, with all calls of a test in one event loop, and closed behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from meshlib import Mesh


class Caller:
    """Makes calls with clients of one kind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._runner = asyncio.Runner()
        self._clients: list[Any] = []

    def client(self, mesh: Mesh, service: str = "orders", **options: Any) -> Call:
        """Calls through a client of the mesh."""
        return self.own(
            mesh.client(service, **options) if self.name == "sync" else mesh.async_client(service, **options)
        )

    def attached(self, mesh: Mesh, **options: Any) -> Call:
        """Calls through a client that was there before the mesh."""
        return self.own(mesh.attach(self.plain(**options)))

    def plain(self, **options: Any) -> Any:
        return httpx.Client(**options) if self.name == "sync" else httpx.AsyncClient(**options)

    def own(self, client: Any) -> Call:
        self._clients.append(client)
        return Call(client, self._runner.run)

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def close(self) -> None:
        for client in self._clients:
            if isinstance(client, httpx.Client):
                client.close()
            else:
                self._runner.run(client.aclose())
        self._runner.close()


class Call:
    """One client."""

    def __init__(self, client: Any, run: Callable[[Any], Any]) -> None:
        self.client = client
        self._run = run

    def __call__(self, method: str, url: str, **options: Any) -> httpx.Response:
        response: httpx.Response
        if isinstance(self.client, httpx.Client):
            response = self.client.request(method, url, **options)
        else:
            response = self._run(self.client.request(method, url, **options))
        return response

    def stream(self, method: str, url: str, **options: Any) -> tuple[httpx.Response, bytes]:
        if isinstance(self.client, httpx.Client):
            with self.client.stream(method, url, **options) as response:
                return response, response.read()

        async def read() -> tuple[httpx.Response, bytes]:
            async with self.client.stream(method, url, **options) as response:
                return response, await response.aread()

        result: tuple[httpx.Response, bytes] = self._run(read())
        return result
