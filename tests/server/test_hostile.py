"""What strangers and broken callers write: ignored or refused, counted, and never a crash nor more work."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshlib.context import Criticality, current
from meshlib.propagation import BAGGAGE, CRITICALITY, DEADLINE_MS, ENVOY_TIMEOUT_MS, GRPC_TIMEOUT, INCOMING
from meshlib.server import asgi, wsgi
from tests.peers.process import wait_until
from tests.server.conftest import Serve, ServeWsgi
from tests.server.standin import StandInMesh

NAMES = st.sampled_from([*INCOMING, "traceparent", "tracestate", "x-envoy-attempt-count"])
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "0", "-0", "1e3", "0x10", "1_000", "٣", "NaN", "inf", " 5 ", "5,5", "5, 6", "99999999H", "5m"]
    ),
)
VALUES = st.one_of(
    NUMBERS,
    st.sampled_from(["critical_plus", "CRITICAL", "highest", "critical\x00"]),
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{30,34}-[0-9a-f]{14,18}-[0-9a-f]{2}", fullmatch=True),
    st.lists(st.sampled_from(["a=1", "=", "a=%", "a=%ff", ";", "k=v;p", "\x7f=1"]), max_size=200).map(",".join),
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def inherited() -> dict[str, Any]:
    now = current()
    return {"remaining": now.remaining, "criticality": now.criticality, "baggage": dict(now.baggage)}


def harmless(seen: dict[str, Any], trusted: bool) -> bool:
    if not trusted:
        return seen == {"remaining": None, "criticality": None, "baggage": {}}
    return (
        (seen["remaining"] is None or 0.0 <= seen["remaining"] <= 86_400.0)
        and (seen["criticality"] is None or seen["criticality"] in list(Criticality))
        and len(seen["baggage"]) <= 64
    )


async def _nothing() -> Any:
    await asyncio.Event().wait()


@settings(deadline=None)
@given(HEADERS, st.booleans())
def test_asgi(headers: list[tuple[str, str]], trusted: bool) -> None:
    seen: list[dict[str, Any]] = []
    statuses: list[int] = []

    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        seen.append(inherited())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def send(message: asgi.Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    middleware = asgi.MeshMiddleware(app)
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
    peer = "127.0.0.1" if trusted else "8.8.8.8"
    scope = {"type": "http", "method": "GET", "path": "/", "headers": raw, "client": (peer, 1)}
    asyncio.run(middleware(scope, _nothing, send))
    assert statuses == ([200] if seen else [504])
    assert seen or trusted, "nobody else's deadline is believed"
    assert all(harmless(each, trusted) for each in seen)
    assert middleware._serving.in_flight == 0


@settings(deadline=None)
@given(HEADERS, st.booleans())
def test_wsgi(headers: list[tuple[str, str]], trusted: bool) -> None:
    seen: list[dict[str, Any]] = []
    statuses: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        seen.append(inherited())
        start_response("200 OK", [])
        yield b""

    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    environ["REMOTE_ADDR"] = "127.0.0.1" if trusted else "8.8.8.8"
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    middleware = wsgi.MeshMiddleware(app)
    start: Callable[..., Any] = lambda status, *_: statuses.append(status)  # noqa: E731
    response = middleware(environ, start)
    list(response)
    assert statuses == (["200 OK"] if seen else ["504 Gateway Timeout"])
    assert seen or trusted
    assert all(harmless(each, trusted) for each in seen)
    assert middleware._serving.in_flight == 0


# On real servers, byte for byte


def answer(url: str, *headers: bytes) -> tuple[int, Any]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        lines = [b"GET / HTTP/1.1", b"host: a", b"connection: close", *headers, b"", b""]
        connection.sendall(b"\r\n".join(lines))
        whole = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = whole.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    return status, json.loads(body) if status == 200 else None


NOTHING = {"remaining": None, "criticality": None, "baggage": {}}
HOSTILE: list[tuple[list[bytes], str]] = [
    ([b"x-meshlib-deadline-ms: 99999999999999999999"], "deadline"),
    ([b"x-meshlib-deadline-ms: 86400001"], "deadline"),
    ([b"x-meshlib-deadline-ms: -1"], "deadline"),
    ([b"x-meshlib-deadline-ms: 5s"], "deadline"),
    ([b"x-meshlib-deadline-ms: 1.5"], "deadline"),
    ([b"x-meshlib-deadline-ms: 5000", b"x-meshlib-deadline-ms: 60000"], "deadline"),
    ([b"x-meshlib-deadline-ms: \xb2\xb3"], "deadline"),
    ([b"grpc-timeout: 999999999S"], "deadline"),
    ([b"x-meshlib-criticality: urgent"], "criticality"),
    ([b"x-meshlib-criticality: critical, sheddable"], "criticality"),
    ([b"baggage: " + b"a=1," * 2200], "baggage"),
    ([b"baggage: %%=%%"], "baggage"),
    ([b"traceparent: 00-00000000000000000000000000000000-0000000000000000-01"], "trace"),
    ([b"traceparent: 00-" + b"g" * 50], "trace"),
    ([b"traceparent: " + b"0" * 4000], "trace"),
]


@pytest.fixture
def served(serve: Serve, serve_wsgi: ServeWsgi) -> list[tuple[str, Any]]:
    """Both middlewares, each behind a real server."""

    async def handler(request: Request) -> JSONResponse:
        return JSONResponse(inherited())

    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = json.dumps(inherited()).encode()
        start_response("200 OK", [("content-length", str(len(body)))])
        return [body]

    both = [
        asgi.MeshMiddleware(Starlette(routes=[Route("/", handler)]), StandInMesh()),
        wsgi.MeshMiddleware(app, StandInMesh()),
    ]
    return [(serve(both[0]), both[0]), (serve_wsgi(both[1]), both[1])]  # type: ignore[arg-type]


def test_malformed_values_are_ignored_and_counted(served: list[tuple[str, Any]]) -> None:
    for url, middleware in served:
        for headers, kind in HOSTILE:
            before = getattr(middleware.counts, kind)
            assert answer(url, *headers) == (200, NOTHING), headers
            assert getattr(middleware.counts, kind) > before, headers
        expected = {("ok", ""): len(HOSTILE)}
        # An answer is at its caller before it is counted.
        wait_until(lambda: middleware._serving.outcomes == expected, "all are counted")  # noqa: B023


def test_the_smallest_of_the_well_formed_ones_holds_beside_hostile_ones(served: list[tuple[str, Any]]) -> None:
    for url, _ in served:
        status, seen = answer(
            url,
            f"{DEADLINE_MS}: -5".encode(),
            f"{ENVOY_TIMEOUT_MS}: 4000".encode(),
            f"{GRPC_TIMEOUT}: 50S".encode(),
            f"{CRITICALITY}: Sheddable".encode(),
            f"{BAGGAGE}: =,tenant=t1".encode(),
        )
        assert status == 200
        assert 0 < seen["remaining"] <= 4
        assert (seen["criticality"], seen["baggage"]) == (Criticality.SHEDDABLE, {"tenant": "t1"})


def test_a_stranger_sets_nothing_and_is_counted(serve: Serve) -> None:
    async def handler(request: Request) -> JSONResponse:
        return JSONResponse(inherited())

    mesh = StandInMesh(trusted_peers=("10.0.0.0/8",))
    middleware = asgi.MeshMiddleware(Starlette(routes=[Route("/", handler)]), mesh)
    url = serve(middleware)
    priority = [b"x-meshlib-criticality: critical_plus", b"x-meshlib-deadline-ms: 0", b"baggage: tenant=t1"]
    forwarded = [b"forwarded: for=10.0.0.1", b"x-real-ip: 10.0.0.1"]
    assert answer(url, *priority) == (200, NOTHING)
    assert answer(url, *priority, *forwarded) == (200, NOTHING)
    assert middleware.counts.untrusted == 2
