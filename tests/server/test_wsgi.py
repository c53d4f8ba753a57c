"""The WSGI middleware: bare, behind Werkzeug's threads, and behind a real gunicorn."""

from __future__ import annotations

import contextvars
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib import Mesh
from meshlib.context import ServedRequest, current, current_scope
from meshlib.errors import CircuitOpen, DeadlineExceeded, MeshError, NoEndpoint, UnknownService
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import BAGGAGE, CRITICALITY, DEADLINE_MS, INCOMING
from meshlib.server.wsgi import MeshMiddleware
from tests.server.conftest import ServeWsgi
from tests.server.standin import StandInMesh

LEFT = {DEADLINE_MS: "5000", CRITICALITY: "SHEDDABLE", BAGGAGE: "tenant=t1"}


class Answer:
    """What a WSGI server would have sent."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        if self.status and exc_info is None:
            raise AssertionError("started twice")
        if self.chunks and exc_info is not None:
            raise exc_info[1]
        self.status, self.headers = status, dict(headers)
        return self.chunks.append

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def call(
    app: WSGIApplication, headers: dict[str, str] | None = None, peer: str | None = "127.0.0.1", **more: Any
) -> Answer:
    environ: WSGIEnvironment = {}
    setup_testing_defaults(environ)
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    for name, value in (headers or {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ.update(more)
    answer = Answer()
    response = app(environ, answer.start)
    try:
        answer.chunks.extend(chunk for chunk in response if chunk)
    finally:
        close = getattr(response, "close", None)
        if close is not None:
            close()
    return answer


def inherited() -> bytes:
    now = current()
    name = None if now.criticality is None else now.criticality.name
    return json.dumps([now.remaining is not None, name, dict(now.baggage)]).encode()


ALL = b'[true, "SHEDDABLE", {"tenant": "t1"}]'
NOTHING = b"[false, null, {}]"


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = inherited()
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(body)))])
    return [body]


def test_a_handler_inherits_all_and_nothing_stays_behind() -> None:
    app = MeshMiddleware(plain, StandInMesh())
    assert call(app, LEFT).body == ALL
    assert current_scope().request is None
    assert call(app).body == NOTHING


def test_it_keeps_to_the_rules_of_wsgi() -> None:
    app = validator(MeshMiddleware(validator(plain)))
    assert call(app, LEFT, QUERY_STRING="").body == ALL
    assert call(app, {DEADLINE_MS: "0"}, QUERY_STRING="").status == "504 Gateway Timeout"


def test_an_expired_request_is_refused_without_calling_the_application() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise AssertionError("called")

    middleware = MeshMiddleware(app)
    answer = call(middleware, {DEADLINE_MS: "0"})
    assert answer.status == "504 Gateway Timeout"
    assert answer.headers["x-meshlib-refused"] == "expired"
    assert json.loads(answer.body)["status"] == 504
    assert call(middleware, {DEADLINE_MS: "0"}, REQUEST_METHOD="HEAD").body == b""
    assert middleware.counts.expired == 2


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_off_and_observe_change_nothing(mode: Any) -> None:
    mesh = StandInMesh(mode=mode)
    app = MeshMiddleware(plain, mesh)
    assert call(app, {**LEFT, DEADLINE_MS: "0"}).body == NOTHING
    mesh.settings = replace(mesh.settings, mode="on")
    assert call(app, LEFT).body == ALL


@pytest.mark.parametrize(
    ("peer", "believed"),
    [("10.0.0.1", True), ("", True), ("<local>", True), ("8.8.8.8", False), (None, False), ("unix", True)],
)
def test_who_is_trusted(peer: str | None, believed: bool) -> None:
    assert call(MeshMiddleware(plain), LEFT, peer).body == (ALL if believed else NOTHING)


def test_repeated_headers_as_servers_join_them() -> None:
    app = MeshMiddleware(plain)
    assert call(app, {DEADLINE_MS: "5000,5000"}).body == b"[true, null, {}]"
    assert call(app, {DEADLINE_MS: "5000,60000"}).body == NOTHING
    assert app.counts.deadline == 1


# When the request is over


class Watched:
    """An application whose response is a generator, and what it saw on the way."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.saw: list[bytes] = []
        self.request: ServedRequest | None = None
        self.fail_at, self.error = fail_at, error
        self.variable: contextvars.ContextVar[int] = contextvars.ContextVar("chunk")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        self.request = current_scope().request
        start_response("200 OK", [("content-type", "text/plain")])
        return self.chunks()

    def chunks(self) -> Iterator[bytes]:
        try:
            for number in range(3):
                if number == self.fail_at and self.error is not None:
                    raise self.error
                if number:
                    assert self.variable.get() == number - 1, "one context for the whole response"
                self.variable.set(number)
                self.saw.append(inherited())
                yield b"x"
        finally:
            self.saw.append(b"closed while open" if self.request and not self.request.closed else b"closed")


