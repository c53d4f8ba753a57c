"""HTTP/1.1 as the client sees it, without I/O, on h11: what `wire: h11` chooses.

Slower than `meshlib.net.http1` by an order of magnitude, and more lenient with old servers: it takes lines that end in
LF alone, and folded ones. See `meshlib.net.framing` for how it is used.
"""

from __future__ import annotations

from typing import Final

import h11

from meshlib.errors import RequestBodyError
from meshlib.net.connection import Head
from meshlib.net.framing import MAX_HEAD_BYTES, NotHttp, Truncated
from meshlib.net.wire import Headers, WireRequest

__all__ = ["H11Framing"]

_FRAMING: Final = (b"content-length", b"transfer-encoding")


class H11Framing:
    """The state of one HTTP/1.1 connection; see `meshlib.net.framing.Framing`."""

    __slots__ = (
        "_barren",
        "_begun",
        "_ended",
        "_h11",
        "_request",
        "_trailers",
        "_upgrades",
        "awaits_continue",
        "body_open",
        "broken",
        "chunks",
        "complete",
        "continued",
        "head",
        "leftover",
        "stained",
        "switched",
        "trailers",
    )

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._ended = False
        self._begun = False
        self.stained = False
        self._reset(b"")
        self.complete = True  # nothing is asked yet, so whatever comes is too much

    def _reset(self, method: bytes) -> None:
        self._request = method
        self._trailers: Headers = []
        self._upgrades = False
        self._barren = 0
        self.body_open = False
        self.awaits_continue = False
        self.continued = False
        self.head: Head | None = None
        self.chunks: list[bytes] = []
        self.trailers: Headers = []
        self.complete = False
        self.broken: NotHttp | None = None
        self.switched = False
        self.leftover = b""

    # Requests

    def begin(self, request: WireRequest) -> bytes:
        body, headers = request.body, request.headers
        lower = [(name.lower(), value) for name, value in headers]
        names = {name for name, _ in lower}
        if b"transfer-encoding" in names and b"content-length" in names:
            # As happens where a handler passes on the headers that it was sent. h11 goes by the former and would send
            # both, which peers read in two ways (RFC 9112, section 6.2).
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        if request.trailers and b"transfer-encoding" not in names:
            raise _invalid("only a chunked body can have trailers")
        expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in lower)
        try:
            if self._begun:
                self._h11.start_next_cycle()
            self._begun = True
            head = self._send(h11.Request(method=request.method, target=request.target, headers=headers))
            self._reset(request.method)
            self._trailers = request.trailers or []
            self._upgrades = b"upgrade" in names
            if isinstance(body, bytes) and not (expects and body):
                if body:
                    head += self._send(h11.Data(data=body))
                return head + self._send(h11.EndOfMessage(headers=self._trailers))
        except h11.LocalProtocolError as error:
            raise _invalid(_harmless(error)) from None
        self.awaits_continue = expects
        self.body_open = True
        return head

    def data(self, chunk: bytes) -> bytes:
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise RequestBodyError(f"the request's body gave {type(chunk).__name__}, not bytes", retryable=False)
        try:
            return self._send(h11.Data(data=bytes(chunk)))
        except h11.LocalProtocolError as error:
            raise _invalid(_harmless(error)) from None

    def end(self) -> bytes:
        try:
            ended = self._send(h11.EndOfMessage(headers=self._trailers))
        except h11.LocalProtocolError as error:
            raise _invalid(_harmless(error)) from None
        self.body_open = False
        return ended

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""

    # Responses

    def receive(self, data: bytes) -> None:
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
            self._h11.receive_data(data)
            while self._take(self._h11.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._break(str(error)[:200])
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
            self.continued = self.continued or event.status_code == 100
            self._barren = 0
            if event.status_code == 101:
                self._final(event)
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
        elif status == 101 and not self._upgrades:
            self._break("it goes on in another protocol, unasked")
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
        return done and self.complete and not (self.stained or self._ended or self.switched)

    def close(self) -> None:
        """Nothing to let go of."""


def _invalid(why: str) -> RequestBodyError:
    return RequestBodyError(f"the request is not valid HTTP/1.1: {why}", retryable=False)


def _harmless(error: h11.LocalProtocolError) -> str:
    """What h11 says, without the offending value, which may be a secret."""
    text = str(error)
    if "header" in text.lower() or "target" in text.lower() or "method" in text.lower():
        text = text.split(" b'")[0].split(' b"')[0].split(" bytearray")[0]
    return text
