"""Lean calls: the same call as httpx would make, with only the work that it needs.

For each call httpx merges headers, parses and copies the URL, makes a request and a response, and walks through
generators for authentication and redirects, a cookie jar and a timer. Most calls use none of that. A *lean* call is one
for which nothing of it could make a difference; the clients in `httpx_clients` say which are, and every doubt means no:
the call then goes httpx's own way. A response with which httpx has work to do (a coded body, cookies, a redirect) is
replayed: it goes through httpx's own path as if it came off the wire only then.

That a lean call is the same is checked once per process against the httpx that is installed (`supported`); where it is
not, no call is lean.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from meshlib.adapters.exchange import NO_CAPS, Exchange, PhaseCaps
from meshlib.adapters.httpx_lean_response import ATTRIBUTES
from meshlib.adapters.httpx_lean_url import Origins, Place
from meshlib.adapters.httpx_library import NO_TIMEOUTS
from meshlib.adapters.options import EXTENSION, CallOptions
from meshlib.adapters.plane import DataPlane, RequestFacts
from meshlib.net.wire import Headers
from meshlib.routing.fields import HeaderFields

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.httpx_library import Library

__all__ = ["METHODS", "LeanCall", "LeanHeaders", "encode_body", "encode_pairs", "log_call", "supported"]

METHODS = {
    name: method
    for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    for name in (method, method.lower())
}
"""The methods of lean calls, by how they are written."""

_AS_BYTES = {method: method.encode("ascii") for method in METHODS.values()}

_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})
"""Methods with which httpx announces an empty body."""

_DEFAULT_JSON = json.JSONEncoder()
_COMPACT_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class LeanCall:
    """A call as it goes out; stands in for the `httpx.Request`, which is made if somebody asks.

    Attributes:
        method: as in the request line.
        place: where it goes.
        headers: complete.
        body: all of it.
        options: of the call.
        timeouts: on the phases of each attempt, as httpx writes them; None for none.
        default_encoding: of the response's text.
    """

    library: ClassVar[Library]

    __slots__ = ("_request", "body", "default_encoding", "headers", "method", "options", "place", "timeouts")

    def __init__(
        self,
        method: str,
        place: Place,
        headers: Headers,
        body: bytes,
        options: CallOptions,
        timeouts: dict[str, float | None] | None,
        default_encoding: str | Callable[[bytes], str],
        request: httpx.Request | None = None,
    ) -> None:
        self.method = method
        self.place = place
        self.headers = headers
        self.body = body
        self.options = options
        self.timeouts = timeouts
        self.default_encoding = default_encoding
        self._request = request

    @property
    def request(self) -> httpx.Request:
        """The request that the caller made; without, the one that httpx would have made."""
        if self._request is None:
            timeouts = NO_TIMEOUTS if self.timeouts is None else self.timeouts
            library = self.library.httpx
            request: httpx.Request = library.Request(
                self.method,
                self.place.url,
                headers=self.headers,
                stream=library.ByteStream(self.body),
                extensions={"timeout": dict(timeouts), EXTENSION: self.options},
            )
            request.read()
            self._request = request
        return self._request

    def exchange(self, plane: DataPlane, service: str) -> Exchange:
        """The call of the mesh.

        Raises:
            MeshClosed: if the mesh was closed.
        """
        place, headers, options = self.place, self.headers, self.options
        origin = place.origin
        facts = RequestFacts(
            self.method, origin.scheme, origin.host, origin.port, place.path, place.query, HeaderFields(headers)
        )
        caps, timeouts = NO_CAPS, self.timeouts
        if timeouts is not None:
            caps = PhaseCaps(*(timeouts.get(phase) for phase in ("connect", "read", "write", "pool")))
        view = plane.service(service)
        call = plane.call(view, plane.route(view, facts), facts, options)
        method, secure = _AS_BYTES.get(self.method) or self.method.encode("ascii"), origin.scheme == "https"
        # By position, which costs less.
        return Exchange(plane, call, method, place.target, headers, self.body, caps, secure, None, self._preview, place)

    def _preview(self, status: int, headers: Headers) -> httpx.Response:
        response: httpx.Response = self.library.httpx.Response(status, headers=headers, request=self.request)
        return response


class LeanHeaders:
    """A client's own headers, taken apart once for as long as they stay as they are."""

    __slots__ = ("framed", "has_host", "names", "raw")

    def __init__(self, raw: Headers) -> None:
        self.raw = raw
        self.names = [name.lower() for name, _ in raw]
        self.has_host = b"host" in self.names
        self.framed = b"content-length" in self.names or b"transfer-encoding" in self.names

    def of_call(self, method: str, host: tuple[bytes, bytes], given: Headers | None, fields: Headers) -> Headers:
        """What httpx sends: the host, the client's headers without those given for the call, those, the body's.

        Args:
            method: in upper case.
            host: the pair to send unless another is given.
            given: for this call.
            fields: that describe the body, unless others are given.
        """
        has_host, framed = self.has_host, self.framed
        if given is None:
            merged = self.raw
            if fields:
                framed = True
                names = self.names
                merged = [*merged, *(pair for pair in fields if pair[0].lower() not in names)]
        else:
            theirs = {name.lower() for name, _ in given}
            merged = [pair for pair, name in zip(self.raw, self.names, strict=True) if name not in theirs]
            merged += given
            known = theirs.union(self.names)
            for pair in fields:
                if pair[0].lower() not in known:
                    merged.append(pair)
            has_host = b"host" in known
            framed = bool(fields) or b"content-length" in known or b"transfer-encoding" in known
        if not framed and method in _WITH_BODY:
            merged = [_NO_BODY, *merged]
        return merged if has_host else [host, *merged]


