"""Mode `observe`: all is counted as if the mode were `on`, and nothing of a request or its response is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from flask import Flask

from meshlib.config.server_settings import HopelessSettings
from meshlib.context import monotonic
from meshlib.errors import NoEndpoint
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import CRITICALITY, DEADLINE_MS, LOAD, REFUSED
from meshlib.server.asgi import MeshMiddleware, Receive, Scope, Send
from meshlib.server.django import MeshMiddleware as DjangoMiddleware
from meshlib.server.flask import MeshExtension
from meshlib.server.serving import Serving
from meshlib.server.wsgi import MeshMiddleware as WsgiMiddleware
from tests.server import django_project  # noqa: F401  the settings of Django
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

LEFT = {DEADLINE_MS: "60000", CRITICALITY: "sheddable", LOAD: "in-flight"}
EXPIRED = {DEADLINE_MS: "0"}


class Observing(StandInMesh):
    """A mesh whose callee's side only looks on."""

    def __init__(self, **server: Any) -> None:
        super().__init__(mode="observe", **server)
        self.ahead_s = 0.0
        self.serving = Serving(self, clock=lambda: monotonic() + self.ahead_s)


async def ask(mesh: Observing, app: Any, method: str = "GET", headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
        return await http.request(method, "/orders/1", headers=LEFT if headers is None else headers)


def application(mesh: Observing, status: int = 200, *, takes_s: float = 0.0, fails: bool = False) -> Any:
    """Answers, with a header that the mode `on` takes away, as the clock moves on, or lets an error pass."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert mesh.serving.in_flight == 1
        if fails:
            raise NoEndpoint("none left", service="stock")
        mesh.ahead_s += takes_s
        await send({"type": "http.response.start", "status": status, "headers": [(REFUSED.encode(), b"expired")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert mesh.serving.in_flight == 1
        await send({"type": "http.response.body", "body": b"b"})
        assert mesh.serving.in_flight == 0

    return app


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.mark.parametrize(
    ("status", "took_s", "method", "outcome"),
    [
        (200, 0.0, "GET", ("ok", "")),
        (503, 0.0, "GET", ("error", "")),
        (200, 61.0, "GET", ("cancelled", "deadline")),
        (200, 61.0, "POST", ("ok", "")),
    ],
)
async def test_how_a_request_would_have_ended(
    status: int, took_s: float, method: str, outcome: tuple[str, str]
) -> None:
    mesh = Observing()
    answer = await ask(mesh, MeshMiddleware(application(mesh, status, takes_s=took_s), mesh), method)
    assert (answer.status_code, answer.text, dict(answer.headers)) == (status, "ab", {REFUSED: "expired"})
    assert mesh.serving.outcomes == {outcome: 1}
    assert mesh.serving.busy_s == pytest.approx(took_s, abs=1.0)


async def test_an_error_is_the_applications() -> None:
    mesh = Observing()
    assert (await ask(mesh, MeshMiddleware(application(mesh, fails=True), mesh))).status_code == 500
    assert (mesh.serving.outcomes, mesh.serving.in_flight) == ({("error", ""): 1}, 0)


async def test_what_would_be_refused_is_counted_as_that_and_as_nothing_else() -> None:
    mesh = Observing(admission=AdmissionSettings(max_in_flight=1, max_pending=0))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert mesh.serving.in_flight == 1
        if scope["method"] == "POST":  # while it is served, the only place is taken
            for headers in (EXPIRED, LEFT):
                assert (await ask(mesh, middleware, headers=headers)).text == "done"
        await answer_at_once(scope, receive, send)

    middleware = MeshMiddleware(MeshMiddleware(app, mesh), mesh)  # twice is once
    assert (await ask(mesh, middleware, "POST")).text == "done"
    assert mesh.serving.outcomes == {("ok", ""): 1, ("refused", "expired"): 1, ("refused", "overload"): 1}
    assert mesh.serving.intake.counts.expired == 2  # which each middleware counts


async def test_one_that_would_have_waited_too_long_is_counted_as_refused() -> None:
    mesh = Observing(admission=AdmissionSettings(max_in_flight=1, max_pending=1))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            assert (await ask(mesh, middleware, headers={})).text == "done"
        else:
            mesh.ahead_s += 30.0
        await answer_at_once(scope, receive, send)

    middleware = MeshMiddleware(app, mesh)
    assert (await ask(mesh, middleware, "POST", {})).text == "done"
    assert mesh.serving.outcomes == {("refused", "overload"): 1, ("ok", ""): 1}
    assert mesh.serving.in_flight == 0


async def test_what_cannot_finish_in_time_is_learnt_and_counted() -> None:
    mesh = Observing(hopeless=HopelessSettings(min_samples=2, probe_interval_s=3600.0))
    middleware = MeshMiddleware(application(mesh, takes_s=5.0), mesh)
    for _ in range(2):
        await ask(mesh, middleware, "POST")
    little = {DEADLINE_MS: "1000"}
    await ask(mesh, middleware, "POST", little)  # served all the same, once in an hour
    refused = MeshMiddleware(answer_at_once, mesh)
    assert (await ask(mesh, refused, "POST", little)).status_code == 200
    assert mesh.serving.outcomes == {("ok", ""): 3, ("refused", "hopeless"): 1}


def test_wsgi_streams_are_in_flight_to_their_end() -> None:
    mesh = Observing()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("503 Away", [(REFUSED, "expired")])
        yield b"a"
        if environ["PATH_INFO"] == "/fails":
            raise NoEndpoint("none left", service="stock")

    answers: list[Any] = []
    middleware = WsgiMiddleware(app, mesh)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1"}
    assert list(middleware(dict(environ), lambda *answer: answers.append(answer))) == [b"a"]
    assert answers == [("503 Away", [(REFUSED, "expired")])]
    failing = iter(middleware({**environ, "PATH_INFO": "/fails"}, lambda *answer: None))
    assert (next(failing), mesh.serving.in_flight) == (b"a", 1)
    with pytest.raises(NoEndpoint):
        next(failing)
    assert (mesh.serving.outcomes, mesh.serving.in_flight) == ({("error", ""): 2}, 0)


def test_a_stream_that_is_dropped_may_end_in_the_middle_of_what_admission_does() -> None:
    mesh = Observing(admission=AdmissionSettings(max_in_flight=1))
    middleware = WsgiMiddleware(lambda environ, start_response: (each for each in (b"a", b"b")), mesh)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1"}
    streams = [middleware(dict(environ), lambda *_: None) for _ in range(2)]  # type: ignore[arg-type]
    assert mesh.serving.admission is not None
    queue = mesh.serving.admission.queue
    assert (queue.in_flight, queue.pending) == (1, 1)
    with queue._lock:  # as this thread holds it when the collector comes by
        streams.clear()
    assert mesh.serving.in_flight == 0
    queue.settle(monotonic())
    assert (queue.in_flight, queue.pending) == (0, 0)


def test_flask_answers_its_own_errors() -> None:
    mesh, app = Observing(), Flask("observed")
    MeshExtension(mesh, app)

    @app.get("/")
    def view() -> str:
        raise NoEndpoint("none left", service="stock")

    answer = app.test_client().get("/")
    assert (answer.status_code, b"Internal Server Error" in answer.data) == (500, True)
    assert mesh.serving.outcomes == {("error", ""): 1}


async def test_django_in_threads_and_loops() -> None:
    mesh = Observing()

    def view(request: Any) -> Any:
        if request.path == "/fails":
            raise NoEndpoint("none left", service="stock")
        return StreamingHttpResponse(iter([b"a", b"b"]), status=503, headers={REFUSED: "expired"})

    async def async_view(request: Any) -> Any:
        assert mesh.serving.in_flight == 1
        return HttpResponse("done")

    with override_settings(MESHLIB_MESH=mesh):
        middleware = DjangoMiddleware(view)
        response = middleware(RequestFactory().get("/", headers=LEFT))
        assert (mesh.serving.in_flight, response.headers[REFUSED]) == (1, "expired")
        assert (b"".join(response), mesh.serving.in_flight) == (b"ab", 0)
        with pytest.raises(NoEndpoint):
            middleware(RequestFactory().get("/fails"))
        response = await DjangoMiddleware(async_view)(AsyncRequestFactory().get("/", headers=LEFT))
        expired = await DjangoMiddleware(async_view_of(b"late"))(AsyncRequestFactory().get("/", headers=EXPIRED))
    assert (response.content, expired.content, mesh.serving.in_flight) == (b"done", b"late", 0)
    assert mesh.serving.outcomes == {("error", ""): 2, ("ok", ""): 1, ("refused", "expired"): 1}


def async_view_of(content: bytes) -> Any:
    async def view(request: Any) -> Any:
        return HttpResponse(content)

    return view
