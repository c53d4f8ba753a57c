"""The connection for threads, where two of them have to do with one response."""

from __future__ import annotations

import pytest

from meshlib.net.http1 import Http1Framing
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, WireLimits
from tests.net.wire_servers import OK, Peer, get, serving


def test_a_connection_whose_response_is_closed_while_it_is_read_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK[:-2])
            peer.sock.recv(1)  # until the test has the head
            peer.send(OK[-2:])

    def receive(framing: Http1Framing, data: bytes | memoryview) -> None:
        really_receive(framing, data)
        if framing.complete:
            response.close()  # as another thread does, before the one that reads has taken what came

    really_receive = Http1Framing.receive
    engine = SyncEngine()
    with serving(script) as server:
        response = engine.send(server.target(), get(), WireLimits(), Progress())
        response.extensions["network_stream"].write(b"!")
        monkeypatch.setattr(Http1Framing, "receive", receive)
        assert next(response.body, b"") == b"ok"
        assert engine.stats()[0].open == 0
        engine.close()
