"""Generated responses, in any split: the framings and httpx read them alike; no bytes lead to worse than a refusal."""

from __future__ import annotations

import functools

import httpcore
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.net.http1 import Http1Framing
from meshlib.net.http1_h11 import H11Framing
from meshlib.net.wire import Headers
from tests.net.fuzz.oracle import METHODS, OK, check, outcome, pieces

pytestmark = pytest.mark.slow

TOKEN = st.text("abcXYZ09!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip(b" \t"))
FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"upgrade"}
FIELDS = st.lists(st.tuples(TOKEN, VALUE).filter(lambda field: field[0].lower() not in FRAMING), max_size=4)
CUTS = st.lists(st.integers(0, 400), max_size=6)
BODY = st.binary(max_size=60)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, int, Headers, bytes, Headers, bytes, bool]:
    """A well-formed response, its status, fields, body and trailers, the method that it answers, whether it is kept."""
    method = draw(st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]))
    status = draw(st.sampled_from([200, 204, 304, 404, 503, 599]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    closes = draw(st.booleans())
    fields = draw(FIELDS)
    body, trailers = draw(BODY), []
    kind = draw(st.sampled_from(["length", "chunked", "end"] if version == b"1.1" else ["length", "end"]))
    if closes:
        fields.insert(0, (b"Connection", b"close"))
    if kind == "length":
        fields.append((b"Content-Length", b"%d" % len(body)))
        framed = body
    elif kind == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
        trailers = draw(FIELDS)
        ends = draw(CUTS)
        chunks = [b"%x%b\r\n%b\r\n" % (len(part), b";a=b" if closes else b"", part) for part in pieces(body, ends)]
        framed = b"".join(chunks if body else []) + b"0\r\n" + lines(trailers) + b"\r\n"
    else:
        framed = body
    if method == b"HEAD" or status in (204, 304):
        framed, body, trailers = b"", b"", []
        kind = "length"
    reason = draw(st.sampled_from([b"", b" ", b" OK", b" \xe9t\xe9 of things"]))
    informational = draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]))
    answer = informational + b"HTTP/%b %d%b\r\n" % (version, status, reason) + lines(fields) + b"\r\n" + framed
    keeps = not closes and version == b"1.1" and kind != "end"
    return answer, status, fields, body, trailers, method, keeps


def lines(fields: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


@settings(max_examples=300, deadline=None)
@given(responses(), CUTS)
def test_both_framings_read_what_was_meant(
    response: tuple[bytes, int, Headers, bytes, Headers, bytes, bool], cuts: list[int]
) -> None:
    answer, status, fields, body, trailers, method, keeps = response
    for make in (Http1Framing, H11Framing):
        seen = outcome(make(), pieces(answer, cuts), method)
        assert (seen.status, seen.headers, seen.body, seen.trailers) == (status, fields, body, trailers)
        assert (seen.complete, seen.keeps) == (True, keeps)


@settings(max_examples=100, deadline=None)
@given(responses(), CUTS)
def test_httpx_reads_the_same(
    response: tuple[bytes, int, Headers, bytes, Headers, bytes, bool], cuts: list[int]
) -> None:
    answer, *_, method, _ = response
    seen = outcome(Http1Framing(), pieces(answer, cuts), method)
    transport = _transport()
    transport._pool = httpcore.ConnectionPool(network_backend=httpcore.MockBackend(pieces(answer, cuts)))
    with httpx.Client(transport=transport, trust_env=False) as client:
        got = client.request(method.decode(), "http://svc/")
    assert (got.status_code, got.headers.raw, got.content) == (seen.status, seen.headers, seen.body)


@functools.cache
def _transport() -> httpx.HTTPTransport:
    return httpx.HTTPTransport(trust_env=False)  # its TLS context takes long to make


PARTS = [
    *(b"HTTP/1.1 ", b"HTTP/1.0 ", b"200 OK", b"100 Continue", b"101 X", b"103 X", b"204 X", b"304 X", OK),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: close", b"Upgrade: a", b"0\r\n\r\n"),
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b",", b"-", b"+", b"\0", b"\x0b", b"\xff"),
    *(b"0", b"2", b"5", b"a", b"ok", b"2\r\nok\r\n"),
]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A well-formed response with a few things put in, taken out or changed."""
    answer, *_, method, _ = draw(responses())
    data = bytearray(answer)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 6))
        data[at : at + length] = draw(st.sampled_from(PARTS) | st.binary(max_size=3))
    return bytes(data), method


@settings(max_examples=700, deadline=None)
@given(mutated(), CUTS, st.booleans())
def test_changed_bytes_are_read_as_h11_reads_them_or_refused(
    changed: tuple[bytes, bytes], cuts: list[int], upgrade: bool
) -> None:
    data, method = changed
    check(data, method, cuts, upgrade=upgrade)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=14), st.sampled_from(METHODS), CUTS, st.booleans())
def test_any_bytes_are_read_as_h11_reads_them_or_refused(
    parts: list[bytes], method: bytes, cuts: list[int], upgrade: bool
) -> None:
    check(b"HTTP/1.1 200 OK\r\n" + b"".join(parts), method, cuts, upgrade=upgrade)
