"""Which calls of a client are lean. Every doubt means no: httpx's own way is right for every call, and only dearer.

`lean_call` decides before a request is made, `lean_send` of one that somebody made. Both ask whether the client is as
it was made: tools that record, trace or replay calls replace methods of httpx, of its classes or of one client, and
tests do; then every call has to pass there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.adapters.httpx_lean import METHODS, LeanCall, LeanHeaders, encode_body, encode_pairs, supported
from meshlib.adapters.httpx_library import NO_TIMEOUTS
from meshlib.adapters.options import EXTENSION, NO_OPTIONS, CallBlock, CallOptions
from meshlib.dataclass import replace

if TYPE_CHECKING:
    import httpx

__all__ = ["COMPLETE", "completing", "functions", "lean_call", "lean_send", "limited"]

_PATCHED = ("send", "build_request", "_send_single_request")
"""Methods that tests and tools replace on a client of their own."""

COMPLETE = replace(NO_OPTIONS, complete_body=True)


def lean_call(
    client: Any,
    method: str,
    url: httpx.URL | str,
    content: Any,
    json: Any,
    headers: Any,
    timeout: Any,
    extensions: Any,
) -> LeanCall | None:
    """The call, if it is one that can be made without httpx's help; None if not, and for any doubt."""
    if method not in METHODS or client.params or client._kept or not _is_untouched(client):
        return None
    if content is not None and type(content) is not bytes and type(content) is not str:
        return None
    library = client.library
    if extensions is None and timeout is library.unset:
        options, phases = client._complete, client.timeout
    else:
        if extensions is None:
            extensions = {}
        elif type(extensions) is not CallBlock and type(extensions) is not dict:
            return None
        given = extensions.get(EXTENSION, NO_OPTIONS)
        if len(extensions) > (EXTENSION in extensions) or type(given) is not CallOptions:
            return None
        total_s, plain_s, phases = client._times(timeout)
        options = limited(completing(given, True), total_s, plain_s)
        if phases is library.unset:
            phases = client.timeout
        elif phases is None:
            phases = library.no_phases
        elif type(phases) is not library.httpx.Timeout:
            return None
    unlimited = phases.connect is None and phases.read is None and phases.write is None and phases.pool is None
    transport: Any = client._transport
    place = transport.origins.place(url, client.base_url)
    if place is None or not transport.is_meshed(place.origin.service):
        return None
    added = None if headers is None else encode_pairs(headers)
    if added is None and headers is not None:
        return None
    body, fields = encode_body(library, content, json)
    raw = client.headers.raw
    known = client._lean_headers
    if raw != known.raw:
        known = client._lean_headers = LeanHeaders(raw)
    method = METHODS[method]
    merged = known.of_call(method, place.origin.host_header, added, fields)
    timeouts = None if unlimited else phases.as_dict()
    made: LeanCall = library.lean_call(method, place, merged, body, options, timeouts, client._text_encoding)
    return made


def lean_send(client: Any, request: httpx.Request, options: CallOptions, auth: Any) -> LeanCall | None:
    """The same for a request that is made already."""
    library, given = client.library, request.extensions
    if len(given) != 2 or "timeout" not in given or (auth is not library.unset and auth is not None):
        return None
    stream: Any = request.stream
    httpx = library.httpx
    if type(request) is not httpx.Request or type(stream) is not httpx.ByteStream or not _is_untouched(client):
        return None
    transport: Any = client._transport
    place = transport.origins.place_of(request.url)
    if place is None or not transport.is_meshed(place.origin.service):
        return None
    timeouts = given["timeout"]
    if timeouts == NO_TIMEOUTS:
        timeouts = None
    headers, body = request.headers.raw, b"".join(stream)
    encoding = client._text_encoding
    made: LeanCall = library.lean_call(request.method, place, headers, body, options, timeouts, encoding, request)
    return made


def _is_untouched(client: Any) -> bool:
    """Whether the client is as it was made: nothing that httpx would do for each call, nothing put in between."""
    if not (client._opened or _may_be_lean(client)):
        return False
    transport: Any = client._transport
    return (
        not client.is_closed
        and client._ordinary
        and functions(type(client), type(transport)) == client._unpatched
        and vars(client).keys().isdisjoint(_PATCHED)
        and client._handle not in vars(transport)
        and not client._mounts
        and not any(client.event_hooks.values())
        and client.auth is None
    )


def _may_be_lean(client: Any) -> bool:
    """Whether the client is open, and of a library whose inside is known. That is found out at the second call: it
    takes longer than a call, and many a program makes but one.
    """
    if client._opened is None:
        client._opened = supported(client.library)
    return bool(client._opened)


def limited(options: CallOptions, total_s: float | None, plain_s: float | None) -> CallOptions:
    """The options, within limits given besides them."""
    if total_s is None and plain_s is None:
        return options
    given = [each for each in (total_s, options.timeout_s) if each is not None]
    return replace(options, timeout_s=min(given, default=None), plain_timeout_s=plain_s)


def completing(options: CallOptions, complete_body: bool) -> CallOptions:
    """The options, with whether the whole body is wanted; most calls have no others."""
    if options is NO_OPTIONS:
        return COMPLETE if complete_body else NO_OPTIONS
    if options.complete_body is complete_body:
        return options
    return replace(options, complete_body=complete_body)


def functions(client: type[Any], transport: type[Any]) -> tuple[Any, ...]:
    """What a call of httpx's passes through, and where tools that record, trace or replay calls put themselves in."""
    own = client._own
    return (
        getattr(transport, client._handle, None),
        client.send,
        client.build_request,
        own.request,
        own.send,
        own.build_request,
        getattr(own, "_send_single_request", None),  # not public: without it no call is lean
    )
