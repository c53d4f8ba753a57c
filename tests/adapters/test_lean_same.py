"""The same scripted calls through a bare httpx client and a meshed one: all that a caller or a server sees is the same.

The server is real, and listens at an address that is also a name of the service, so that even the URLs are the same.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import logging
import pickle
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshlib import Mesh
from meshlib.adapters.httpx_lean_response import LeanResponse
from meshlib.adapters.options import EXTENSION
from tests.adapters.support import Origin, Seen, address, ok
from tests.net.wire_servers import serving

OURS = ("x-meshlib-", "x-envoy-", "traceparent", "tracestate", "baggage")
TLS = ssl.create_default_context()  # not used, and dear to make: so not for each client anew
CODED = gzip.compress(b'{"a": "\xc3\xa4"}')


def answer(seen: Seen, number: int) -> bytes:
    """What is asked for by the path."""
    method, target, _ = seen.line.split(" ")
    path = target.partition("?")[0].rpartition("/")[2]
    body = {
        "json": ok(b'{"a": [1, "\xc3\xa4"]}', content_type="application/json"),
        "latin": ok(b"\xe4", content_type="text/plain; charset=latin-1"),
        "unknown": ok(b"\xe4", content_type="text/plain; charset=what"),
        "lines": ok(b"a\r\nb\n\nc", content_type="text/plain"),
        "links": ok(link='</a>; rel="next", </b>'),
        "gzip": ok(CODED, content_encoding="gzip"),
        "broken": ok(b"no gzip", content_encoding="gzip"),
        "identity": ok(b"as is", content_encoding="identity"),
        "cookie": ok(set_cookie="a=1; Path=/"),
        "to": ok(b"there", "302 Found", Location="/json"),
        "to-post": ok(b"", "307 Temporary Redirect", location="/latin?x#y"),
        "to-cookie": ok(b"", "303 See Other", location="cookie", set_cookie="b=2"),
        "loop": ok(b"", "301 Moved", location="loop"),
        "to-nowhere": ok(b"", "302 Found", location="http://:x/"),
        "no-location": ok(b"", "304 Not Modified"),
        "created": ok(b"new", "201 Created", location="/json"),
        "404": ok(b"none", "404 Not Found"),
        "500": ok(b"oops", "500 Of Our Own"),
        "299": ok(b"", "299 "),
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "octets": ok(b"\x00\xff", X_Text="\xe4"),
    }.get(path, ok())
    if path == "204":
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    return body.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else body


PATHS = [
    *(
        "json",
        "latin",
        "unknown",
        "lines",
        "links",
        "gzip",
        "broken",
        "identity",
        "cookie",
        "to",
        "to-post",
        "to-cookie",
    ),
    *("loop", "to-nowhere", "no-location", "created", "404", "500", "299", "chunks", "octets", "204", "a%20b/json", ""),
]


@dataclass(frozen=True)
class Pair:
    """A server, and what is needed to make clients that call it."""

    origin: Origin
    base: str
    mesh: Mesh


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    origin = Origin(answer)
    with serving(origin) as server:
        orders = {"endpoints": [address(server)], "hosts": [address(server)], "retry": {"max_retries": 0}}
        never = {"circuit_breaker": {"min_calls": 1_000_000}, "outlier_detection": {"consecutive_errors": 1_000_000}}
        with Mesh({"discovery": [], "services": {"orders": {**orders, **never}}}) as mesh:
            yield Pair(origin, f"http://{address(server)}", mesh)


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        self.lines.append((record.getMessage(), [type(each) for each in record.args]))


def told(error: BaseException) -> tuple[Any, ...]:
    request = getattr(error, "_request", None)
    return (type(error), str(error), None if request is None else sent(request))


def attempt(act: Any) -> Any:
    try:
        return act()
    except Exception as error:
        return told(error)


def sent(request: httpx.Request) -> tuple[Any, ...]:
    extensions = {name: value for name, value in request.extensions.items() if name != EXTENSION}
    return (
        type(request),
        request.method,
        (type(request.url), str(request.url), request.url.raw_path),
        (request.headers.raw, request.headers.encoding),
        attempt(lambda: request.content),
        type(request.stream),
        extensions,
    )


def kept(cookies: httpx.Cookies) -> list[Any]:
    """All of them: several may have one name, each for another path."""
    return sorted((each.name, each.value, each.domain, each.path) for each in cookies.jar)


def observed(response: httpx.Response) -> dict[str, Any]:
    """All that httpx documents of a response, in an order in which nothing spoils what comes later."""
    assert isinstance(response.elapsed, datetime.timedelta) and response.elapsed > datetime.timedelta(0)
    assert vars(pickle.loads(pickle.dumps(response))).keys() >= {"_content", "_elapsed"}
    return {
        "repr": repr(response),
        "status": (response.status_code, response.reason_phrase, response.http_version),
        "headers": (response.headers.raw, response.headers.encoding, type(response.headers)),
        "encoding": (response.encoding, response.charset_encoding, response.default_encoding),
        "content": (response.content, response.text, response.read(), response.num_bytes_downloaded),
        "json": attempt(response.json),
        "request": sent(response.request),
        "url": response.url,
        "next": None if response.next_request is None else sent(response.next_request),
        "history": [observed(each) for each in response.history],
        "cookies": kept(response.cookies),
        "links": response.links,
        "state": (response.is_closed, response.is_stream_consumed, response.has_redirect_location),
        "kind": (response.is_informational, response.is_success, response.is_redirect, response.is_error),
        "whose": (response.is_client_error, response.is_server_error),
        "refused": attempt(lambda: response.raise_for_status() is response),
        "iterated": (list(response.iter_bytes(1)), list(response.iter_lines()), list(response.iter_text())),
        "raw": attempt(lambda: list(response.iter_raw())),
        "later": attempt(lambda: setattr(response, "encoding", "utf-8")),
        "extensions": {name: response.extensions.get(name) for name in ("http_version", "reason_phrase")},
        "missing": attempt(lambda: response.missing),  # type: ignore[attr-defined]
    }


def outcome(response: httpx.Response) -> dict[str, Any]:
    """The same, and of its copy, which is always a plain response."""
    copy = pickle.loads(pickle.dumps(response))
    assert type(copy) is httpx.Response
    state = {**vars(copy), "_elapsed": None, "_request": sent(copy._request), "history": len(copy.history)}
    state["stream"], state["headers"] = type(copy.stream), copy.headers.raw
    state["next_request"] = None if copy.next_request is None else sent(copy.next_request)
    state.pop("_cookies", None)
    return {**observed(response), "copied": state}


def server_saw(seen: list[Seen]) -> list[Any]:
    """What came without the mesh's own headers. A Host that the caller gave is moved to the front by httpcore only."""
    requests = []
    for each in seen:
        theirs = [pair for pair in each.headers if not pair[0].lower().startswith(OURS)]
        requests.append((each.line, sorted(theirs, key=lambda pair: pair[0].lower() != "host"), each.body))
    return requests


