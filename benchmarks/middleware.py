"""What the middleware costs a request: beside the bare framework, called directly, and behind uvicorn's protocol."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Any, Final

from benchmarks import rounds
from meshlib.mesh import Mesh

WAYS: Final = ("bare", "meshed", "bare, with headers", "meshed, with headers")
"""The framework alone, and with the middleware; the same, with requests as a meshed caller sends them."""

MORE: Final = ("and with admission", "and telling its load")
"""With such requests besides: a limit that is never reached; callers that ask how loaded the process is."""

_PLAIN = [
    (b"host", b"orders:8000"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"python-httpx"),
]
_OF_A_CALLER = [
    (b"x-meshlib-deadline-ms", b"2000"),
    (b"x-envoy-expected-rq-timeout-ms", b"2000"),
    (b"x-envoy-attempt-count", b"1"),
    (b"x-meshlib-criticality", b"critical"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]
_ASKS = [(b"x-meshlib-load", b"in-flight")]
_PATH = "/orders/42"
_BODY = b"done"
_NEEDS = {
    "Starlette": "starlette",
    "FastAPI": "fastapi",
    "FastAPI on uvicorn": "uvicorn",
    "Flask": "flask",
    "Django": "django",
}


def measure(*, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds of CPU time per request, by framework and way; frameworks that are not installed are left out."""
    admission = {"admission": {"max_in_flight": 100}}
    with (
        Mesh({"service": "bench", "discovery": []}) as mesh,
        Mesh({"service": "bench", "discovery": [], "server": admission}) as admitting,
    ):
        return {
            framework: _measure(framework, mesh, admitting, rounds, seconds)
            for framework, package in _NEEDS.items()
            if importlib.util.find_spec(package) is not None
        }


def _measure(framework: str, mesh: Mesh, admitting: Mesh, count: int, seconds: float) -> dict[str, float]:
    make = {
        "Starlette": _starlette,
        "FastAPI": _fastapi,
        "FastAPI on uvicorn": _uvicorn,
        "Flask": _flask,
        "Django": _django,
    }[framework]
    told = _PLAIN + _OF_A_CALLER
    ways: dict[str, tuple[Mesh | None, _Headers]] = {
        **dict(zip(WAYS, ((None, _PLAIN), (mesh, _PLAIN), (None, told), (mesh, told)), strict=True)),
        MORE[0]: (admitting, told),
        MORE[1]: (mesh, told + _ASKS),
    }
    loop = asyncio.new_event_loop()
    try:
        runners = {way: rounds.Runner(make(loop, whose, headers)) for way, (whose, headers) in ways.items()}
        samples = rounds.take_turns(runners, rounds=count, seconds=seconds, warm=100)
    finally:
        loop.close()
    return {way: sorted(each)[len(each) // 2] for way, each in samples.items()}


_Headers = list[tuple[bytes, bytes]]
_Burst = Callable[[int], object]


def _starlette(loop: asyncio.AbstractEventLoop, mesh: Mesh | None, headers: _Headers) -> _Burst:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def handler(request: Request) -> PlainTextResponse:
        return PlainTextResponse(_BODY)

    return _asgi(loop, _within(Starlette(routes=[Route("/orders/{number:int}", handler)]), mesh), headers)


def _fastapi_app(mesh: Mesh | None) -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/orders/{number}")
    async def handler(number: int) -> PlainTextResponse:
        return PlainTextResponse(_BODY)

    return _within(app, mesh)


def _within(app: Any, mesh: Mesh | None) -> Any:
    if mesh is not None:
        from meshlib.server.asgi import MeshMiddleware

        app.add_middleware(MeshMiddleware, mesh=mesh)
    return app


def _fastapi(loop: asyncio.AbstractEventLoop, mesh: Mesh | None, headers: _Headers) -> _Burst:
    return _asgi(loop, _fastapi_app(mesh), headers)


def _asgi(loop: asyncio.AbstractEventLoop, app: Any, headers: _Headers) -> _Burst:
    whole = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }

    async def receive() -> Any:
        await loop.create_future()

    async def send(message: Any) -> None:
        pass

    async def burst(requests: int) -> None:
        for _ in range(requests):
            await app(dict(whole), receive, send)

    return lambda requests: loop.run_until_complete(burst(requests))


class _Transport(asyncio.Transport):
    """A connection to nowhere; tells when a response is out."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.done = asyncio.Event()

    def write(self, data: Any) -> None:
        if data.endswith(_BODY):
            self.done.set()

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _uvicorn(loop: asyncio.AbstractEventLoop, mesh: Mesh | None, headers: _Headers) -> _Burst:
    from uvicorn import Config
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    config = Config(_fastapi_app(mesh), access_log=False, log_config=None, lifespan="off")
    config.load()
    lines = [f"GET {_PATH} HTTP/1.1".encode(), *(b": ".join(each) for each in headers), b"", b""]
    request = b"\r\n".join(lines)

    async def burst(requests: int) -> None:
        protocol = HttpToolsProtocol(config, ServerState(), {})
        transport = _Transport()
        protocol.connection_made(transport)
        for _ in range(requests):
            transport.done.clear()
            protocol.data_received(request)
            await transport.done.wait()
        protocol.connection_lost(None)

    return lambda requests: loop.run_until_complete(burst(requests))


def _flask(loop: asyncio.AbstractEventLoop, mesh: Mesh | None, headers: _Headers) -> _Burst:
    from flask import Flask

    app = Flask("bench")

    @app.get("/orders/<int:number>")
    def handler(number: int) -> bytes:
        return _BODY

    if mesh is not None:
        from meshlib.server.flask import MeshExtension

        MeshExtension(mesh).init_app(app)
    return _wsgi(app, headers)


def _django(loop: asyncio.AbstractEventLoop, mesh: Mesh | None, headers: _Headers) -> _Burst:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def handler(request: HttpRequest, number: int) -> HttpResponse:
        return HttpResponse(_BODY)

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=(path("orders/<int:number>", handler),))
        django.setup()
    settings.MESHLIB_MESH = mesh
    settings.MIDDLEWARE = [] if mesh is None else ["meshlib.server.django.MeshMiddleware"]
    if mesh is not None:
        from meshlib.server.django import mesh as of_the_project

        of_the_project.cache_clear()
    return _wsgi(WSGIHandler(), headers)


def _wsgi(app: Any, headers: _Headers) -> _Burst:
    from io import BytesIO

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": _PATH,
        "QUERY_STRING": "",
        "SERVER_NAME": "orders",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": BytesIO(),
        **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in headers},
    }

    def start_response(status: str, headers: Any, failed: Any = None) -> Any:
        return None

    def call() -> None:
        response = app(dict(environ), start_response)
        for _ in response:
            pass
        close = getattr(response, "close", None)
        if close is not None:
            close()

    return rounds.one_by_one(call)
