"""``Connection: close``, for callers that keep a connection to a process which is about to end.

By the header they know that the connection ends, and make their next one elsewhere; of a connection that is closed in
silence they may learn only when a request is lost on it. HTTP/2 has no such header; its servers send GOAWAY. Servers of
WSGI keep this header to themselves, so there it is the server's adapter that sees to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.server.asgi import Message, Scope, Send

__all__ = ["closing", "is_kept"]

_CLOSE = (b"connection", b"close")


def is_kept(scope: Scope) -> bool:
    """Whether a request came over a connection that the header closes."""
    version: str = scope.get("http_version", "1.1")
    return version.startswith("1")


def closing(scope: Scope, send: Send) -> Send:
    """`send` of an ASGI application, with the header on its response."""
    if not is_kept(scope):
        return send

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != _CLOSE[0]]
            message = {**message, "headers": [*headers, _CLOSE]}
        await send(message)

    return send_and_close
