"""HTTP/1.1 as the client sees it, without I/O, on httptools (llhttp): bytes of requests out, responses in.

llhttp is strict: it refuses lines that end in LF alone, folded lines, a length that is given twice or beside a
transfer coding, and characters that do not belong. RFC 9112 lets a client be lenient with some of these, and each of
them has been a way to make two parsers see two different responses; ``wire: h11`` is for servers that need it. Spaces
after the size of a chunk alone are taken, as old servers pad it and it can be read in one way only.

What llhttp leaves open is decided here: which responses have no body, what may be the end of one, what a connection is
worth afterwards, and how much is taken in without a byte of a body. See `meshlib.net.framing` for how it is used.
"""

from __future__ import annotations

import re
from itertools import compress
from operator import itemgetter
from typing import Any, Final, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshlib.net.connection import Head
from meshlib.net.framing import MAX_HEAD_BYTES, Framing, NotHttp, Truncated
from meshlib.net.wire import Headers

__all__ = ["Http1Framing"]

_STOPPED: Final = (HttpParserError, HttpParserUpgrade)
_TOO_MUCH: Final = f"more than {MAX_HEAD_BYTES} bytes of {{}}"
_STRANGER: Final = "the answer does not begin with HTTP/"
_FINAL_AT_ONCE: Final = re.compile(rb"HTTP/1\.[01] [2-9]").match
_NOT_IN_REASON: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search

_LENGTH, _CODING, _CONNECTION, _UPGRADE = range(1, 5)
_MEANT: Final = {
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
}
_MAX_KNOWN: Final = 1024
_MAX_KNOWN_BYTES: Final = 64
_NAME: Final = itemgetter(0)
_known_names: dict[bytes, int] = {}
"""Names as peers write them, and which of `_MEANT` each is; 0 for none. Bounded."""


def _kind(name: bytes) -> int:
    """Which of `_MEANT` a name is, 0 for none."""
    kind = _MEANT.get(name.lower(), 0)
    if len(_known_names) < _MAX_KNOWN and len(name) <= _MAX_KNOWN_BYTES:
        _known_names[name] = kind
    return kind


