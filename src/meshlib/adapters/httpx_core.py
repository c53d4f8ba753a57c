"""What the transports share: which way a request goes, and the call that is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from meshlib.adapters.exchange import NO_CAPS, Exchange, PhaseCaps
from meshlib.adapters.httpx_errors import as_httpx, from_httpx
from meshlib.adapters.httpx_lean import LeanCall
from meshlib.adapters.httpx_lean_url import Origins
from meshlib.adapters.httpx_library import NO_TIMEOUTS
from meshlib.adapters.httpx_streams import SWITCHED, ResponseStream, SyncResponseStream
from meshlib.adapters.options import EXTENSION, NO_OPTIONS, CallOptions
from meshlib.adapters.plane import DataPlane, RequestFacts
from meshlib.adapters.ways import Ways
from meshlib.config.settings import Mode
from meshlib.errors import DeadlineExceeded, EgressRefused, MeshError
from meshlib.net.wire import AsyncWireResponse, Headers, SyncWireResponse
from meshlib.routing.fields import HeaderFields

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.httpx_library import Library
    from meshlib.adapters.httpx_proxies import Proxies
    from meshlib.adapters.observe import Shadow

__all__ = [
    "NO_PLAIN_OPTIONS",
    "OUTSIDE",
    "Core",
    "again",
    "delivered",
    "hand_over",
    "handed_over",
]

_PHASES = tuple(NO_TIMEOUTS)

OUTSIDE = object()
"""What a call gave whose request goes outside the mesh."""

# Not kept with the request, which several threads may send at once: each of them is to go on with its own response.
_handed_over: ContextVar[tuple[httpx.Request, Any] | None] = ContextVar("meshlib.handed_over", default=None)

NO_PLAIN_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Core:
    """What the sync and the async transport share: which way a request goes, and the call that is made of it.

    Attributes:
        library: whose transport it is.
    """

    library: Library  # of the class; each has it again, as it is found sooner there

    def __init__(self, plane: DataPlane, service: str | None, plain_timeout_s: float | None, trusts_env: bool) -> None:
        self.library = type(self).library
        self._plane = plane
        self._ways = Ways(plane, service)
        self._plain_timeout_s = plain_timeout_s
        self._trusts_env = trusts_env
        self._proxies: Proxies | None = None
        self.origins = Origins(self.library, self._ways.service_at, plane)

    def is_meshed(self, service: str | None) -> bool:
        """Whether calls to the service are made by the mesh, and not just watched or let through."""
        return service is not None and self._plane.mode_of(service) == "on"

    def _locate(self, request: httpx.Request) -> tuple[str | None, Mode]:
        """The service that the request is for, and what to do with it; None is a host outside the mesh."""
        url = request.url
        try:
            return self._ways.of(url.raw_host.decode("ascii"), url.port, url.scheme)
        except EgressRefused as error:
            raise as_httpx(error, request) from None

    def _exchange(self, service: str, request: httpx.Request, body: Any, *, observe: bool = False) -> Exchange:
        plane, url = self._plane, request.url
        options = request.extensions.get(EXTENSION, NO_OPTIONS)
        if not isinstance(options, CallOptions):
            options = NO_OPTIONS
        raw_path, headers = url.raw_path, request.headers.raw
        path, _, query = raw_path.partition(b"?")
        facts = RequestFacts(
            method=request.method,
            scheme=url.scheme,
            host=url.raw_host.decode("ascii"),
            port=url.port,
            path=path.decode("ascii"),
            query=query.decode("ascii"),
            headers=HeaderFields(headers),
        )
        caps, timeout = NO_CAPS, request.extensions.get("timeout")
        if timeout is not None and timeout != NO_TIMEOUTS:
            caps = PhaseCaps(timeout.get("connect"), timeout.get("read"), timeout.get("write"), timeout.get("pool"))
        try:
            view = plane.service(service)
        except MeshError as error:
            raise as_httpx(error, request) from error.__cause__
        call = plane.call(view, plane.route(view, facts), facts, options, observe=observe)
        return Exchange(
            plane,
            call,
            method=request.method.encode("ascii"),
            target=request.extensions.get("target", raw_path),
            headers=headers,
            body=body,
            caps=caps,
            secure=url.scheme in ("https", "wss"),
            server_name=request.extensions.get("sni_hostname"),
            preview=lambda status, headers: self.library.httpx.Response(status, headers=headers, request=request),
            url=url,
            trailers=request.extensions.get("trailers"),
        )

    def _lean_exchange(self, call: LeanCall, service: str) -> Exchange:
        try:
            return call.exchange(self._plane, service)
        except MeshError as error:
            raise as_httpx(error, call.request) from error.__cause__

    def _failed(self, error: MeshError, service: str, request: httpx.Request) -> MeshError | None:
        """What to raise; None where the request is to go outside the mesh after all."""
        failed = self._ways.failed(error, service)
        return None if failed is None else as_httpx(failed, request)

    def _plainly(self, request: httpx.Request) -> httpx.Request:
        """The request with the timeouts that a plain client would have: the mesh's do not bound it outside."""
        withheld = self._ways.withheld
        if withheld is not None and withheld in request.headers:
            del request.headers[withheld]  # what holds here is nobody else's business
        options, limit_s = request.extensions.get(EXTENSION), self._plain_timeout_s
        if isinstance(options, CallOptions):
            given = [each for each in (options.timeout_s, options.plain_timeout_s) if each is not None]
            limit_s = min(given, default=limit_s)
        if limit_s is not None and not any((request.extensions.get("timeout") or {}).values()) and limit_s < math.inf:
            request.extensions["timeout"] = self.library.httpx.Timeout(limit_s).as_dict()
        self._bound(request)
        return request

    def _proxy_of(self, request: httpx.Request) -> str | None:
        """The proxy of the environment that a request outside the mesh goes through."""
        proxies = self._proxies
        if proxies is None:
            from meshlib.adapters.httpx_proxies import Proxies

            proxies = self._proxies = Proxies()
        return proxies.of(request.url)

    def _bound(self, request: httpx.Request) -> None:
        """Let no phase of a request outside the mesh go on beyond a deadline that was set or inherited.

        Raises:
            DeadlineExceeded: if it has passed.
        """
        try:
            left_s = self._ways.left_s(request.url.host)
        except DeadlineExceeded as error:
            raise as_httpx(error, request) from None
        if left_s is not None:
            given = request.extensions.get("timeout") or {}
            request.extensions["timeout"] = {
                phase: left_s if given.get(phase) is None else min(given[phase], left_s) for phase in _PHASES
            }

    def _meant(self, error: BaseException) -> MeshError | None:
        """What an exception of the library is to the mesh; None for any other."""
        return from_httpx(error, "") if isinstance(error, self.library.httpx.HTTPError) else None

    def _shadow(self, service: str, request: httpx.Request) -> Shadow | None:
        """What would have been done; None where that cannot be told."""
        return self._ways.shadow(service, lambda: self._exchange(service, request, b"", observe=True))


