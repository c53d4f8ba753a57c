"""Over HTTP/2 many requests share one connection: what is cancelled, refused and taken in is each by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded

from meshlib.context import current
from meshlib.propagation import CRITICALITY, DEADLINE_MS
from meshlib.server.asgi import MeshMiddleware
from tests.peers.process import wait_until
from tests.server.test_cancellation import hypercorn, the_app


class Connection:
    """One connection of HTTP/2, whose requests are begun and left at will."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._events: list[Event] = []
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()

    def begin(self, method: str, path: str, **headers: str) -> int:
        """Send a request without a body; returns its stream."""
        stream = self._h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a")]
        own = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self._h2.send_headers(stream, [*fields, *own], end_stream=True)
        self._flush()
        return stream

    def reset(self, stream: int) -> None:
        """Go away from one request."""
        self._h2.reset_stream(stream, ErrorCodes.CANCEL)
        self._flush()

    def answer(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        """Wait for the response to one."""
        while not any(isinstance(event, StreamEnded) and event.stream_id == stream for event in self._events):
            self._receive()
        own = [event for event in self._events if getattr(event, "stream_id", None) == stream]
        (begun,) = [event for event in own if isinstance(event, ResponseReceived)]
        headers = {str(name): str(value) for name, value in begun.headers or ()}
        body = b"".join(event.data or b"" for event in own if isinstance(event, DataReceived))
        return int(headers[":status"]), headers, body

    def _receive(self) -> None:
        data = self._peer.recv(65536)
        assert data, "the server has closed the connection"
        self._events += self._h2.receive_data(data)
        self._flush()

    def _flush(self) -> None:
        self._peer.sendall(self._h2.data_to_send())


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer:
        yield Connection(peer)


def inherits(app: FastAPI) -> None:
    @app.get("/inherited")
    async def inherited() -> tuple[float | None, str]:
        now = current()
        return now.remaining, "" if now.criticality is None else now.criticality.name


def test_a_stream_that_is_reset_is_a_caller_that_went_away() -> None:
    happened = {name: threading.Event() for name in ("began", "cancelled", "finished", "released")}
    app = the_app(happened)
    inherits(app)
    middleware = MeshMiddleware(app)
    with hypercorn(middleware) as url, connected(url) as connection:
        stream = connection.begin("GET", "/work")
        assert happened["began"].wait(10)
        connection.reset(stream)
        assert happened["cancelled"].wait(10)

        happened["cancelled"].clear()
        happened["began"].clear()
        stream = connection.begin("POST", "/work")
        assert happened["began"].wait(10)
        connection.reset(stream)
        assert happened["finished"].wait(10)
        assert not happened["cancelled"].is_set()

        # The connection and its other requests go on, each with its own deadline and criticality.
        hangs = connection.begin("GET", "/hangs", **{DEADLINE_MS: "300"})
        inherited = connection.begin("GET", "/inherited", **{DEADLINE_MS: "5000", CRITICALITY: "sheddable"})
        status, _, body = connection.answer(inherited)
        remaining, _, criticality = body.decode().strip("[]").partition(",")
        assert (status, criticality) == (200, '"SHEDDABLE"')
        assert 4.0 < float(remaining) <= 5.0
        status, headers, _ = connection.answer(hangs)
        assert (status, headers["x-meshlib-refused"]) == (504, "deadline")
    expected = {("cancelled", "disconnect"): 1, ("cancelled", "deadline"): 1, ("ok", ""): 2}
    wait_until(lambda: middleware._serving.outcomes == expected, "all are counted")
