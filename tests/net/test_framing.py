"""Responses as bytes, on both framings: what is read, where it ends, and what the connection is worth afterwards."""

from __future__ import annotations

import gc
import sys
import weakref
from types import FrameType
from typing import Any

import pytest

from meshlib.net.framing import MAX_HEAD_BYTES, Framing, Truncated
from meshlib.net.http1 import Http1Framing
from meshlib.net.http1_h11 import H11Framing
from meshlib.net.wire import Headers, WireRequest
from tests.net.fuzz.oracle import OK, check, outcome

OLD = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = [(b"Connection", b"upgrade"), (b"Upgrade", b"echo")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


@pytest.fixture(params=[Http1Framing, H11Framing], ids=["httptools", "h11"])
def framing(request: pytest.FixtureRequest) -> Framing:
    made: Framing = request.param()
    return made


def ask(framing: Framing, method: bytes = b"GET", headers: Headers | None = None, body: Any = b"") -> bytes:
    return framing.begin(WireRequest(method, b"/", [(b"Host", b"svc"), *(headers or [])], body))


@pytest.mark.parametrize(
    ("answer", "method", "body", "trailers", "keeps"),
    [
        (OK, b"GET", b"ok", [], True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET", b"", [], True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 02\r\n\r\nok", b"GET", b"ok", [], True),
        (CHUNKED + b"2\r\nok\r\n00a\r\n0123456789\r\n0\r\n\r\n", b"GET", b"ok0123456789", [], True),
        (CHUNKED + b'2;a=b;c="d e";f\r\nok\r\n0;last\r\n\r\n', b"GET", b"ok", [], True),
        (CHUNKED + b"2  \r\nok\r\n0 \r\n\r\n", b"GET", b"ok", [], True),
        (CHUNKED + b"0\r\nA: 1\r\nb:\r\nA:  2 \r\n\r\n", b"GET", b"", [(b"A", b"1"), (b"b", b""), (b"A", b"2")], True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", b"", [], True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", b"GET", b"", [], True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", b"GET", b"", [], True),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", b"", [], True),
        (OK[:-2], b"HEAD", b"", [], True),
        (CHUNKED, b"HEAD", b"", [], True),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"HEAD", b"", [], True),
        (START + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\n", b"HEAD", b"", [], False),
        (START + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", [], False),
        (
            START + b"Connection: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"GET",
            b"ok",
            [],
            False,
        ),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", [], False),
        (
            OLD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET",
            b"",
            [],
            False,
        ),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok", b"GET", b"ok", [], False),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"GET", b"to the end", [], False),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", b"", [], False),
        (
            START + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + OK[17:],
            b"GET",
            b"ok",
            [],
            True,
        ),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + OK, b"GET", b"ok", [], True),
        (
            b"HTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 199 X\r\n\r\n" + OK,
            b"GET",
            b"ok",
            [],
            True,
        ),
        (b"HTTP/1.1 407 Who Are You\r\nContent-Length: 2\r\n\r\nok", b"CONNECT", b"ok", [], True),
    ],
)
def test_a_response_is_the_same_however_it_is_split(
    answer: bytes, method: bytes, body: bytes, trailers: Headers, keeps: bool
) -> None:
    for cut in range(len(answer)):
        for make in (Http1Framing, H11Framing):
            seen = outcome(make(), [part for part in (answer[:cut], answer[cut:]) if part], method)
            assert (seen.body, seen.trailers, seen.complete, seen.keeps) == (body, trailers, True, keeps)
    check(answer, method, range(len(answer)))


def test_fields_and_reason_are_as_they_were_sent(framing: Framing) -> None:
    ask(framing)
    head = b"HTTP/1.1 299 \xe9 a  long\treason\r\nX-Empty:\r\nx-b: \t \r\nSet-Cookie:a\r\nset-cookie:\t b\xff c \r\n"
    for byte in head + b"Content-Length: 0\r\n\r\n":
        framing.receive(bytes([byte]))
    assert framing.head is not None
    assert framing.head.status == 299
    assert framing.head.reason == b"\xe9 a  long\treason"
    assert framing.head.http_version == b"HTTP/1.1"
    assert framing.head.headers == [
        (b"X-Empty", b""),
        (b"x-b", b""),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b\xff c"),
        (b"Content-Length", b"0"),
    ]
    assert framing.finish()


