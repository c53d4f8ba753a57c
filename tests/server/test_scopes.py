"""Where a request's scope holds: one table of places where code of an application runs, on real servers.

Each place reports what it inherits. The application runs under one uvicorn (and one Werkzeug) for all of them.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import anyio
import flask
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware

import meshlib
from meshlib.context import ContextExecutor, carry, current, current_scope
from meshlib.propagation import CRITICALITY, DEADLINE_MS
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from tests.server.conftest import _bound, _url, _uvicorn
from tests.server.standin import StandInMesh

LEFT = {DEADLINE_MS: "60000", "baggage": "tenant=t1", CRITICALITY: "sheddable"}
ALL, WITHOUT_DEADLINE, NOTHING = "deadline t1 SHEDDABLE", "- t1 SHEDDABLE", "- - -"


def inherited() -> str:
    now = current()
    level = "-" if now.criticality is None else now.criticality.name
    return f"{'-' if now.remaining is None else 'deadline'} {now.baggage.get('tenant', '-')} {level}"


async def inherited_async() -> str:
    await asyncio.sleep(0)
    return inherited()


class Seen:
    """What places report that are reached behind the response."""

    def __init__(self) -> None:
        self._there = threading.Condition()
        self._found: dict[str, str] = {}

    def report(self, place: str) -> None:
        found = inherited()
        with self._there:
            self._found[place] = found
            self._there.notify_all()

    def wait_for(self, *places: str) -> dict[str, str]:
        with self._there:
            assert self._there.wait_for(lambda: self._found.keys() >= {*places}, 10), self._found
            return {place: self._found.pop(place) for place in places}


SEEN = Seen()
PLACES: dict[str, Callable[[], Any]] = {}


def place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a handler to the table."""
    PLACES[function.__name__.replace("_", "-")] = function
    return function


# Dependencies


def plain() -> str:
    return inherited()


async def plain_async() -> str:
    return await inherited_async()


def generator() -> Iterator[str]:
    yield inherited()
    SEEN.report("end of a generator")


async def async_generator() -> AsyncIterator[str]:
    yield await inherited_async()
    SEEN.report("end of an async generator")


class Callable_:
    def __call__(self, nested: Annotated[str, Depends(plain)]) -> str:
        return inherited() if nested == inherited() else "differs"


@place
def dependencies_of_a_sync_handler(
    a: Annotated[str, Depends(plain)],
    b: Annotated[str, Depends(plain_async)],
    c: Annotated[str, Depends(Callable_())],
) -> list[str]:
    return [a, b, c, inherited()]


@place
async def dependencies_of_an_async_handler(
    a: Annotated[str, Depends(plain)], b: Annotated[str, Depends(plain_async)], c: Annotated[str, Depends(Callable_())]
) -> list[str]:
    return [a, b, c, inherited()]


@place
def generators_as_dependencies(
    a: Annotated[str, Depends(generator)], b: Annotated[str, Depends(async_generator)]
) -> list[str]:
    return [a, b]


# Tasks and threads


@place
async def tasks() -> list[str]:
    created = asyncio.create_task(inherited_async())
    async with asyncio.TaskGroup() as group:
        grouped = group.create_task(inherited_async())
    return [await created, grouped.result(), *await asyncio.gather(inherited_async(), inherited_async())]


@place
async def task_groups_of_anyio() -> list[str]:
    found: list[str] = []

    async def run() -> None:
        found.append(await inherited_async())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)
    return found


@place
async def threads_of_the_frameworks() -> list[str]:
    return [await asyncio.to_thread(inherited), await anyio.to_thread.run_sync(inherited)]


@place
async def back_from_a_thread() -> list[str]:
    def in_thread() -> list[str]:
        return [anyio.from_thread.run(inherited_async), anyio.from_thread.run_sync(inherited)]

    return await anyio.to_thread.run_sync(in_thread)


@place
async def callbacks_of_the_loop() -> list[str]:
    loop = asyncio.get_running_loop()
    soon, later = loop.create_future(), loop.create_future()
    loop.call_soon(lambda: soon.set_result(inherited()))
    loop.call_later(0, lambda: later.set_result(inherited()))
    return [await soon, await later]


@place
def carried_into_threads_of_ones_own() -> list[str]:
    with ContextExecutor(1) as pool, ThreadPoolExecutor(1) as plain_pool:
        return [
            pool.submit(inherited).result(),
            *pool.map(lambda _: inherited(), range(2)),
            plain_pool.submit(carry(inherited)).result(),
        ]


@place
def generators_in_a_handler() -> list[str]:
    @contextmanager
    def manager() -> Iterator[str]:
        yield inherited()

    def values() -> Iterator[str]:
        with meshlib.detached():
            yield "detached" if current().remaining is None else inherited()
        yield inherited()

    with manager() as found:
        detached, *rest = values()
        return [found, *rest, inherited()] if detached == "detached" else [detached]


@place
async def async_generators_in_a_handler() -> list[str]:
    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        yield await inherited_async()

    async def values() -> AsyncIterator[str]:
        for _ in range(2):
            yield await inherited_async()

    async with manager() as found:
        return [found, *[value async for value in values()], inherited()]


# Responses


def sync_chunks() -> Iterator[str]:
    for _ in range(3):
        yield inherited() + "\n"


async def async_chunks() -> AsyncIterator[str]:
    for _ in range(3):
        yield await inherited_async() + "\n"


