"""HTTP/1.1 requests as bytes: the head, checked so that nothing in it can be read as something else, and the body.

What is checked: the method and the names are tokens, the target has neither spaces nor control characters, no value
has a control character (so no line can be smuggled in), there is exactly one ``Host``, and the framing says one thing
(RFC 9112, sections 3.2 and 6). Errors name the field and never its value, which may be a secret.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Any, Final

from meshlib.errors import RequestBodyError
from meshlib.net.wire import Headers, WireRequest

__all__ = ["NO_BODY", "BodyWriter", "request_head"]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_IN_VALUES: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""What may be in a line of the head; what is left of a head without it are the ends of its lines."""

_HOST, _LENGTH, _CODING, _EXPECT, _UPGRADE, _CONNECTION = range(1, 7)
_MEANT: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"connection": _CONNECTION,
}
MAX_JOINED_BYTES: Final = 64 * 1024
_MAX_KNOWN: Final = 1024
_MAX_KNOWN_BYTES: Final = 64
_known_names: dict[bytes, int] = {}
"""Names that are tokens, as they were written, and which of `_MEANT` each is; 0 for none. Bounded."""
_NAME: Final = itemgetter(0)
_NOT_PLAIN: Final = -2
_known_heads: dict[tuple[int | None, ...], int] = {}
"""Which of `_MEANT` the names of a whole head are, in order, where nothing but ``Connection`` says how to read the
request; and where that one stands, -1 for nowhere. Most heads of a client are alike. Bounded."""
_known_methods: set[bytes] = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}


class BodyWriter:
    """How the body of one request is framed.

    Attributes:
        chunked: whether as chunks.
        left: bytes that are still to come where it is not.
        expects: whether the peer is asked first (``Expect: 100-continue``).
        upgrades: whether the request asks to go on in another protocol.
        closes: whether it says that no other one follows on its connection.
    """

    __slots__ = ("_trailers", "chunked", "closes", "expects", "left", "upgrades")

    def __init__(self, trailers: Headers | None) -> None:
        self._trailers = trailers
        self.chunked = False
        self.left = 0
        self.expects = False
        self.upgrades = False
        self.closes = False

    def joins(self, body: Any) -> bool:
        """Whether it goes out together with the head: if it is in memory, need not wait, and is soon copied.

        Raises:
            RequestBodyError: if it is in memory and not as long as was announced.
        """
        if not isinstance(body, bytes):
            return False
        if len(body) != self.left and not self.chunked:
            raise self._wrong_length(len(body) > self.left)
        return not body or (len(body) <= MAX_JOINED_BYTES and not self.expects)

    def whole(self, body: bytes) -> bytes:
        """All of it at once, where it `joins` the head."""
        if self.chunked:
            return b"%x\r\n%b\r\n%b" % (len(body), body, self.end()) if body else self.end()
        self.left = 0
        return body

    def data(self, chunk: Any) -> bytes:
        """A piece of it."""
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise RequestBodyError(f"the request's body gave {type(chunk).__name__}, not bytes", retryable=False)
        size = chunk.nbytes if isinstance(chunk, memoryview) else len(chunk)
        if self.chunked:
            return b"%x\r\n%b\r\n" % (size, bytes(chunk)) if size else b""
        self.left -= size
        if self.left < 0:
            raise self._wrong_length(True)
        return bytes(chunk)

    def end(self) -> bytes:
        """Its end."""
        if not self.chunked:
            if self.left:
                raise self._wrong_length(False)
            return b""
        if not self._trailers:
            return b"0\r\n\r\n"
        return b"0\r\n%b\r\n\r\n" % _trailer_lines(self._trailers)

    def _wrong_length(self, more: bool) -> RequestBodyError:
        what = "more" if more else "less"
        return RequestBodyError(f"the request's body is {what} than its Content-Length says", retryable=False)


NO_BODY: Final = BodyWriter(None)
"""Of requests without a body and without anything else to remember."""


