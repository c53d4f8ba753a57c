"""What the servers of the rolling restart serve: ``asgi`` and ``wsgi``, each with the middleware and a mesh.

``python -m tests.integration.rolling_app SERVER PORT`` starts one of those that are not started by a command.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware as AsgiMiddleware
from meshlib.server.fastapi import lifespan
from meshlib.server.wsgi import MeshMiddleware as WsgiMiddleware

WORK_S = 0.02

if slow := os.environ.get("ROLLING_SLOW_START"):
    with open(slow, "w"):  # so that a test knows
        time.sleep(1.0)

mesh = Mesh(json.loads(os.environ["ROLLING_MESH"]))


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")  # as an application does that has no lifespan
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await asyncio.sleep(float(body or WORK_S))
    text = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


asgi = AsgiMiddleware(answer, mesh)


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    time.sleep(float(body or WORK_S))
    text = str(os.getpid()).encode()
    start_response("200 OK", [("content-length", str(len(text)))])
    return [text]


wsgi = WsgiMiddleware(wsgi_app, mesh)


@asynccontextmanager
async def own(app: Any) -> AsyncGenerator[dict[str, Any], None]:
    yield {"own": True}


def starlette() -> Any:
    """An application of a framework, with the line that users write."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(float(await request.body() or WORK_S))
        assert request.state.own
        return Response(str(os.getpid()))

    return Starlette(
        routes=[Route("/", endpoint, methods=["GET", "POST"])],
        middleware=[Middleware(AsgiMiddleware, mesh=mesh)],
        lifespan=lifespan(mesh, own),
    )


def main(server: str, port: str) -> None:
    if server == "uvicorn":
        from meshlib.server import uvicorn

        uvicorn.run(asgi, mesh=mesh, port=int(port), log_level="warning")
    elif server == "uvicorn-workers":
        from meshlib.server import uvicorn

        uvicorn.run("tests.integration.rolling_app:asgi", workers=2, port=int(port), log_level="warning")
    elif server == "hypercorn":
        from hypercorn.config import Config

        from meshlib.server import hypercorn

        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        hypercorn.run(asgi, config, mesh=mesh)
    else:
        from meshlib.server import werkzeug

        werkzeug.run(wsgi, mesh, port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
