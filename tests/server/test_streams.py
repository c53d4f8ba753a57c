"""A response that has begun goes by the deadline of its body, in every middleware, and is late by no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from math import inf
from typing import Any

import httpx
import pytest
from django.http import StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from meshlib.config.server_settings import HopelessSettings
from meshlib.context import Scope, ServedRequest, current
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import BODY_DEADLINE_MS, DEADLINE_MS
from meshlib.server import asgi, wsgi
from meshlib.server.django import MeshMiddleware as DjangoMiddleware
from meshlib.server.serving import Serving
from tests.server import django_project  # noqa: F401  the settings of Django
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}
PER_TRY = {DEADLINE_MS: "200"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("meshlib.context.monotonic", clock)
    return clock


class Serves(StandInMesh):
    """Has what it serves, too, as a `Mesh` has; and no handler is cancelled, as its clock stands still."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"cancel": "off", **options})
        self.serving = Serving(self)


@pytest.mark.parametrize(
    ("deadline", "body_deadline", "now", "then"),
    [
        (10.0, None, 9.0, 10.0),
        (10.0, 12.0, 9.0, 12.0),
        (10.0, inf, 9.0, None),
        (10.0, inf, 10.0, 10.0),
        (None, inf, 9.0, None),
    ],
)
def test_when_the_response_begins_the_deadline_is_that_of_the_body_unless_it_has_passed(
    deadline: float | None, body_deadline: float | None, now: float, then: float | None
) -> None:
    request = ServedRequest(deadline)
    request.body_deadline = body_deadline
    assert Scope(request=request).deadline == deadline
    request.begin_body(now)
    request.begin_body(0.0)
    assert Scope(request=request).deadline == then


def test_what_nobody_waits_for_any_more_is_not_put_off() -> None:
    request = ServedRequest(10.0)
    request.body_deadline = inf
    request.abandon("disconnect", 9.0)
    request.begin_body(8.0)
    assert request.deadline == 9.0


def left() -> float | None:
    remaining = current().remaining
    return None if remaining is None else round(remaining, 3)


