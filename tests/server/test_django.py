"""The middleware in a Django project: WSGI and ASGI, views of both kinds, streams, errors, and whose mesh it has."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import django
import httpx
import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory, override_settings

from meshlib import Mesh
from meshlib.config.health_settings import HealthSettings
from meshlib.context import current, current_scope
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import CRITICALITY, DEADLINE_MS
from meshlib.server import asgi, wsgi
from meshlib.server.django import MeshMiddleware, mesh
from meshlib.server.serving import Serving
from tests.server import django_project
from tests.server.conftest import Serve, ServeWsgi
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

LEFT = {DEADLINE_MS: "5000", "baggage": "tenant=t1", CRITICALITY: "sheddable"}
ALL = {"deadline": True, "baggage": {"tenant": "t1"}, "criticality": "SHEDDABLE"}
NOTHING = {"deadline": False, "baggage": {}, "criticality": None}


class Counting(StandInMesh):
    """Has what it serves, too, as a `Mesh` has."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.serving = Serving(self)


def sync_client(handler: Any, peer: str = "127.0.0.1") -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(handler, remote_addr=peer), base_url="http://callee")


@pytest.fixture
def counting() -> Iterator[Counting]:
    counting = Counting()
    with override_settings(MESHLIB_MESH=counting):
        yield counting
    assert counting.serving.in_flight == 0


# Scopes, on real servers


PATHS = ["/sync", "/async", "/async-in-sync", "/sync-in-async"]


def asked(url: str, counting: Counting) -> None:
    with httpx.Client(base_url=url) as http:
        for path in PATHS:
            assert http.get(path, headers=LEFT).json() == ALL, path
            assert http.get(path).json() == NOTHING, path
        django_project.left_behind.clear()
        answer = http.get("/stream", headers=LEFT)
        assert [json.loads(line) for line in answer.text.splitlines()] == [ALL] * 3
        assert http.get("/file", headers=LEFT).text.startswith('"""A Django project')
        assert http.get("/sync", headers={DEADLINE_MS: "0"}).headers["x-meshlib-refused"] == "expired"
        assert http.get("/fails/none").status_code == 503
        assert http.get("/fails/bug").status_code == 500
        assert http.get("/sync", headers={"x-token": "bad"}).status_code == 503
    assert django_project.left_behind == [False]


def test_views_and_streams_inherit_all_under_wsgi(serve_wsgi: ServeWsgi, counting: Counting) -> None:
    asked(serve_wsgi(WSGIHandler()), counting)


def test_views_and_streams_inherit_all_under_asgi(serve: Serve, counting: Counting) -> None:
    url = serve(ASGIHandler())
    with pytest.warns(Warning, match="must consume synchronous iterators"):  # so does Django without us
        asked(url, counting)
    with override_settings(MIDDLEWARE=["meshlib.server.django.MeshMiddleware"]):
        url = serve(ASGIHandler())
    django_project.left_behind.clear()
    for path in PATHS:
        assert httpx.get(url + path, headers=LEFT).json() == ALL, path
    answer = httpx.get(url + "/async-stream", headers=LEFT)
    assert [json.loads(line) for line in answer.text.splitlines()] == [ALL] * 3
    assert httpx.get(url + "/async-fails").status_code == 503
    assert django_project.left_behind == [False]


# Sync, without a server


def test_a_stream_has_the_deadline_to_its_end_and_leaves_nothing_in_the_thread(counting: Counting) -> None:
    iterator = iter(served(MeshMiddleware(lambda request: StreamingHttpResponse(chunks()))))
    assert counting.serving.in_flight == 1
    for _ in range(2):
        assert next(iterator) == b"True"
        assert current_scope().request is None
    assert list(iterator) == []
    assert counting.serving.in_flight == 0
    assert counting.serving.ended == {"ok": 1}


def chunks() -> Iterator[str]:
    for _ in range(2):
        yield str(current().remaining is not None)


def served(middleware: Any, **headers: str) -> Any:
    return middleware(RequestFactory().get("/", headers={**LEFT, **headers}))