def routes(app: FastAPI) -> None:
    for name, function in PLACES.items():
        app.add_api_route(f"/{name}", function)

    @app.get("/stream")
    def stream(kind: str, tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(SEEN.report, "sync task behind a stream")
        chunks = sync_chunks() if kind == "sync" else async_chunks()
        return StreamingResponse(chunks, background=tasks)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def behind() -> None:
            SEEN.report("async task behind")

        async def left_running() -> None:
            while current_scope().deadline is not None:  # noqa: ASYNC110 - the end of a scope tells nobody
                await asyncio.sleep(0.001)
            SEEN.report("left running")

        tasks.add_task(behind)
        tasks.add_task(SEEN.report, "sync task behind")
        RUNNING.append(asyncio.create_task(left_running()))
        return inherited()


RUNNING: list[asyncio.Task[None]] = []


class Between(BaseHTTPMiddleware):
    """Starlette's, which runs the rest of the application in a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-between"] = inherited()
        return response


def application(*, between: bool) -> FastAPI:
    """With sub-applications of each kind, each of which brings a middleware of its own."""
    mesh = StandInMesh()
    app = FastAPI()
    routes(app)
    sub, router = FastAPI(), APIRouter()
    sub.add_middleware(MeshMiddleware, mesh=mesh)
    router.add_api_route("/here", inherited_async)
    sub.add_api_route("/here", inherited_async)
    app.include_router(router, prefix="/router")
    app.mount("/sub", sub)
    if between:
        app.add_middleware(Between)
    app.add_middleware(MeshMiddleware, mesh=mesh)
    app.add_middleware(MeshMiddleware, mesh=mesh)
    return app


def flask_app() -> flask.Flask:
    app = flask.Flask(__name__)
    MeshExtension(StandInMesh()).init_app(app)
    app.add_url_rule("/here", view_func=inherited)
    app.add_url_rule("/async", view_func=inherited_async, endpoint="async")

    @app.get("/stream")
    def stream() -> flask.Response:
        response = flask.Response(flask.stream_with_context(sync_chunks()))
        response.call_on_close(lambda: SEEN.report("closed"))
        return response

    @app.get("/threads")
    def threads() -> list[str]:
        return carried_into_threads_of_ones_own()  # type: ignore[no-any-return]

    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()
    app.mount("/plain", application(between=False))
    app.mount("/between", application(between=True))
    with _bound() as listener, _uvicorn(app, listener):
        yield _url(listener)


@pytest.fixture(params=["plain", "between"])
def http(url: str, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{url}/{request.param}", headers=LEFT) as http:
        yield http


def behind(http: httpx.Client) -> set[str]:
    """What is inherited behind the response. With Starlette's middleware in between, that may begin a moment early."""
    return {WITHOUT_DEADLINE, ALL} if http.base_url.path == "/between/" else {WITHOUT_DEADLINE}


@pytest.mark.parametrize("name", PLACES)
def test_the_scope_holds(http: httpx.Client, name: str) -> None:
    found = http.get(f"/{name}").raise_for_status().json()
    assert found
    assert set(found) == {ALL}
    ends_later = name.startswith("generators-as")
    if ends_later:
        ends = SEEN.wait_for("end of a generator", "end of an async generator")
        assert set(ends.values()) <= behind(http)  # FastAPI goes on with them behind the response
    without = http.get(f"/{name}", headers=dict.fromkeys(LEFT, ""))
    assert set(without.json()) == {NOTHING}
    if ends_later:
        assert set(SEEN.wait_for("end of a generator", "end of an async generator").values()) == {NOTHING}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_streamed_body_has_it_to_the_last_byte_and_tasks_behind_have_no_deadline(
    http: httpx.Client, kind: str
) -> None:
    assert http.get("/stream", params={"kind": kind}).text.splitlines() == [ALL] * 3
    assert set(SEEN.wait_for("sync task behind a stream").values()) <= behind(http)


def test_background_tasks_and_what_is_left_running_lose_the_deadline_and_keep_the_rest(http: httpx.Client) -> None:
    assert http.get("/background").json() == ALL
    assert set(SEEN.wait_for("async task behind", "sync task behind").values()) <= behind(http)
    assert SEEN.wait_for("left running") == {"left running": WITHOUT_DEADLINE}


@pytest.mark.parametrize("path", ["/router/here", "/sub/here"])
def test_routers_and_mounted_applications_with_a_middleware_of_their_own(http: httpx.Client, path: str) -> None:
    assert http.get(path).json() == ALL


def test_flask_on_a_server_of_its_own(serve_wsgi: Callable[[Any], str]) -> None:
    with httpx.Client(base_url=serve_wsgi(flask_app()), headers=LEFT) as http:
        assert http.get("/here").text == http.get("/async").text == ALL
        assert set(http.get("/threads").json()) == {ALL}
        assert http.get("/stream").text.splitlines() == [ALL] * 3
    assert SEEN.wait_for("closed") == {"closed": WITHOUT_DEADLINE}


def test_websockets_pass_with_nothing_inherited() -> None:
    app = application(between=True)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(inherited())
        await websocket.close()

    with TestClient(app).websocket_connect("/socket", headers=LEFT) as connection:
        assert connection.receive_text() == NOTHING


def test_a_process_pool_has_no_context_to_be_given() -> None:
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(carry(inherited))
