"""Trailers of a response reach whoever made the call, however its body was read."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.adapters.support import mesh_of
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