def test_a_stream_that_is_closed_or_dropped_or_fails_is_over(counting: Counting) -> None:
    def fail(request: object) -> Any:
        raise KeyError

    def broken() -> Iterator[str]:
        yield "x"
        raise KeyError

    middleware = MeshMiddleware(lambda request: StreamingHttpResponse(chunks()))
    next(iter(response := served(middleware)))
    response.close()
    assert counting.serving.in_flight == 0
    response = served(middleware)
    assert counting.serving.in_flight == 1
    del response
    gc.collect()
    assert counting.serving.in_flight == 0
    with pytest.raises(KeyError):
        list(served(MeshMiddleware(lambda request: StreamingHttpResponse(broken()))))
    assert counting.serving.in_flight == 0
    with pytest.raises(KeyError):
        served(MeshMiddleware(fail))
    assert counting.serving.outcomes == {("cancelled", "disconnect"): 2, ("error", ""): 2}


async def test_an_async_stream_that_is_closed_or_fails_is_over(counting: Counting) -> None:
    async def two() -> AsyncIterator[str]:
        for chunk in chunks():
            yield chunk

    async def broken() -> AsyncIterator[str]:
        yield "x"
        raise KeyError

    async def ask(view: Any) -> Any:
        middleware = MeshMiddleware(view)
        assert iscoroutinefunction(middleware)
        return await middleware(AsyncRequestFactory().get("/", headers=LEFT))

    async def streamed(request: object) -> Any:
        return StreamingHttpResponse(two())

    async def breaking(request: object) -> Any:
        return StreamingHttpResponse(broken())

    async def fail(request: object) -> Any:
        raise KeyError

    response = await ask(streamed)
    assert [chunk async for chunk in response] == [b"True", b"True"]
    assert counting.serving.in_flight == 0
    response = await ask(streamed)
    assert await anext(aiter(response)) == b"True"
    assert current_scope().request is None
    assert counting.serving.in_flight == 1
    response.close()
    assert counting.serving.in_flight == 0
    with pytest.raises(KeyError):
        _ = [chunk async for chunk in await ask(breaking)]
    with pytest.raises(KeyError):
        await ask(fail)
    assert counting.serving.outcomes == {("ok", ""): 1, ("cancelled", "disconnect"): 1, ("error", ""): 2}


@pytest.mark.parametrize(("version", "then"), [("1.1", "close"), ("2", None)])
async def test_those_who_keep_a_connection_are_told_to_go_elsewhere(
    counting: Counting, version: str, then: str | None
) -> None:
    async def view(request: object) -> Any:
        return HttpResponse("x")

    middleware, request = MeshMiddleware(view), AsyncRequestFactory().get("/", headers={DEADLINE_MS: "5000"})
    request.scope["http_version"] = version
    assert "Connection" not in (await middleware(request)).headers
    counting.serving.closing = True
    assert (await middleware(request)).headers.get("Connection") == then


def test_an_expired_request_is_refused_and_a_stranger_is_not_believed(counting: Counting) -> None:
    def called(request: object) -> Any:
        return HttpResponse(str(current().remaining is not None))

    middleware = MeshMiddleware(called)
    assert served(middleware, **{DEADLINE_MS: "0"}).status_code == 504
    assert served(middleware).content == b"True"
    stranger = RequestFactory(REMOTE_ADDR="203.0.113.9").get("/", headers=LEFT)
    assert middleware(stranger).content == b"False"
    assert counting.serving.intake.counts.untrusted == 1


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_off_and_observe_change_nothing(mode: Any) -> None:
    with override_settings(MESHLIB_MESH=StandInMesh(mode=mode)):
        answer = Client(raise_request_exception=False).get("/sync", headers=LEFT)
        assert answer.json() == NOTHING
        assert Client(raise_request_exception=False).get("/fails/none").status_code == 500


# What it does as a callee


def asked_again(middleware: list[Any], seen: list[int]) -> Any:
    """A view during which the next request comes."""

    def view(request: Any) -> Any:
        if request.path == "/":
            seen.append(middleware[0](RequestFactory().get("/second", headers=LEFT)).status_code)
        return HttpResponse("done")

    return view


