"""A service for long runs, in the mesh: the same handlers by uvicorn and, under WSGI, by threads.

    python -m tests.soak.service

It prints its two ports. For each line on its standard input, a number of calls, it prints what it holds and has
counted; it ends with the input.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from werkzeug.serving import make_server

from meshlib import Mesh, MeshError
from meshlib.server import asgi, wsgi
from tests.soak.held import Sample

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

SERVER = {
    "admission": {"max_in_flight": 24, "fair_by": "peer"},
    "hopeless": {},
    "cancel": "all",
    "load": "always",
    "health": {"live": "/livez", "ready": "/readyz"},
}
_RNG = random.Random(1)


def handlers(mesh: Mesh) -> Starlette:
    """The application under ASGI."""
    next_one = mesh.async_client("next")

    async def quick(request: Request) -> Response:
        return PlainTextResponse("done")

    async def slow(request: Request) -> Response:
        await asyncio.sleep(_RNG.random() * 0.02)
        return PlainTextResponse("done")

    async def upload(request: Request) -> Response:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return PlainTextResponse(str(size))

    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield b"x" * 1000
                await asyncio.sleep(_RNG.random() * 0.004)

        return StreamingResponse(chunks())

    async def chain(request: Request) -> Response:
        return Response((await next_one.get("/quick")).content)

    def bug(request: Request) -> Response:
        raise KeyError("bug")

    routes: list[Any] = [Route(f"/{each.__name__}", each) for each in (quick, slow, stream, chain, bug)]
    return Starlette(routes=[*routes, Route("/upload", upload, methods=["POST"])])


def threaded(mesh: Mesh) -> Any:
    """The application under WSGI."""
    next_one = mesh.client("next")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/bug":
            raise KeyError("bug")
        if path == "/slow":
            time.sleep(_RNG.random() * 0.02)
        body = next_one.get("/quick").content if path == "/chain" else b"done"
        if path == "/upload":
            body = str(len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"x" * 1000 for _ in range(8)) if path == "/stream" else [body]

    return app


def counted(mesh: Mesh) -> dict[str, Any]:
    """What the mesh has counted of the requests that it served."""
    serving = mesh.serving
    queue = None if serving.admission is None else serving.admission.queue
    waiting = (0, 0) if queue is None else (queue.in_flight, queue.pending)
    return {"in_flight": serving.in_flight, "admitted": waiting[0], "pending": waiting[1], "ended": {**serving.ended}}


async def main() -> None:
    """Serve until the input ends."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        port = listener.getsockname()[1]
        services = {"next": {"endpoints": [f"127.0.0.1:{port}"], "timeout": "1s"}}
        config = {"discovery": [], "services": services, "server": SERVER}
        async with Mesh(config) as mesh:
            with Mesh(config) as other:
                app = asgi.MeshMiddleware(handlers(mesh), mesh)
                server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
                wsgi_server = make_server("127.0.0.1", 0, wsgi.MeshMiddleware(threaded(other), other), threaded=True)
                thread = threading.Thread(target=wsgi_server.serve_forever)
                thread.start()
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                print(port, wsgi_server.server_port, flush=True)
                while line := await asyncio.to_thread(sys.stdin.readline):
                    sample = Sample.of_here(int(line), asyncio.get_running_loop())
                    found = {"asgi": counted(mesh), "wsgi": counted(other), "sample": asdict(sample)}
                    print(json.dumps(found), flush=True)
                server.should_exit = True
                await serving
                await asyncio.to_thread(wsgi_server.shutdown)
                thread.join()
                wsgi_server.server_close()


if __name__ == "__main__":
    import logging

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    sys.excepthook = lambda *_: None
    with suppress(MeshError):
        asyncio.run(main())