async def ask(middleware: Any, headers: dict[str, str], peer: str = "127.0.0.1") -> httpx.Response:
    transport = httpx.ASGITransport(middleware, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
        return await http.get("/", headers=headers)


async def remaining(clock: Clock, headers: Any, peer: str = "127.0.0.1", **server: Any) -> tuple[list[Any], int]:
    """What a handler of ASGI has left before its response begins and in a later chunk, and how much was ignored."""
    seen: list[Any] = []

    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        seen.append(left())
        await send(dict(START))
        clock.now += 0.3
        seen.append(left())
        await send({"type": "http.response.body", "body": b"x"})

    mesh = Serves(**server)
    assert (await ask(asgi.MeshMiddleware(app, mesh), headers, peer)).text == "x"
    assert mesh.serving.outcomes == {("ok", ""): 1}
    return seen, mesh.serving.intake.counts.deadline


@pytest.mark.parametrize(
    ("told", "seen", "ignored"),
    [
        ({}, [0.2, 0.0], 0),
        ({BODY_DEADLINE_MS: "none"}, [0.2, None], 0),
        ({BODY_DEADLINE_MS: "700"}, [0.2, 0.4], 0),
        ({BODY_DEADLINE_MS: "-1"}, [0.2, 0.0], 1),
        ({BODY_DEADLINE_MS: "9, none"}, [0.2, 0.0], 1),
        ({BODY_DEADLINE_MS: "none", DEADLINE_MS: "soon"}, [None, None], 1),
    ],
)
async def test_asgi(clock: Clock, told: dict[str, str], seen: list[Any], ignored: int) -> None:
    assert await remaining(clock, {**PER_TRY, **told}) == (seen, ignored)


async def test_it_says_nothing_by_itself_nor_from_strangers_nor_where_no_deadline_is_taken_in(clock: Clock) -> None:
    both = {**PER_TRY, BODY_DEADLINE_MS: "700"}
    assert await remaining(clock, {BODY_DEADLINE_MS: "700"}) == ([None, None], 0)
    assert await remaining(clock, both, peer="203.0.113.9") == ([None, None], 0)
    assert await remaining(clock, both, accept=("criticality",)) == ([None, None], 0)


def chunks(clock: Clock, seen: list[Any]) -> Iterator[bytes]:
    for _ in range(3):
        seen.append(left())
        clock.now += 0.15
        yield b"x"


async def async_chunks(clock: Clock, seen: list[Any]) -> AsyncIterator[bytes]:
    for chunk in chunks(clock, seen):
        yield chunk


def test_wsgi_begins_with_the_first_bytes(clock: Clock) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        yield from chunks(clock, seen)

    mesh = Serves()
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1"}
    told = {"HTTP_X_MESHLIB_DEADLINE_MS": "200", "HTTP_X_MESHLIB_BODY_DEADLINE_MS": "700"}
    assert b"".join(wsgi.MeshMiddleware(app, mesh)({**environ, **told}, lambda *answer: None)) == b"xxx"
    assert seen == [0.2, 0.55, 0.4]
    assert mesh.serving.outcomes == {("ok", ""): 1}


async def test_django_begins_with_the_first_bytes_in_threads_and_with_the_headers_in_loops(clock: Clock) -> None:
    in_thread: list[Any] = []
    in_loop: list[Any] = []

    def view(request: Any) -> Any:
        return StreamingHttpResponse(chunks(clock, in_thread))

    async def async_view(request: Any) -> Any:
        return StreamingHttpResponse(async_chunks(clock, in_loop))

    mesh, told = Serves(), {**PER_TRY, BODY_DEADLINE_MS: "700"}
    with override_settings(MESHLIB_MESH=mesh):
        assert b"".join(DjangoMiddleware(view)(RequestFactory().get("/", headers=told))) == b"xxx"
        response = await DjangoMiddleware(async_view)(AsyncRequestFactory().get("/", headers=told))
        assert [chunk async for chunk in response] == [b"x"] * 3
    assert in_thread == [0.2, 0.55, 0.4]
    assert in_loop == [0.7, 0.55, 0.4]
    assert mesh.serving.outcomes == {("ok", ""): 2}


async def test_a_stream_is_not_hopeless_nor_late_for_those_who_wait_for_its_headers(clock: Clock) -> None:
    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        clock.now += 0.1
        await send(dict(START))
        clock.now += 0.9
        await send({"type": "http.response.body", "body": b"x"})

    settings = AdmissionSettings(max_in_flight=1, max_pending=0)
    mesh = Serves(hopeless=HopelessSettings(min_samples=2, probe_interval_s=3600.0), admission=settings)
    middleware = asgi.MeshMiddleware(app, mesh)
    for _ in range(5):
        assert (await ask(middleware, PER_TRY)).status_code == 200
    assert mesh.serving.hopeless is not None
    assert mesh.serving.hopeless.floor_s("GET /") == pytest.approx(0.1)
    assert mesh.serving.outcomes == {("ok", ""): 5}
    assert mesh.serving.busy_s == pytest.approx(5.0)


@pytest.mark.parametrize(("before_s", "outcome"), [(0.1, ("ok", "")), (0.3, ("cancelled", "deadline"))])
async def test_observed_only_what_had_not_begun_by_the_deadline_counts_as_cut(
    clock: Clock, before_s: float, outcome: tuple[str, str]
) -> None:
    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        clock.now += before_s
        await send(dict(START))
        clock.now += 0.5
        await send({"type": "http.response.body", "body": b"x"})

    mesh = Serves(mode="observe", cancel="safe_methods")
    assert (await ask(asgi.MeshMiddleware(app, mesh), PER_TRY)).text == "x"
    assert mesh.serving.outcomes == {outcome: 1}
