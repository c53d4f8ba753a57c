"""Answers that a route gives itself: a redirect, or a direct response.

Source: Envoy's ``Router::Filter::decodeHeaders`` and ``Utility::prepareLocalReply``, in its
``source/common/router/router.cc`` and ``source/common/http/utility.cc``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.dataclass import dataclass
from meshlib.routing.actions import DirectResponse, Redirect
from meshlib.routing.match import PathMatch, RequestView
from meshlib.routing.redirect import location_of

if TYPE_CHECKING:
    from meshlib.routing.route import HeaderList

__all__ = ["Answer", "answer_of"]

_AS_ASKED = Redirect()
_WITHOUT_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, complete. `text` says in words what it is, without the query, which may hold secrets."""

    status: int
    headers: HeaderList
    body: bytes
    text: str


def answer_of(reply: Redirect | DirectResponse, request: RequestView, matched: PathMatch | None) -> Answer:
    """What a request is answered with.

    Args:
        reply: of the route.
        request: that took it.
        matched: the condition on the path by which it did.
    """
    if isinstance(reply, Redirect):
        location = location_of(reply, request, matched)
        text = f"redirect to {location.partition('?')[0]}"
        return _finished(request, reply.status, [(b"location", location.encode("latin-1", "replace"))], b"", text)
    headers = [*reply.headers]
    # Envoy says where the created or moved thing is; nothing else being known, where it was asked for.
    if (reply.status == 201 or 300 <= reply.status < 400) and all(name != b"location" for name, _ in headers):
        headers.insert(0, (b"location", location_of(_AS_ASKED, request, None).encode("latin-1", "replace")))
    return _finished(request, reply.status, headers, reply.body, "direct response")


def _finished(request: RequestView, status: int, headers: HeaderList, body: bytes, text: str) -> Answer:
    if request.headers.get("content-type", "").startswith("application/grpc"):
        return _to_grpc(status, headers, b"" if request.method == "HEAD" else body, text)
    if not body:
        headers = [pair for pair in headers if pair[0] != b"content-type"]  # of nothing
    if status in _WITHOUT_BODY:
        return Answer(status, headers, b"", text)
    if body and all(name != b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"text/plain"))
    headers.append((b"content-length", b"%d" % len(body)))
    return Answer(status, headers, body, text)


def _to_grpc(status: int, headers: HeaderList, body: bytes, text: str) -> Answer:
    """The same for a gRPC client, which is told in ``grpc-status``."""
    from urllib.parse import quote

    from meshlib.policy.fault import grpc_status_of

    kept = [pair for pair in headers if pair[0] != b"content-type"]
    told = [(b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % grpc_status_of(status))]
    if body:
        told.append((b"grpc-message", quote(body, safe=_READABLE).encode("ascii")))
    return Answer(200, [*told, *kept, (b"content-length", b"0")], b"", text)


_READABLE = "".join(chr(code) for code in range(0x20, 0x7E) if chr(code) != "%")
"""What ``grpc-message`` shows as it is, after gRPC's ``PROTOCOL-HTTP2.md``."""