Call = tuple[str, str, dict[str, Any]]


def made(
    pair: Pair, kind: str, meshed: bool, options: dict[str, Any], calls: list[Call]
) -> tuple[list[Any], list[bool]]:
    """What comes of the calls: outcomes, what the server saw, log lines, cookies; and which of them were lean."""
    options = {"trust_env": False, **options}
    log, results, lean = Log(), [], []
    logger = logging.getLogger("httpx")
    pair.origin.seen.clear()

    def note(result: Any) -> None:
        lean.append(isinstance(result, LeanResponse))
        results.append(outcome(result) if isinstance(result, httpx.Response) else told(result))

    async def in_loop() -> list[Any]:
        async_client = (
            pair.mesh.async_client("orders", **options) if meshed else httpx.AsyncClient(verify=TLS, **options)
        )
        async with async_client:
            for method, url, arguments in calls:
                try:
                    note(await async_client.request(method, url, **arguments))
                except Exception as error:
                    note(error)
            return kept(async_client.cookies)

    def in_thread() -> list[Any]:
        with pair.mesh.client("orders", **options) if meshed else httpx.Client(verify=TLS, **options) as client:
            for method, url, arguments in calls:
                try:
                    note(client.request(method, url, **arguments))
                except Exception as error:
                    note(error)
            return kept(client.cookies)

    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DeprecationWarning)
            cookies = asyncio.run(in_loop()) if kind == "async" else in_thread()
    finally:
        logger.setLevel(level)
        logger.removeHandler(log)
    told_of = [str(each.message) for each in caught if each.category is DeprecationWarning]
    return [results, server_saw(list(pair.origin.seen)), log.lines, cookies, told_of], lean


