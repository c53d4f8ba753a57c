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

import meshlib
from meshlib.context import Criticality, current_scope
from meshlib.errors import LimitExceeded
from meshlib.mesh import Mesh
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from meshlib.testing import MeshFixture
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


async def starlette_passed_on(request: Request) -> Any:
    return PlainTextResponse(
        "x", int(request.query_params["status"]), {"X-Meshlib-Refused": "overload", "x-other": "1"}
    )


async def starlette_stream(request: Request) -> Any:
    overload()
    return StreamingResponse(iter(["a", "b"]), 503)


def starlette_client() -> httpx.AsyncClient:
    routes = [
        Route("/status/{status}", starlette_answer),
        Route("/raise", starlette_raise),
        Route("/fine", starlette_fine),
        Route("/passed-on", starlette_passed_on),
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

    @app.get("/passed-on")
    def passed_on() -> Any:
        return "x", int(flask.request.args["status"]), {"X-Meshlib-Refused": "overload", "x-other": "1"}

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


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "kept"), [(503, None), (500, "overload")])
async def test_what_a_service_below_was_refused_is_not_said_of_this_one(status: int, kept: str | None) -> None:
    async with starlette_client() as client:
        responses = [await client.get("/passed-on", params={"status": status})]
    with flask_client() as flasks:
        responses.append(flasks.get("/passed-on", params={"status": status}))
    for response in responses:
        assert (response.headers.get("x-meshlib-refused"), response.headers["x-other"]) == (kept, "1")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_a_post_that_a_full_process_refuses_is_made_at_another(kind: str) -> None:
    made: list[str] = []

    def orders(name: str) -> Any:
        callee = Mesh(service="orders", discovery=[], server={"admission": {"max_in_flight": 1, "max_pending": 0}})
        admission = callee.serving.admission
        if name == "full":
            assert admission is not None
            assert admission.queue.enter(admission.clock(), Criticality.CRITICAL, None, None, None) is None
        if kind == "asgi":

            async def create(request: Request) -> Any:
                made.append((await request.body()).decode())
                return PlainTextResponse(name, 201)

            return MeshMiddleware(Starlette(routes=[Route("/", create, methods=["POST"])]), callee)
        app = flask.Flask(__name__)
        MeshExtension(callee, app)

        @app.post("/")
        def create_too() -> Any:
            made.append(flask.request.get_data(as_text=True))
            return name, 201

        return app

    async with MeshFixture() as mesh:
        mesh.serve("orders", orders("full"), name="full")
        mesh.serve("orders", orders("free"), name="free")
        client = mesh.async_client("orders")
        answers = [await client.post("/", content=b"one book") for _ in range(4)]
        refused = mesh.calls("orders", instance="full")
    assert [(answer.status_code, answer.text) for answer in answers] == [(201, "free")] * 4
    assert made == ["one book"] * 4
    records = [meshlib.record(answer) for answer in answers]
    assert refused
    told = [attempt.refused for record in records if record is not None for attempt in record.attempts]
    assert told.count("overload") == len(refused)