def test_a_generator_keeps_the_deadline_and_leaks_nothing_into_the_thread() -> None:
    app = Watched()
    environ: WSGIEnvironment = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_MESHLIB_DEADLINE_MS": "5000"}
    setup_testing_defaults(environ)
    response = iter(MeshMiddleware(app)(environ, Answer().start))
    for _ in range(3):
        assert next(response) == b"x"
        assert current_scope().request is None
        assert app.request is not None
        assert not app.request.closed
    assert next(response, b"end") == b"end"
    assert app.request is not None
    assert app.request.closed
    assert app.saw == [b"[true, null, {}]"] * 3 + [b"closed while open"]


def test_a_response_that_is_abandoned_is_closed_in_its_context_without_a_deadline() -> None:
    app = Watched()
    environ: WSGIEnvironment = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_MESHLIB_DEADLINE_MS": "5000"}
    setup_testing_defaults(environ)
    response: Any = MeshMiddleware(app)(environ, Answer().start)
    next(response)
    response.close()
    assert app.saw[-1] == b"closed"


@pytest.mark.parametrize("at", [0, 2])
def test_the_request_is_over_when_the_response_fails(at: int) -> None:
    app = Watched(at, KeyError("bug"))
    with pytest.raises(KeyError):
        call(MeshMiddleware(app), LEFT)
    assert app.request is not None
    assert app.request.closed


def test_a_response_that_nobody_closes_or_that_cannot_be_iterated_is_over_too() -> None:
    closed = []

    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            raise KeyError("bug")

        def close(self) -> None:
            closed.append(1)

    def broken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Broken()

    def streaming(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"

    mesh = StandInMesh(admission=AdmissionSettings(max_in_flight=1, max_pending=0))
    app = MeshMiddleware(streaming, mesh)
    environ: WSGIEnvironment = {"REMOTE_ADDR": "127.0.0.1"}
    setup_testing_defaults(environ)
    for _ in range(2):
        response = iter(app(dict(environ), Answer().start))
        assert next(response) == b"x"
        assert app._serving.in_flight == 1
        del response
        assert app._serving.in_flight == 0
    with pytest.raises(KeyError):
        call(MeshMiddleware(broken, mesh))
    assert closed == [1]
    assert app._serving.outcomes == {("cancelled", "disconnect"): 2}


def test_a_list_and_a_file_reach_the_server_as_they_are() -> None:
    body = [b"x"]
    file = FileWrapper(io.BytesIO(b"content"))
    seen: list[ServedRequest | None] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(current_scope().request)
        start_response("200 OK", [])
        return body if environ["PATH_INFO"] == "/list" else file

    for path, response in (("/list", body), ("/file", file)):
        environ: WSGIEnvironment = {"wsgi.file_wrapper": FileWrapper, "PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1"}
        setup_testing_defaults(environ)
        assert MeshMiddleware(app)(environ, Answer().start) is response
    assert [request is not None and request.closed for request in seen] == [True, True]


def test_write_is_in_the_scope_too() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(inherited())
        return []

    assert call(MeshMiddleware(app), LEFT).body == ALL


def test_twice_is_once() -> None:
    inner, outer = MeshMiddleware(plain), None
    outer = MeshMiddleware(inner)
    assert call(outer, {DEADLINE_MS: "soon"}).body == NOTHING
    assert (outer.counts.deadline, inner.counts.deadline) == (1, 0)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*INCOMING, "traceparent", "tracestate"]), st.text(st.characters(max_codepoint=255))
    )
)
def test_no_header_makes_it_fail(headers: dict[str, str]) -> None:
    assert call(MeshMiddleware(plain), headers).status in ("200 OK", "504 Gateway Timeout")


