"""HTTP/1.1 as the client sees it, without I/O, on httptools (llhttp): bytes of requests out, responses in.

llhttp is strict: it refuses lines that end in LF alone, folded lines, a length that is given twice or beside a
transfer coding, and characters that do not belong. What it leaves open is decided here: which responses have no body,
what may be the end of one, what a connection is worth afterwards, and how much is taken in without a byte of a body.
See `meshlib.net.framing` for how it is used.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshlib.net.connection import Head
from meshlib.net.framing import MAX_HEAD_BYTES, NotHttp, Truncated
from meshlib.net.http1_request import BodyWriter, request_head
from meshlib.net.wire import Headers, WireRequest

__all__ = ["Http1Framing"]

_LENGTH, _CODING, _CONNECTION = range(1, 4)
_TOO_MUCH: Final = f"more than {MAX_HEAD_BYTES} bytes of {{}}"
_MEANT: Final = {b"content-length": _LENGTH, b"transfer-encoding": _CODING, b"connection": _CONNECTION}


class Http1Framing:
    """The state of one HTTP/1.1 connection; see `meshlib.net.framing.Framing`."""

    __slots__ = (
        "_barren",
        "_ended",
        "_fields",
        "_keep",
        "_parser",
        "_reason",
        "_request",
        "_spent",
        "_until_end",
        "_writer",
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
        self._parser: Any = HttpResponseParser(self)
        self._spent = False
        """Whether the parser waits for a body that will not come (HEAD)."""
        self._ended = False
        self._writer: BodyWriter
        self._request = b""
        self.stained = False
        self._reset(b"")
        self.complete = True  # nothing is asked yet, so whatever comes is too much

    def _reset(self, method: bytes) -> None:
        self._request = method
        self._reason = b""
        self._fields: Headers = []
        self._barren = 0
        """Bytes that came since there was a byte of a body."""
        self._until_end = False
        self._keep = False
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
        head, writer = request_head(request)
        if self._spent:
            self._parser = HttpResponseParser(self)
            self._spent = False
        self._reset(request.method)
        self._writer = writer
        body = request.body
        if isinstance(body, bytes):
            if not writer.expects or not body:
                return head + writer.whole(body)
            self.awaits_continue = True
        else:
            self.awaits_continue = writer.expects
        self.body_open = True
        return head

    def data(self, chunk: bytes) -> bytes:
        return self._writer.data(chunk)

    def end(self) -> bytes:
        ending = self._writer.end()
        self.body_open = False
        return ending

    # Responses

    def receive(self, data: bytes) -> None:
        if not data:
            self._end()
        elif self.switched:
            self.leftover += data
        elif self.complete or self.broken is not None:
            self.stained = True
        else:
            had_head = self.head is not None
            self._barren += len(data)
            size = self._barren
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                self.leftover = data[upgrade.args[0] :]
            except HttpParserError as error:
                self._stopped(error)
            if size > MAX_HEAD_BYTES:
                self._limit(had_head)

    def _stopped(self, error: HttpParserError) -> None:
        if self.complete:
            self.stained = True
        elif self.broken is None:
            self.broken = NotHttp(str(error)[:200])

    def _limit(self, had_head: bool) -> None:
        """Refuse a head without end, and what else may come for ever without a byte of a body."""
        if self._barren > MAX_HEAD_BYTES and not self.complete:
            what = "chunk extensions or trailers" if had_head else "the head"
            self.broken = self.broken or NotHttp(_TOO_MUCH.format(what))

    def _end(self) -> None:
        """The peer has closed."""
        self._ended = True
        if self.complete or self.switched or self.broken is not None:
            return
        if self._until_end and self.head is not None:
            self.complete = True
        else:
            where = "in the middle of the body" if self.head is not None else "before the head of its response"
            self.broken = Truncated(f"the peer closed the connection {where}")

    def finish(self) -> bool:
        return self.complete and self._keep and not (self.stained or self._ended or self.body_open or self.switched)

    def close(self) -> None:
        self._parser = None  # it holds this object's methods

    # What the parser calls

    def on_message_begin(self) -> None:
        if self.complete:
            self.stained = True
            raise NotHttp("more than one response")

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        fields, self._fields = self._fields, []
        reason, self._reason = self._reason, b""
        if status < 200 and status != 101:
            if status < 100:
                self._refuse("a status below 100")
            self.continued = self.continued or status == 100
            self._barren = 0
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(f"version {version}")
        has_length, coding, connection = False, b"", b""
        for name, value in fields:
            kind = _MEANT.get(name.lower())
            if kind is not None:
                if kind == _LENGTH:
                    has_length = True
                elif kind == _CODING:
                    coding += b"," + value if coding else value
                else:
                    connection += b"," + value
        if coding and coding.lower() != b"chunked":
            self._refuse("a transfer coding other than chunked")
        if status == 101 and not self._writer.upgrades:
            self._refuse("it goes on in another protocol, unasked")
        if self._barren > MAX_HEAD_BYTES and sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD_BYTES:
            self._refuse(_TOO_MUCH.format("the head"))
        self.head = Head(status, fields, b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0", reason)
        if status == 101 or (self._request == b"CONNECT" and status < 300):
            self.switched = True
        elif self._request == b"HEAD":
            # The parser does not know what was asked, and now waits for a body.
            self._spent = True
            self._keep = _keeps(connection, version)
            self.complete = True
        else:
            self._until_end = not (has_length or coding or status in (204, 304))

    def on_body(self, data: bytes) -> None:
        self._barren = 0
        if self.switched:
            self.leftover += data
        elif self._spent:
            self.stained = True
        else:
            self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self.head is None or self._spent or self.switched:
            return
        self._keep = self._parser.should_keep_alive()
        self.trailers = self._fields
        self.complete = True

    def _refuse(self, why: str) -> NoReturn:
        self.broken = NotHttp(why)
        raise NotHttp(why)  # another one, since what is kept must not hold frames


def _keeps(connection: bytes, version: str) -> bool:
    """Whether the connection is kept after a response, by its ``Connection`` (RFC 9112, section 9.3)."""
    options = {option.strip(b" \t").lower() for option in connection.split(b",")}
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