def _based(url: Any, pair: Pair) -> Any:
    return url.replace("BASE", pair.base) if isinstance(url, str) else url


def assert_same(pair: Pair, kind: str, options: dict[str, Any], calls: list[Call]) -> list[bool]:
    """Make the calls both ways; which of the meshed ones were lean."""
    calls = [(method, _based(url, pair), arguments) for method, url, arguments in calls]
    options = {"timeout": None, **options}
    options = {**options, "base_url": str(options.get("base_url", "BASE")).replace("BASE", pair.base)}
    bare, _ = made(pair, kind, False, options, calls)
    meshed, lean = made(pair, kind, True, options, calls)
    for ours, theirs in zip(meshed, bare, strict=True):
        assert ours == theirs
    return lean


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
texts = st.text("ab\xe4 ;=", max_size=4)
names = st.sampled_from(
    ["x-a", "X-A", "Accept", "accept", "User-Agent", "Host", "Content-Type", "Connection", "Cookie", "é"]
)
values = st.sampled_from(["", "1", "a b", "keep-alive", "text/plain", "é", "0"])
fields = st.dictionaries(names, values, max_size=3) | st.lists(
    st.tuples(names, values), max_size=3, unique_by=lambda pair: pair[0] if pair[0] == "Host" else id(pair)
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "headers": fields | st.none() | st.just(httpx.Headers([("X-B", "1"), ("x-b", "2"), ("accept", "a")])),
        "content": st.none() | texts | texts.map(str.encode),
        "json": jsons,
        "data": st.none() | st.dictionaries(texts, texts, max_size=2),
        "params": st.none() | st.dictionaries(texts, texts, max_size=2),
        "cookies": st.none() | st.just({"c": "3"}),
        "auth": st.none() | st.just(("u", "p")),
        "follow_redirects": st.booleans(),
        "timeout": st.none() | st.just(httpx.Timeout(9.0)) | st.just(httpx.Timeout(None)),
        "extensions": st.just({}),
    },
)
calls = st.tuples(
    st.sampled_from(["GET", "get", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "Get", "PURGE"]),
    st.builds(str.__add__, st.sampled_from(["BASE/", "/", "BASE/a/../", "/x/", ""]), st.sampled_from(PATHS)),
    arguments,
)
clients = st.fixed_dictionaries(
    {},
    optional={
        "headers": fields.filter(lambda given: str(given).isascii()),
        "params": st.just({"p": "1"}),
        "cookies": st.just({"k": "v"}),
        "auth": st.just(("me", "pw")),
        "follow_redirects": st.booleans(),
        "max_redirects": st.integers(0, 3),
        "base_url": st.sampled_from(["BASE", "BASE/v1", "BASE/v1/?q"]),
        "default_encoding": st.sampled_from(["utf-8", "latin-1"]) | st.just(lambda content: "latin-1"),
    },
)


@pytest.mark.slow
@KINDS
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=clients, calls=st.lists(calls, min_size=1, max_size=3))
@example(options={}, calls=[("GET", "BASE/json", {}), ("POST", "/json", {"json": {"a": float("nan")}})])
@example(options={"follow_redirects": True}, calls=[("POST", "/to-post", {"content": "x"}), ("GET", "/to-cookie", {})])
@example(options={}, calls=[("GET", "BASE/to-cookie", {}), ("GET", "/x/to-cookie", {})])
def test_generated_calls(pair: Pair, kind: str, options: dict[str, Any], calls: list[Call]) -> None:
    assert_same(pair, kind, options, calls)


REPLAYED = {"gzip", "broken", "identity", "cookie", "to", "to-post", "to-cookie", "loop", "to-nowhere"}
"""Answers with which httpx has work to do."""

SETS_COOKIES = ["cookie", "to-cookie"]


