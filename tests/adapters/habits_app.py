"""What the habits of httpx's users are tried on: one ASGI application, which tells what it got."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

Send = Callable[[dict[str, Any]], Awaitable[None]]

TOLD = (
    *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie"),
    *("host", "referer", "transfer-encoding", "user-agent"),
)
"""The headers that are told, and all that begin with ``x-`` and are not the mesh's."""


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    if scope["type"] == "websocket":
        await _socket(scope, receive, send)
        return
    headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    request = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "headers": sorted([name, value] for name, value in headers if _told(name)),
        "body": body.decode("latin-1"),
    }
    query = dict(parse_qsl(request["query"], keep_blank_values=True))
    name = scope["path"].split("/")[1]
    handler = _HANDLERS.get(name, _echo)
    await handler(request, query, dict(headers), send)


def _told(name: str) -> bool:
    ours = name.startswith(("x-meshlib-", "x-envoy-"))
    return name in TOLD or (name.startswith("x-") and not ours)


async def _reply(send: Send, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    if not any(name.lower() == "content-length" for name, _ in headers):
        raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _echo(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    status = int(query.get("status", 200))
    if status in (204, 304):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})
    else:
        await _reply(send, status, json.dumps(request).encode(), ("content-type", "application/json"))


async def _redirect(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    left = int(query.get("times", 1))
    to = query.get("to", "/echo") if left <= 1 else f"/redirect?times={left - 1}&to={query.get('to', '/echo')}"
    await _reply(send, int(query.get("code", 302)), b"moved", ("location", to))


async def _cookies(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    await _reply(send, 200, b"", *(("set-cookie", value) for value in query.values()))


async def _basic(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    good = "Basic " + base64.b64encode(b"user:pass").decode()
    if headers.get("authorization") == good:
        await _echo(request, query, headers, send)
    else:
        await _reply(send, 401, b"who?", ("www-authenticate", 'Basic realm="r"'))


async def _digest(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    given = headers.get("authorization", "")
    fields = {
        key.strip(): value.strip().strip('"')
        for key, _, value in (each.partition("=") for each in given.removeprefix("Digest ").split(","))
    }
    target = request["path"] + (f"?{request['query']}" if request["query"] else "")

    def md5(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

    one, two = md5("user", "realm", "pass"), md5(request["method"], target)
    wanted = md5(one, "nonce", fields.get("nc", ""), fields.get("cnonce", ""), "auth", two)
    if fields.get("response") == wanted:
        await _reply(send, 200, f"{fields['username']} {fields['nc']} {request['body']}".encode())
    else:
        challenge = 'Digest realm="realm", nonce="nonce", qop="auth", opaque="o", algorithm=MD5'
        await _reply(send, 401, b"who?", ("www-authenticate", challenge))


async def _token(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    if headers.get("x-token") == "fresh":
        await _echo(request, query, headers, send)
    else:
        await _reply(send, 401, b"fresh", ("content-type", "text/plain"))


async def _stream(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
    await send(start)
    for number in range(int(query.get("n", 3))):
        await send({"type": "http.response.body", "body": f"line {number} é\r\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


async def _coded(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    coding = query["coding"]
    plain = b"plain text " * 100
    body = gzip.compress(plain, mtime=0) if coding == "gzip" else zlib.compress(plain)
    await _reply(send, 200, body, ("content-encoding", coding), ("content-type", "text/plain"))


async def _text(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    kind = query.get("type")
    body = "Grüße".encode(query.get("in", "utf-8"))
    await _reply(send, 200, body, *([("content-type", kind)] if kind else []))


async def _links(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    link = '</p?page=2>; rel="next"; title="more", </p?page=9>; rel="last"'
    await _reply(send, 200, b"", ("link", link), ("x-a", "1"), ("x-a", "2"), ("X-Mixed-Case", "v"))


async def _events(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    await _reply(send, 200, b"event: a\ndata: 1\n\nid: 7\ndata: 2\ndata: 3\n\n", ("content-type", "text/event-stream"))


async def _wait(request: Any, query: dict[str, str], headers: dict[str, str], send: Send) -> None:
    await asyncio.sleep(30)


async def _socket(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    await receive()
    if scope["path"] == "/refused":
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{scope['path']} {message.get('text')}"})


_HANDLERS: dict[str, Callable[..., Awaitable[None]]] = {
    "redirect": _redirect,
    "cookies": _cookies,
    "basic": _basic,
    "digest": _digest,
    "token": _token,
    "stream": _stream,
    "coded": _coded,
    "text": _text,
    "links": _links,
    "events": _events,
    "wait": _wait,
}
