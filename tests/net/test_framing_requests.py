"""Requests as bytes: what is written, and what is refused before a byte of it is."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.errors import RequestBodyError
from meshlib.net.framing import Framing
from meshlib.net.http1 import Http1Framing
from meshlib.net.http1_h11 import H11Framing
from meshlib.net.wire import Headers, WireRequest
from tests.net.fuzz.oracle import OK

HOST = (b"Host", b"svc")
CHUNKED = (b"Transfer-Encoding", b"chunked")
SECRET = b"s3cret"


@pytest.fixture(params=[Http1Framing, H11Framing], ids=["httptools", "h11"])
def framing(request: pytest.FixtureRequest) -> Framing:
    made: Framing = request.param()
    return made


def written(framing: Framing, request: WireRequest) -> bytes:
    """All of a request, with a body that need not wait."""
    data = framing.begin(request)
    if framing.body_open:
        data += b"".join(framing.data(chunk) for chunk in request.body) + framing.end()
    assert not framing.body_open
    return data


@pytest.mark.parametrize(
    ("headers", "body", "wanted"),
    [
        ([], b"", b"\r\n\r\n"),
        ([(b"X", b"")], b"", b"\r\nX: \r\n\r\n"),
        ([(b"X", b"a\tb \xff")], b"", b"\r\nX: a\tb \xff\r\n\r\n"),
        ([(b"Content-Length", b"3")], b"abc", b"\r\nContent-Length: 3\r\n\r\nabc"),
        (
            [(b"Content-Length", b"3")],
            [b"a", b"", bytearray(b"b"), memoryview(b"c")],
            b"\r\nContent-Length: 3\r\n\r\nabc",
        ),
        ([CHUNKED], b"", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ([CHUNKED], b"abc", b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ([CHUNKED], [b"", b"a" * 17], b"\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n" + b"a" * 17 + b"\r\n0\r\n\r\n"),
        ([CHUNKED], [], b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ([(b"Content-Length", b"9"), CHUNKED], b"a", b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        ([(b"Expect", b"100-continue")], b"", b"\r\nExpect: 100-continue\r\n\r\n"),
    ],
)
def test_a_request_says_once_how_long_it_is(framing: Framing, headers: Headers, body: Any, wanted: bytes) -> None:
    for _ in range(2):
        data = written(framing, WireRequest(b"POST", b"/a?b", [HOST, *headers], body))
        assert data == b"POST /a?b HTTP/1.1\r\nHost: svc" + wanted
        framing.receive(OK)
        assert framing.finish()


def test_trailers_follow_a_chunked_body_as_they_are_when_it_ends(framing: Framing) -> None:
    trailers = [(b"A", b"1")]
    framing.begin(WireRequest(b"POST", b"/", [HOST, CHUNKED], [b"x"], trailers=trailers))
    trailers.append((b"Digest", b"2"))
    assert framing.data(b"x") + framing.end() == b"1\r\nx\r\n0\r\nA: 1\r\nDigest: 2\r\n\r\n"


@pytest.mark.parametrize("trailer", [(b"Host", b"x"), (b"a\r\nb", b""), (b"a", b"s3cret\r\nb: c"), (b"A", b"1\n")])
def test_trailers_are_checked_again_when_they_are_sent(framing: Framing, trailer: tuple[bytes, bytes]) -> None:
    trailers: Headers = [(b"A", b"1")]
    framing.begin(WireRequest(b"POST", b"/", [HOST, CHUNKED], [b"x"], trailers=trailers))
    trailers.append(trailer)
    with pytest.raises(RequestBodyError) as caught:
        framing.end()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"method": b""},
        {"method": b"GET /s3cret HTTP/1.1\r\nX: "},
        {"method": b"GE T"},
        {"method": b"GET\n"},
        {"target": b""},
        {"target": b"/s3cret x"},
        {"target": b"/s3cret\r\nX: y"},
        {"target": b"/\n"},
        {"target": b"/\t"},
        {"target": b"/\0"},
        {"target": "/s3cret\xe9".encode()},
        {"headers": []},
        {"headers": [HOST, (b"hOST", SECRET)]},
        {"headers": [HOST, (b"", SECRET)]},
        {"headers": [HOST, (b"a b", SECRET)]},
        {"headers": [HOST, (b"a:", SECRET)]},
        {"headers": [HOST, (b"a\r\nb", SECRET)]},
        {"headers": [HOST, (b"a\n", SECRET)]},
        {"headers": [HOST, (b"\xe9", SECRET)]},
        {"headers": [HOST, (b"a", b"s3cret\r\nX: y")]},
        {"headers": [HOST, (b"a", b"s3cret\r\n")]},
        {"headers": [HOST, (b"a", b"s3cret\n")]},
        {"headers": [HOST, (b"a", b"s3cret\ry")]},
        {"headers": [HOST, (b"a", b"s3cret\0")]},
        {"headers": [HOST, (b"a", b"s3cret\x7f")]},
        {"headers": [HOST, (b"a", b"\n")]},
        {"headers": [HOST, (b"a", b" s3cret")]},
        {"headers": [HOST, (b"a", b"s3cret\t"), (b"b", b"c")]},
        {"headers": [HOST, (b"a", b"s3cret "), (b"b", b"c")]},
        {"headers": [(b"a", b"s3cret\r\n"), HOST]},
        {"headers": [HOST, (b"a", b"s3cret\r\n"), (b"b", b"\r\n")]},
        {"headers": [HOST, (b"Content-Length", b"3")], "body": b"s3cret"},
        {"headers": [HOST, (b"Content-Length", b"9")], "body": b"s3cret"},
        {"headers": [HOST], "body": b"s3cret"},
        {"headers": [HOST, (b"Content-Length", b"0"), (b"content-length", b"0")]},
        {"headers": [HOST, (b"Content-Length", b"0, 0")]},
        {"headers": [HOST, (b"Content-Length", b"+0")]},
        {"headers": [HOST, (b"Content-Length", b"-1")]},
        {"headers": [HOST, (b"Content-Length", b"0x0")]},
        {"headers": [HOST, (b"Content-Length", b"")]},
        {"headers": [HOST, (b"Content-Length", b"\xb2")]},
        {"headers": [HOST, (b"Content-Length", b"1" * 21)]},
        {"headers": [HOST, (b"Transfer-Encoding", b"gzip, chunked")]},
        {"headers": [HOST, (b"Transfer-Encoding", b"chunked, chunked")]},
        {"headers": [HOST, (b"Transfer-Encoding", b"identity")]},
        {"headers": [HOST, (b"Transfer-Encoding", b"")]},
        {"headers": [HOST, (b"Transfer-Encoding", b"\x0bchunked")]},
        {"headers": [HOST, CHUNKED, CHUNKED]},
        {"headers": [HOST], "trailers": [(b"a", SECRET)]},
        {"headers": [HOST, CHUNKED], "trailers": [(b"Content-Length", b"0")]},
        {"headers": [HOST, CHUNKED], "trailers": [(b"transfer-encoding", b"chunked")]},
        {"headers": [HOST, CHUNKED], "trailers": [(b"a", b"s3cret\r\nX: y")]},
        {"headers": [HOST, CHUNKED], "trailers": [(b"a\r\n", SECRET)]},
    ],
    ids=str,
)
def test_what_could_be_read_as_something_else_is_refused_and_not_shown(
    framing: Framing, change: dict[str, Any]
) -> None:
    request = WireRequest(**{"method": b"GET", "target": b"/", "headers": [HOST], **change})
    for _ in range(2):  # also once its names are known
        with pytest.raises(RequestBodyError) as caught:
            framing.begin(request)
        assert "s3cret" not in repr(caught.value)
        assert "s3cret" not in str(caught.value.__context__)
        assert not caught.value.retryable


@pytest.mark.parametrize("chunks", [[b"abcde"], [b"abc", b"de"], [memoryview(b"abcdefgh").cast("I")]])
def test_a_body_that_is_longer_than_announced_is_stopped(framing: Framing, chunks: list[bytes]) -> None:
    framing.begin(WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"4")], chunks))
    sent = b""
    with pytest.raises(RequestBodyError, match="more than its Content-Length"):
        for chunk in chunks:
            sent += framing.data(chunk)
    assert len(sent) <= 4


def test_a_body_that_is_shorter_than_announced_does_not_end(framing: Framing) -> None:
    framing.begin(WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"4")], [b"abc"]))
    framing.data(b"abc")
    with pytest.raises(RequestBodyError, match="less than its Content-Length"):
        framing.end()
    framing.receive(OK)
    assert not framing.finish()


@pytest.mark.parametrize("chunk", ["text", 7, None])
@pytest.mark.parametrize("framed", [CHUNKED, (b"Content-Length", b"4")])
def test_a_body_of_something_else_than_bytes_is_refused(framing: Framing, framed: Any, chunk: Any) -> None:
    framing.begin(WireRequest(b"POST", b"/", [HOST, framed], [chunk]))
    with pytest.raises(RequestBodyError, match="not bytes"):
        framing.data(chunk)


def test_names_that_are_remembered_are_bounded() -> None:
    from meshlib.net import http1, http1_request

    framing = Http1Framing()
    for number in range(2000):
        name = b"x-%d" % number
        framing.begin(WireRequest(name, b"/", [HOST, (name, b""), (b"y" * 10_000 + name, b"")]))
        framing.receive(b"HTTP/1.1 200 OK\r\n%b: a\r\n%b: b\r\nContent-Length: 0\r\n\r\n" % (name, b"y" * 100 + name))
        assert framing.finish()
    known: list[Any] = [http1._known_names, http1_request._known_names, http1_request._known_methods]
    for names in known:
        assert len(names) <= 1024
        assert max(map(len, names)) <= 64


@pytest.mark.parametrize("framed", [CHUNKED, (b"Content-Length", b"100000")])
def test_a_large_body_is_not_copied_into_the_head(framing: Framing, framed: tuple[bytes, bytes]) -> None:
    body = b"x" * 100_000
    assert framing.begin(WireRequest(b"POST", b"/", [HOST, framed], body)).endswith(b"\r\n\r\n")
    assert framing.body_open
    assert not framing.awaits_continue
    sent = framing.data(body) + framing.end()
    assert sent == (body if framed != CHUNKED else b"186a0\r\n" + body + b"\r\n0\r\n\r\n")
    framing.receive(OK)
    assert framing.finish()


def test_a_large_body_of_another_length_than_announced_is_refused_at_once(framing: Framing) -> None:
    with pytest.raises(RequestBodyError):
        framing.begin(WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"99999")], b"x" * 100_000))
