"""What a service is told, and when it answered: a line of JSON in ``$CHAIN_LOG`` for each, written from outside."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

NAMES = ("x-meshlib-deadline-ms", "x-meshlib-criticality", "traceparent", "baggage", "x-test-run")


def note(**what: Any) -> None:
    line = json.dumps({"service": os.environ["CHAIN_SERVICE"], "at": time.monotonic(), **what}) + "\n"
    with open(os.environ["CHAIN_LOG"], "a") as log:
        log.write(line)


def asgi(app: Any) -> Any:
    """`app`, with a line for each request and each response."""

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        told = {name: headers[name] for name in NAMES if name in headers}
        run, path, method = headers.get("x-test-run", ""), scope["path"], scope["method"]
        note(what="came", run=run, path=path, method=method, told=told)

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                note(what="answered", run=run, path=path, method=method, status=message["status"])
            await send(message)

        await app(scope, receive, sending)

    return watched


def wsgi(app: Any) -> Any:
    """The same for WSGI."""

    def watched(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        keys = {name: "HTTP_" + name.upper().replace("-", "_") for name in NAMES}
        told = {name: environ[key] for name, key in keys.items() if key in environ}
        run, path, method = told.get("x-test-run", ""), environ["PATH_INFO"], environ["REQUEST_METHOD"]
        note(what="came", run=run, path=path, method=method, told=told)

        def start(status: str, *rest: Any) -> Any:
            note(what="answered", run=run, path=path, method=method, status=int(status[:3]))
            return start_response(status, *rest)

        return app(environ, start)

    return watched
