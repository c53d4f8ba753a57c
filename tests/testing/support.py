"""One way to use the sync and the async client of a fixture, and applications to serve."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI, Request
from flask import Flask
from flask import request as flask_request

from meshlib.testing import MeshFixture


class Sync:
    def get(self, mesh: MeshFixture, url: str, **options: Any) -> httpx.Response:
        return self.request(mesh, "GET", url, **options)

    def request(self, mesh: MeshFixture, method: str, url: str, **options: Any) -> httpx.Response:
        with mesh.client() as client:
            return client.request(method, url, **options)


class Async(Sync):
    def request(self, mesh: MeshFixture, method: str, url: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            async with mesh.async_client() as client:
                return await client.request(method, url, **options)

        return asyncio.run(call())


def fastapi_echo() -> FastAPI:
    app = FastAPI()

    @app.api_route("/async/{rest:path}", methods=["GET", "POST"])
    async def echo(rest: str, request: Request) -> dict[str, Any]:
        return {"path": rest, "query": dict(request.query_params), "body": (await request.body()).decode()}

    @app.get("/in-a-thread/{number}")
    def threaded(number: int) -> dict[str, int]:
        return {"number": number}

    return app


def flask_echo() -> Flask:
    app = Flask("echo")

    @app.route("/<path:rest>", methods=["GET", "POST"])
    def echo(rest: str) -> dict[str, Any]:
        return {"path": rest, "query": dict(flask_request.args), "body": flask_request.get_data(as_text=True)}

    return app