@KINDS
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("DELETE", {"headers": {"accept": "x", "X-B": "1"}}),
        ("POST", {"json": {"a": ["ä", None, 1.5]}}),
        ("PUT", {"content": "ä", "headers": [("x-a", "1"), ("X-A", "2")]}),
        ("PATCH", {}),
    ],
    ids=str,
)
def test_every_kind_of_answer(pair: Pair, kind: str, method: str, arguments: dict[str, Any], follow: bool) -> None:
    paths = [path for path in PATHS if path not in SETS_COOKIES]
    calls = [(method, f"BASE/{path}", {**arguments, "follow_redirects": follow}) for path in paths]
    lean = assert_same(pair, kind, {}, calls)
    assert [path for path, each in zip(paths, lean, strict=True) if not each] == [
        path for path in paths if path in REPLAYED
    ]
    for path in SETS_COOKIES:
        calls = [(method, f"/{path}", {**arguments, "follow_redirects": follow}), (method, "/json", arguments)]
        assert assert_same(pair, kind, {}, calls) == [False, True]


@KINDS
@pytest.mark.parametrize("follow", [False, True])
def test_a_request_that_was_made_before_is_sent_as_it_is(pair: Pair, kind: str, follow: bool) -> None:
    def make() -> list[httpx.Request]:
        extensions = {"timeout": httpx.Timeout(None).as_dict()}
        urls = [f"{pair.base}/{path}" for path in ("json", "to-post", "gzip")]
        return [
            httpx.Request("POST", url, json=[1], headers={"x": "\xe4".encode()}, extensions=extensions) for url in urls
        ]

    def in_thread(client: httpx.Client, requests: list[httpx.Request]) -> list[httpx.Response]:
        with client:
            return [client.send(request, follow_redirects=follow) for request in requests]

    async def in_loop(client: httpx.AsyncClient, requests: list[httpx.Request]) -> list[httpx.Response]:
        async with client:
            return [await client.send(request, follow_redirects=follow) for request in requests]

    results, seen = [], []
    for meshed in (True, False):
        pair.origin.seen.clear()
        requests = make()
        if kind == "sync":
            responses = in_thread(pair.mesh.client("orders") if meshed else httpx.Client(), requests)
        else:
            client = pair.mesh.async_client("orders") if meshed else httpx.AsyncClient()
            responses = asyncio.run(in_loop(client, requests))
        assert isinstance(responses[0], LeanResponse) is meshed
        assert responses[0].request is requests[0]
        results.append([outcome(each) for each in responses])
        seen.append(server_saw(list(pair.origin.seen)))
    assert results[0] == results[1]
    assert seen[0] == seen[1]


@KINDS
def test_what_is_wrong_with_a_call_is_said_alike(pair: Pair, kind: str) -> None:
    wrong: list[Call] = [
        ("GET", "http://orders:x/", {}),
        ("GET", "http://o\n/", {}),
        ("GET", "/", {"headers": {"a": 1}}),
        ("GET", "/", {"headers": {"a": "é"}}),
        ("GET", "/", {"headers": ["abc"]}),
        ("POST", "/", {"json": object()}),
        ("POST", "/", {"json": "\ud800"}),
        ("POST", "/", {"content": 7}),
        ("POST", "/", {"content": "\ud800"}),
        ("GET", 7, {}),  # type: ignore[list-item]
    ]
    for call in wrong:
        assert_same(pair, kind, {}, [call])


@KINDS
def test_a_closed_client_refuses_alike(pair: Pair, kind: str) -> None:
    def refusal(meshed: bool) -> str:
        async def in_loop() -> None:
            client = pair.mesh.async_client("orders") if meshed else httpx.AsyncClient()
            async with client:
                await client.get(f"{pair.base}/json")
            await client.get(f"{pair.base}/json")

        def in_thread() -> None:
            with pair.mesh.client("orders") if meshed else httpx.Client() as client:
                client.get(f"{pair.base}/json")
            client.get(f"{pair.base}/json")

        with pytest.raises(RuntimeError) as caught:
            asyncio.run(in_loop()) if kind == "async" else in_thread()
        return str(caught.value)

    assert refusal(True) == refusal(False)
