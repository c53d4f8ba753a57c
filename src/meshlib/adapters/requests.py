"""requests: an adapter that makes meshed calls, and sessions that have it.

An adapter sees one request at a time, below redirects, authentication, cookies and hooks, which stay those of requests.
Hosts outside the mesh, and calls with ``mode: off``, go through requests' own `HTTPAdapter` unchanged.
"""

from __future__ import annotations

import math
import os
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import SplitResult, urlsplit

try:
    import requests
except ImportError as error:
    raise ImportError('this adapter needs requests: pip install "meshlib-http[requests]"', name="requests") from error
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import RequestException
from requests.sessions import merge_setting
from requests.structures import CaseInsensitiveDict
from urllib3 import Timeout

from meshlib.adapters import sync_driver
from meshlib.adapters.attach import plane_of
from meshlib.adapters.exchange import NO_CAPS, Exchange, PhaseCaps
from meshlib.adapters.options import EXTENSION, NO_OPTIONS
from meshlib.adapters.plane import DataPlane, RequestFacts
from meshlib.adapters.requests_body import body_of
from meshlib.adapters.requests_errors import as_requests, from_requests
from meshlib.adapters.requests_raw import Incoming, raw_response
from meshlib.adapters.requests_stock import StockWire
from meshlib.adapters.ways import Ways, base_of
from meshlib.dataclass import replace
from meshlib.errors import MeshError
from meshlib.net.wire import Headers, SyncWire
from meshlib.routing.fields import HeaderFields

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["MeshAdapter", "MeshSession", "adapter", "attach", "session"]

_COMPLETE = replace(NO_OPTIONS, complete_body=True)
_Times = float | tuple[float | None, float | None] | Timeout | None


def adapter(mesh: Mesh, *, fallback: BaseAdapter | None = None) -> MeshAdapter:
    """Make an adapter for a `requests.Session` of one's own, to be mounted at ``http://`` and ``https://``.

    Args:
        mesh: a `meshlib.Mesh`.
        fallback: for hosts outside the mesh; None for a plain `requests.adapters.HTTPAdapter`.
    """
    return MeshAdapter(plane_of(mesh), fallback=fallback)


def session(mesh: Mesh, service: str | None = None) -> MeshSession:
    """A `requests.Session` whose calls go through the mesh.

    Keep it for the life of the application, or make many: each is cheap, and connections belong to the mesh.

    Args:
        mesh: a `meshlib.Mesh`.
        service: to which relative URLs go, as in ``session(mesh, "orders").get("/orders/42")``; None for none.

    Raises:
        ValueError: if `service` cannot be a name.
    """
    return MeshSession(plane_of(mesh), service)


def attach(plane: DataPlane, client: requests.Session) -> None:
    """Let the calls of an existing session go through the mesh; its own adapters serve what stays outside.

    Raises:
        TypeError: if it is no session.
    """
    if not isinstance(client, requests.Session):
        raise TypeError(f"a requests.Session is expected, not {type(client).__name__}")
    for prefix, own in list(client.adapters.items()):
        if not prefix.lower().startswith(("http:", "https:")):
            continue
        if not isinstance(own, MeshAdapter):
            replaced = plane.outside is not None and type(own) is HTTPAdapter
            client.mount(prefix, MeshAdapter(plane, fallback=None if replaced else own))
        elif own.ways.plane is not plane:  # it changes over to this mesh, and keeps what served the outside
            client.mount(prefix, own.moved(plane))


