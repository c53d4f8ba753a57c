"""What holds for any bytes that a peer may send, however they are split: the framings, held against each other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from meshlib.net.framing import Framing, Truncated
from meshlib.net.http1 import Http1Framing
from meshlib.net.http1_h11 import H11Framing
from meshlib.net.wire import Headers, WireRequest

__all__ = ["METHODS", "OK", "Outcome", "check", "outcome", "pieces"]

METHODS = [b"GET", b"HEAD", b"POST", b"CONNECT"]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_PADDED_SIZE = re.compile(rb"\n0{10,}[0-9a-fA-F]*[; \t\r]")
_UPGRADE = [(b"Connection", b"upgrade"), (b"Upgrade", b"echo")]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a framing made of a stream of bytes, up to its end."""

    status: int
    headers: Headers
    version: bytes
    reason: bytes
    body: bytes
    trailers: Headers
    leftover: bytes
    complete: bool
    broken: bool
    cut: bool
    switched: bool
    keeps: bool


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data, cut at these offsets."""
    at = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [data[begin:end] for begin, end in itertools.pairwise(at)]


def outcome(framing: Framing, parts: list[bytes], method: bytes = b"GET", *, upgrade: bool = False) -> Outcome:
    """What becomes of it; `parts` is what each read gives. A connection that is kept is tried."""
    request = WireRequest(method, b"/", [(b"Host", b"svc"), *(_UPGRADE if upgrade else [])])
    framing.begin(request)
    for part in parts:
        framing.receive(part)
        assert framing.head is None or framing.head.status >= 200 or framing.switched
        assert not (framing.broken and (framing.complete or framing.switched))
    keeps = framing.finish()
    if keeps:
        assert framing.complete
        assert not framing.switched
        result = _result(framing, keeps)
        framing.begin(WireRequest(b"GET", b"/", [(b"Host", b"svc")]))
        framing.receive(OK)
        again = _result(framing, framing.finish())
        assert (again.status, again.body, again.trailers, again.keeps) == (200, b"ok", [], True), again
        return result
    if framing.broken is None:
        framing.receive(b"")
    assert not framing.finish()
    assert framing.complete or framing.broken is not None or framing.switched
    assert len(str(framing.broken)) <= 200
    return _result(framing, keeps)


def _result(framing: Framing, keeps: bool) -> Outcome:
    head, broken = framing.head, framing.broken
    return Outcome(
        head.status if head else 0,
        _headers(head.headers) if head else [],
        head.http_version if head else b"",
        head.reason if head else b"",
        b"".join(framing.chunks),
        framing.trailers,
        framing.leftover,
        framing.complete,
        broken is not None,
        isinstance(broken, Truncated),
        framing.switched,
        keeps,
    )


def _headers(headers: Headers) -> Headers:
    # h11 writes the transfer coding in small letters.
    return [(name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in headers]


def check(data: bytes, method: bytes, cuts: Iterable[int], *, upgrade: bool = False) -> Outcome:
    """Parse it at once and in parts, on llhttp and on h11.

    llhttp may refuse what h11 takes. What both take they read as the same, and where it keeps the connection for
    another exchange, so does h11; but h11 keeps none of HTTP/1.0, llhttp passes over empty lines that come together
    with the end of a response, and takes any number of zeros before the size of a chunk.
    """
    whole = outcome(Http1Framing(), [data] if data else [], method, upgrade=upgrade)
    parts = outcome(Http1Framing(), pieces(data, cuts), method, upgrade=upgrade)
    padded = data.endswith((b"\r", b"\n"))
    assert parts == whole or (padded and _kept(parts) == _kept(whole)), (parts, whole)
    other = outcome(H11Framing(), pieces(data, cuts), method, upgrade=upgrade)
    if other.broken and _PADDED_SIZE.search(data):
        return whole
    if not whole.broken:
        assert _said(whole) == _said(other), (whole, other)
        assert other.keeps or not whole.keeps or whole.version == b"HTTP/1.0" or padded
    elif whole.status and other.status:
        # It broke off, or was refused in its body: what came before is what h11 saw too.
        assert (whole.status, whole.headers) == (other.status, other.headers)
        assert whole.body.startswith(other.body) or other.body.startswith(whole.body)
    if other.cut:
        assert whole.broken
    return whole


def _kept(result: Outcome) -> Outcome:
    return Outcome(*_said(result), result.broken, result.cut, result.switched, False)  # type: ignore[arg-type]


def _said(result: Outcome) -> tuple[object, ...]:
    return (
        result.status,
        result.headers,
        result.version,
        result.reason,
        result.body,
        result.trailers,
        result.leftover,
        result.complete,
    )
