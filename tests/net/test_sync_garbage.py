"""What a sync call leaves in memory when its connection ends: nothing that only the garbage collector could free."""

from __future__ import annotations

import gc

import pytest

from meshlib.errors import WireError
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, WireLimits
from tests.net.wire_servers import OK, RawServer, answering, get, serving

HEAD = b"HTTP/1.1 200 OK\r\n"


def _call(engine: SyncEngine, server: RawServer) -> None:
    try:
        response = engine.send(server.target(), get(), WireLimits(), Progress())
        try:
            for _ in response.body:
                pass
        finally:
            response.close()
    except WireError:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length: 5\r\n\r\nok",
        HEAD + b"\r\nok",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxx\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxx\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        OK + b"junk",
    ],
)
def test_a_call_on_a_connection_that_ends_leaves_no_cycle(answer: bytes) -> None:
    engine = SyncEngine()
    with serving(answering(answer)) as server:
        _call(engine, server)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                _call(engine, server)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = sorted({type(thing).__name__ for thing in gc.garbage} & {"Http1Framing", "SyncHttp1", "SyncStream"})
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
