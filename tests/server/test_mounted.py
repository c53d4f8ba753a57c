"""One application mounted in another one, each with the middleware: what is left of the deadline does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from asgiref.wsgi import WsgiToAsgi
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import re_path
from starlette.applications import Starlette
from starlette.routing import Mount

from meshlib.context import ServedRequest, current_scope
from meshlib.propagation import DEADLINE_MS
from meshlib.server import asgi, wsgi
from meshlib.server.intake import Intake
from tests.server import django_project
from tests.server.standin import serving
from tests.server.test_intake import HeadersOf

pytestmark = pytest.mark.anyio

MESH = django_project.MESH
SEEN: list[float | None] = []


@pytest.fixture(autouse=True)
def seen() -> Iterator[None]:
    SEEN.clear()
    with override_settings(MESHLIB_MESH=MESH, ROOT_URLCONF=__name__):
        yield


def see() -> None:
    request = current_scope().request
    SEEN.append(None if request is None else request.deadline)


async def asgi_view(scope: Any, receive: Any, send: Any) -> None:
    see()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


def wsgi_view(environ: Any, start_response: Any) -> Iterable[bytes]:
    see()
    start_response("200 OK", [])
    return []


def django_view(request: Any) -> HttpResponse:
    see()
    return HttpResponse()


urlpatterns = [re_path("", django_view)]


def as_wsgi(app: Any) -> Any:
    """An ASGI application as one of WSGI: in a loop, and in the context of who asks, as adapters do it."""

    def adapted(environ: Any, start_response: Any) -> Iterable[bytes]:
        async def nothing(*message: Any) -> Any: ...

        headers = [(DEADLINE_MS.encode(), environ["HTTP_X_MESHLIB_DEADLINE_MS"].encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        asyncio.run(app({**scope, "client": (environ["REMOTE_ADDR"], 1)}, nothing, nothing))
        start_response("200 OK", [])
        return []

    return adapted


def around_asgi(inner: Any) -> Any:
    async def between(scope: Any, receive: Any, send: Any) -> None:
        see()
        await inner(scope, receive, send)

    return asgi.MeshMiddleware(between, MESH)


def around_wsgi(inner: Any) -> Any:
    def between(environ: Any, start_response: Any) -> Any:
        see()
        return inner(environ, start_response)

    return wsgi.MeshMiddleware(between, MESH)


@pytest.mark.parametrize(
    "mounted",
    [
        lambda: Starlette(routes=[Mount("/x", asgi.MeshMiddleware(asgi_view, MESH))]),
        lambda: Starlette(routes=[Mount("/x", ASGIHandler())]),
        lambda: WsgiToAsgi(wsgi.MeshMiddleware(wsgi_view, MESH)),
        lambda: WsgiToAsgi(WSGIHandler()),
    ],
    ids=["asgi", "django", "wsgi", "django as wsgi"],
)
async def test_mounted_in_an_asgi_application(mounted: Callable[[], Any]) -> None:
    transport = httpx.ASGITransport(around_asgi(mounted()))
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as client:
        assert (await client.get("/x/y", headers={DEADLINE_MS: "5000"})).status_code == 200
    outer, inner = SEEN
    assert outer is not None
    assert inner == outer


@pytest.mark.parametrize(
    "mounted",
    [
        lambda: as_wsgi(asgi.MeshMiddleware(asgi_view, MESH)),
        lambda: wsgi.MeshMiddleware(wsgi_view, MESH),
        WSGIHandler,
    ],
    ids=["asgi", "wsgi", "django"],
)
def test_mounted_in_a_wsgi_application(mounted: Callable[[], Any]) -> None:
    transport = httpx.WSGITransport(around_wsgi(mounted()), remote_addr="127.0.0.1")
    with httpx.Client(transport=transport, base_url="http://callee") as client:
        assert client.get("/x/y", headers={DEADLINE_MS: "5000"}).status_code == 200
    outer, inner = SEEN
    assert outer is not None
    assert inner == outer


# What the request within takes over


def taken_within(outer: ServedRequest, peer: str | None = "127.0.0.1", left_ms: int = 500) -> ServedRequest:
    with serving(outer):
        arrival = Intake(None).take(peer, HeadersOf({DEADLINE_MS: [str(left_ms)]}))
    assert arrival is not None
    return arrival.request


def test_a_peer_that_the_adapter_does_not_name_has_the_outer_deadline() -> None:
    outer = ServedRequest(1e9)
    outer.body_deadline = 2e9
    inner = taken_within(outer, None)
    assert (inner.deadline, inner.body_deadline) == (1e9, 2e9)


def test_the_body_ends_with_the_outer_one() -> None:
    inner, outer = ServedRequest(5.0), ServedRequest(4.0)
    inner.body_deadline, outer.body_deadline = 9.0, 8.0
    inner.stay_within(outer)
    assert (inner.deadline, inner.body_deadline) == (4.0, 8.0)
    outer.begin_body(1.0)
    inner.body_deadline = 9.0
    inner.stay_within(outer)
    assert (inner.deadline, inner.body_deadline) == (4.0, 8.0)


def test_a_request_that_nobody_waits_for_any_more_binds_no_other_one() -> None:
    # A server may read the next request of a connection in the context of the one before.
    ended, cancelled, abandoned = ServedRequest(1.0), ServedRequest(1.0), ServedRequest(1.0)
    ended.close()
    cancelled.cancelled = "deadline"
    abandoned.abandon("deadline", 1.0)
    abandoned.cancelled = ""
    for outer in (ended, cancelled, abandoned, ServedRequest(None)):
        deadline = taken_within(outer).deadline
        assert deadline is not None
        assert deadline > 1.0
