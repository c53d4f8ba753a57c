"""``wire: stock`` beneath requests: the last hop is the adapter that requests would have used, with the caller's URL.

So `responses`, which patches `requests.adapters.HTTPAdapter.send`, and an adapter of requests-mock that is handed over
as ``fallback``, see each attempt, at the URL that they know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from requests import PreparedRequest, exceptions
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from meshlib.adapters.requests_errors import from_requests
from meshlib.errors import BodyBroken, ConnectFailed, MeshError, TLSFailed
from meshlib.net.wire import Progress, SyncWireResponse, Target, WireLimits, WireRequest
from meshlib.telemetry.observer import hushed

__all__ = ["StockWire"]

_CHUNK_BYTES = 65536


class StockWire:
    """Sends the attempts of one call through an adapter of requests.

    Args:
        adapter: it.
        prepared: what the caller sends.
        given: ``verify``, ``cert`` and ``proxies``, as the session gave them.
        now: the clock of deadlines.
    """

    def __init__(
        self, adapter: BaseAdapter, prepared: PreparedRequest, given: dict[str, Any], now: Callable[[], float]
    ) -> None:
        self._adapter = adapter
        self._prepared = prepared
        self._given = given
        self._now = now

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        address = target.endpoint.address
        progress.phase = "headers"
        try:
            with hushed(progress.handle):
                response = self._adapter.send(
                    self._outgoing(request), stream=True, timeout=self._timeout(limits), **self._given
                )
        except exceptions.RequestException as error:
            raise _translated(error, address, progress) from error
        raw: Any = response.raw
        headers = getattr(raw, "headers", None) or response.headers
        return SyncWireResponse(
            response.status_code,
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            _body(response, address),
            response.close,
            reason=(response.reason or "").encode("latin-1", "replace"),
        )

    def _outgoing(self, request: WireRequest) -> PreparedRequest:
        outgoing = self._prepared.copy()
        fields: CaseInsensitiveDict[Any] = CaseInsensitiveDict()
        for name, value in request.headers:
            fields[name.decode("latin-1")] = value.decode("latin-1")
        if "host" not in {name.lower() for name in self._prepared.headers}:
            fields.pop("host", None)  # requests makes it of the URL
        outgoing.headers = fields
        outgoing.body = request.body or None if isinstance(request.body, bytes) else iter(request.body)
        path = request.target.decode("latin-1")
        if path != outgoing.path_url:
            before, _, _ = (outgoing.url or "").rpartition(outgoing.path_url)
            outgoing.url = before + path
        return outgoing

    def _timeout(self, limits: WireLimits) -> Any:
        left_s = None if limits.deadline is None else max(0.001, limits.deadline - self._now())

        def cap(limit_s: float | None) -> float | None:
            return left_s if limit_s is None else limit_s if left_s is None else min(limit_s, left_s)

        return cap(limits.connect_s), cap(limits.read_s)


def _translated(error: exceptions.RequestException, address: str, progress: Progress) -> MeshError:
    made = from_requests(error, address)
    # An adapter does not tell how far it came; only a failed connection is sure to have sent nothing, and TLS may fail
    # at any time.
    if isinstance(made, ConnectFailed) and not isinstance(made, TLSFailed):
        progress.phase = "connect"
    else:
        progress.bytes_written = True
    return made


def _body(response: Any, address: str) -> Iterator[bytes]:
    """The bytes as they came: they are decoded further up."""
    raw = response.raw
    try:
        if hasattr(raw, "stream"):
            yield from raw.stream(_CHUNK_BYTES, decode_content=False)
        else:
            yield from iter(lambda: raw.read(_CHUNK_BYTES), b"")
    except Exception as error:
        raise BodyBroken(str(error) or type(error).__name__, endpoint=address) from error