class MeshAdapter(BaseAdapter):
    """The adapter of a `requests.Session` whose calls go through the mesh.

    Args:
        plane: the mesh's data plane.
        service: a name that is a service of the mesh whatever its form.
        fallback: for what goes outside the mesh; None for a plain `HTTPAdapter`.
        total: whether a number given as ``timeout`` is the total of the call, and not a limit for connecting and for
            each read.

    Attributes:
        ways: tells where requests go.
        fallback: for what goes outside the mesh.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        service: str | None = None,
        fallback: BaseAdapter | None = None,
        total: bool = False,
    ) -> None:
        super().__init__()
        self.ways = Ways(plane, service)
        self._service = service
        if fallback is None:
            fallback = HTTPAdapter() if plane.outside is None else plane.outside("requests")
        self.fallback: BaseAdapter = fallback
        self._total = total
        self._stock = plane.stock is not None

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Make the call.

        Raises:
            MeshError: which is an exception of requests too.
        """
        given = {"verify": verify, "cert": cert, "proxies": proxies}
        url = urlsplit(request.url or "")
        host, port = url.hostname or "", _port(url)
        try:
            service, mode = self.ways.of(host, port, url.scheme)
        except MeshError as error:
            raise as_requests(error, request) from None
        if service is None or mode == "off":
            return self._outside(request, host, stream, timeout, given)
        if mode == "observe":
            return self._observe(service, url, request, stream, timeout, given)
        body = body_of(request)
        try:
            exchange = self._exchange(service, url, host, port, request, body, stream, timeout)
            wire: SyncWire = self.ways.plane.sync_wire
            if self._stock:
                wire = StockWire(self.fallback, request, given, self.ways.plane.clock.now)
            response, content = sync_driver.drive(exchange, wire)
        except MeshError as error:
            failed = self.ways.failed(error, service)
            if failed is None:
                return self._outside(request, host, stream, timeout, given)
            try:
                raise as_requests(failed, request) from error.__cause__
            finally:
                failed = None  # its own frame would hold it
        read = Incoming(exchange, request, response) if content is None else content
        raw = raw_response(request, response, exchange.edited(response.headers), read)
        return self._delivered(request, raw, exchange)

    def keeps(self, url: str) -> bool:
        """Whether a request certainly stays in the mesh, and goes over its own connections."""
        parts = urlsplit(url)
        try:
            service, mode = self.ways.of(parts.hostname or "", _port(parts), parts.scheme)
        except MeshError:
            return False
        return mode == "on" and not self._stock and service is not None and self.ways.is_named(service)

    def moved(self, plane: DataPlane) -> MeshAdapter:
        """The same for another mesh."""
        return MeshAdapter(plane, service=self._service, fallback=self.fallback, total=self._total)

    def close(self) -> None:
        """Close what goes outside the mesh. The pools belong to the mesh and stay open."""
        self.fallback.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "what goes through a mesh cannot be pickled or copied, as the mesh's connections cannot: make a session of "
            "its own in each process, meshlib.adapters.requests.session(mesh, ...)"
        )

    def _exchange(
        self,
        service: str,
        url: SplitResult,
        host: str,
        port: int | None,
        request: requests.PreparedRequest,
        body: Any,
        stream: bool,
        timeout: _Times,
        *,
        observe: bool = False,
    ) -> Exchange:
        plane, method, target = self.ways.plane, request.method or "GET", request.path_url
        headers = _headers(request, url, body)
        path, _, query = target.partition("?")
        total_s, caps = self._limits(timeout)
        facts = RequestFacts(method, url.scheme, host, port, path, query, HeaderFields(headers), True, total_s)
        view = plane.service(service)
        options = NO_OPTIONS if stream else _COMPLETE
        call = plane.call(view, plane.route(view, facts), facts, options, observe=observe)
        return Exchange(
            plane,
            call,
            method=method.encode("ascii"),
            target=target.encode("latin-1"),
            headers=headers,
            body=body,
            caps=caps,
            secure=url.scheme == "https",
            preview=lambda status, headers: self._preview(request, status, headers),
        )

    def _limits(self, timeout: _Times) -> tuple[float | None, PhaseCaps]:
        """The call's total, and what limits each attempt."""
        if timeout is None:
            return None, NO_CAPS
        if isinstance(timeout, Timeout):
            return _seconds(timeout.total), PhaseCaps(_seconds(timeout._connect), _seconds(timeout._read))
        if isinstance(timeout, tuple):
            try:
                connect_s, read_s = timeout
            except ValueError:
                text = f"Invalid timeout {timeout}. Pass a (connect, read) timeout tuple, or a single float"
                raise ValueError(text) from None
            return None, PhaseCaps(_checked(connect_s), _checked(read_s))
        limit_s = _checked(timeout)
        return (limit_s, NO_CAPS) if self._total else (None, PhaseCaps(limit_s, limit_s))

    def _observe(
        self,
        service: str,
        url: SplitResult,
        request: requests.PreparedRequest,
        stream: bool,
        timeout: _Times,
        given: dict[str, Any],
    ) -> requests.Response:
        host, port = url.hostname or "", _port(url)
        shadow = self.ways.shadow(
            service, lambda: self._exchange(service, url, host, port, request, b"", stream, timeout, observe=True)
        )
        if shadow is None:
            return self._outside(request, host, stream, timeout, given)
        try:
            response = self._outside(request, host, stream, timeout, given)
        except BaseException as error:
            meant = from_requests(error, "") if isinstance(error, RequestException) else None
            shadow.raised(error, meant)
            raise
        shadow.answered(response.status_code, response.headers.get("retry-after"))
        return _noted(response, shadow.exchange)

    def _outside(
        self, request: requests.PreparedRequest, host: str, stream: bool, timeout: _Times, given: dict[str, Any]
    ) -> requests.Response:
        try:
            left_s = self.ways.left_s(host)
        except MeshError as error:
            raise as_requests(error, request) from None
        withheld = self.ways.withheld
        if withheld is not None and withheld in request.headers:
            del request.headers[withheld]  # what holds here is nobody else's business
        return self.fallback.send(request, stream=stream, timeout=_bounded(timeout, left_s), **given)

    def _delivered(self, request: requests.PreparedRequest, raw: Any, exchange: Exchange) -> requests.Response:
        build: Any = HTTPAdapter.build_response
        response: requests.Response = build(self, request, raw)
        return _noted(response, exchange)

    def _preview(self, request: requests.PreparedRequest, status: int, headers: Headers) -> requests.Response:
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, request.url or ""
        response.headers = CaseInsensitiveDict(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
        )
        return response


