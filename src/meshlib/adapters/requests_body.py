"""The bodies of requests, as the mesh sends them, and whether they can be had again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from requests import PreparedRequest

from meshlib.adapters.body import BufferedBody, FileBody

__all__ = ["body_of"]

_CHUNK_BYTES = 65536


def body_of(request: PreparedRequest) -> Any:
    """What to send for a request: bytes, or something that yields them."""
    body: Any = request.body
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        # Before urllib3 2 text went out as Latin-1, and so its length was counted.
        announced = request.headers.get("Content-Length")
        data = body.encode("utf-8")
        return body.encode("latin-1") if str(len(data)) != announced == str(len(body)) else data
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    if not hasattr(body, "read"):
        return BufferedBody(_encoded(iter(body)))
    if not isinstance(body, io.TextIOBase) and _can_go_back(body):
        return FileBody(body)
    return BufferedBody(_encoded(iter(lambda: body.read(_CHUNK_BYTES) or b"", b"")))


def _can_go_back(body: Any) -> bool:
    if not hasattr(body, "seek") or not hasattr(body, "tell"):
        return False
    if not getattr(body, "seekable", lambda: True)():
        return False
    try:
        body.tell()
    except (OSError, ValueError):
        return False
    return True


def _encoded(chunks: Iterator[Any]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk.encode("utf-8") if isinstance(chunk, str) else chunk
