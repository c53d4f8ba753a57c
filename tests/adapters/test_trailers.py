"""Trailers: those of a response reach whoever made the call, those of a request reach the server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import meshlib
from meshlib.net.http2 import Http2
from meshlib.net.wire import WireRequest
from tests.adapters.support import Chunks, mesh_of
from tests.net.wire_servers import Peer, serving


@pytest.mark.parametrize("size", [2, 1_000_000], ids=["small", "more-than-one-read"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_they_are_among_the_extensions_when_the_body_is_read(caller: Any, stream: bool, size: int) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            peer.send(head + b"%x\r\n%b\r\n0\r\nDigest: a\r\n\r\n" % (size, b"x" * size))

    with serving(script) as server, mesh_of(server) as mesh:
        call = caller.run(mesh)
        for _ in range(2):  # the second is a lean one, unless it is streamed
            response: httpx.Response = call.stream("GET", "/x")[0] if stream else call("GET", "/x")
            assert len(response.content) == size
            assert response.extensions["trailers"] == [(b"Digest", b"a")]
        call.close()


def test_those_of_a_request_are_sent_as_they_are_when_its_body_ends(caller: Any) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        data = b""
        while not data.endswith(b"x-sum: 3\r\n\r\n"):
            data += peer.sock.recv(65536)
        seen.append(data.partition(b"\r\n\r\n")[2])
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    class Summed(tuple[bytes, ...]):
        """The sum is known when the last piece has been taken."""

        def __iter__(self) -> Any:
            yield from super().__iter__()
            trailers.append((b"x-sum", b"3"))

    trailers: list[tuple[bytes, bytes]] = []
    body = Chunks()
    body.chunks = Summed((b"a", b"bc"))
    with serving(script) as server, mesh_of(server) as mesh:
        call = caller.run(mesh)
        assert call("POST", "/x", content=body, extensions={"trailers": trailers}).status_code == 200
        call.close()
    assert seen == [b"1\r\na\r\n2\r\nbc\r\n0\r\nx-sum: 3\r\n\r\n"]


@pytest.mark.parametrize("wire", ["native", "stock"])
def test_those_that_cannot_be_sent_are_refused_and_not_left_out(caller: Any, wire: str) -> None:
    def script(peer: Peer) -> None:
        peer.wait_until_gone()

    with serving(script) as server, mesh_of(server, wire=wire) as mesh:
        call = caller.run(mesh)
        with pytest.raises(meshlib.RequestBodyError):
            # Over HTTP/1.1 only a chunked body can have some, and this one has a length.
            call("POST", "/x", content=b"abc", extensions={"trailers": [(b"x-sum", b"3")]})
        call.close()


def test_http2_refuses_them() -> None:
    request = WireRequest(b"POST", b"/", [(b"Host", b"svc")], trailers=[(b"x-sum", b"3")])
    with pytest.raises(meshlib.RequestBodyError, match=r"HTTP/1\.1"):
        Http2(b"http").begin(request)