class MeshSession(requests.Session):
    """A `requests.Session` whose calls go through the mesh; a number given as ``timeout`` is the total of a call.

    Args:
        plane: the mesh's data plane.
        service: to which relative URLs go; None for none.
    """

    def __init__(self, plane: DataPlane, service: str | None = None) -> None:
        super().__init__()
        self._base: str | None = None
        host = None
        if service is not None:
            self._base, host = base_of(service)
        self._through = MeshAdapter(plane, service=host, total=True)
        self.mount("https://", self._through)
        self.mount("http://", self._through)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request as requests does; a relative URL is one of the session's service."""
        url = request.url
        if self._base is not None and isinstance(url, str) and _is_relative(url):
            request = copy(request)
            request.url = self._base + url.lstrip("/")
        return super().prepare_request(request)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """What holds for a request, as requests has it.

        For proxies requests goes through all variables of the environment at each request, which may be a quarter of
        all that it costs. What stays in the mesh goes by none; a redirect that leaves it looks for its own.
        """
        through = self._through
        if not self.trust_env or self.get_adapter(url) is not through or not through.keeps(url):
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        if verify is True or verify is None:
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or verify
        merge: Any = merge_setting
        return {
            "proxies": merge(proxies, self.proxies) if proxies or self.proxies else {},
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }


def _is_relative(url: str) -> bool:
    try:
        return not urlsplit(url).scheme and not url.startswith("//")
    except ValueError:  # requests says what is wrong with it
        return False


def _port(url: SplitResult) -> int | None:
    try:
        return url.port
    except ValueError:  # requests says what is wrong with it
        return None


def _headers(request: requests.PreparedRequest, url: SplitResult, body: Any) -> Headers:
    """The headers that go out: those of requests, and what the standard library would add to them."""
    fields: Headers = []
    host = framed = False
    given: Any = request.headers
    for name, value in given.items():
        raw = name.encode("latin-1") if isinstance(name, str) else name
        lower = raw.lower()
        host = host or lower == b"host"
        framed = framed or lower in (b"content-length", b"transfer-encoding")
        fields.append((raw, value.encode("latin-1") if isinstance(value, str) else bytes(value)))
    if not host:
        fields.insert(0, (b"Host", url.netloc.rpartition("@")[2].encode("ascii")))
    if not framed and request.body is not None:
        known = isinstance(body, bytes)
        fields.append((b"Content-Length", b"%d" % len(body)) if known else (b"Transfer-Encoding", b"chunked"))
    return fields


def _seconds(value: Any) -> float | None:
    """Of a `urllib3.Timeout`; it has checked its values, and has marks of its own for what was not given."""
    return value if isinstance(value, (int, float)) else None


def _checked(timeout: float | None) -> float | None:
    """A limit; infinity is none.

    Raises:
        ValueError: if it is not above 0, as with requests.
    """
    try:
        fits = timeout is None or timeout > 0
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
    return None if timeout == math.inf else timeout


def _bounded(timeout: _Times, left_s: float | None) -> Any:
    """The timeout, with neither phase beyond what is left."""
    if left_s is None:
        return timeout
    if isinstance(timeout, Timeout):
        total_s = _seconds(timeout.total)
        total_s = left_s if total_s is None else min(total_s, left_s)
        return Timeout(total=total_s, connect=timeout._connect, read=timeout._read)
    phases = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return tuple(left_s if each is None else min(each, left_s) for each in phases)


def _noted(response: requests.Response, exchange: Exchange) -> requests.Response:
    """The response, with its call for whoever asks for the record."""
    response.extensions = {EXTENSION: exchange}  # type: ignore[attr-defined]
    return response
