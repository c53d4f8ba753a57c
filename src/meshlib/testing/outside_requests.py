"""Requests of requests that the mesh passes on untouched; see `meshlib.testing.outside`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter

from meshlib.adapters.requests_body import body_of
from meshlib.adapters.requests_errors import as_requests
from meshlib.adapters.requests_raw import raw_response
from meshlib.config.settings import TlsSettings
from meshlib.errors import MeshError
from meshlib.net.wire import Progress, SyncWire, Target, WireLimits, WireRequest
from meshlib.testing.outside import Hosts

__all__ = ["RequestsOutside"]


class RequestsOutside(BaseAdapter):
    """Has them answered by what is served under their host. `network` is used for what is not; None to refuse it."""

    def __init__(self, hosts: Hosts, wire: SyncWire, network: BaseAdapter | None) -> None:
        super().__init__()
        self._hosts = hosts
        self._wire = wire
        self._network = network

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """Send one.

        Raises:
            MeshError: which is an exception of requests too.
        """
        url = urlsplit(request.url or "")
        host = url.hostname or ""
        endpoint = self._hosts.endpoint(host, url.port)
        if endpoint is None:
            if self._network is not None:
                return self._network.send(request, stream, timeout, verify, cert, proxies)
            raise as_requests(self._hosts.nobody(host), request)
        connect_s, read_s = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        limits = WireLimits(connect_s=connect_s, read_s=read_s)
        headers = [(name.encode("latin-1"), _raw(value)) for name, value in request.headers.items()]
        body = body_of(request)
        sent = WireRequest(
            (request.method or "GET").encode("ascii"),
            request.path_url.encode("latin-1"),
            [(b"Host", url.netloc.rpartition("@")[2].encode("ascii")), *headers],
            body if isinstance(body, bytes) else b"".join(body),
        )
        target = Target(endpoint, TlsSettings() if url.scheme == "https" else None)
        try:
            answer = self._wire.send(target, sent, limits, Progress())
            content = b"".join(answer.body)
        except MeshError as error:
            raise as_requests(error, request) from error.__cause__
        build: Any = HTTPAdapter.build_response
        response: Response = build(self, request, raw_response(request, answer, answer.headers, content))
        return response

    def close(self) -> None:
        """Close the network."""
        if self._network is not None:
            self._network.close()


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
