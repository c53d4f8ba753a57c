"""Request smuggling and response splitting, from the peer's side: each is refused, or leaves the connection unused.

`DIFFERENCES` lists where the two framings differ: httptools refuses, and h11 reads it as browsers of old did.
"""

from __future__ import annotations

import pytest

from meshlib.net.framing import Framing
from meshlib.net.http1 import Http1Framing
from meshlib.net.http1_h11 import H11Framing
from tests.net.fuzz.oracle import OK, Outcome, check, outcome

START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@pytest.fixture(params=[Http1Framing, H11Framing], ids=["httptools", "h11"])
def framing(request: pytest.FixtureRequest) -> Framing:
    made: Framing = request.param()
    return made


def read(framing: Framing, answer: bytes, method: bytes = b"GET") -> Outcome:
    check(answer, method, range(len(answer)))
    return outcome(framing, [answer], method)


def lengths(*values: bytes) -> bytes:
    return START + b"".join(b"Content-Length:%b\r\n" % value for value in values) + b"\r\nok"


def codings(*values: bytes) -> bytes:
    return START + b"".join(b"Transfer-Encoding:%b\r\n" % value for value in values) + b"\r\n2\r\nok\r\n" + END


REFUSED = {
    "cl-te": START + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + END,
    "te-cl": START + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n" + END,
    "te-cl-0": START + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n2\r\nok\r\n" + END,
    "te-twice": codings(b" chunked", b" chunked"),
    "te-chunked-chunked": codings(b" chunked, chunked"),
    "te-identity": codings(b" identity"),
    "te-identity-chunked": codings(b" identity", b" chunked"),
    "te-chunked-identity": codings(b" chunked", b" identity"),
    "te-gzip-chunked": codings(b" gzip, chunked"),
    "te-chunked-gzip": codings(b" chunked, gzip"),
    "te-x": codings(b" xchunked"),
    "te-param": codings(b" chunked;q=1"),
    "te-quoted": codings(b' "chunked"'),
    "te-comma": codings(b" ,chunked"),
    "te-comma-after": codings(b" chunked,"),
    "te-empty": codings(b""),
    "te-empty-and-chunked": codings(b"", b" chunked"),
    "te-vertical-tab": codings(b" \x0bchunked"),
    "te-nul": codings(b" chunked\0"),
    "te-cr": codings(b" \rchunked"),
    "te-space-before-colon": START + b"Transfer-Encoding : chunked\r\n\r\n2\r\nok\r\n" + END,
    "te-tab-before-colon": START + b"Transfer-Encoding\t: chunked\r\n\r\n2\r\nok\r\n" + END,
    "cl-different": lengths(b" 2", b" 3"),
    "cl-list-different": lengths(b" 2, 3"),
    "cl-plus": lengths(b" +2"),
    "cl-minus": lengths(b" -2"),
    "cl-hex": lengths(b" 0x2"),
    "cl-float": lengths(b" 2.0"),
    "cl-exponent": lengths(b" 2e0"),
    "cl-underscore": lengths(b" 0_2"),
    "cl-inner-space": lengths(b" 2 0"),
    "cl-word": lengths(b" two"),
    "cl-empty": lengths(b""),
    "cl-blank": lengths(b" "),
    "cl-comma": lengths(b" 2,"),
    "cl-arabic": lengths(" ٢".encode()),
    "cl-21-digits": lengths(b" " + b"2".zfill(21)),
    "cl-semicolon": lengths(b" 2;a"),
    "cl-space-before-colon": START + b"Content-Length : 2\r\n\r\nok",
    "fold-first": START + b" Content-Length: 2\r\n\r\nok",
    "bare-cr-in-value": START + b"X: a\rContent-Length: 9\r\nContent-Length: 2\r\n\r\nok",
    "bare-cr-after-status": b"HTTP/1.1 200 OK\rX: a\r\nContent-Length: 2\r\n\r\nok",
    "bare-cr-for-lines": OK.replace(b"\r\n", b"\r"),
    "cr-cr-lf": START + b"X: a\r\r\nContent-Length: 2\r\n\r\nok",
    "cr-in-name": START + b"X\rY: a\r\nContent-Length: 2\r\n\r\nok",
    "nul-in-value": START + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "nul-in-name": START + b"X\0: a\r\nContent-Length: 2\r\n\r\nok",
    "nul-in-reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok",
    "no-colon": START + b"X a\r\nContent-Length: 2\r\n\r\nok",
    "no-name": START + b": a\r\nContent-Length: 2\r\n\r\nok",
    "space-in-name": START + b"Content Length: 2\r\n\r\nok",
    "obs-text-in-name": START + b"X\xe9: 2\r\n\r\nok",
    "chunk-size-signed": CHUNKED + b"+2\r\nok\r\n" + END,
    "chunk-size-negative": CHUNKED + b"-2\r\nok\r\n" + END,
    "chunk-size-0x": CHUNKED + b"0x2\r\nok\r\n" + END,
    "chunk-size-empty": CHUNKED + b"\r\nok\r\n" + END,
    "chunk-size-extension-only": CHUNKED + b";a\r\nok\r\n" + END,
    "chunk-size-space-before": CHUNKED + b" 2\r\nok\r\n" + END,
    "chunk-size-underscore": CHUNKED + b"0_2\r\nok\r\n" + END,
    "chunk-size-overflow-and-more": CHUNKED + b"100000000000000000002\r\nok\r\n" + END,
    "chunk-longer": CHUNKED + b"2\r\nokk\r\n" + END,
    "chunk-shorter": CHUNKED + b"3\r\nok\r\n" + END,
    "chunk-without-end": CHUNKED + b"2\r\nok" + END,
    "chunk-data-lf": CHUNKED + b"2\r\nok\n" + END,
    "chunk-data-cr": CHUNKED + b"2\r\nok\r" + END,
    "chunk-extension-lf": CHUNKED + b"2;a\nok\r\n" + END,
    "trailer-without-colon": CHUNKED + b"2\r\nok\r\n0\r\nA 1\r\n\r\n",
    "trailer-is-a-response": CHUNKED + b"2\r\nok\r\n0\r\n" + OK,
    "status-2-digits": OK.replace(b"200", b"20"),
    "status-4-digits": OK.replace(b"200", b"2000"),
    "status-099": OK.replace(b"200", b"099"),
    "status-letters": OK.replace(b"200", b"2x0"),
    "status-sign": OK.replace(b"200", b"+20"),
    "two-spaces": OK.replace(b" 200", b"  200"),
    "tab": OK.replace(b" 200", b"\t200"),
    "version-0.9": OK.replace(b"1.1", b"0.9"),
    "version-1.2": OK.replace(b"1.1", b"1.2"),
    "version-2.0": OK.replace(b"1.1", b"2.0"),
    "version-1.10": OK.replace(b"1.1", b"1.10"),
    "version-1": OK.replace(b"1.1", b"1"),
    "small-letters": OK.replace(b"HTTP", b"http"),
    "rtsp": OK.replace(b"HTTP", b"RTSP"),
    "ice": OK.replace(b"HTTP", b"ICE"),
    "icy": OK.replace(b"HTTP/1.1", b"ICY"),
    "space-before": b" " + OK,
    "empty-line-before": b"\r\n" + OK,
    "1xx-then-rtsp": b"HTTP/1.1 103 Early\r\n\r\n" + OK.replace(b"HTTP", b"RTSP"),
    "1xx-with-length": b"HTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\nhello" + OK,
    "100-with-length": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + OK,
    "103-with-chunks": b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n" + END + OK,
    "101-unasked": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n" + OK,
    "1xx-then-junk": b"HTTP/1.1 103 X\r\n\r\nhello" + OK,
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_it_is_refused(framing: Framing, answer: bytes) -> None:
    result = read(framing, answer)
    assert not result.keeps
    if result.status and answer.startswith(CHUNKED):
        assert not result.complete
        assert result.body in (b"", b"ok", b"ok0", b"ok\r")
    else:
        assert (result.status, result.complete, result.body) == (0, False, b"")


UNUSED = {
    "length-with-body-of-more": (b"GET", OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    "length-0-with-body": (b"GET", START + b"Content-Length: 0\r\n\r\n" + OK),
    "head-with-body": (b"HEAD", OK),
    "head-with-response": (b"HEAD", OK[:-2] + OK),
    "head-chunked-with-body": (b"HEAD", CHUNKED + b"2\r\nok\r\n" + END),
    "head-chunked-with-end": (b"HEAD", CHUNKED + END),
    "head-without-length-with-response": (b"HEAD", START + b"\r\n" + OK),
    "204-with-body": (b"GET", b"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\nok"),
    "204-with-response": (b"GET", b"HTTP/1.1 204 X\r\nContent-Length: 38\r\n\r\n" + OK),
    "304-with-body": (b"GET", b"HTTP/1.1 304 X\r\nContent-Length: 2\r\n\r\nok"),
    "304-chunked-with-body": (b"GET", b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + END),
    "chunked-with-response": (b"GET", CHUNKED + END + OK),
    "trailers-with-response": (b"GET", CHUNKED + b"0\r\nA: 1\r\n\r\n" + OK),
    "close-with-response": (b"GET", START + b"Connection: close\r\nContent-Length: 2\r\n\r\nok" + OK),
    "1xx-after-response": (b"GET", OK + b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize(("method", "answer"), UNUSED.values(), ids=UNUSED)
def test_what_follows_poisons_nothing(framing: Framing, method: bytes, answer: bytes) -> None:
    result = read(framing, answer, method)
    assert result.complete
    assert not result.keeps
    assert result.body in (b"", b"ok")
    assert b"evil" not in result.body


DIFFERENCES = {
    # RFC 9112, section 2.2, lets a client take them; two parsers in a row that do not agree make two responses of one.
    "lf-for-lines": (OK.replace(b"\r\n", b"\n"), b"ok"),
    "lf-after-status": (OK.replace(b"\r\n", b"\n", 1), b"ok"),
    "lf-at-the-end-of-the-head": (OK.replace(b"\r\n\r\n", b"\r\n\n"), b"ok"),
    # Section 5.2 asks for spaces in their place; nobody has sent them for twenty years but to get by a filter.
    "folded": (START + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "folded-length": (START + b"Content-Length:\r\n 2\r\n\r\nok", b"ok"),
    "folded-coding": (START + b"Transfer-Encoding:\r\n chunked\r\n\r\n2\r\nok\r\n" + END, b"ok"),
    # Section 6.3 lets one be made of equal ones.
    "length-twice": (lengths(b" 2", b" 2"), b"ok"),
    "length-list": (lengths(b" 2, 2"), b"ok"),
    # Control characters that end no line.
    "control-in-value": (START + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "delete-in-value": (START + b"X: a\x7fb\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    # h11 reads over the extensions of chunks.
    "chunk-extension-cr": (CHUNKED + b"2;a\rb\r\nok\r\n" + END, b"ok"),
    "chunk-extension-nul": (CHUNKED + b"2;a\0b\r\nok\r\n" + END, b"ok"),
    "chunk-extension-open-quote": (CHUNKED + b'2;a="\r\nok\r\n' + END, b"ok"),
    # What says how long a body is may not come when it is over; h11 takes it for a field like any other.
    "trailer-length": (CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", b"ok"),
    "trailer-coding": (CHUNKED + b"2\r\nok\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", b"ok"),
    # llhttp would read the chunks as the body itself.
    "tab-after-coding": (codings(b" chunked\t"), b"ok"),
    "spaces-and-tab-after-coding": (codings(b" chunked \t "), b"ok"),
    # A connection that is said to close and goes on.
    "100-close": (b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n" + OK, b"ok"),
}


@pytest.mark.parametrize(("answer", "body"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_httptools_refuses_what_h11_lets_pass(answer: bytes, body: bytes) -> None:
    strict = read(Http1Framing(), answer)
    assert strict.broken
    assert not strict.complete
    lenient = read(H11Framing(), answer)
    assert (lenient.complete, lenient.status, lenient.body) == (True, 200, body)


@pytest.mark.parametrize(
    "answer",
    [
        lengths(b" 18446744073709551616"),
        lengths(b" 18446744073709551618"),
        lengths(b" 99999999999999999999999"),
        CHUNKED + b"10000000000000002\r\nok\r\n" + END,
        CHUNKED + b"ffffffffffffffff\r\nok\r\n" + END,
    ],
)
def test_sizes_that_overflow_are_never_whole(framing: Framing, answer: bytes) -> None:
    result = read(framing, answer)
    assert result.broken
    assert not result.complete


@pytest.mark.parametrize("end", [b"\r\n", b"\r\n\r\n", b"\n"])
def test_empty_lines_after_a_response_do_no_harm(end: bytes) -> None:
    """As some servers write them after a body; h11 does not keep the connection then."""
    assert outcome(Http1Framing(), [OK + end]).keeps  # which tries it
    assert not outcome(Http1Framing(), [OK, end]).keeps
    assert not outcome(H11Framing(), [OK + end]).keeps