async def test_admission_health_and_load_are_those_of_the_configuration() -> None:
    seen: list[int] = []
    mesh = Counting(admission=AdmissionSettings(max_in_flight=1, max_pending=0), health=HealthSettings(), load="always")
    with override_settings(MESHLIB_MESH=mesh):
        middleware: list[Any] = []
        middleware.append(MeshMiddleware(asked_again(middleware, seen)))
        answer = served(middleware[0])
        assert (answer.content, seen) == (b"done", [503])
        assert "endpoint-load-metrics" in answer.headers
        assert middleware[0](RequestFactory().get("/livez")).status_code == 200

        async def view(request: Any) -> Any:
            if request.path == "/":
                other = await middleware[1](AsyncRequestFactory().get("/second", headers=LEFT))
                seen.append(other.status_code)
            return HttpResponse("done")

        middleware.append(MeshMiddleware(view))
        answer = await middleware[1](AsyncRequestFactory().get("/", headers=LEFT))
        assert (answer.content, seen) == (b"done", [503, 503])
        assert (await middleware[1](AsyncRequestFactory().get("/readyz"))).status_code == 200
    assert mesh.serving.outcomes == {("ok", ""): 2, ("refused", "overload"): 2}
    assert mesh.serving.in_flight == 0


async def test_mode_observe_counts_what_admission_would_do() -> None:
    mesh = Counting(admission=AdmissionSettings(max_in_flight=1, max_pending=0))
    mesh.settings = replace(mesh.settings, mode="observe")
    assert mesh.serving.admission is not None
    seen: list[int] = []
    with override_settings(MESHLIB_MESH=mesh):
        middleware: list[Any] = []
        middleware.append(MeshMiddleware(asked_again(middleware, seen)))
        assert served(middleware[0]).content == b"done"
        assert seen == [200]

        async def view(request: object) -> Any:
            return HttpResponse("done")

        await MeshMiddleware(view)(AsyncRequestFactory().get("/", headers=LEFT))
    assert mesh.serving.admission.queue.in_flight == 0


@pytest.mark.parametrize("around", [False, True], ids=["middleware", "around the application"])
@pytest.mark.parametrize(
    ("cancel", "path", "method", "ended"),
    [
        ("safe_methods", "/waits", "GET", True),
        ("safe_methods", "/waits", "POST", False),
        ("all", "/waits", "POST", True),
        ("off", "/waits", "GET", False),
        ("safe_methods", "/waits-in-a-thread", "GET", False),
    ],
)
async def test_an_async_view_ends_at_the_deadline_where_that_is_configured(
    cancel: Any, path: str, method: str, ended: bool, around: bool
) -> None:
    mesh = Counting(cancel=cancel)
    django_project.waited.clear()
    with override_settings(MESHLIB_MESH=mesh, MIDDLEWARE=["meshlib.server.django.MeshMiddleware"]):
        app: Any = asgi.MeshMiddleware(ASGIHandler(), mesh) if around else ASGIHandler()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url="http://callee"
        ) as http:
            answer = await http.request(method, path, headers={DEADLINE_MS: "150"})
    refused = answer.headers.get("x-meshlib-refused")
    if ended:
        assert (answer.status_code, refused, django_project.waited) == (504, "deadline", ["cancelled"])
        assert mesh.serving.outcomes == {("cancelled", "deadline"): 1}
    else:
        assert django_project.waited == ["done"]
        assert (answer.status_code, refused) in [(200, None), (504, "deadline")]  # around: at once, though it goes on
    assert mesh.serving.in_flight == 0


