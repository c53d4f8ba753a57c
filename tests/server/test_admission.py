"""Admission in front of applications: in event loops, in threads, behind a real uvicorn."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
import pytest

from meshlib import Mesh
from meshlib.context import Criticality
from meshlib.policy.admission_settings import AimdSettings, KeySource
from meshlib.policy.serving_lane import Waiter
from meshlib.policy.serving_queue import CALM_S
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import CRITICALITY, DEADLINE_MS
from meshlib.server import asgi, wsgi
from meshlib.server.admission import Admission, Ticket
from meshlib.server.asgi import Message, Receive, Scope, Send
from meshlib.server.refusal import Refusal
from meshlib.server.serving import Serving
from meshlib.telemetry.events import Event, SheddingBegan, SheddingEnded
from meshlib.telemetry.gauges_serving import SERVING_GAUGES
from tests.server.conftest import Serve
from tests.server.standin import StandInMesh
from tests.server.test_wsgi import call

pytestmark = pytest.mark.anyio

LOW, HIGH = {CRITICALITY: "sheddable"}, {CRITICALITY: "critical"}


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


class Callee(StandInMesh):
    """A mesh with admission, and an application that answers when it is told to."""

    def __init__(self, mode: Any = "on", **admission: Any) -> None:
        admission.setdefault("max_in_flight", 1)
        admission.setdefault("interval_s", 30.0)
        super().__init__(mode=mode, admission=AdmissionSettings(**admission), cancel="off")
        self.serving = Serving(self)
        self.called: list[str] = []
        self.bodies: list[bytes] = []
        self.go = asyncio.Event()
        self.app = asgi.MeshMiddleware(self.handle, self)

    @property
    def admission(self) -> Admission:
        assert self.serving.admission is not None
        return self.serving.admission

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called.append(scope["path"])
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    @asynccontextmanager
    async def client(self, peer: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://callee") as client:
            yield client

    async def until(self, in_flight: int, pending: int) -> None:
        queue = self.admission.queue
        await _until(lambda: (queue.in_flight, queue.pending) == (in_flight, pending))


async def test_who_finds_no_place_waits_and_who_finds_no_room_to_wait_is_refused() -> None:
    callee = Callee(max_pending=1)
    async with callee.client() as client:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        second = asyncio.create_task(client.get("/second"))
        await callee.until(1, 1)
        refused = await client.get("/third")
        assert refused.status_code == 503
        assert refused.headers["x-meshlib-refused"] == "overload"
        assert refused.headers["retry-after"] == "1"
        assert "x-envoy-overloaded" not in refused.headers
        assert refused.json()["status"] == 503
        callee.go.set()
        assert [(await each).text for each in (first, second)] == ["done", "done"]
    assert callee.called == ["/first", "/second"]
    assert (callee.admission.queue.in_flight, callee.admission.queue.admitted) == (0, 2)
    assert callee.serving.outcomes == {("ok", ""): 2, ("refused", "overload"): 1}


async def test_who_waited_for_long_enough_is_refused_and_one_whose_deadline_passed_gets_504() -> None:
    callee = Callee(interval_s=0.02)
    async with callee.client() as client:
        first = asyncio.create_task(client.get("/"))
        await callee.until(1, 0)
        assert (await client.get("/late")).status_code == 503
        expired = await client.get("/expired", headers={DEADLINE_MS: "5"})
        assert (expired.status_code, expired.headers["x-meshlib-refused"]) == (504, "expired")
        callee.go.set()
        await first
    assert callee.admission.queue.shed_by_reason() == {"queue_timeout": 1, "expired": 1}
    assert callee.admission.queue.pending == 0


async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    callee = Callee()
    async with callee.client() as client:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        waiting = asyncio.create_task(client.get("/waiting"))
        await callee.until(1, 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert callee.admission.queue.pending == 0
        granted = asyncio.create_task(client.get("/granted"))
        await callee.until(1, 1)
        # It gets the place, and is cancelled before it has taken it.
        callee.admission.queue.end(callee.serving.clock(), 0.0, None)
        granted.cancel()
        await asyncio.gather(granted, return_exceptions=True)
        await callee.until(0, 0)
        callee.go.set()
        await first
    assert callee.called == ["/first"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_is_cancelled_at_any_turn_of_the_loop_leaves_nothing_behind(method: str) -> None:
    """Whether it waits for its place, is served, or is half answered."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in range(3):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"x", "more_body": piece < 2})

    async def receive() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        await asyncio.sleep(0)

    mesh = StandInMesh(admission=AdmissionSettings(max_in_flight=1))
    middleware = asgi.MeshMiddleware(app, mesh)
    serving = middleware._serving
    assert serving.admission is not None
    scope = {"type": "http", "method": method, "path": "/", "headers": [], "client": ("127.0.0.1", 1)}
    before = asyncio.all_tasks()
    ended = 0
    for turns in range(40):
        first, second = (asyncio.create_task(middleware(dict(scope), receive, send)) for _ in range(2))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended += second.done()
        for task in (first, second) if turns % 2 else (second, first):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        queue = serving.admission.queue
        assert (serving.in_flight, queue.in_flight, queue.pending) == (0, 0, 0)
    assert 0 < ended < 40, "some were let through to their end, and others cut on their way"
    assert asyncio.all_tasks() == before