class Http1Framing(Framing):
    """The state of one HTTP/1.1 connection whose responses llhttp parses."""

    __slots__ = ("_begins", "_by_lines", "_fields", "_keep", "_parser", "_reason", "_spent", "_until_end")

    def __init__(self) -> None:
        self._parser: Any = self._new_parser()
        self._spent = False
        """Whether the parser waits for a body that will not come (HEAD)."""
        super().__init__()

    def _new_parser(self) -> Any:
        parser = HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        return parser

    def _reset(self, method: bytes) -> None:
        super()._reset(method)
        if self._spent:
            self._parser = self._new_parser()
            self._spent = False
        self._reason = b""
        self._fields: Headers = []
        self._by_lines: bool | None = None
        """Whether the parser is given the head line by line; None before there is any of it."""
        self._begins = b""
        """The first five bytes of the head that is under way."""
        self._until_end = False
        self._keep = False

    # Responses

    def receive(self, data: bytes | memoryview) -> None:
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
            if self._by_lines is None:
                self._by_lines = self._request in (b"HEAD", b"CONNECT") or not _FINAL_AT_ONCE(data)
            try:
                if self._by_lines and not had_head:
                    self._receive_lines(data)
                else:
                    self._parser.feed_data(data)
            except _STOPPED as error:
                self._stopped(error)
            if size > MAX_HEAD_BYTES:
                self._limit(had_head)

    def _receive_lines(self, data: bytes | memoryview) -> None:
        """Look at where each head begins and ends, which the parser does not tell.

        It takes other protocols for HTTP (RTSP, ICE), and goes on to a body after the answer to a HEAD or CONNECT.
        """
        lines = bytes(data).splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if len(self._begins) < 5:
                self._begins += line[: 5 - len(self._begins)]
                if not b"HTTP/".startswith(self._begins):
                    self.broken = NotHttp(_STRANGER)
                    return
            try:
                self._parser.feed_data(line)
            except _STOPPED:
                if not self.switched:
                    raise
            if self.head is not None:
                rest = b"".join(lines[number:])
                if self.switched:
                    self.leftover = rest
                elif not rest:
                    return
                elif self.complete:
                    self.stained = True
                else:
                    self._parser.feed_data(rest)
                return

    def _stopped(self, error: Exception) -> None:
        """The parser takes no more, or a signal's handler raised an error while it called one of the methods below."""
        cause = error.__context__
        if self.complete:
            self.stained = True
        elif self.broken is None:
            self.broken = NotHttp(str(error)[:200])
        if cause is not None and not isinstance(cause, (NotHttp, HttpParserError)):
            raise cause

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
        bare = value.rstrip(b" \t")
        if bare is not value and b"\t" in value[len(bare) :] and name.lower() == b"transfer-encoding":
            self._refuse("a tab after the transfer coding")  # the parser does not know the coding then
        self._fields.append((name, bare))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(f"version {version}")
        fields, self._fields = self._fields, []
        reason, self._reason = self._reason, b""
        if reason != b"OK" and _NOT_IN_REASON(reason):
            self._refuse("a control character in the status line")
        length, connection, upgrades = b"", b"", False
        coding: bytes | None = None
        kinds = [*map(_known_names.get, map(_NAME, fields))]
        if None in kinds:
            kinds = [_kind(name) for name, _ in fields]
        for kind, (_, value) in zip(filter(None, kinds), compress(fields, kinds), strict=True):
            if kind == _LENGTH:
                length = value
                if len(value) > 20:
                    self._refuse("a Content-Length of more than 20 digits")
            elif kind == _CODING:
                coding = value if coding is None else coding + b"," + value
            elif kind == _CONNECTION:
                connection += b"," + value
            else:
                upgrades = True
        if status < 200:
            if status < 100:
                self._refuse("a status below 100")
            if coding is not None or length.strip(b"0"):
                # Some would read on after the head for it, others not.
                self._refuse("an informational response with a body")
            if status != 101:
                self.continued = self.continued or status == 100
                self._begins = b""
                return
            if not self._writer.upgrades or not upgrades:
                self._refuse("it goes on in another protocol, unasked")
        if coding is not None and coding.lower() != b"chunked":
            self._refuse("a transfer coding other than chunked")
        if self._barren > MAX_HEAD_BYTES and sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD_BYTES:
            self._refuse(_TOO_MUCH.format("the head"))
        self.head = Head(status, fields, b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0", reason)
        if status == 101 or (self._request == b"CONNECT" and status < 300):
            self.switched = True
            return
        if not connection:
            self._keep = version == "1.1"
        else:
            self._keep = connection == b",keep-alive" or _keeps(connection, version)
        if (version == "1.0" and coding) or self._writer.closes:
            self._keep = False  # RFC 9112, sections 6.1 and 9.6
        if self._request == b"HEAD":
            # The parser does not know what was asked, and now waits for a body.
            self._spent = True
            self.complete = True
        else:
            self._until_end = not (length or coding or status in (204, 304))

    def on_body(self, data: bytes) -> None:
        self._barren = 0
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self.head is not None and not self.complete and not self.switched:
            if self._fields:
                if any(name.lower() == b"transfer-encoding" for name, _ in self._fields):
                    self._refuse("a transfer coding among the trailers")
                if not self._parser.should_keep_alive():
                    self._keep = False  # the parser believes a Connection among them
            self.trailers = self._fields
            self.complete = True

    def _refuse(self, why: str) -> NoReturn:
        self.broken = NotHttp(why)
        raise NotHttp(why)  # another one, since what is kept must not hold frames


def _keeps(connection: bytes, version: str) -> bool:
    """Whether the connection is kept after a response, by its ``Connection`` (RFC 9112, section 9.3)."""
    options = {option.strip(b" \t").lower() for option in connection.split(b",")}
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