# Errors that the application lets pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeadlineExceeded("2 s passed", service="orders"), "504 Gateway Timeout"),
        (CircuitOpen("open", service="orders", retry_after_s=4.2), "503 Service Unavailable"),
        (NoEndpoint("none", service="orders"), "503 Service Unavailable"),
    ],
)
@pytest.mark.parametrize("started", [False, True])
def test_errors_of_the_mesh_become_504_and_503(error: MeshError, status: str, started: bool) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if started:
            start_response("200 OK", [])
        raise error

    for failing in (app, Watched(0, error)):
        answer = call(MeshMiddleware(failing))
        assert answer.status == status
        assert json.loads(answer.body)["detail"] == str(error)
        assert answer.headers.get("retry-after") == ("5" if isinstance(error, CircuitOpen) else None)
    with pytest.raises(type(error)):
        call(MeshMiddleware(app, map_errors=False))


def test_an_error_behind_the_first_chunk_or_of_another_kind_is_passed_on() -> None:
    with pytest.raises(NoEndpoint):
        call(MeshMiddleware(Watched(1, NoEndpoint())))
    with pytest.raises(UnknownService):
        call(MeshMiddleware(Watched(0, UnknownService())))


# Behind servers


def test_threads_of_werkzeug_keep_requests_apart(serve_wsgi: ServeWsgi) -> None:
    together = threading.Barrier(8, timeout=20)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])

        def chunks() -> Iterator[bytes]:
            for _ in range(2):
                together.wait()
                yield current().baggage["n"].encode()

        return chunks()

    url = serve_wsgi(MeshMiddleware(app))
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = httpx.get(url, headers={"baggage": f"n={number}", DEADLINE_MS: "60000"}, timeout=30).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}{number}" for number in range(8)}


@pytest.mark.parametrize("worker", [("--worker-class=sync",), ("--worker-class=gthread", "--threads=1")])
def test_gunicorn_serves_with_the_deadline_and_its_threads_stay_clean(
    serve_gunicorn: Callable[..., str], worker: tuple[str, ...]
) -> None:
    url = serve_gunicorn("tests.server.gunicorn_app:application", *worker)
    with httpx.Client(base_url=url, headers=LEFT, timeout=30) as http:
        found = http.get("/inherited").json()
        assert 0 < found["remaining"] <= 5
        assert found["baggage"] == {"tenant": "t1"}
        lines = [json.loads(line) for line in http.get("/stream").text.splitlines()]
        assert [line["remaining"] is not None for line in lines] == [True] * 3
        assert http.get("/thread").json() == {"clean": True}
        # Behind the last byte, what the application does on closing has no deadline and keeps the baggage.
        assert http.get("/left-behind").json() == [[None, {"remaining": None, "baggage": {"tenant": "t1"}}]]
        assert http.get("/inherited", headers={DEADLINE_MS: "0"}).headers["x-meshlib-refused"] == "expired"
        assert http.head("/inherited", headers={DEADLINE_MS: "0"}).status_code == 504
        assert http.get("/fails").status_code == 504


def test_gunicorn_at_a_unix_socket_is_trusted(serve_gunicorn: Callable[..., str]) -> None:
    path = serve_gunicorn("tests.server.gunicorn_app:application", unix=True)
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(transport=transport, base_url="http://callee", headers=LEFT, timeout=30) as http:
        assert http.get("/inherited").json()["remaining"] is not None


def test_an_asgi_application_is_refused_with_what_is_for_it() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    class Application:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    for app in (application, Application()):
        with pytest.raises(TypeError, match=r"ASGI application: meshlib\.server\.asgi\.MeshMiddleware"):
            MeshMiddleware(app)  # type: ignore[arg-type]


@pytest.mark.parametrize("app", [lambda request: None, None, "shop:app"])
def test_what_is_no_application_of_either_kind_is_refused(app: Any) -> None:
    with pytest.raises(TypeError, match=r"is no WSGI application: there are meshlib\.server\.asgi and"):
        MeshMiddleware(app)


def test_a_mesh_that_is_none_is_refused() -> None:
    for mesh in (Mesh, "mesh.yaml"):
        with pytest.raises(TypeError, match="a Mesh is expected, not"):
            MeshMiddleware(plain, mesh)  # type: ignore[arg-type]
