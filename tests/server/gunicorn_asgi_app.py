"""The ASGI application that tests start under gunicorn: what becomes of its handlers is told at ``/happened``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from meshlib.server.asgi import MeshMiddleware, Receive, Scope, Send

happened: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    if scope["path"] == "/happened":
        await _answer(send, happened)
        return
    name = scope["method"]
    happened.append(f"{name} began")
    try:
        await asyncio.sleep(0.3)
    except asyncio.CancelledError:
        happened.append(f"{name} cancelled")
        raise
    happened.append(f"{name} finished")
    await _answer(send, None)


async def _answer(send: Send, data: Any) -> None:
    body = json.dumps(data).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


application = MeshMiddleware(app)