def delivered(
    library: Library, exchange: Exchange, response: SyncWireResponse | AsyncWireResponse, stream: Any
) -> httpx.Response:
    """The response as httpx has it, with the route's edits, and the call for whoever asks for its record."""
    made: httpx.Response = library.httpx.Response(
        response.status,
        headers=exchange.edited(response.headers),
        stream=stream,
        extensions={**response.extensions, EXTENSION: exchange},
    )
    if isinstance(stream, ResponseStream):
        stream.extensions = made.extensions
        network = response.extensions.get("network_stream")
        if response.status == SWITCHED and type(network).__module__.startswith("meshlib."):
            from meshlib.adapters.httpx_network import AsyncNetworkStream, NetworkStream

            kind = NetworkStream if isinstance(stream, SyncResponseStream) else AsyncNetworkStream
            made.extensions["network_stream"] = kind(library, network)
    return made


def again(
    library: Library,
    exchange: Exchange,
    response: SyncWireResponse | AsyncWireResponse,
    headers: Headers,
    content: bytes,
    elapsed_s: float,
) -> httpx.Response:
    """A response that was delivered, for httpx to take as if it were just coming in."""
    stream = library.replayed(content, elapsed_s)
    extensions = {**response.extensions, EXTENSION: exchange}
    made = library.httpx.Response(response.status, headers=headers, stream=stream, extensions=extensions)
    return stream.belongs_to(made)


def hand_over(request: httpx.Request, given: Any) -> None:
    """Note what the call of a request gave, a response or `OUTSIDE`, for when httpx sends the request."""
    _handed_over.set((request, given))


def handed_over(request: httpx.Request) -> Any:
    """What was noted; None where there is nothing, so that the call is still to be made."""
    noted = _handed_over.get()
    if noted is None or noted[0] is not request:
        return None
    _handed_over.set(None)
    return noted[1]
