"""A Django project for tests: its settings, its URLs and its views."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path

from meshlib.context import current, current_scope
from meshlib.errors import CircuitOpen, DeadlineExceeded, NoEndpoint, UnknownService
from tests.server.standin import StandInMesh, headers_of_a_call

MESH = StandInMesh()

if not settings.configured:
    settings.configure(
        DEBUG=False,
        SECRET_KEY="for tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["meshlib.server.django.MeshMiddleware", "tests.server.django_project.asks_somebody"],
        MESHLIB_MESH=MESH,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()

left_behind: list[bool] = []


def inherited() -> dict[str, Any]:
    now = current()
    return {
        "deadline": now.remaining is not None,
        "baggage": dict(now.baggage),
        "criticality": None if now.criticality is None else now.criticality.name,
    }


def asks_somebody(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware that is sync alone, and makes calls, as one does that asks who a token belongs to."""

    def middleware(request: Any) -> Any:
        if request.headers.get("x-token") == "bad":
            raise NoEndpoint("none left", service="users")
        return get_response(request)

    return middleware


def asks_nobody(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware that has an answer for each error."""

    def middleware(request: Any) -> Any:
        return get_response(request)

    middleware.process_exception = lambda request, error: HttpResponse(status=418)  # type: ignore[attr-defined]
    return middleware


def sync_view(request: Any) -> Any:
    return JsonResponse(inherited())


async def async_view(request: Any) -> Any:
    await asyncio.sleep(0)
    return JsonResponse(inherited())


def async_in_sync(request: Any) -> Any:
    async def call() -> dict[str, Any]:
        return inherited()

    return JsonResponse(async_to_sync(call)())


async def sync_in_async(request: Any) -> Any:
    return JsonResponse(await sync_to_async(inherited)())


def _later(response: Any) -> Any:
    scope, context = current_scope(), contextvars.copy_context()
    close = response.close

    def closed() -> None:
        close()
        left_behind.append(scope.deadline is not None or context.run(current).remaining is not None)

    response.close = closed
    return response


def stream(request: Any) -> Any:
    def chunks() -> Iterator[str]:
        for _ in range(3):
            yield json.dumps(inherited()) + "\n"

    return _later(StreamingHttpResponse(chunks()))


async def async_stream(request: Any) -> Any:
    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield json.dumps(inherited()) + "\n"

    return _later(StreamingHttpResponse(chunks()))


def broken_stream(request: Any) -> Any:
    def chunks() -> Iterator[str]:
        yield "x"
        raise DeadlineExceeded("2 s passed", service="orders")

    return StreamingHttpResponse(chunks())


def file(request: Any) -> Any:
    return FileResponse(open(__file__, "rb"))


def template(request: Any) -> Any:
    """An error that comes when the response is rendered."""
    response = TemplateResponse(request, engines["django"].from_string("{{ call }}"), {"call": _failing})
    return response


def _failing() -> str:
    raise DeadlineExceeded("2 s passed", service="orders")


def fails(request: Any, name: str) -> Any:
    raise {
        "deadline": DeadlineExceeded("2 s passed", service="orders"),
        "open": CircuitOpen("open", service="orders", retry_after_s=3),
        "none": NoEndpoint("none", service="orders"),
        "unknown": UnknownService("unknown", service="orders"),
        "bug": KeyError("bug"),
    }[name]


async def async_fails(request: Any) -> Any:
    raise NoEndpoint("none", service="orders")


def overloaded(request: Any) -> Any:
    served = current_scope().request
    assert served is not None
    served.overloaded = True
    return HttpResponse(status=500)


waited: list[str] = []


async def waits(request: Any) -> Any:
    """Waits for longer than the test's caller does."""
    try:
        await asyncio.sleep(0.25)
    except asyncio.CancelledError:
        waited.append("cancelled")
        raise
    waited.append("done")
    return HttpResponse()


def waits_in_a_thread(request: Any) -> Any:
    time.sleep(0.25)
    waited.append("done")
    return HttpResponse()


began, enough = threading.Event(), threading.Event()


def works_in_a_thread(request: Any) -> Any:
    """Works as long as somebody may wait for it, and it is not enough."""
    began.set()
    while not current().cancelled and not enough.wait(0.001):
        pass
    now = current()
    waited.append(f"{now.cancelled} {now.remaining}")
    return HttpResponse()


def trace_headers(request: Any) -> Any:
    return JsonResponse(headers_of_a_call())


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("async-in-sync", async_in_sync),
    path("sync-in-async", sync_in_async),
    path("stream", stream),
    path("async-stream", async_stream),
    path("broken-stream", broken_stream),
    path("file", file),
    path("template", template),
    path("works-in-a-thread", works_in_a_thread),
    path("fails/<name>", fails),
    path("async-fails", async_fails),
    path("overloaded", overloaded),
    path("trace", trace_headers),
    path("waits", waits),
    path("waits-in-a-thread", waits_in_a_thread),
]