class GivenHeaders:
    """Headers, as an `Intake` reads them."""

    def __init__(self, headers: dict[str, list[str]]) -> None:
        self._headers = headers

    def known(self) -> dict[str, list[str]]:
        return {}

    def values(self, name: str) -> list[str]:
        return self._headers.get(name, [])

    def names(self) -> list[str]:
        return list(self._headers)


async def _speak(app: Any, messages: list[Message], headers: Iterable[tuple[bytes, bytes]] = ()) -> list[Message]:
    """Serve one request whose client sends `messages` and then nothing."""
    sent: list[Message] = []
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/spoken",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    return sent


BODY: list[Message] = [
    {"type": "http.request", "body": b"one ", "more_body": True},
    {"type": "http.request", "body": b"two", "more_body": False},
]


async def test_a_client_that_goes_away_leaves_the_queue() -> None:
    callee = Callee()
    async with callee.client() as client:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        async with asyncio.timeout(10):
            await _speak(callee.app, [BODY[1], {"type": "http.disconnect"}])
        assert callee.admission.queue.shed_by_reason() == {"gone": 1}
        callee.go.set()
        await first
    assert callee.called == ["/first"]


@pytest.mark.parametrize("headers", [[], [(b"expect", b"100-continue")]])
async def test_what_was_received_while_a_request_waited_is_for_the_application(
    headers: list[tuple[bytes, bytes]],
) -> None:
    callee = Callee()
    async with callee.client() as client:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        second = asyncio.create_task(_speak(callee.app, BODY, headers))
        await callee.until(1, 1)
        await asyncio.sleep(0.005)  # it may listen meanwhile
        callee.go.set()
        await first
        sent = await second
    assert callee.bodies == [b"", b"one two"]
    assert sent[0]["status"] == 200


async def test_a_place_is_held_up_to_the_last_byte_and_not_while_a_background_task_runs() -> None:
    callee = Callee()
    streaming, background = asyncio.Event(), asyncio.Event()
    in_flight: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        in_flight.append(callee.admission.queue.in_flight)
        await streaming.wait()
        await send({"type": "http.response.body", "body": b"b"})
        in_flight.append(callee.admission.queue.in_flight)
        await background.wait()

    task = asyncio.create_task(_speak(asgi.MeshMiddleware(app, callee), BODY))
    await callee.until(1, 0)
    streaming.set()
    await callee.until(0, 0)
    assert in_flight == [1, 0]
    background.set()
    await task


