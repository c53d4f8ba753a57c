"""HTTP/1.1 as the client sees it, without I/O, on h11: bytes of requests out, heads and bodies of responses in.

One `Framing` per connection, used for one exchange after another. The two shells (`sync_http1`, `async_http1`) move the
bytes. Whatever replaces h11 has the methods of `Framing` and leaves the shells as they are.

An exchange goes `begin` (`data`* `end`), then `next` until it gives a `Head` and then until `END`, with `receive` for
each `NEED_DATA`; then `finish` says whether the connection may be used again.
"""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias

import h11

from meshlib.errors import RequestBodyError
from meshlib.net.connection import Head, Prefetched
from meshlib.net.wire import WireRequest

__all__ = ["END", "NEED_DATA", "Framing", "NotHttp", "Truncated"]

MAX_HEAD_BYTES = 100 * 1024


class NotHttp(Exception):
    """The peer broke the rules of HTTP; the text says which, and has little of what it sent."""


class Truncated(NotHttp):
    """The peer closed in the middle of a message."""


class _Signal(enum.Enum):
    NEED_DATA = enum.auto()
    END = enum.auto()


NEED_DATA: Final = _Signal.NEED_DATA
END: Final = _Signal.END
Event: TypeAlias = Head | bytes | Literal[_Signal.NEED_DATA, _Signal.END]


class Framing:
    """The state of one HTTP/1.1 connection."""

    __slots__ = ("_eof", "_h11", "_method", "body_open", "switched")

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._eof = False
        self._method = b""
        self.body_open = False
        """Whether `begin` left the body, or the rest of it, to `data` and `end`."""
        self.switched = False
        """Whether the connection speaks another protocol from here on (status 101, or CONNECT)."""

    # Requests

    def begin(self, request: WireRequest) -> bytes:
        """The bytes of the head, and of the body if it is in memory.

        Raises:
            RequestBodyError: if the request is not valid HTTP; nothing was sent.
        """
        body, headers = request.body, request.headers
        self._method = request.method
        names = [name.lower() for name, _ in headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            # As happens where a handler passes on the headers that it was sent. h11 goes by the former and would send
            # both, which peers read in two ways (RFC 9112, section 6.2).
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        try:
            head = self._send(h11.Request(method=request.method, target=request.target, headers=headers))
            if isinstance(body, bytes):
                self.body_open = False
                if body:
                    head += self._send(h11.Data(data=body))
                return head + self._send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise _invalid(error) from None
        self.body_open = True
        return head

    def data(self, chunk: bytes) -> bytes:
        """The bytes for a piece of the body.

        Raises:
            RequestBodyError: if it is not bytes, or more than ``Content-Length`` says.
        """
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise RequestBodyError(f"the request's body gave {type(chunk).__name__}, not bytes", retryable=False)
        try:
            return self._send(h11.Data(data=bytes(chunk)))
        except h11.LocalProtocolError as error:
            raise _invalid(error) from None

    def end(self) -> bytes:
        """The bytes that end the body.

        Raises:
            RequestBodyError: if it was shorter than ``Content-Length`` says.
        """
        try:
            ended = self._send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise _invalid(error) from None
        self.body_open = False
        return ended

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""

    # Responses

    def receive(self, data: bytes) -> None:
        """Take in what the peer sent; ``b""`` for its end."""
        if data:
            self._h11.receive_data(data)
        elif not self._eof:
            self._eof = True
            self._h11.receive_data(b"")

    def next(self) -> Event:
        """The next thing in what was received. Informational responses are passed over.

        Raises:
            NotHttp: if it is none.
            Truncated: if it ended in the middle.
        """
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise (Truncated if self._eof else NotHttp)(str(error)[:200]) from None
            if event is h11.NEED_DATA:
                self._refuse_strangers()
                return NEED_DATA
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, h11.Response):
                return self._head(event)
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return self._head(event)
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                return END
            else:
                raise Truncated("the peer closed the connection")

    def _refuse_strangers(self) -> None:
        """Tell another protocol from a head that is not whole yet; h11 would wait for the end of its line."""
        if self._h11.their_state is not h11.SEND_RESPONSE:
            return
        begun = bytes(self._h11.trailing_data[0]).lstrip(b"\r\n")[:20]
        if not b"HTTP/".startswith(begun[:5]):
            raise NotHttp(f"the answer begins with {begun!r}")

    def _head(self, event: h11.Response | h11.InformationalResponse) -> Head:
        names = {name for name, _ in event.headers}
        if b"content-length" in names and b"transfer-encoding" in names:
            # RFC 9112, section 6.3: an attempt at smuggling or a broken peer; h11 would believe one of the two.
            raise NotHttp("the response has both Content-Length and Transfer-Encoding")
        status = event.status_code
        self.switched = status == 101 or (self._method == b"CONNECT" and 200 <= status < 300)
        return Head(status, event.headers.raw_items(), b"HTTP/" + event.http_version, bytes(event.reason))

    def prefetch(self) -> Prefetched:
        """As much of the body as was received with the head."""
        fetched = Prefetched([])
        if self.switched:
            return fetched
        try:
            while (event := self.next()) is not NEED_DATA:
                if event is END:
                    fetched.complete = True
                    break
                if isinstance(event, bytes):
                    fetched.chunks.append(event)
        except NotHttp as error:
            fetched.error = error
        return fetched

    @property
    def trailing(self) -> bytes:
        """What came after the response."""
        return bytes(self._h11.trailing_data[0])

    def finish(self) -> bool:
        """Get ready for another request: False if the exchange was cut, or the peer said more than it was asked."""
        state = self._h11
        if state.our_state is h11.DONE and state.their_state is h11.DONE and not state.trailing_data[0]:
            state.start_next_cycle()
            return not self._eof
        return False


def _invalid(error: h11.LocalProtocolError) -> RequestBodyError:
    text = str(error)
    if "header" in text.lower() or "target" in text.lower() or "method" in text.lower():
        # h11 quotes the offending value, which may be a secret.
        text = text.split(" b'")[0].split(' b"')[0].split(" bytearray")[0]
    return RequestBodyError(f"the request is not valid HTTP/1.1: {text}", retryable=False)