@pytest.mark.skipif(django.VERSION < (5, 0), reason="Django listens for a client that goes away from 5.0 on")
@pytest.mark.parametrize("around", [False, True], ids=["middleware", "around the application"])
@pytest.mark.parametrize(("method", "seen"), [("GET", "disconnect 0.0"), ("POST", " None")])
async def test_a_sync_view_whose_client_went_away_makes_no_further_meshed_calls(
    method: str, seen: str, around: bool
) -> None:
    mesh = Counting()
    django_project.began.clear()
    django_project.enough.clear()
    django_project.waited.clear()
    messages: list[Any] = [{"type": "http.request"}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.to_thread(django_project.began.wait, 5)
        if method == "POST":
            # Django waits for the thread, in the event loop.
            threading.Timer(0.02, django_project.enough.set).start()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    with override_settings(MESHLIB_MESH=mesh, MIDDLEWARE=["meshlib.server.django.MeshMiddleware"]):
        app: Any = asgi.MeshMiddleware(ASGIHandler(), mesh) if around else ASGIHandler()
        await app(AsyncRequestFactory().generic(method, "/works-in-a-thread").scope, receive, send)
    assert django_project.waited == [seen]
    if method == "GET":
        assert mesh.serving.outcomes == {("cancelled", "disconnect"): 1}


# Errors


@pytest.mark.parametrize(
    ("path", "status"),
    [("fails/deadline", 504), ("fails/open", 503), ("fails/none", 503), ("template", 504)],
)
def test_errors_of_the_mesh_become_504_and_503(path: str, status: int) -> None:
    answer = Client().get(f"/{path}")  # which would raise what Django answers 500 to
    assert answer.status_code == status
    assert answer.json()["detail"].startswith("orders: ")
    assert answer.headers.get("retry-after") == ("3" if path == "fails/open" else None)


@pytest.mark.parametrize("path", ["fails/unknown", "fails/bug"])
def test_other_errors_stay_djangos(path: str) -> None:
    assert Client(raise_request_exception=False).get(f"/{path}").status_code == 500


def test_an_error_of_a_middleware_is_answered_too_and_none_stays_behind() -> None:
    client = Client(raise_request_exception=False)
    assert client.get("/sync", headers={"x-token": "bad"}).status_code == 503
    assert client.get("/sync").status_code == 200


def test_an_answer_of_the_projects_own_comes_first() -> None:
    mine = ["meshlib.server.django.MeshMiddleware", "tests.server.django_project.asks_nobody"]
    with override_settings(MIDDLEWARE=mine):
        assert Client().get("/fails/none").status_code == 418


def test_mapping_errors_can_be_turned_off() -> None:
    with override_settings(MESHLIB_MAP_ERRORS=False):
        client = Client(raise_request_exception=False)
        assert client.get("/fails/none").status_code == 500
        assert client.get("/sync", headers={"x-token": "bad"}).status_code == 500


def test_an_answer_that_overload_is_behind_asks_for_peace() -> None:
    assert Client().get("/overloaded").headers["x-envoy-overloaded"] == "true"


# Around the whole application


async def test_inside_of_a_middleware_about_the_application_errors_alone_are_answered() -> None:
    outer = Counting()
    with override_settings(MESHLIB_MESH=outer):
        transport = httpx.ASGITransport(asgi.MeshMiddleware(ASGIHandler(), outer), client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
            assert (await http.get("/async", headers=LEFT)).json() == ALL
            assert (await http.get("/fails/deadline", headers=LEFT)).status_code == 504
        with sync_client(wsgi.MeshMiddleware(WSGIHandler(), outer)) as sync:
            assert sync.get("/sync", headers=LEFT).json() == ALL
            assert sync.get("/sync", headers={**LEFT, "x-token": "bad"}).status_code == 503
    assert outer.serving.ended == {"ok": 2, "error": 2}
    assert outer.serving.in_flight == 0


# The mesh


def make_mesh() -> Mesh:
    return Mesh({"service": "shop", "discovery": []})


def test_the_mesh_is_what_the_settings_say() -> None:
    assert mesh() is django_project.MESH  # type: ignore[comparison-overlap]
    ours = make_mesh()
    with override_settings(MESHLIB_MESH=ours):
        assert mesh() is ours
    with override_settings(MESHLIB_MESH=make_mesh):
        made = mesh()
        assert (made.settings.service, mesh()) == ("shop", made)
    with override_settings(MESHLIB_MESH=f"{__name__}.make_mesh"):
        assert mesh().settings.service == "shop"
    with override_settings(MESHLIB_MESH="shop.missing.mesh"):
        with pytest.raises(ImproperlyConfigured, match=r"MESHLIB_MESH = 'shop.missing.mesh': No module named 'shop'"):
            mesh()
    for no_mesh in (3, None, lambda: None, {"token": "secret"}):
        with override_settings(MESHLIB_MESH=no_mesh):
            with pytest.raises(
                ImproperlyConfigured, match=r"MESHLIB_MESH: a Mesh is expected, or what makes one, not \w+$"
            ):
                mesh()
    with override_settings():
        from django.conf import settings

        del settings.MESHLIB_MESH
        mesh.cache_clear()
        assert isinstance(mesh(), Mesh)
    mesh.cache_clear()
    assert mesh() is django_project.MESH