_NO_BODY = (b"Content-Length", b"0")


def encode_pairs(given: Any) -> Headers | None:
    """Headers given for one call, encoded as httpx does; None for what is not plainly names and values."""
    if type(given) is dict:
        given = given.items()
    elif type(given) is not list:
        return None
    pairs = []
    for pair in given:
        name, value = pair
        if type(name) is not str or type(value) is not str or not (name.isascii() and value.isascii()):
            return None
        pairs.append((name.encode("ascii"), value.encode("ascii")))
    return pairs


def encode_body(library: Library, content: bytes | str | None, json: Any) -> tuple[bytes, Headers]:
    """The body, and the headers that describe it, as the library that is installed writes them."""
    if content is not None:
        body = content if isinstance(content, bytes) else content.encode("utf-8")
        return body, [(b"Content-Length", b"%d" % len(body))] if body else []
    if json is None:
        return b"", []
    body = _json_encoder(library).encode(json).encode("utf-8")
    return body, [(b"Content-Length", b"%d" % len(body)), (b"Content-Type", b"application/json")]


@functools.cache
def _json_encoder(library: Library) -> json.JSONEncoder:
    # httpx 0.28 made it compact.
    sent = library.httpx.Request("POST", "http://h/", json=_SAMPLE).content
    return _COMPACT_JSON if _COMPACT_JSON.encode(_SAMPLE).encode() == sent else _DEFAULT_JSON


_SAMPLE = {"ä": [1, None]}


def log_call(library: Library, call: LeanCall, response: httpx.Response) -> None:
    """The line that the library logs for each request."""
    log = library.log
    if log.isEnabledFor(logging.INFO):
        log.info(
            'HTTP Request: %s %s "%s %d %s"',
            call.method,
            call.place.url,
            response.http_version,
            response.status_code,
            response.reason_phrase,
        )


@functools.cache
def supported(library: Library) -> bool:
    """Whether lean calls are what the library that is installed does, as far as can be told from some of them."""
    httpx = library.httpx
    client = httpx.Client(transport=httpx.BaseTransport(), base_url="http://h:1/a")
    if not all(hasattr(client, name) for name in ("_transport", "_mounts", "_send_single_request")):
        return False
    response = httpx.Response(200, stream=httpx.ByteStream(b""))
    response.read()
    response.elapsed = timedelta(0)
    return vars(response).keys() == ATTRIBUTES and all(_agrees(library, client, *sample) for sample in _SAMPLES)


_SAMPLES: tuple[tuple[str, str, dict[str, str] | None, Any], ...] = (
    ("GET", "/b%20c?d=/?", None, None),
    ("POST", "https://h/b", {"accept": "x", "Z": "y"}, None),
    ("PUT", "/", {"content-type": "x"}, _SAMPLE),
)


def _agrees(
    library: Library, client: httpx.Client, method: str, url: str, headers: dict[str, str] | None, value: Any
) -> bool:
    place = Origins(library, lambda host, port, scheme: None).place(url, client.base_url)
    if place is None:
        return False
    body, fields = encode_body(library, None, value)
    added = None if headers is None else encode_pairs(headers)
    merged = LeanHeaders(client.headers.raw).of_call(method, place.origin.host_header, added, fields)
    theirs = client.build_request(method, url, headers=headers, json=value)
    return (str(place.url), place.target, merged, body) == (
        str(theirs.url),
        theirs.url.raw_path,
        theirs.headers.raw,
        theirs.content,
    )
