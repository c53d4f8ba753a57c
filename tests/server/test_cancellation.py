"""Handlers that nobody waits for: cancelled, broken off, or left to finish, bare and behind a real uvicorn."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import PlainTextResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib.context import ServedRequest, current, current_scope
from meshlib.errors import DeadlineExceeded, NoEndpoint
from meshlib.propagation import DEADLINE_MS
from meshlib.server import cancellation
from meshlib.server.asgi import MeshMiddleware, Message, Receive, Scope, Send
from tests.peers.process import wait_until
from tests.server.conftest import Serve
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"x", "more_body": True}
END: Message = {"type": "http.response.body", "body": b""}
EMPTY: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "LOOK_S", 0.001)


@dataclass
class Server:
    """One connection, as an ASGI server has it: what the caller sends, when it goes, and what it is sent."""

    messages: list[Message] = field(default_factory=lambda: [EMPTY])
    sent: list[Message] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        self.gone = asyncio.Event()
        self.done = asyncio.Event()

    async def receive(self) -> Message:
        self.asked += 1
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return GONE

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.done.set()

    async def serve(self, middleware: MeshMiddleware, left_ms: int | None = None, **scope: Any) -> None:
        headers = [] if left_ms is None else [(DEADLINE_MS.encode(), str(left_ms).encode())]
        full: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("127.0.0.1", 1)}
        await middleware({**full, **scope}, self.receive, self.send)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


def outcomes(middleware: MeshMiddleware) -> dict[tuple[str, str], int]:
    return dict(middleware._serving.outcomes)


class Handler:
    """Waits until it is cancelled."""

    def __init__(self, *before: Message) -> None:
        self.before = before
        self.began = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.before:
            await send(message)
        self.began.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


# The deadline


async def test_at_the_deadline_the_handler_is_cancelled_and_the_caller_told() -> None:
    handler, server = Handler(), Server()
    middleware = MeshMiddleware(handler)
    await server.serve(middleware, 20)
    assert handler.cancelled == 1
    assert server.status == 504
    assert dict(server.sent[0]["headers"])[b"x-meshlib-refused"] == b"deadline"
    assert len(server.sent) == 2
    assert outcomes(middleware) == {("cancelled", "deadline"): 1}
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_answer_of_head_has_no_body() -> None:
    server = Server()
    await server.serve(MeshMiddleware(Handler()), 20, method="HEAD")
    assert (server.status, server.sent[1]["body"]) == (504, b"")


async def test_a_half_sent_response_is_not_broken_off_at_the_deadline_but_on_disconnect() -> None:
    handler, server = Handler(START, PART), Server()
    middleware = MeshMiddleware(handler)
    serving = asyncio.create_task(server.serve(middleware, 20))
    await asyncio.sleep(0.04)
    assert (handler.cancelled, serving.done(), middleware._serving.in_flight) == (0, False, 1)
    server.gone.set()
    await serving
    assert (handler.cancelled, server.sent) == (1, [START, PART])
    assert outcomes(middleware) == {("cancelled", "disconnect"): 1}


@pytest.mark.parametrize("cancel", ["safe_methods", "off"])
async def test_a_response_that_ends_behind_the_deadline_is_whole_and_not_late(cancel: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PART)
        await asyncio.sleep(0.04)
        assert current().remaining == 0.0
        await send(END)

    server = Server()
    middleware = MeshMiddleware(app, StandInMesh(cancel=cancel))
    await server.serve(middleware, 20)
    assert server.sent == [START, PART, END]
    assert outcomes(middleware) == {("ok", ""): 1}


@pytest.mark.parametrize(
    ("cancel", "method", "cancels"),
    [
        ("safe_methods", "GET", True),
        ("safe_methods", "HEAD", True),
        ("safe_methods", "OPTIONS", True),
        ("safe_methods", "TRACE", True),
        ("safe_methods", "POST", False),
        ("safe_methods", "DELETE", False),
        ("safe_methods", "get", False),
        ("all", "POST", True),
        ("off", "GET", False),
    ],
)
async def test_which_methods(cancel: Any, method: str, cancels: bool) -> None:
    cancelled: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10 if cancels else 0.05)
        except asyncio.CancelledError:
            cancelled.append(method)
            raise
        await PlainTextResponse("late")(scope, receive, send)

    server = Server()
    await server.serve(MeshMiddleware(app, StandInMesh(cancel=cancel)), 20, method=method)
    assert (cancelled == [method]) is cancels
    assert server.status == (504 if cancels else 200)


async def test_a_handler_that_answers_all_the_same_is_not_heard() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0.005)  # what cleans up may wait
            await PlainTextResponse("late")(scope, receive, send)

    server = Server()
    middleware = MeshMiddleware(app)
    await server.serve(middleware, 20)
    assert [message["type"] for message in server.sent] == ["http.response.start", "http.response.body"]
    assert server.status == 504
    assert outcomes(middleware) == {("cancelled", "deadline"): 1}


async def test_a_handler_that_goes_on_streaming_is_ended() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            await send(PART)
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                pass

    server = Server()
    server.gone.set()
    middleware = MeshMiddleware(app)
    async with asyncio.timeout(10):
        await server.serve(middleware, 20)
    assert outcomes(middleware) == {("cancelled", "disconnect"): 1}


async def test_an_error_of_a_meshed_call_behind_the_deadline_is_no_second_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise NoEndpoint("none") from None

    server = Server()
    await server.serve(MeshMiddleware(app), 20)
    assert len(server.sent) == 2
    assert server.status == 504


async def test_a_fault_of_the_application_behind_the_deadline_is_seen() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            raise KeyError("bug")

    server = Server()
    with pytest.raises(KeyError):
        await server.serve(MeshMiddleware(app), 20)
    assert server.status == 504


class Stuck(Server):
    """Whose caller does not read."""

    async def send(self, message: Message) -> None:
        self.done.set()
        await asyncio.sleep(1000)


async def takes_long_to_clean_up(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        await asyncio.sleep(1000)


def test_a_request_that_goes_down_with_its_loop_is_over() -> None:
    server, middleware = Stuck(), MeshMiddleware(takes_long_to_clean_up, StandInMesh(cancel="all"))
    loop = asyncio.new_event_loop()
    serving = loop.create_task(server.serve(middleware, 20))
    loop.run_until_complete(server.done.wait())
    assert middleware._serving.in_flight == 1
    loop.close()
    del serving, server
    gc.collect()
    assert middleware._serving.in_flight == 0


async def test_a_server_that_ends_does_not_wait_for_the_answer_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    server, middleware = Stuck(), MeshMiddleware(takes_long_to_clean_up, StandInMesh(cancel="all"))
    serving = asyncio.ensure_future(server.serve(middleware, 20))
    await server.done.wait()
    serving.cancel()
    assert await asyncio.gather(serving, return_exceptions=True) != [None]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert middleware._serving.in_flight == 0


async def test_the_span_of_the_framework_says_so() -> None:
    provider = TracerProvider()
    with provider.get_tracer("test").start_as_current_span("server") as span:
        await Server().serve(MeshMiddleware(Handler()), 20)
        assert dict(span.attributes or {})["meshlib.cancelled"] == "deadline"  # type: ignore[attr-defined]
        await Server().serve(MeshMiddleware(Handler()), 0)
        assert dict(span.attributes or {})["meshlib.refused"] == "expired"  # type: ignore[attr-defined]


# Cancelled by somebody else


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    handler, server = Handler(), Server()
    middleware = MeshMiddleware(handler)
    task = asyncio.create_task(server.serve(middleware, 60_000))
    await handler.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.sent == []
    assert outcomes(middleware) == {("cancelled", "server"): 1}
    assert middleware._serving.in_flight == 0


async def test_both_at_once_is_from_elsewhere() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            tasks[0].cancel()  # behind that of the deadline, which it was woken by

    tasks: list[asyncio.Task[None]] = []
    tasks.append(asyncio.create_task(Server().serve(MeshMiddleware(app), 20)))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_a_timeout_around_it_works() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Server().serve(MeshMiddleware(Handler()), 60_000)


async def test_a_timeout_inside_works_and_the_handler_goes_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(0.005):
                await asyncio.sleep(10)
        except TimeoutError:
            await PlainTextResponse("fallback")(scope, receive, send)

    server = Server()
    await server.serve(MeshMiddleware(app), 5000)
    assert server.status == 200


# The caller goes away


async def test_a_handler_whose_caller_went_away_is_cancelled() -> None:
    handler, server = Handler(), Server()
    middleware = MeshMiddleware(handler)
    serving = asyncio.create_task(server.serve(middleware))
    await handler.began.wait()
    server.gone.set()
    await serving
    assert handler.cancelled == 1
    # For whoever stands further out, such as an access log; the server drops it.
    assert server.status == 499
    assert outcomes(middleware) == {("cancelled", "disconnect"): 1}


async def test_a_stream_whose_caller_went_away_is_cancelled() -> None:
    handler, server = Handler(START, PART), Server()
    middleware = MeshMiddleware(handler)
    serving = asyncio.create_task(server.serve(middleware))
    await handler.began.wait()
    server.gone.set()
    await serving
    assert (handler.cancelled, server.sent) == (1, [START, PART])
    assert outcomes(middleware) == {("cancelled", "disconnect"): 1}


async def test_a_post_is_not_watched() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.02)
        await PlainTextResponse("done")(scope, receive, send)

    server = Server()
    server.gone.set()
    await server.serve(MeshMiddleware(app), method="POST")
    assert (server.status, server.asked) == (200, 0)


async def test_a_quick_handler_costs_no_task_and_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "LOOK_S", 10)
    made: list[Any] = []
    asyncio.get_running_loop().set_task_factory(lambda loop, coro, **more: made.append(coro) or asyncio.Task(coro))  # type: ignore[func-returns-value]
    server = Server()
    await server.serve(MeshMiddleware(PlainTextResponse("quick")), 60_000)
    asyncio.get_running_loop().set_task_factory(None)
    assert (server.status, server.asked, made) == (200, 0, [])


async def test_an_application_that_waits_for_the_disconnect_is_told_and_not_cancelled() -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == EMPTY
        began.set()
        await asyncio.sleep(0.02)  # watched meanwhile
        told.append(await receive())
        told.append(await receive())
        await PlainTextResponse("orderly")(scope, receive, send)

    began = asyncio.Event()
    server = Server()
    serving = asyncio.create_task(server.serve(MeshMiddleware(app)))
    await began.wait()
    await asyncio.sleep(0.03)
    server.gone.set()
    await serving
    assert told == [GONE, GONE]
    assert server.status == 200


@pytest.mark.parametrize("asks_at", [0, 0.02])
async def test_a_body_is_read_whole_and_in_order_though_it_is_watched(asks_at: float) -> None:
    parts = [{"type": "http.request", "body": bytes([65 + n]), "more_body": n < 3} for n in range(4)]
    read: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(asks_at)
        assert server.asked <= 1, "no more than one ahead"
        while not read or read[-1]["more_body"]:
            read.append(await receive())
            await asyncio.sleep(0.005)
        began.set()
        await asyncio.sleep(10)

    began = asyncio.Event()
    server = Server(list(parts))
    middleware = MeshMiddleware(app, StandInMesh(cancel="all"))
    serving = asyncio.create_task(server.serve(middleware, method="POST"))
    await began.wait()
    server.gone.set()
    await serving
    assert read == parts
    assert outcomes(middleware) == {("cancelled", "disconnect"): 1}


async def test_a_body_that_waits_for_100_continue_is_not_asked_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.02)
        assert server.asked == 0
        assert await receive() == EMPTY
        await PlainTextResponse("read")(scope, receive, send)

    server = Server()
    middleware = MeshMiddleware(app, StandInMesh(cancel="all"))
    await server.serve(middleware, method="PUT", headers=[(b"expect", b"100-continue")])
    assert server.status == 200


async def test_a_server_that_cannot_be_asked_is_left_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.02)
        await PlainTextResponse("done")(scope, receive, send)

    async def receive() -> Message:
        raise RuntimeError("not again")

    server = Server()
    server.receive = receive  # type: ignore[method-assign]
    await server.serve(MeshMiddleware(app))
    assert server.status == 200


async def test_starlettes_own_watching_goes_on_working() -> None:
    ended: list[str] = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                began.set()
                await asyncio.sleep(0.001)
        finally:
            ended.append("stream")

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(chunks())

    async def polls(request: Request) -> PlainTextResponse:
        began.set()
        while not await request.is_disconnected():  # noqa: ASYNC110 - that is how it is asked
            await asyncio.sleep(0.0001)
        ended.append("poll")
        return PlainTextResponse("orderly")

    for handler, cancel in ((stream, "safe_methods"), (polls, "off")):
        app = Starlette(routes=[Route("/", handler)])
        middleware = MeshMiddleware(app, StandInMesh(cancel=cancel))
        began, server = asyncio.Event(), Server()
        serving = asyncio.create_task(server.serve(middleware, query_string=b"", asgi={"spec_version": "2.3"}))
        await began.wait()
        await asyncio.sleep(0.005)
        server.gone.set()
        await serving
    assert ended == ["stream", "poll"]


# Threads


async def test_a_thread_keeps_its_place_and_the_answer_goes_out_at_the_deadline() -> None:
    release = threading.Event()
    left: list[tuple[float | None, str]] = []
    threads = anyio.to_thread.current_default_thread_limiter()

    def work() -> str:
        release.wait(5)
        left.append((current().remaining, current().cancelled))
        return "late"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await anyio.to_thread.run_sync(work)
        await PlainTextResponse(answer)(scope, receive, send)
        left.append((current().remaining, current().cancelled))

    server = Server()
    middleware = MeshMiddleware(app)
    serving = asyncio.create_task(server.serve(middleware, 20))
    await server.done.wait()
    assert server.status == 504
    assert threads.borrowed_tokens == 1
    assert middleware._serving.in_flight == 1
    release.set()
    await serving
    assert len(server.sent) == 2, "the late response is dropped"
    # No meshed call of the thread begins any more; what runs behind the response has no deadline.
    assert left == [(0.0, "deadline"), (None, "")]
    assert outcomes(middleware) == {("cancelled", "deadline"): 1}


async def test_a_thread_whose_caller_went_away_makes_no_further_meshed_calls() -> None:
    release, served = threading.Event(), list[ServedRequest]()
    left: list[tuple[float | None, str]] = []

    def look() -> None:
        left.append((current().remaining, current().cancelled))

    def work() -> None:
        look()
        release.wait(5)
        look()
        with Mesh.from_dict({"discovery": [], "services": {"a": {"endpoints": ["127.0.0.1:1"]}}}) as mesh:
            for url in ("http://a", "http://outside.example"):
                with pytest.raises(DeadlineExceeded, match="the caller of the request being served had gone away"):
                    mesh.client().get(url)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = current_scope().request
        assert request is not None
        served.append(request)
        await anyio.to_thread.run_sync(work)
        await asyncio.sleep(10)  # cancelled now, if not before

    server = Server()
    serving = asyncio.create_task(server.serve(MeshMiddleware(app)))
    await asyncio.to_thread(wait_until, lambda: bool(left), "it has looked")
    server.gone.set()
    await asyncio.to_thread(wait_until, lambda: bool(served[0].cancelled), "it is noticed")
    release.set()
    await serving
    assert left == [(None, ""), (0.0, "disconnect")]


# Frameworks


async def test_dependencies_clean_up_and_background_tasks_run_on() -> None:
    seen: list[str] = []
    app = FastAPI()
    middleware = MeshMiddleware(app)

    @app.get("/")
    async def handler(request: Request, tasks: BackgroundTasks) -> str:
        async def background() -> None:
            await asyncio.sleep(0.25)
            seen.append(f"background {current_scope().deadline}")

        tasks.add_task(background)
        return "done"

    server = Server()
    await server.serve(middleware, 200, query_string=b"")
    assert server.status == 200
    assert seen == ["background None"]
    assert outcomes(middleware) == {("ok", ""): 1}


async def test_basehttpmiddleware_on_both_sides() -> None:
    async def dispatch(request: Any, call_next: RequestResponseEndpoint) -> StarletteResponse:
        return await call_next(request)

    cancelled: list[bool] = []

    async def handler(request: Request) -> PlainTextResponse:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return PlainTextResponse("late")

    app = Starlette(routes=[Route("/", handler)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app.add_middleware(MeshMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    server = Server()
    full: Scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": ("127.0.0.1", 1)}
    await app({**full, "headers": [(DEADLINE_MS.encode(), b"20")]}, server.receive, server.send)
    assert (server.status, cancelled) == (504, [True])

    server = Server()
    serving = asyncio.create_task(app({**full, "headers": []}, server.receive, server.send))
    await asyncio.sleep(0.02)
    server.gone.set()
    await serving
    assert (server.status, cancelled) == (499, [True, True])


# Behind real servers


def the_app(happened: dict[str, threading.Event]) -> FastAPI:
    app = FastAPI()

    async def work() -> str:
        happened["began"].set()
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            happened["cancelled"].set()
            raise
        happened["finished"].set()
        return "done"

    app.get("/work")(work)
    app.post("/work")(work)

    @app.get("/hangs")
    async def hangs() -> None:
        await asyncio.sleep(60)

    @app.get("/thread")
    def thread() -> str:
        happened["released"].wait(60)
        return "late"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        return StreamingResponse(chunks())

    return app


def leave(url: str, method: str, began: threading.Event) -> None:
    """A client that goes away as soon as its request is being served."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{method} /work HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".encode())
        assert began.wait(10)