def request_head(request: WireRequest) -> tuple[bytes, BodyWriter]:
    """The head of a request, and what writes its body.

    Raises:
        RequestBodyError: if it is not valid HTTP/1.1.
    """
    headers, body = request.headers, request.body
    kinds = tuple(map(_known_names.get, map(_NAME, headers)))
    connection = _known_heads.get(kinds, _NOT_PLAIN)
    if connection == _NOT_PLAIN or (connection >= 0 and headers[connection][1] != b"keep-alive") or request.trailers:
        writer = BodyWriter(request.trailers)
        headers = _read_framing(headers, writer, request.trailers)
        if not (writer.chunked or writer.left or writer.expects or writer.upgrades or writer.closes):
            _learn_head(tuple(_known_names.get(name) for name, _ in headers))
    else:
        writer = NO_BODY if type(body) is bytes and not body else BodyWriter(None)
    method, target = request.method, request.target
    if method not in _known_methods:
        if not _TOKEN.fullmatch(method):
            raise _invalid("the method is not a token")
        if len(_known_methods) < _MAX_KNOWN and len(method) <= _MAX_KNOWN_BYTES:
            _known_methods.add(method)
    if not _TARGET.fullmatch(target):
        raise _invalid("the target is empty, or has a space or a control character in it")
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, _lines(headers)), writer


def _learn_head(kinds: tuple[int | None, ...]) -> None:
    plain = kinds.count(0) + kinds.count(_HOST) + kinds.count(_CONNECTION) == len(kinds)
    if plain and kinds.count(_CONNECTION) <= 1 and len(kinds) <= _MAX_KNOWN_BYTES and len(_known_heads) < _MAX_KNOWN:
        _known_heads[kinds] = kinds.index(_CONNECTION) if _CONNECTION in kinds else -1


def _read_framing(headers: Headers, writer: BodyWriter, trailers: Headers | None) -> Headers:
    """Tell the writer what the headers say of the body and the connection. Returns those to send.

    Raises:
        RequestBodyError: if they contradict each other, or a name is no token.
    """
    hosts, lengths, codings = 0, 0, 0
    for name, value in headers:
        kind = _known_names.get(name)
        if kind is None:
            kind = _kind(name)
        if kind:
            if kind == _HOST:
                hosts += 1
            elif kind == _LENGTH:
                lengths += 1
                writer.left = _length(value)
            elif kind == _CODING:
                codings += 1
                writer.chunked = value.lower() == b"chunked"
            elif kind == _EXPECT:
                writer.expects = value.lower() == b"100-continue"
            elif kind == _UPGRADE:
                writer.upgrades = True
            elif b"close" in value.lower():
                writer.closes = b"close" in [option.strip() for option in value.lower().split(b",")]
    if hosts != 1:
        raise _invalid("there is no Host header" if not hosts else "there are several Host headers")
    if codings:
        if codings > 1 or not writer.chunked:
            raise _invalid("Transfer-Encoding can only be chunked")
        if lengths:
            # As happens where a handler passes on the headers that it was sent. Peers read both in two ways (RFC 9112,
            # section 6.2), so one goes.
            headers = [pair for pair in headers if _kind(pair[0]) != _LENGTH]
    elif lengths > 1:
        raise _invalid("there are several Content-Length headers")
    if trailers:
        if not writer.chunked:
            raise _invalid("only a chunked body can have trailers")
        _trailer_lines(trailers)
    return headers


def _trailer_lines(trailers: Headers) -> bytes:
    """The lines of trailers, as they are now: whoever sends a body may fill them in while it is sent."""
    for name, _ in trailers:
        if _kind(name):
            raise _invalid("a field that says how to read the request cannot be a trailer")
    return _lines(trailers)


def _lines(headers: Headers) -> bytes:
    """Header lines without the last one's end; the names have been checked."""
    lines = b"\r\n".join(map(b": ".join, headers))
    ends = lines.translate(None, _IN_VALUES)
    if (
        ends != b"\r\n" * (len(headers) - 1)
        or b":  " in lines
        or b" \r\n" in lines
        or b"\t" in lines
        or lines[-1] == 32
    ):
        _check_each(headers)
    return lines


def _check_each(headers: Headers) -> None:
    for name, value in headers:
        if value.translate(None, _IN_VALUES):
            raise _invalid(f"the value of {_shown(name)} has a control character in it")
        if value.strip(b" \t") != value:
            raise _invalid(f"the value of {_shown(name)} begins or ends with a space")


def _kind(name: bytes) -> int:
    """Which of `_MEANT` it is, 0 for none.

    Raises:
        RequestBodyError: if it is no token.
    """
    if not _TOKEN.fullmatch(name):
        raise _invalid("a header's name is not a token")
    kind = _MEANT.get(name.lower(), 0)
    if len(_known_names) < _MAX_KNOWN and len(name) <= _MAX_KNOWN_BYTES:
        _known_names[name] = kind
    return kind


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise _invalid("Content-Length is not a number")
    return int(value)


def _shown(name: bytes) -> str:
    return name[:60].decode("ascii", "replace")


def _invalid(why: str) -> RequestBodyError:
    return RequestBodyError(f"the request is not valid HTTP/1.1: {why}", retryable=False)