@pytest.mark.parametrize("mode", ["on", "observe"])
async def test_for_how_long_a_client_does_not_read_teaches_an_adaptive_limit_nothing(mode: str) -> None:
    callee = Callee(mode, max_in_flight=None, adaptive=AimdSettings(initial_limit=10, min_limit=1, timeout_s=0.5))
    callee.admission.clock = lambda: now
    callee.go.set()
    now = 0.0

    async def send(message: Message) -> None:
        nonlocal now
        now += 1.0

    async def slow(scope: Scope, receive: Receive, _: Send) -> None:
        await callee.app(scope, receive, send)

    async def works(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now
        now += 1.0
        await callee.handle(scope, receive, send)

    await _speak(slow, list(BODY))
    assert callee.admission.queue.limit == 10
    callee.app.app = works
    await _speak(callee.app, list(BODY))
    assert callee.admission.queue.limit == 9


async def test_a_handler_that_fails_gives_its_place_back() -> None:
    callee = Callee()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("handler")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            await _speak(asgi.MeshMiddleware(app, callee), BODY)
    assert (callee.admission.queue.in_flight, callee.admission.queue.admitted) == (0, 2)


async def test_loops_and_threads_share_one_limit() -> None:
    callee = Callee(max_in_flight=2, max_pending=50)
    inside, most, lock = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)

    def leave() -> None:
        nonlocal inside
        with lock:
            inside -= 1

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        enter()
        await asyncio.sleep(0)
        leave()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    def handle_sync(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        enter()
        leave()
        start_response("200 OK", [])
        return []

    statuses: list[int | str] = []

    async def load() -> None:
        app = asgi.MeshMiddleware(handle, callee)
        for _ in range(10):
            answers = await asyncio.gather(*(_speak(app, BODY) for _ in range(5)))
            statuses.extend(answer[0]["status"] for answer in answers)

    def load_sync() -> None:
        app = wsgi.MeshMiddleware(handle_sync, callee)
        statuses.extend(call(app).status for _ in range(25))

    works = [*(lambda: asyncio.run(load()) for _ in range(2)), load_sync, load_sync]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert statuses.count(200) == 100
    assert statuses.count("200 OK") == 50
    assert most <= 2
    assert (callee.admission.queue.in_flight, callee.admission.queue.pending) == (0, 0)


async def test_a_place_given_to_a_loop_that_is_closed_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    callee = Callee()
    queue = callee.admission.queue
    queue.enter(0.0, Criticality.CRITICAL)
    lost = asyncio.create_task(_speak(callee.app, BODY))
    await callee.until(1, 1)

    def closed(*args: object) -> None:
        raise RuntimeError("Event loop is closed")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", closed, raising=False)
        queue.end(0.0, 0.0, None)
    assert (queue.in_flight, queue.pending) == (0, 0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    assert queue.in_flight == 0


async def test_on_another_loop_than_asyncios_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    callee = Callee()
    arrival = callee.serving.intake.glance("127.0.0.1", GivenHeaders({}))
    taken = callee.admission.enter(arrival, GivenHeaders({}))

    def none() -> None:
        raise RuntimeError("no running event loop")

    monkeypatch.setattr(asyncio, "get_running_loop", none)
    waiter = callee.admission.enter(arrival, GivenHeaders({}))
    assert isinstance(waiter, Waiter)
    refused = await callee.admission.wait(waiter)
    assert isinstance(refused, Refusal)
    assert isinstance(taken, Ticket)
    taken.release()
    assert (callee.admission.queue.in_flight, callee.admission.queue.shed_by_reason()) == (0, {"queue_full": 1})


# Who goes first


async def test_the_less_critical_give_way_and_a_stranger_cannot_say_how_critical_it_is() -> None:
    callee = Callee(max_pending=1)
    async with callee.client() as client, callee.client("203.0.113.9") as stranger:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        low = asyncio.create_task(client.get("/low", headers=LOW))
        await callee.until(1, 1)
        boasting = asyncio.create_task(stranger.get("/boasting", headers={CRITICALITY: "critical_plus"}))
        assert (await low).status_code == 503
        plus = asyncio.create_task(client.get("/plus", headers={CRITICALITY: "critical_plus"}))
        assert (await boasting).status_code == 503
        callee.go.set()
        await first
        assert (await plus).status_code == 200
    assert callee.called == ["/first", "/plus"]
    assert callee.admission.queue.shed == {
        ("outranked", Criticality.SHEDDABLE): 1,
        ("outranked", Criticality.CRITICAL): 1,
    }


@pytest.mark.parametrize(
    ("fair_by", "peers", "headers", "expected"),
    [
        ("header", ("127.0.0.1", "127.0.0.1"), ("a", "b"), ["a", "b"]),
        ("header", ("203.0.113.9", "203.0.113.9"), ("a", "b"), [("peer", "203.0.113.9")] * 2),
        ("peer", ("10.0.0.1", "10.0.0.2"), ("a", "a"), [("peer", "10.0.0.1"), ("peer", "10.0.0.2")]),
        # Of an IPv6 address a stranger chooses the last half; trusted peers may be neighbours.
        ("peer", ("2001:db8::1", "2001:db8:0:0:ffff::2"), ("a", "a"), [("peer", "2001:db8::/64")]),
        ("peer", ("fd00::1", "fd00::2"), ("a", "a"), [("peer", "fd00::1"), ("peer", "fd00::2")]),
        ("peer", ("::ffff:203.0.113.9", "203.0.113.9"), ("a", "a"), [("peer", "203.0.113.9")]),
        ("peer", ("2001:db8::9%eth0", "no:address"), ("a", "a"), [("peer", "2001:db8::/64"), ("peer", "no:address")]),
        ("peer", ("9" * 300, "9" * 400), ("a", "a"), [("peer", "9" * 256)]),
    ],
)
async def test_a_caller_is_who_a_trusted_peer_says_it_is_or_else_the_peer(
    fair_by: str, peers: tuple[str, str], headers: tuple[str, str], expected: list[Any]
) -> None:
    callee = Callee(max_in_flight=9, fair_by=KeySource(fair_by, "x-client"))
    for peer, name in zip(peers, headers, strict=True):
        arrival = callee.serving.intake.glance(peer, GivenHeaders({}))
        callee.admission.enter(arrival, GivenHeaders({"x-client": [name]}))
    assert set(callee.admission.queue._callers) == set(expected)


async def test_where_many_repeat_their_requests_a_refusal_says_not_to() -> None:
    callee = Callee(max_pending=0)
    async with callee.client() as client, callee.client("203.0.113.9") as stranger:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        for _ in range(40):
            answer = await stranger.get("/", headers={"x-envoy-attempt-count": "2"})
        assert "x-envoy-overloaded" not in answer.headers
        for attempt in ("1", "2") * 20:
            answer = await client.get("/", headers={"x-envoy-attempt-count": attempt})
        assert answer.headers["x-envoy-overloaded"] == "true"
        callee.go.set()
        await first


# Modes, settings, events


async def test_in_mode_observe_all_are_served_at_once_and_what_would_be_refused_is_counted() -> None:
    callee = Callee(mode="observe", max_pending=1)
    async with callee.client() as client:
        tasks = [asyncio.create_task(client.get(f"/{n}", headers=LOW)) for n in range(3)]
        await _until(lambda: len(callee.called) == 3)
        queue = callee.admission.queue
        assert (queue.in_flight, queue.pending) == (1, 1)
        assert queue.shed == {("queue_full", Criticality.SHEDDABLE): 1}
        callee.go.set()
        assert [(await task).status_code for task in tasks] == [200] * 3
    assert (queue.in_flight, queue.pending) == (0, 0)
    assert (queue.admitted, queue.shed_by_reason()) == (2, {"queue_full": 1})


async def test_in_mode_off_nothing_is_counted() -> None:
    callee = Callee(mode="off")
    callee.go.set()
    async with callee.client() as client:
        assert (await client.get("/")).status_code == 200
    assert callee.admission.queue.admitted == 0


async def test_a_changed_configuration_holds_from_the_next_request_on() -> None:
    mesh = Mesh(server={"admission": {"max_in_flight": 3}})
    app = asgi.MeshMiddleware(_answer_at_once, mesh)
    await _speak(app, BODY)
    admission = mesh.serving.admission
    assert admission is not None and (admission.queue.limit, admission.queue.admitted) == (3, 1)
    await mesh.areload({"server": {"admission": {"max_in_flight": 7}}})
    await _speak(app, BODY)
    assert mesh.serving.admission is admission
    assert (admission.queue.limit, admission.queue.admitted) == (7, 2)
    await mesh.areload({"server": {}})
    await _speak(app, BODY)
    assert mesh.serving.admission is None
    await mesh.aclose()


async def _answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def test_that_shedding_begins_and_ends_is_told_once_each() -> None:
    now, told = [100.0], list[Event]()
    mesh = StandInMesh(admission=AdmissionSettings(max_in_flight=1, max_pending=0))
    serving = Serving(mesh, clock=lambda: now[0], tell=told.append)
    mesh.serving = serving  # type: ignore[attr-defined]
    app = asgi.MeshMiddleware(_answer_at_once, mesh)
    assert serving.admission is not None
    serving.admission.queue.enter(100.0, Criticality.CRITICAL)
    for _ in range(3):
        assert (await _speak(app, BODY))[0]["status"] == 503
    serving.admission.queue.end(now[0], 0.1)
    now[0] += CALM_S + 0.1
    for _ in range(3):
        assert (await _speak(app, BODY))[0]["status"] == 200
    began, ended = told
    assert isinstance(began, SheddingBegan) and isinstance(ended, SheddingEnded)
    assert (began.limit, began.in_flight, ended.refused) == (1, 1, 3)
    assert "1 are being served (limit 1)" in str(began)


async def test_after_a_fork_the_child_has_all_places() -> None:
    callee = Callee(max_in_flight=2)
    callee.admission.queue.enter(0.0, Criticality.CRITICAL)
    inherited = callee.admission.enter(callee.serving.intake.glance("127.0.0.1", GivenHeaders({})), GivenHeaders({}))
    callee.serving.after_fork_in_child()
    assert callee.admission.queue.in_flight == 0
    ticket = callee.admission.enter(callee.serving.intake.glance("127.0.0.1", GivenHeaders({})), GivenHeaders({}))
    inherited.release()  # type: ignore[union-attr]
    assert callee.admission.queue.in_flight == 1
    ticket.release()  # type: ignore[union-attr]
    assert callee.admission.queue.in_flight == 0


# Threads


def test_threads_wait_and_are_refused_as_tasks_are() -> None:
    callee = Callee(max_pending=1)
    inside, go = threading.Event(), threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        inside.set()
        go.wait(20)
        start_response("200 OK", [])
        return [b"done"]

    middleware = wsgi.MeshMiddleware(app, callee)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(call(middleware).status)) for _ in range(2)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    while not callee.admission.queue.pending:
        pass
    refused = call(middleware)
    assert refused.status == "503 Service Unavailable"
    assert (refused.headers["x-meshlib-refused"], refused.headers["retry-after"]) == ("overload", "1")
    assert json.loads(refused.body)["status"] == 503
    go.set()
    for thread in threads:
        thread.join()
    assert answers == ["200 OK"] * 2
    assert (callee.admission.queue.in_flight, callee.admission.queue.admitted) == (0, 2)


def test_a_thread_waits_no_longer_than_it_may() -> None:
    callee = Callee(interval_s=0.01)
    callee.admission.queue.enter(callee.serving.clock(), Criticality.CRITICAL)
    assert call(wsgi.MeshMiddleware(_plain, callee)).status == "503 Service Unavailable"
    assert call(wsgi.MeshMiddleware(_plain, callee), {DEADLINE_MS: "5"}).status == "504 Gateway Timeout"
    assert callee.admission.queue.shed_by_reason() == {"queue_timeout": 1, "expired": 1}


def _plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"done"]


