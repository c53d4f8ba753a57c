"""The request that a backend gets: with the edits of its route and its own, and the route's path and host.

Worked out again where another backend was drawn. The order is Envoy's (``RouteEntryImplBase::finalizeRequestHeaders``
in ``source/common/router/config_impl.cc``): the backend's edits and host, then the route's edits, host and path, so
that the less specific has the last word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.net.wire import Headers

if TYPE_CHECKING:
    from meshlib.policy.call import Call

__all__ = ["ORIGINAL_HOST", "ORIGINAL_PATH", "Shaping", "edit_response"]

ORIGINAL_PATH = b"x-envoy-original-path"
"""What a server is told of the path, and the query, that a rewrite replaced."""

ORIGINAL_HOST = b"x-envoy-original-host"
"""What a server is told of the host that a route's rewrite replaced; that of a backend says nothing, as in Envoy."""


class Shaping:
    """What becomes of one call's request.

    Attributes:
        headers, target: to be sent to the backend that was drawn last.
        rehosted: whether its host was rewritten, so that no service says otherwise.
    """

    __slots__ = ("_asked", "_drawn", "_given", "headers", "rehosted", "target")

    def __init__(self, headers: Headers, target: bytes) -> None:
        """Take what the caller sends."""
        self._given = headers
        self._asked = target
        self._drawn = -1
        self.headers = headers
        self.target = target
        self.rehosted = False

    def for_backend(self, call: Call) -> bool:
        """Work out `headers` and `target` for the backend that was drawn; whether that is another than before."""
        if self._drawn == call.drawn:
            return False
        self._drawn = call.drawn
        route = call.facts.route
        rewrite, backend = route.rewrite, route.backends[call.drawn]
        headers, target = self._given, self._asked
        host, old = backend.host, None
        for edits in (backend.request_edits, route.request_edits):
            if edits:
                headers = edits.apply(headers)
        if rewrite is not None:
            if rewrite.host is not None:
                old, host = host or _host_of(headers), rewrite.host
            traits = call.traits
            if traits is not None and traits.rewritten is not None:
                path = traits.rewritten if not call.query else f"{traits.rewritten}?{call.query}"
                headers = _with(headers, ORIGINAL_PATH, target)
                target = path.encode("ascii")
        self.rehosted = host is not None
        if host is not None:
            if old is not None:
                headers = _with(headers, ORIGINAL_HOST, old.encode("latin-1"))
            headers = [(b"host", host.encode("latin-1")), *(pair for pair in headers if pair[0].lower() != b"host")]
        self.headers, self.target = headers, target
        return True


def _host_of(headers: Headers) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == b"host"), None)


def _with(headers: Headers, name: bytes, value: bytes) -> Headers:
    return [*(pair for pair in headers if pair[0].lower() != name), (name, value)]


def edit_response(call: Call, headers: Headers) -> Headers:
    """A response's headers with the edits of the backend that gave it, and then its route's."""
    route = call.facts.route
    if call.attempts:
        edits = route.backends[call.drawn].response_edits
        if edits:
            headers = edits.apply(headers)
    return route.response_edits.apply(headers) if route.response_edits else headers
