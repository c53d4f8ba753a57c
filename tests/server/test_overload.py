"""What callers are told when a request failed because a call made for it did, by overload."""

from __future__ import annotations

from typing import Any

import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from meshlib.context import current_scope
from meshlib.errors import LimitExceeded
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from tests.server.standin import StandInMesh

HEADER = "x-envoy-overloaded"


def overload() -> None:
    """What the adapter does when a meshed call of this request fails by overload."""
    request = current_scope().request
    assert request is not None
    request.overloaded = True


def fail() -> Any:
    overload()
    raise LimitExceeded("full", service="orders")


async def starlette_answer(request: Request) -> Any:
    overload()
    headers = {"X-Envoy-Overloaded": "no"} if "twice" in request.query_params else {}
    return PlainTextResponse("x", int(request.path_params["status"]), headers)


async def starlette_raise(request: Request) -> Any:
    fail()


async def starlette_fine(request: Request) -> Any:
    return PlainTextResponse("x", 503)


async def starlette_stream(request: Request) -> Any:
    overload()
    return StreamingResponse(iter(["a", "b"]), 503)


def starlette_client() -> httpx.AsyncClient:
    routes = [
        Route("/status/{status}", starlette_answer),
        Route("/raise", starlette_raise),
        Route("/fine", starlette_fine),
        Route("/stream", starlette_stream),
    ]
    app = MeshMiddleware(Starlette(routes=routes), StandInMesh())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://callee")


def flask_client() -> httpx.Client:
    app = flask.Flask(__name__)
    MeshExtension(StandInMesh(), app)

    @app.get("/status/<int:status>")
    def answer(status: int) -> Any:
        overload()
        return "x", status, {"X-Envoy-Overloaded": "no"} if "twice" in flask.request.args else {}

    app.add_url_rule("/raise", view_func=fail, endpoint="raise")
    app.add_url_rule("/fine", view_func=lambda: ("x", 503), endpoint="fine")

    @app.get("/stream")
    def stream() -> Any:
        overload()
        return flask.Response(iter(["a", "b"]), 503)

    return httpx.Client(transport=httpx.WSGITransport(app), base_url="http://callee")


CASES = [
    ("/status/503", "true"),
    ("/status/500", "true"),
    ("/status/429", "true"),
    ("/status/503?twice", "true"),
    ("/status/200", None),
    ("/status/404", None),
    ("/raise", "true"),
    ("/stream", "true"),
    ("/fine", None),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "told"), CASES)
async def test_an_asgi_application_passes_it_on_with_its_failures_alone(path: str, told: str | None) -> None:
    async with starlette_client() as client:
        response = await client.get(path)
    assert response.headers.get(HEADER) == told


@pytest.mark.parametrize(("path", "told"), CASES)
def test_a_flask_application_passes_it_on_with_its_failures_alone(path: str, told: str | None) -> None:
    with flask_client() as client:
        response = client.get(path)
    assert response.headers.get(HEADER) == told
