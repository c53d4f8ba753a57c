"""HTTP/1.1 as the client sees it, without I/O, on h11: what `wire: h11` chooses.

Slower than `meshlib.net.http1` by an order of magnitude, and more lenient with old servers: it takes lines that end in
LF alone, and folded ones. See `meshlib.net.framing` for how it is used.
"""

from __future__ import annotations

from typing import Final

import h11

from meshlib.net.connection import Head
from meshlib.net.framing import MAX_HEAD_BYTES, Framing, NotHttp, Truncated
from meshlib.net.wire import WireRequest

__all__ = ["H11Framing"]

_FRAMING: Final = (b"content-length", b"transfer-encoding")


class H11Framing(Framing):
    """The state of one HTTP/1.1 connection whose responses h11 parses."""

    __slots__ = ("_begun", "_h11")

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._begun = False
        super().__init__()

    # Requests

    def begin(self, request: WireRequest) -> bytes:
        head = super().begin(request)
        # What is sent is not h11's. It is told as much as it needs to know of the request to read the response.
        if self._begun:
            self._h11.start_next_cycle()
        self._begun = True
        writer = self._writer
        told = [(b"host", b"-")] + [(b"upgrade", b"-")] * writer.upgrades + [(b"connection", b"close")] * writer.closes
        self._h11.send(h11.Request(method=request.method, target=b"/", headers=told))
        if not self.body_open:
            self._h11.send(h11.EndOfMessage())
        return head

    def end(self) -> bytes:
        ending = super().end()
        self._h11.send(h11.EndOfMessage())
        return ending

    # Responses

    def receive(self, data: bytes | memoryview) -> None:
        if self.switched:
            self.leftover += data
            return
        if data and (self.complete or self.broken is not None):
            self.stained = True
            return
        if not data:
            if self._ended:
                return
            self._ended = True
            if self.complete:
                return
        self._barren += len(data)
        try:
            self._h11.receive_data(bytes(data))
            while self._take(self._h11.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            # Without what the peer sent, which may be a secret.
            self._break(str(error).partition(": bytearray(")[0][:200])
        if self.complete and self._h11.trailing_data[0]:
            self.stained = True
        if self._barren > MAX_HEAD_BYTES and not self.complete:
            self._break(f"more than {MAX_HEAD_BYTES} bytes without one of the body")

    def _take(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> bool:
        """Note what came; whether there may be more."""
        if event is h11.NEED_DATA:
            self._refuse_strangers()
            return False
        if isinstance(event, h11.Data):
            if event.data:
                self.chunks.append(bytes(event.data))
                self._barren = 0
        elif isinstance(event, h11.Response):
            self._final(event)
        elif isinstance(event, h11.InformationalResponse):
            fields = dict(event.headers)
            if b"transfer-encoding" in fields or fields.get(b"content-length", b"").strip(b"0"):
                self._break("an informational response with a body")
            elif event.status_code == 101:
                self._final(event)
            else:
                self.continued = self.continued or event.status_code == 100
        elif isinstance(event, h11.EndOfMessage):
            self.trailers = event.headers.raw_items()
            self.complete = True
        else:
            self._break("the peer closed the connection")
        return not (self.complete or self.switched or self.broken)

    def _final(self, event: h11.Response | h11.InformationalResponse) -> None:
        names = {name for name, _ in event.headers}
        status = event.status_code
        if all(name in names for name in _FRAMING):
            # RFC 9112, section 6.3: an attempt at smuggling or a broken peer; h11 would believe one of the two.
            self._break("the response has both Content-Length and Transfer-Encoding")
        elif sum(len(name) + len(value) + 4 for name, value in event.headers) > MAX_HEAD_BYTES:
            self._break(f"more than {MAX_HEAD_BYTES} bytes of the head")
        elif event.http_version not in (b"1.1", b"1.0"):
            self._break(f"version {event.http_version.decode()}")
        elif status == 101 and b"upgrade" not in names:
            self._break("it goes on in another protocol, and does not say in which")
        else:
            reason = bytes(event.reason)
            self.head = Head(status, event.headers.raw_items(), b"HTTP/" + event.http_version, reason)
            self.switched = status == 101 or (self._request == b"CONNECT" and status < 300)
            if self.switched:
                self.leftover = bytes(self._h11.trailing_data[0])

    def _refuse_strangers(self) -> None:
        """Tell another protocol from a head that is not whole yet; h11 would wait for the end of its line."""
        if self.head is None:
            begun = bytes(self._h11.trailing_data[0]).lstrip(b"\r\n")[:5]
            if not b"HTTP/".startswith(begun):
                self._break("the answer does not begin with HTTP/")

    def _break(self, why: str) -> None:
        if self.broken is None:
            self.broken = (Truncated if self._ended else NotHttp)(why)

    def finish(self) -> bool:
        state = self._h11
        done = state.our_state is h11.DONE and state.their_state is h11.DONE
        return done and self.complete and not (self.stained or self._ended or self.switched or self.body_open)

    def close(self) -> None:
        """Nothing to let go of."""
