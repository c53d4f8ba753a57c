"""The ASGI middleware: with Starlette and FastAPI in process, and behind a real uvicorn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any

import anyio.to_thread
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from meshlib.context import current, current_scope, timeout
from meshlib.errors import (
    AttemptTimeout,
    CircuitOpen,
    ConnectFailed,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryUnavailable,
    LimitExceeded,
    NoEndpoint,
    RateLimited,
    Reset,
    TLSFailed,
    UnknownService,
)
from meshlib.propagation import DEADLINE_MS, INCOMING
from meshlib.server.asgi import ASGIApp, MeshMiddleware, Message, Receive, Scope, Send
from meshlib.server.fastapi import MeshMiddleware as FastAPIMiddleware
from tests.server.conftest import Serve
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

LEFT = {DEADLINE_MS: "5000", "x-meshlib-criticality": "Critical_Plus", "baggage": "tenant=t1"}


def inherited() -> dict[str, Any]:
    now = current()
    name = None if now.criticality is None else now.criticality.name
    return {"remaining": now.remaining, "criticality": name, "baggage": dict(now.baggage)}


def has_all(seen: dict[str, Any]) -> bool:
    return (
        seen["remaining"] is not None
        and 0 < seen["remaining"] <= 5
        and seen["criticality"] == "CRITICAL_PLUS"
        and seen["baggage"] == {"tenant": "t1"}
    )


def client(app: Any, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(peer, 1), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://callee")


def sync_dependency() -> Iterator[dict[str, Any]]:
    yield inherited()


async def async_dependency() -> AsyncIterator[dict[str, Any]]:
    yield inherited()


def fastapi_app(seen: dict[str, Any]) -> FastAPI:
    """Reports what is inherited in every place where FastAPI runs code of a user."""
    app = FastAPI()
    app.add_middleware(FastAPIMiddleware, mesh=StandInMesh())

    @app.get("/sync")
    def sync(found: Annotated[dict[str, Any], Depends(sync_dependency)]) -> list[dict[str, Any]]:
        return [inherited(), found]

    @app.get("/async")
    async def async_(found: Annotated[dict[str, Any], Depends(async_dependency)]) -> list[dict[str, Any]]:
        in_thread = await anyio.to_thread.run_sync(inherited)
        in_task = await asyncio.create_task(_report())
        return [inherited(), found, in_thread, in_task]

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: seen.__setitem__("background", inherited()))
        return "done"

    async def _report() -> dict[str, Any]:
        await asyncio.sleep(0)
        return inherited()

    def sync_chunks() -> Iterator[str]:
        for number in range(3):
            seen[f"sync chunk {number}"] = inherited()
            yield "x"

    async def async_chunks() -> AsyncIterator[str]:
        for number in range(3):
            seen[f"async chunk {number}"] = inherited()
            yield "x"

    @app.get("/stream/{kind}")
    async def stream(kind: str, tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(lambda: seen.__setitem__("after the stream", inherited()))
        return StreamingResponse(sync_chunks() if kind == "sync" else async_chunks(), background=tasks)

    return app


@pytest.mark.parametrize("path", ["/sync", "/async"])
async def test_handlers_dependencies_threads_and_tasks_inherit_all(path: str) -> None:
    seen: dict[str, Any] = {}
    async with client(fastapi_app(seen)) as http:
        found = (await http.get(path, headers=LEFT)).json()
    assert [has_all(each) for each in found] == [True] * len(found)


async def test_a_background_task_has_no_deadline_and_keeps_the_rest() -> None:
    seen: dict[str, Any] = {}
    async with client(fastapi_app(seen)) as http:
        await http.get("/background", headers=LEFT)
    assert seen["background"] == {"remaining": None, "criticality": "CRITICAL_PLUS", "baggage": {"tenant": "t1"}}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_streamed_body_keeps_the_deadline_to_its_last_byte(kind: str) -> None:
    seen: dict[str, Any] = {}
    async with client(fastapi_app(seen)) as http:
        assert (await http.get(f"/stream/{kind}", headers=LEFT)).text == "xxx"
    assert [has_all(seen[f"{kind} chunk {number}"]) for number in range(3)] == [True] * 3
    assert seen["after the stream"]["remaining"] is None


async def test_nothing_stays_behind_for_the_next_request() -> None:
    async with client(fastapi_app({})) as http:
        await http.get("/async", headers=LEFT)
        assert (await http.get("/async")).json()[0] == {"remaining": None, "criticality": None, "baggage": {}}
    assert current_scope().request is None


async def test_requests_at_once_keep_apart() -> None:
    together = asyncio.Barrier(10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await together.wait()
        await JSONResponse(inherited())(scope, receive, send)

    async with client(MeshMiddleware(app)) as http:
        answers = await asyncio.gather(
            *(http.get("/", headers={DEADLINE_MS: f"{n}000", "baggage": f"n={n}"}) for n in range(10, 20))
        )
    for number, answer in zip(range(10, 20), answers, strict=True):
        assert number - 5 < answer.json()["remaining"] <= number
        assert answer.json()["baggage"] == {"n": str(number)}


async def test_a_task_that_outlives_the_response_loses_the_deadline() -> None:
    answered = asyncio.Event()
    left_running: list[asyncio.Task[tuple[float | None, float | None]]] = []

    async def work() -> tuple[float | None, float | None]:
        before = current().remaining
        await answered.wait()
        return before, current().remaining

    async def handler(request: Request) -> PlainTextResponse:
        left_running.append(asyncio.create_task(work()))
        await asyncio.sleep(0)
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/", handler)])
    app.add_middleware(MeshMiddleware)
    async with client(app) as http:
        await http.get("/", headers=LEFT)
    answered.set()
    before, after = await left_running[0]
    assert before is not None
    assert after is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("left", ["0", "1"])
async def test_an_expired_request_is_refused_without_calling_the_application(left: str, method: str) -> None:
    called: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope)

    middleware = MeshMiddleware(app, StandInMesh())
    async with client(middleware) as http:
        answer = await http.request(method, "/", headers={DEADLINE_MS: left})
    assert answer.status_code == 504
    assert answer.headers["x-meshlib-refused"] == "expired"
    assert answer.headers["content-type"] == "application/problem+json"
    if method == "HEAD":
        assert answer.content == b""
    else:
        assert answer.json()["status"] == 504
    assert called == []
    assert middleware.counts.expired == 1


async def test_an_untrusted_peer_cannot_set_anything_nor_have_itself_refused() -> None:
    async with client(fastapi_app({}), peer="203.0.113.9") as http:
        answer = await http.get("/async", headers={**LEFT, DEADLINE_MS: "0"})
    assert answer.json()[0] == {"remaining": None, "criticality": None, "baggage": {}}


@pytest.mark.parametrize("mode", ["off", "observe"])
async def test_off_and_observe_change_nothing(mode: Any) -> None:
    mesh = StandInMesh(mode=mode)
    sent: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sent.append(send)
        if scope["path"] == "/fails":
            raise NoEndpoint("none left", service="orders")
        await JSONResponse(inherited())(scope, receive, send)

    middleware = MeshMiddleware(app, mesh)
    async with client(middleware) as http:
        answer = await http.get("/", headers={**LEFT, DEADLINE_MS: "0"})
        assert answer.json() == {"remaining": None, "criticality": None, "baggage": {}}
        assert (await http.get("/fails")).status_code == 500
        mesh.settings = replace(mesh.settings, mode="on")
        assert (await http.get("/", headers={DEADLINE_MS: "0"})).status_code == 504
    assert middleware.counts.expired == (2 if mode == "observe" else 1)


async def test_twice_is_once() -> None:
    async def handler(request: Request) -> JSONResponse:
        return JSONResponse(inherited())

    inner = Starlette(routes=[Route("/", handler)])
    inner.add_middleware(MeshMiddleware, mesh=StandInMesh())
    outer = Starlette(routes=[Mount("/inner", inner)])
    outer.add_middleware(MeshMiddleware, mesh=StandInMesh())
    async with client(outer) as http:
        assert has_all((await http.get("/inner/", headers=LEFT)).json())


# How a request ends


def http_scope(**changes: Any) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"x-meshlib-deadline-ms", b"5000")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **changes,
    }


async def never() -> Message:
    raise AssertionError("nothing is to be received")


async def run(
    app: Callable[[Send], Awaitable[None]], sent: list[Message] | None = None, **scope: Any
) -> list[float | None]:
    """Runs `app`; returns the deadlines seen by a bystander that was started inside and asked at the end."""
    seen: list[float | None] = []

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        inside = current_scope()
        try:
            await app(send)
        finally:
            seen.append(inside.deadline)
            bystanders.append(inside)

    async def collect(message: Message) -> None:
        (sent if sent is not None else []).append(message)

    bystanders: list[Any] = []
    try:
        await MeshMiddleware(wrapped)(http_scope(**scope), never, collect)
    finally:
        assert all(inside.deadline is None for inside in bystanders), "the request is over"
    return seen


START: Message = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize(
    ("messages", "over"),
    [
        ([], False),
        ([START], False),
        ([START, {"type": "http.response.body", "body": b"x", "more_body": True}], False),
        ([START, {"type": "http.response.body", "body": b"x"}], True),
        ([START, {"type": "http.response.body"}], True),
        ([START, {"type": "http.response.pathsend", "path": "/"}], True),
        ([START, {"type": "http.response.zerocopysend", "file": 1, "more_body": True}], False),
        ([START, {"type": "http.response.zerocopysend", "file": 1}], True),
        ([{**START, "trailers": True}, {"type": "http.response.body"}], False),
        ([{**START, "trailers": True}, {"type": "http.response.body"}, {"type": "http.response.trailers"}], True),
        ([{"type": "http.response.early_hint"}, START], False),
    ],
)
async def test_the_request_is_over_with_the_last_byte(messages: list[Message], over: bool) -> None:
    async def app(send: Send) -> None:
        for message in messages:
            await send(message)

    sent: list[Message] = []
    (deadline,) = await run(app, sent)
    assert (deadline is None) is over
    assert sent == messages


async def test_the_request_is_over_when_the_application_fails() -> None:
    async def app(send: Send) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await run(app)


async def test_the_request_is_over_when_it_is_cancelled() -> None:
    began = asyncio.Event()

    async def app(send: Send) -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(app))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert current_scope().request is None


async def test_a_deadline_set_in_the_handler_holds_beside_the_callers() -> None:
    async def app(send: Send) -> None:
        with timeout("1s"):
            assert (current().remaining or 9) <= 1
        with timeout("60s"):
            assert (current().remaining or 9) <= 5

    await run(app)


@pytest.mark.parametrize(
    ("client", "server", "trusted"),
    [
        (("127.0.0.1", 1), ("10.0.0.1", 80), True),
        (("8.8.8.8", 1), ("10.0.0.1", 80), False),
        (("testclient", 1), ("testserver", 80), False),
        (None, ("/run/app.sock", None), True),
        (None, ("10.0.0.1", 80), False),
        (None, None, False),
    ],
)
async def test_who_is_trusted(client: object, server: object, trusted: bool) -> None:
    async def app(send: Send) -> None:
        assert (current().remaining is not None) is trusted

    await run(app, client=client, server=server)


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_anything_but_http_passes_untouched(kind: str) -> None:
    given: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given.append((scope, receive, send))

    async def send(message: Message) -> None: ...

    scope: Scope = {"type": kind}
    await MeshMiddleware(app)(scope, never, send)
    assert given == [(scope, never, send)]
    assert scope == {"type": kind}


def test_websockets_and_lifespan_work_through_it() -> None:
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json(inherited())
        await socket.close()

    with TestClient(app, client=("127.0.0.1", 1)) as http, http.websocket_connect("/ws", headers=LEFT) as socket:
        assert socket.receive_json()["remaining"] is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from([*INCOMING, "traceparent", "tracestate"]).map(str.encode), st.binary(max_size=20)
            ),
            st.binary(max_size=40),
        ),
        max_size=8,
    )
)
def test_no_header_makes_it_fail(headers: list[tuple[bytes, bytes]]) -> None:
    async def app(send: Send) -> None:
        remaining = current().remaining
        assert remaining is None or remaining <= 86_400

    asyncio.run(run(app, headers=headers))


# Errors that the application lets pass


FAILURES: list[tuple[Exception, int, str | None]] = [
    (DeadlineExceeded("2 s passed", service="orders"), 504, None),
    (CircuitOpen("open", service="orders", retry_after_s=4.2), 503, "5"),
    (CircuitOpen("open", service="orders", retry_after_s=0.1), 503, "1"),
    (CircuitOpen("open", service="orders"), 503, None),
    (NoEndpoint("none", service="orders"), 503, None),
    (LimitExceeded("full", service="orders"), 503, None),
    (RateLimited("too many", service="orders", retry_after_s=2.1), 503, "3"),
    (AttemptTimeout("1 s passed", service="orders"), 504, None),
    (ConnectTimeout("1 s passed", service="orders"), 503, None),
    (ConnectFailed("refused", service="orders"), 503, None),
    (Reset("by peer", service="orders"), 503, None),
    (DiscoveryUnavailable("away", service="orders"), 503, None),
    (TLSFailed("not its certificate", service="orders"), 500, None),
    (UnknownService("unknown", service="orders"), 500, None),
    (KeyError("bug"), 500, None),
]


def failing(error: Exception, **options: Any) -> ASGIApp:
    async def handler(request: Request) -> PlainTextResponse:
        raise error

    app = Starlette(routes=[Route("/", handler)])
    app.add_middleware(MeshMiddleware, mesh=StandInMesh(), **options)
    return app


@pytest.mark.parametrize(("error", "status", "retry_after"), FAILURES)
async def test_errors_of_the_mesh_become_504_and_503(error: Exception, status: int, retry_after: str | None) -> None:
    async with client(failing(error)) as http:
        answer = await http.get("/")
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert "x-meshlib-refused" not in answer.headers
    if status != 500:
        assert answer.json()["detail"] == str(error)


async def test_a_stranger_does_not_learn_which_service_failed() -> None:
    async with client(failing(NoEndpoint("10.0.0.7 is gone", service="orders")), peer="203.0.113.9") as http:
        answer = await http.get("/")
    assert answer.status_code == 503
    assert "orders" not in answer.text


async def test_mapping_errors_can_be_turned_off() -> None:
    async with client(failing(NoEndpoint("none"), map_errors=False)) as http:
        assert (await http.get("/")).status_code == 500


async def test_a_handler_of_the_application_comes_first() -> None:
    app = FastAPI()
    app.add_middleware(MeshMiddleware)

    @app.exception_handler(NoEndpoint)
    async def own(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("own", 418)

    @app.get("/")
    async def handler() -> None:
        raise NoEndpoint

    async with client(app) as http:
        assert (await http.get("/")).status_code == 418


async def test_an_error_behind_the_headers_is_passed_on() -> None:
    async def app(send: Send) -> None:
        await send(START)
        raise NoEndpoint("too late")

    sent: list[Message] = []
    with pytest.raises(NoEndpoint):
        await run(app, sent)
    assert sent == [START]


# Behind uvicorn


def test_uvicorn_streams_with_the_deadline_and_ends_it_behind_the_last_byte(serve: Serve) -> None:
    seen: dict[str, Any] = {}
    served = threading.Event()
    app = fastapi_app(seen)

    @app.get("/last")
    async def last(tasks: BackgroundTasks) -> str:
        tasks.add_task(served.set)
        return "last"

    url = serve(app)
    with httpx.Client(base_url=url, headers=LEFT) as http:
        assert all(has_all(each) for each in http.get("/sync").json())
        assert all(has_all(each) for each in http.get("/async").json())
        for kind in ("sync", "async"):
            assert http.get(f"/stream/{kind}").text == "xxx"
        assert http.get("/sync", headers={DEADLINE_MS: "0"}).headers["x-meshlib-refused"] == "expired"
        assert http.post("/sync", content=b"x" * 100_000, headers={DEADLINE_MS: "0"}).status_code == 504
        # uvicorn serves one connection's requests in turn, so the background task before this one is over.
        assert http.get("/last").status_code == 200
    assert served.wait(10)
    assert has_all(seen["sync chunk 2"])
    assert has_all(seen["async chunk 2"])
    assert seen["after the stream"]["remaining"] is None


def test_uvicorn_at_a_unix_socket_is_trusted(serve_unix: Serve) -> None:
    path = serve_unix(fastapi_app({}))
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://callee", headers=LEFT) as http:
        assert has_all(http.get("/async").json()[0])


@pytest.mark.parametrize(
    "app", [lambda environ, start_response: [], lambda request: None, None], ids=["wsgi", "django", "none"]
)
def test_what_is_no_asgi_application_is_refused_with_what_is_for_it(app: Any) -> None:
    with pytest.raises(TypeError, match=r"no ASGI application: there are meshlib\.server\.wsgi and"):
        MeshMiddleware(app)


@pytest.mark.parametrize("load", [lambda: 0.5, 0.5])
def test_a_measure_in_the_place_of_its_reporter_is_refused(load: Any) -> None:
    with pytest.raises(TypeError, match=r"a LoadReporter is expected, not .*: LoadReporter\(measure\)"):
        MeshMiddleware(Starlette(), StandInMesh(), load=load)
