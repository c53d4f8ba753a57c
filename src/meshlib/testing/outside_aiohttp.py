"""Requests of aiohttp that the mesh passes on untouched; see `meshlib.testing.outside`."""

from __future__ import annotations

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from meshlib.adapters.aiohttp_body import body_of
from meshlib.adapters.aiohttp_errors import as_aiohttp
from meshlib.adapters.aiohttp_response import response_of
from meshlib.config.settings import TlsSettings
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWire, Progress, Target, WireLimits, WireRequest
from meshlib.testing.outside import Hosts

__all__ = ["AiohttpOutside"]


class AiohttpOutside:
    """Has them answered by what is served under their host; what is not goes into the `network`, or is refused."""

    def __init__(self, hosts: Hosts, wire: AsyncWire, *, network: bool) -> None:
        self._hosts = hosts
        self._wire = wire
        self._network = network

    async def __call__(self, handler: ClientHandlerType, request: ClientRequest) -> ClientResponse:
        """Send one, in the place of `handler`.

        Raises:
            MeshError: which is an exception of aiohttp too.
        """
        url = request.url
        host = url.raw_host or ""
        endpoint = self._hosts.endpoint(host, url.explicit_port)
        if endpoint is None:
            if self._network:
                return await handler(request)
            raise as_aiohttp(self._hosts.nobody(host), request)
        body = await body_of(request)
        sent = WireRequest(
            request.method.encode("ascii"),
            url.raw_path_qs.encode("ascii"),
            [(name.encode("ascii"), value.encode("utf-8")) for name, value in request.headers.items()],
            body if isinstance(body, bytes) else b"".join([chunk async for chunk in body]),
        )
        limits = WireLimits(read_s=request.session.timeout.sock_read)
        target = Target(endpoint, TlsSettings() if url.scheme == "https" else None)
        try:
            answer = await self._wire.send(target, sent, limits, Progress())
            content = b"".join([chunk async for chunk in answer.body])
        except MeshError as error:
            raise as_aiohttp(error, request) from error.__cause__
        return await response_of(request, None, answer, content, request.session.auto_decompress)