@contextmanager
def hypercorn(app: Any) -> Iterator[str]:
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config, loop, stop = Config(), asyncio.new_event_loop(), asyncio.Event()
        config.bind = [f"fd://{listener.fileno()}"]
        config.graceful_timeout = 1.0
        thread = threading.Thread(
            target=lambda: loop.run_until_complete(hypercorn_serve(app, config, shutdown_trigger=stop.wait))
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()
            listener.detach()  # hypercorn closes it


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_real_servers(server: str, serve: Serve) -> None:
    happened = {name: threading.Event() for name in ("began", "cancelled", "finished", "released")}
    middleware = MeshMiddleware(the_app(happened))
    with ExitStack() as running:
        url = serve(middleware) if server == "uvicorn" else running.enter_context(hypercorn(middleware))
        leave(url, "GET", happened["began"])
        assert happened["cancelled"].wait(10)
        happened["cancelled"].clear()
        happened["began"].clear()
        leave(url, "POST", happened["began"])
        assert happened["finished"].wait(10)
        assert not happened["cancelled"].is_set()

        with httpx.Client(base_url=url, headers={DEADLINE_MS: "60"}) as http:
            for path in ("/hangs", "/thread"):
                answer = http.get(path)
                assert (answer.status_code, answer.headers["x-meshlib-refused"]) == (504, "deadline")
            happened["released"].set()
            with http.stream("GET", "/stream") as stream:
                chunks = stream.iter_raw()
                assert [next(chunks) for _ in range(10)] == [b"x"] * 10, "on behind the deadline"
            # Cancelled handlers leave a server that serves.
            assert http.get("/work", headers={DEADLINE_MS: "5000"}).json() == "done"
    expected = {("cancelled", "disconnect"): 2, ("cancelled", "deadline"): 2, ("ok", ""): 2}
    # An answer is at its caller before it is counted.
    wait_until(lambda: middleware._serving.outcomes == expected, "all are counted")


def test_without_a_loop_of_asyncio_nothing_is_cancelled_and_all_else_works() -> None:
    server_sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (current().remaining or 0) > 50
        await send(START)
        await send(END)

    async def send(message: Message) -> None:
        server_sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is to be received")

    headers = [(DEADLINE_MS.encode(), b"60000")]
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("127.0.0.1", 1)}
    with pytest.raises(StopIteration):
        MeshMiddleware(app)(scope, receive, send).send(None)
    assert server_sent == [START, END]