def test_a_stream_of_wsgi_holds_its_place_until_it_is_closed() -> None:
    callee = Callee()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"a"
        assert callee.admission.queue.in_flight == 1
        yield b"b"

    assert call(wsgi.MeshMiddleware(app, callee)).body == b"ab"
    assert callee.admission.queue.in_flight == 0


def test_wsgi_is_observed_as_well() -> None:
    callee = Callee(mode="observe", max_pending=0)
    callee.admission.queue.enter(callee.serving.clock(), Criticality.CRITICAL)
    assert call(wsgi.MeshMiddleware(_plain, callee)).status == "200 OK"
    assert callee.admission.queue.shed_by_reason() == {"queue_full": 1}


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent
from meshlib import Mesh
from meshlib.server.wsgi import MeshMiddleware

def app(environ, start_response):
    gevent.sleep(0.001)
    start_response("200 OK", [])
    return [b""]

mesh = Mesh(server={"admission": {"max_in_flight": 2, "interval": "10s"}})
served = MeshMiddleware(app, mesh)
statuses = []

def one():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1"}
    served(environ, lambda status, headers, failed=None: statuses.append(status))

jobs = [gevent.spawn(one) for _ in range(20)]
gevent.sleep(0)
queue = mesh.serving.admission.queue
assert (queue.in_flight, queue.pending) == (2, 18), queue
jobs[-1].kill()
assert queue.pending == 17
gevent.joinall(jobs)
assert statuses == ["200 OK"] * 19, statuses
assert (queue.in_flight, queue.pending, queue.shed_by_reason()) == (0, 0, {"gone": 1})
"""


def test_greenlets_wait_as_threads_do() -> None:
    done = subprocess.run([sys.executable, "-c", GREENLETS], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


# A real server


async def test_a_client_of_uvicorn_that_hangs_up_while_its_request_waits_leaves_the_queue(serve: Serve) -> None:
    callee = Callee()
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            callee.called.append(scope["path"])
            await asyncio.to_thread(go.wait)
            await _answer_at_once(scope, receive, send)

    url = httpx.URL(serve(asgi.MeshMiddleware(app, callee)))
    async with httpx.AsyncClient(base_url=url) as client:
        first = asyncio.create_task(client.get("/first"))
        await callee.until(1, 0)
        with socket.create_connection((url.host, url.port)) as connection:
            connection.sendall(b"POST /second HTTP/1.1\r\nhost: callee\r\ncontent-length: 2\r\n\r\nhi")
            await callee.until(1, 1)
        await callee.until(1, 0)
        assert callee.admission.queue.shed_by_reason() == {"gone": 1}
        go.set()
        assert (await first).status_code == 200
    assert callee.called == ["/first"]


def test_the_settings_of_a_stand_in_may_be_replaced() -> None:
    callee = Callee()
    server = replace(callee.settings.server, admission=AdmissionSettings(max_in_flight=4))
    callee.settings = replace(callee.settings, server=server)
    assert call(wsgi.MeshMiddleware(_plain, callee)).status == "200 OK"
    assert callee.admission.queue.limit == 4


# What is told of it


def test_status_and_metrics_tell_who_was_let_in_and_who_was_not() -> None:
    mesh = Mesh(server={"admission": {"max_in_flight": 1, "max_pending": 1}}, discovery=[])
    assert mesh.serving.admission is not None
    queue = mesh.serving.admission.queue
    queue.enter(0.0, Criticality.CRITICAL)
    queue.enter(0.0, Criticality.SHEDDABLE)
    queue.end(0.04, 0.04)
    for _ in range(2):
        queue.enter(0.05, Criticality.SHEDDABLE)
    text = str(mesh.status())
    read = {gauge.name: dict(gauge.read(None, mesh._wiring.view)) for gauge in SERVING_GAUGES}  # type: ignore[arg-type]
    mesh.close()
    assert (
        "admission: 1 of 1 places taken, 1 waiting, 1 waited 40ms on average, 1 refused (queue_full 1), shedding now"
    ) in text
    assert read["meshlib.server.limit"] == {(): 1}
    assert read["meshlib.server.pending"] == {(): 1}
    assert list(read["meshlib.server.admitted"].values()) == [1, 1]
    assert read["meshlib.server.wait_time"] == {(): pytest.approx(0.04)}
    assert read["meshlib.server.shed"] == {
        (("meshlib.server.reason", "queue_full"), ("meshlib.criticality", "sheddable")): 1
    }


def test_without_admission_nothing_is_told_of_it() -> None:
    mesh = Mesh(discovery=[])
    assert mesh.serving.admission is None
    assert "admission" not in str(mesh.status())
    own = [
        gauge for gauge in SERVING_GAUGES if gauge.name.removeprefix("meshlib.server.") in ("limit", "pending", "shed")
    ]
    assert [list(gauge.read(None, mesh._wiring.view)) for gauge in own] == [[], [], []]  # type: ignore[arg-type]
    mesh.close()
