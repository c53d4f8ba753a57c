"""Requests that ask before they send their body, and fields that follow a body, over real sockets."""

from __future__ import annotations

import time
from typing import Any

import pytest

from meshlib.errors import AttemptTimeout, RequestBodyError, Reset
from meshlib.net.wire import WireRequest
from tests.net.wire_servers import OK, Peer, Wire, get, post, serving

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def asking(body: Any, length: int = 4) -> WireRequest:
    request = post(body, length=length)
    request.headers.append((b"Expect", b"100-continue"))
    return request


@pytest.mark.parametrize("kind", ["bytes", "iterator"])
def test_the_body_waits_until_it_is_asked_for(wire: Wire, kind: str) -> None:
    seen = []

    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.head()
            peer.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.sock.recv(1)
            peer.sock.settimeout(None)
            peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + CONTINUE)
            seen.append(peer.sock.recv(4, 0x100))  # all of it
            peer.send(OK)

    with serving(script) as server:
        for _ in range(2):
            body = b"abcd" if kind == "bytes" else wire.body([b"ab", b"cd"])
            assert wire.call(server.target(), asking(body)).body == b"ok"
        assert server.accepted == 1
    assert seen == [b"abcd", b"abcd"]


def test_who_is_not_asked_sends_the_body_after_a_second(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK)

    with serving(script) as server:
        began = time.monotonic()
        assert wire.call(server.target(), asking(b"abcd")).body == b"ok"
        assert time.monotonic() - began > 0.9
        assert wire.call(server.target()).body == b"ok"
        assert server.accepted == 1


def test_an_answer_instead_of_being_asked_is_delivered_and_no_body_sent(wire: Wire) -> None:
    seen = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        seen.append(peer.sock.recv(100))

    with serving(script) as server:
        reply = wire.call(server.target(), asking(b"abcd"))
        assert (reply.status, reply.body) == (417, b"no")
        assert wire.counts() == (0, 0, 0, 0)
    assert seen == [b""]


def test_the_deadline_holds_while_it_waits_to_be_asked(wire: Wire) -> None:
    with serving(lambda peer: peer.wait_until_gone()) as server:
        began = time.monotonic()
        with pytest.raises(AttemptTimeout):
            wire.send(server.target(), asking(b"abcd"), deadline=began + 0.1)
        assert time.monotonic() - began < 0.9
        assert wire.counts() == (0, 0, 0, 0)


def test_a_peer_that_leaves_without_asking_is_a_reset(wire: Wire) -> None:
    with serving(lambda peer: peer.head()) as server, pytest.raises(Reset):
        wire.send(server.target(), asking(b"abcd"))


def test_a_body_shorter_than_announced_is_found_after_it_was_asked_for(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(CONTINUE)
        peer.wait_until_gone()

    with serving(script) as server, pytest.raises(RequestBodyError):
        wire.send(server.target(), asking(wire.body([b"abc"])))


@pytest.mark.parametrize("together", [True, False], ids=["at-once", "later"])
def test_trailers_of_a_response_are_among_its_extensions_when_its_body_is_read(wire: Wire, together: bool) -> None:
    def script(peer: Peer) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        rest = b"2\r\nok\r\n0\r\nDigest: a\r\nX: \r\n\r\n"
        while peer.request() is not None:
            if together:
                peer.send(head + rest)
            else:
                peer.send(head)
                time.sleep(0.05)
                peer.send(rest)

    with serving(script) as server:
        for _ in range(2):
            reply = wire.call(server.target())
            assert reply.body == b"ok"
            assert reply.extensions["trailers"] == [(b"Digest", b"a"), (b"X", b"")]
        assert server.accepted == 1


def test_a_response_without_trailers_has_none_among_its_extensions(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK)

    with serving(script) as server:
        assert "trailers" not in wire.call(server.target(), get()).extensions


def test_trailers_of_a_request_follow_its_body(wire: Wire) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        while not peer.buffer.endswith(b"\r\n\r\n"):
            peer.buffer += peer.sock.recv(1000)
        seen.append(peer.buffer)
        peer.send(OK)

    with serving(script) as server:
        request = post(wire.body([b"abc"]))
        request.trailers = [(b"Digest", b"a")]
        assert wire.call(server.target(), request).body == b"ok"
    assert seen == [b"3\r\nabc\r\n0\r\nDigest: a\r\n\r\n"]