@pytest.mark.parametrize("line", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n"])
def test_a_reason_is_not_needed(framing: Framing, line: bytes) -> None:
    ask(framing)
    framing.receive(line + b"Content-Length: 0\r\n\r\n")
    assert framing.head is not None
    assert framing.head.reason == b""
    assert framing.finish()


def test_http_1_0_is_kept_where_it_says_so() -> None:
    answer = b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok"
    assert outcome(Http1Framing(), [answer]).keeps
    assert outcome(Http1Framing(), [answer[:-2]], b"HEAD").keeps


def test_a_request_that_says_close_is_the_last(framing: Framing) -> None:
    ask(framing, headers=[(b"Connection", b"foo, Close")])
    framing.receive(OK)
    assert framing.complete
    assert not framing.finish()


def test_a_request_that_says_keep_alive_is_not_the_last(framing: Framing) -> None:
    ask(framing, headers=[(b"Connection", b"keep-alive, disclose")])
    framing.receive(OK)
    assert framing.finish()


@pytest.mark.parametrize(
    "junk", [b"\0", b"x", b"H", OK, b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n\r\nx", b"\xff" * 1000]
)
@pytest.mark.parametrize(
    ("answer", "method"),
    [
        (OK, b"GET"),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"GET"),
        (CHUNKED + b"0\r\nA: 1\r\n\r\n", b"GET"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", b"GET"),
        (OK[:-2], b"HEAD"),
        (CHUNKED, b"HEAD"),
    ],
    ids=["length", "chunked", "trailers", "204", "304", "HEAD", "HEAD-chunked"],
)
@pytest.mark.parametrize("together", [True, False], ids=["with-it", "after-it"])
def test_what_comes_after_a_response_ends_the_connection_and_changes_nothing(
    framing: Framing, answer: bytes, method: bytes, junk: bytes, together: bool
) -> None:
    ask(framing, method)
    for part in [answer + junk] if together else [answer, junk]:
        framing.receive(part)
    assert framing.complete
    assert framing.broken is None
    assert b"".join(framing.chunks) == (b"ok" if b"ok" in answer else b"")
    assert framing.stained
    assert not framing.finish()
    framing.receive(b"")
    assert framing.complete


@pytest.mark.parametrize("rest", [b"0\r\n\r\n", b"5\r\n", b"0", b"2\r\nok\r\n0\r\n\r\n"])
def test_the_body_of_a_response_to_head_ends_the_connection(framing: Framing, rest: bytes) -> None:
    ask(framing, b"HEAD")
    framing.receive(CHUNKED + rest)
    assert (framing.complete, framing.chunks, framing.finish()) == (True, [], False)


@pytest.mark.parametrize("when", ["before", "between"])
def test_what_comes_before_it_was_asked_for_ends_the_connection(framing: Framing, when: str) -> None:
    if when == "between":
        ask(framing)
        framing.receive(OK)
        assert framing.finish()
    framing.receive(b"H")
    assert framing.stained
    assert not framing.finish()
    ask(framing)
    framing.receive(OK)
    assert not framing.finish()


@pytest.mark.parametrize(
    ("came", "body"),
    [
        (b"", b""),
        (b"H", b""),
        (OK[:30], b""),
        (OK[:-1], b"o"),
        (CHUNKED, b""),
        (CHUNKED + b"2\r\nok", b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\n", b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\nA: 1\r\n", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
    ],
)
def test_an_end_in_the_middle_of_a_message_is_told(framing: Framing, came: bytes, body: bytes) -> None:
    ask(framing)
    if came:
        framing.receive(came)
    assert framing.broken is None
    framing.receive(b"")
    assert isinstance(framing.broken, Truncated)
    assert not framing.complete
    assert b"".join(framing.chunks) == body
    assert not framing.finish()
    framing.receive(b"")
    assert not framing.finish()


def test_an_answer_in_the_middle_of_the_body_of_the_request_ends_the_connection(framing: Framing) -> None:
    ask(framing, b"POST", [(b"Content-Length", b"4")], body=[b"abcd"])
    framing.data(b"ab")
    framing.receive(OK)
    assert framing.complete
    assert not framing.finish()


# Other protocols


@pytest.mark.parametrize("answer", [SWITCH, SWITCH.replace(b"Connection: upgrade\r\n", b"")])
def test_a_switch_that_was_asked_for_hands_over_what_follows(framing: Framing, answer: bytes) -> None:
    ask(framing, headers=UPGRADE)
    framing.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer + b"HTTP/1.1")
    framing.receive(b" hi")
    assert framing.switched
    assert framing.leftover == b"HTTP/1.1 hi"
    assert framing.broken is None
    assert not framing.finish()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 Fine\r\n\r\n", CHUNKED, OK[:-2], b"HTTP/1.1 204 Fine\r\n\r\n"])
def test_what_follows_a_connect_is_handed_over_as_it_is(framing: Framing, answer: bytes) -> None:
    ask(framing, b"CONNECT")
    framing.receive(answer + b"2\r\nok\r\n")
    framing.receive(b"more")
    assert framing.switched
    assert framing.leftover == b"2\r\nok\r\nmore"
    assert framing.chunks == []
    assert not framing.finish()


@pytest.mark.parametrize("asked", [False, True])
def test_a_switch_that_was_not_asked_for_or_names_no_protocol_is_refused(framing: Framing, asked: bool) -> None:
    ask(framing, headers=UPGRADE if asked else None)
    framing.receive(b"HTTP/1.1 101 Switching Protocols\r\n\r\nhi" if asked else SWITCH + b"hi")
    assert framing.broken is not None
    assert framing.head is None
    assert not framing.switched


def test_an_answer_to_an_offer_of_another_protocol_that_stays_with_this_one_is_kept(framing: Framing) -> None:
    ask(framing, headers=UPGRADE)
    framing.receive(OK)
    assert framing.finish()


def test_a_100_asks_for_the_body(framing: Framing) -> None:
    head = ask(framing, b"PUT", [(b"Content-Length", b"3"), (b"Expect", b"100-Continue")], b"abc")
    assert head.endswith(b"\r\n\r\n")
    assert framing.awaits_continue
    assert framing.body_open
    framing.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert not framing.continued
    framing.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert framing.continued
    assert framing.data(b"abc") + framing.end() == b"abc"
    framing.receive(OK)
    assert framing.finish()


# Bounds


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"", b"HTTP/1.1 200 " + b"a" * 1000),
        (b"HTTP/1.1 200 OK\r\nA: ", b"a" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"a" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 100),
        (b"HTTP/1.1 103 OK\r\n", b"a: b\r\n" * 100),
        (b"", b"HTTP/1.1 103 OK\r\n\r\n" * 100),
        (CHUNKED, b"0" * 1000),
        (CHUNKED + b"2", b";a=b" * 100),
        (CHUNKED + b"0\r\n", b"a: b\r\n" * 100),
        (CHUNKED + b"0\r\na: ", b"a" * 1000),
    ],
    ids=["reason", "value", "name", "fields", "1xx", "many-1xx", "chunk-size", "extensions", "trailers", "trailer"],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_what_has_no_end_and_no_body_is_refused(framing: Framing, first: bytes, more: bytes, method: bytes) -> None:
    ask(framing, method)
    if first:
        framing.receive(first)
    for _ in range(2 * MAX_HEAD_BYTES // len(more)):
        framing.receive(more)
    assert framing.broken is not None or framing.stained
    assert not framing.finish()


def test_a_head_that_is_too_large_is_refused_in_one_piece_too(framing: Framing) -> None:
    ask(framing)
    framing.receive(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (MAX_HEAD_BYTES // 6 + 1) + b"Content-Length: 2\r\n\r\nok")
    assert framing.head is None
    assert framing.broken is not None


def test_a_large_head_and_a_large_body_fit(framing: Framing) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: " + b"a" * 90_000 + b"\r\n\r\n"
    ask(framing)
    framing.receive(head)
    for _ in range(20):
        framing.receive(b"4e20\r\n" + b"x" * 20_000 + b"\r\n")
    framing.receive(b"0\r\n\r\n")
    assert sum(map(len, framing.chunks)) == 400_000
    assert framing.finish()


def test_errors_say_little_of_what_the_peer_sent(framing: Framing) -> None:
    ask(framing)
    framing.receive(b"HTTP/1.1 200 OK\r\nSet-Cookie : s3cret\r\n\r\n")
    assert framing.broken is not None
    assert "s3cret" not in str(framing.broken)
    assert len(str(framing.broken)) < 200


# What it leaves behind


def test_a_closed_framing_leaves_nothing_for_the_garbage_collector() -> None:
    class Watched(Http1Framing):
        __slots__ = ("__weakref__",)

    gc.disable()
    try:
        for answer in (OK, OK + OK, b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"):
            framing = Watched()
            ask(framing)
            framing.receive(answer)
            framing.close()
            gone = weakref.ref(framing)
            del framing
            assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["on_header", "on_status", "on_headers_complete", "on_body", "on_message_complete"])
def test_what_a_signals_handler_raises_while_it_parses_comes_out(method: str) -> None:
    class Alarm(Exception):
        pass

    def at_call(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code.co_name == method:
            raise Alarm

    framing = Http1Framing()
    ask(framing)
    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        with pytest.raises(Alarm):
            framing.receive(OK)
    finally:
        sys.settrace(before)
    assert not framing.complete
    assert framing.broken is not None
    assert not framing.finish()
