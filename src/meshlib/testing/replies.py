"""What a function may return for a request, as a response."""

from __future__ import annotations

from typing import Any, TypeAlias

import httpx

__all__ = ["Reply", "make_response"]

Reply: TypeAlias = Any
"""An `httpx.Response`; a dict or list (JSON), text, bytes, a status; ``(status, body[, headers])``."""


def make_response(reply: Reply) -> httpx.Response:
    """The response that `reply` stands for.

    Raises:
        TypeError: if it stands for none.
    """
    if isinstance(reply, httpx.Response):
        return reply
    if isinstance(reply, tuple) and len(reply) in (2, 3) and _is_status(reply[0]):
        status, body, *headers = reply
        return _respond(status, body, headers[0] if headers else None)
    if _is_status(reply):
        return httpx.Response(reply)
    return _respond(200, reply, None)


def _respond(status: int, body: Any, headers: Any) -> httpx.Response:
    if isinstance(body, (dict, list)):
        return httpx.Response(status, headers=headers, json=body)
    if isinstance(body, str):
        return httpx.Response(status, headers=headers, text=body)
    if isinstance(body, (bytes, bytearray)):
        return httpx.Response(status, headers=headers, content=bytes(body))
    raise TypeError(
        f"a served function returned {body!r}; it can return a dict or list (as JSON), str, bytes, a status, "
        "(status, body), (status, body, headers) or an httpx.Response"
    )


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599
