"""What serves a request: an ASGI application, a WSGI application, or a function. All three end in an `httpx.Response`.

Which it is shows in what it takes: ``(scope, receive, send)``, ``(environ, start_response)``, or the request. The whole
body of an application's response is gathered before it is delivered; a function may return an `httpx.Response` with an
iterator as its content, which is streamed.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import httpx

from meshlib.signature import signature_of
from meshlib.testing.received import ReceivedRequest
from meshlib.testing.replies import make_response

__all__ = ["App", "Begun", "as_app"]

Begun: TypeAlias = Callable[[], None]
"""Called when the headers of the response are there."""


App: TypeAlias = Callable[[ReceivedRequest, Begun], "httpx.Response | Awaitable[httpx.Response]"]
"""Serves one request: at once, or as something to await."""


def as_app(served: Any) -> App:
    """Make one thing of an ASGI application, a WSGI application, a function, or a constant reply."""
    if not callable(served):
        make_response(served)  # raises here, where the mistake is
        return _function(lambda request: served)
    match _takes(served):
        case 3:
            return _asgi(served)
        case 2:
            return _wsgi(served)
        case _:
            return _function(served)


def _takes(served: Callable[..., Any]) -> int:
    """How many arguments it needs."""
    try:
        parameters = signature_of(served).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters)


def _function(function: Callable[[ReceivedRequest], Any]) -> App:
    def serve(request: ReceivedRequest, begun: Begun) -> httpx.Response | Awaitable[httpx.Response]:
        reply = function(request)
        if inspect.isawaitable(reply):
            return finish(reply, begun)
        begun()
        return make_response(reply)

    async def finish(reply: Awaitable[Any], begun: Begun) -> httpx.Response:
        response = make_response(await reply)
        begun()
        return response

    return serve


def _wsgi(app: Any) -> App:
    def serve(request: ReceivedRequest, begun: Begun) -> httpx.Response:
        def watched(environ: Any, start_response: Any) -> Any:
            def start(status: str, headers: Any, error: Any = None) -> Any:
                begun()
                return start_response(status, headers, error)

            return app(environ, start)

        outgoing = httpx.Request(
            request.method, request.url, headers=request.headers, stream=httpx.ByteStream(request.body)
        )
        with httpx.WSGITransport(watched, remote_addr="127.0.0.1") as transport:
            response = transport.handle_request(outgoing)
            content = b"".join(response.iter_raw())
        return httpx.Response(response.status_code, headers=response.headers.raw, stream=httpx.ByteStream(content))

    return serve


def _asgi(app: Any) -> App:
    async def serve(request: ReceivedRequest, begun: Begun) -> httpx.Response:
        url = request.url
        status: int | None = None
        headers: list[tuple[bytes, bytes]] = []
        body: list[bytes] = []
        asked, complete = False, asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": request.body, "more_body": False}
            await complete.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers.extend((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
                begun()
            elif message["type"] == "http.response.body":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    complete.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 1),
            "server": (url.host, url.port or 80),
        }
        await app(scope, receive, send)
        if status is None or not complete.is_set():
            raise RuntimeError(f"the ASGI application of {request.service} returned without a complete response")
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"".join(body)))

    return serve
