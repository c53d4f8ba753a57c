"""HTTP/1.1 over real sockets, the same for threads, asyncio and uvloop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from meshlib.balance.endpoint import Endpoint
from meshlib.errors import (
    AttemptTimeout,
    BodyBroken,
    ConnectFailed,
    ConnectTimeout,
    ProtocolError,
    RequestBodyError,
    Reset,
)
from meshlib.net.wire import Progress, Target, WireRequest
from tests.net.wire_servers import OK, Peer, RawServer, Wire, answering, get, keep_alive, post, serving


def test_one_connection_serves_one_call_after_another(wire: Wire) -> None:
    with serving(keep_alive) as server:
        first = wire.call(server.target())
        second = wire.call(server.target(), post(b"hello"))
        assert (first.status, first.body, first.progress.reused) == (200, b"ok", False)
        assert (second.status, second.body, second.progress.reused) == (200, b"hello", True)
        assert first.progress.connect_s > 0 == second.progress.connect_s
        assert first.progress.bytes_written
        assert first.progress.answered
        assert server.accepted == 1
        assert wire.counts() == (1, 1, 0, 0)


def test_a_body_larger_than_any_buffer_arrives_whole(wire: Wire) -> None:
    body = bytes(range(256)) * 8192
    with serving(keep_alive) as server:
        assert wire.call(server.target(), post(body)).body == body
        chunked = post(wire.body(body[i : i + 50_000] for i in range(0, len(body), 50_000)), length=len(body))
        assert wire.call(server.target(), chunked).body == body
        assert server.accepted == 1


def test_an_iterator_is_sent_chunked(wire: Wire) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            seen.append(request.partition(b"\r\n\r\n")[2])
            peer.send(OK)

    with serving(script) as server:
        wire.call(server.target(), post(wire.body([b"abc", b"de"])))
    assert seen == [b"3\r\nabc\r\n2\r\nde\r\n"]


def test_extensions_are_what_httpx_users_expect(wire: Wire) -> None:
    with serving(answering(b"HTTP/1.1 404 Nowhere To Be Seen\r\nContent-Length: 0\r\n\r\n", linger=True)) as server:
        reply = wire.call(server.target())
        assert reply.extensions["reason_phrase"] == b"Nowhere To Be Seen"
        assert reply.extensions["http_version"] == b"HTTP/1.1"
        stream = reply.extensions["network_stream"]
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("socket").fileno() > 0


@pytest.mark.parametrize(
    ("answer", "method", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"GET", 304, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"HEAD", 200, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"GET", 200, b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n", b"GET", 200, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"GET", 200, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, b"GET", 200, b"ok"),
    ],
    ids=["204", "304", "HEAD", "chunked", "trailers", "100", "103-102"],
)
@pytest.mark.parametrize("drip", [False, True], ids=["at-once", "byte-by-byte"])
def test_framings_that_keep_the_connection(
    wire: Wire, answer: bytes, method: bytes, status: int, body: bytes, drip: bool
) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            for part in [answer[i : i + 1] for i in range(len(answer))] if drip else [answer]:
                peer.send(part)

    with serving(script) as server:
        for _ in range(2):
            reply = wire.call(server.target(), get(method=method))
            assert (reply.status, reply.body) == (status, body)
        assert server.accepted == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", b"old"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbye", b"bye"),
    ],
    ids=["close-delimited", "1.0-with-length", "1.0", "connection-close"],
)
def test_framings_that_end_the_connection(wire: Wire, answer: bytes, body: bytes) -> None:
    with serving(answering(answer)) as server:
        for _ in range(2):
            assert wire.call(server.target()).body == body
        assert server.accepted == 2
        assert wire.counts() == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000 + b"\r\n",
    ],
    ids=["ssh", "zeros", "status", "header", "cl+te", "two-cl", "negative", "te", "long-line", "many-headers"],
)
def test_what_is_not_http_is_a_protocol_error(wire: Wire, answer: bytes) -> None:
    with serving(answering(answer, linger=True)) as server:
        progress = Progress()
        with pytest.raises(ProtocolError, match=r"127\.0\.0\.1") as caught:
            wire.send(server.target(), get(), progress)
        assert progress.answered
        assert len(str(caught.value)) < 400
        assert wire.counts() == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour", b"four"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n", b"four"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nA\r\nfi", b"fourfi"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nnonsense\r\n", b"four"),
    ],
    ids=["short", "cut", "cut-in-chunk", "bad-chunk"],
)
def test_a_body_that_breaks_off_gives_what_came_and_then_an_error(wire: Wire, answer: bytes, got: bytes) -> None:
    with serving(answering(answer)) as server:
        response = wire.send(server.target(), get())
        assert response.status == 200
        seen = b""
        with pytest.raises(BodyBroken) as caught:
            while chunk := wire.next_chunk(response):
                seen += chunk
        assert seen == got
        assert str(caught.value).count("broke off") == 1
        wire.close(response)
        assert wire.counts() == (0, 0, 0, 0)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_close_before_the_head_is_a_reset(wire: Wire, answer: bytes) -> None:
    with serving(answering(answer)) as server:
        progress = Progress()
        with pytest.raises(Reset):
            wire.send(server.target(), get(), progress)
        assert progress.bytes_written
        assert progress.answered is bool(answer)
        assert not progress.resent
        assert server.accepted == 1


def test_rst_before_the_head_is_a_reset(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.reset()

    with serving(script) as server, pytest.raises(Reset):
        wire.send(server.target(), get())


def test_rst_in_the_body_is_a_broken_body(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour")
        peer.sock.recv(1)  # until the test says that it has the head
        peer.reset()

    with serving(script) as server:
        response = wire.send(server.target(), get())
        assert wire.next_chunk(response) == b"four"
        stream = response.extensions["network_stream"]
        stream.get_extra_info("socket")
        _write_raw(wire, stream, b"!")
        with pytest.raises(BodyBroken):
            wire.next_chunk(response)
        wire.close(response)


def _write_raw(wire: Wire, stream: Any, data: bytes) -> None:
    if wire.name == "sync":
        stream.write(data)
    else:
        wire.runner.run(stream.write(data))  # type: ignore[attr-defined]


def test_junk_after_a_response_ends_the_connection(wire: Wire) -> None:
    with serving(answering(OK + b"HTTP/1.1 200 OK\r\n", linger=True)) as server:
        assert wire.call(server.target()).body == b"ok"
        assert wire.call(server.target()).body == b"ok"
        assert server.accepted == 2


def test_a_switch_of_protocols_hands_the_connection_over(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhi")
        peer.send(peer.sock.recv(100))

    with serving(script) as server:
        response = wire.send(server.target(), get(b"/", (b"Connection", b"upgrade"), (b"Upgrade", b"echo")))
        assert response.status == 101
        stream = response.extensions["network_stream"]
        _write_raw(wire, stream, b"ping")
        got = b""
        while len(got) < 6:
            reading = stream.read(100)
            got += reading if wire.name == "sync" else wire.runner.run(reading)  # type: ignore[attr-defined]
        assert got == b"hiping"
        wire.close(response)
        assert wire.counts() == (0, 0, 0, 0)


# Timeouts


def _drip(peer: Peer) -> None:
    peer.request()
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
        peer.send(bytes([byte]))
        time.sleep(0.05)


def test_the_deadline_holds_against_a_head_that_drips(wire: Wire) -> None:
    with serving(_drip) as server:
        began = time.monotonic()
        with pytest.raises(AttemptTimeout) as caught:
            wire.send(server.target(), get(), deadline=began + 0.3, read_s=5.0)
        assert 0.25 < time.monotonic() - began < 1.8  # the whole head takes two
        assert caught.value.phase == "headers"
        assert "deadline" in str(caught.value)


def test_the_body_deadline_holds_against_a_body_that_drips(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            peer.send(b"x")
            time.sleep(0.05)

    with serving(script) as server:
        began = time.monotonic()
        response = wire.send(server.target(), get(), body_deadline=began + 0.3, body_idle_s=5.0)
        with pytest.raises(AttemptTimeout) as caught:
            wire.read(response)
        assert 0.25 < time.monotonic() - began < 3
        assert caught.value.phase == "body"


def test_the_headers_deadline_does_not_cut_the_body(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.3)
        peer.send(b"ok")

    with serving(script) as server:
        assert wire.call(server.target(), deadline=time.monotonic() + 0.2).body == b"ok"


def test_idle_and_read_limits_say_which_they_are(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        if b" /body " in (peer.request() or b""):
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        peer.wait_until_gone()

    with serving(script) as server:
        with pytest.raises(AttemptTimeout, match="read timeout") as caught:
            wire.send(server.target(), get(), read_s=0.1)
        assert caught.value.phase == "headers"
        response = wire.send(server.target(), get(b"/body"), body_idle_s=0.1)
        with pytest.raises(AttemptTimeout, match="idle timeout") as caught:
            wire.read(response)
        assert caught.value.phase == "body"


def test_a_peer_that_does_not_read_costs_no_more_than_the_write_limit(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1)
        server.release()

    with _Held(script) as server:
        progress = Progress()
        with pytest.raises(AttemptTimeout) as caught:
            wire.send(server.server.target(), post(b"x" * 50_000_000), progress, write_s=0.2)
        assert caught.value.phase == "write"
        assert progress.bytes_written


class _Held:
    """A server whose scripts stop in `release` until the test is over."""

    def __init__(self, script: Any) -> None:
        import threading

        self._over = threading.Event()
        self.server = RawServer(script)

    def release(self) -> None:
        self._over.wait(20)

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.server.close()


def test_a_deadline_that_has_passed_sends_nothing(wire: Wire) -> None:
    with serving(keep_alive) as server:
        wire.call(server.target())
        progress = Progress()
        with pytest.raises(AttemptTimeout):
            wire.send(server.target(), get(), progress, deadline=time.monotonic() - 1)
        assert not progress.bytes_written
        with pytest.raises(ConnectTimeout):
            wire.send(server.target(server_name="other"), get(), progress, deadline=time.monotonic() - 1)


def test_nobody_listening_is_connect_failed(wire: Wire) -> None:
    with serving(keep_alive) as server:
        target = server.target()
    progress = Progress()
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1") as caught:
        wire.send(target, get(), progress)
    assert not isinstance(caught.value, ConnectTimeout)
    assert progress.phase == "connect"
    assert not progress.bytes_written
    assert caught.value.endpoint == target.endpoint.address


# Request bodies


class _OwnError(Exception):
    pass


def test_an_error_of_the_bodys_own_iterator_surfaces_as_itself(wire: Wire) -> None:
    def chunks() -> Any:
        yield b"abc"
        raise _OwnError("disk on fire")

    with serving(keep_alive) as server:
        with pytest.raises(_OwnError, match="disk on fire"):
            wire.send(server.target(), post(wire.body(chunks())))
        assert wire.counts() == (0, 0, 0, 0)
        assert wire.call(server.target()).body == b"ok"


def test_an_oserror_of_the_bodys_own_iterator_is_not_the_wires(wire: Wire) -> None:
    def chunks() -> Any:
        yield b"abc"
        raise ConnectionResetError("of something else")

    with serving(keep_alive) as server, pytest.raises(ConnectionResetError, match="of something else"):
        wire.send(server.target(), post(wire.body(chunks())))


@pytest.mark.parametrize("chunks", [[b"abc"], [b"abcdef"], ["text"]], ids=["too-short", "too-long", "str"])
def test_a_body_that_is_not_what_was_announced_is_a_request_body_error(wire: Wire, chunks: Any) -> None:
    with serving(keep_alive) as server:
        with pytest.raises(RequestBodyError):
            wire.send(server.target(), post(wire.body(chunks), length=4))
        assert wire.counts() == (0, 0, 0, 0)


def test_a_request_that_is_not_http_is_refused_without_showing_its_values(wire: Wire) -> None:
    with serving(keep_alive) as server:
        request = WireRequest(b"GET", b"/", [(b"Host", b"svc"), (b"authorization", b"s3cret\r\nx: y")])
        progress = Progress()
        with pytest.raises(RequestBodyError) as caught:
            wire.send(server.target(), request, progress)
        assert "s3cret" not in str(caught.value)
        assert not progress.bytes_written


@pytest.mark.parametrize("kind", ["bytes", "iterator"])
@pytest.mark.parametrize("end", ["close", "stay"])
def test_an_early_answer_to_an_upload_is_delivered(wire: Wire, kind: str, end: str) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + answer)
        if end == "stay":
            held.release()

    with _Held(script) as held:
        body: Any = b"x" * 30_000_000 if kind == "bytes" else wire.body(b"x" * 100_000 for _ in range(300))
        reply = wire.call(held.server.target(), post(body, length=30_000_000), write_s=10.0)
        assert (reply.status, reply.body) == (413, b"big")
        assert wire.counts() == (0, 0, 0, 0)


def test_the_deadline_holds_for_a_body_whose_pieces_take_long_to_make(wire: Wire) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"in time"
        while time.monotonic() < deadline:
            time.sleep(0.01)
        yield b"too late"
        pytest.fail("another piece was asked for")

    with serving(keep_alive) as server:
        deadline = time.monotonic() + 0.1
        with pytest.raises(AttemptTimeout) as caught:
            wire.send(server.target(), post(wire.body(pieces())), deadline=deadline)
        assert caught.value.phase == "write"
        assert wire.counts() == (0, 0, 0, 0)


def test_junk_while_we_upload_is_a_protocol_error_at_once(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        gone.wait(10)

    gone = threading.Event()
    with serving(script) as server:
        with pytest.raises(ProtocolError, match="does not begin with HTTP/"):
            wire.send(server.target(), post(bytes(20_000_000)), deadline=time.monotonic() + 5)
        gone.set()


@pytest.mark.parametrize("host", ["orders..example", "a" * 64 + ".example", "10.0.0.1\r\nevil", "nu\0ll"])
def test_a_host_that_is_no_name_is_connect_failed(wire: Wire, host: str) -> None:
    with pytest.raises(ConnectFailed):
        wire.send(Target(Endpoint(host, 80)), get())
    assert wire.counts() == (0, 0, 0, 0)


@pytest.mark.parametrize("limit_s", [3e6, 1e10, 1e300, float("inf")])
def test_a_limit_of_ages_is_as_good_as_none(wire: Wire, limit_s: float) -> None:
    def slowly(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(OK[:-1])
            time.sleep(0.05)
            peer.send(OK[-1:])

    with serving(slowly) as server:
        limits = dict.fromkeys(("connect_s", "pool_s", "write_s", "read_s", "body_idle_s"), limit_s)
        assert wire.call(server.target(), body_deadline=time.monotonic() + limit_s, **limits).body == b"ok"


def test_a_request_says_in_one_way_only_how_long_it_is(wire: Wire) -> None:
    heads = []

    def script(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(OK)

    with serving(script) as server:
        request = post(b"abc")
        request.headers.append((b"Transfer-Encoding", b"chunked"))
        assert wire.call(server.target(), request).body == b"ok"
    (head,) = heads
    assert head is not None
    assert b"chunked" in head
    assert b"content-length" not in head.lower()


def endlessly(first: bytes, more: bytes, every_s: float = 0.0) -> Any:
    def script(peer: Peer) -> None:
        if peer.head() is not None:
            peer.send(first)
            with contextlib.suppress(OSError):
                while True:
                    peer.send(more)
                    time.sleep(every_s)

    return script


def test_the_deadline_holds_against_informational_responses_without_end(wire: Wire) -> None:
    with serving(endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.002)) as server:
        began = time.monotonic()
        with pytest.raises(AttemptTimeout):
            wire.send(server.target(), get(), deadline=began + 0.3)
        assert time.monotonic() - began < 5
        assert wire.counts() == (0, 0, 0, 0)


def test_the_body_deadline_holds_against_a_body_without_end(wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(endlessly(head, b"10000\r\n" + b"x" * 65536 + b"\r\n")) as server:
        began = time.monotonic()
        response = wire.send(server.target(), get(), body_deadline=began + 0.3, body_idle_s=5.0)
        with pytest.raises(AttemptTimeout):
            while wire.next_chunk(response):
                assert time.monotonic() - began < 5
        wire.close(response)
        assert wire.counts() == (0, 0, 0, 0)
