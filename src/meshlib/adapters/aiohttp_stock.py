"""``wire: stock`` beneath aiohttp: the last hop is what would have been without the mesh, with the caller's URL.

That is the rest of the session's middlewares and its connector, so that a connector or a resolver of one's own, and
middlewares further in that answer in a test, see each attempt.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from multidict import CIMultiDict
from yarl import URL

from meshlib.adapters.aiohttp_errors import from_aiohttp
from meshlib.adapters.exchange import Exchange
from meshlib.adapters.options import EXTENSION
from meshlib.adapters.reading import Reading
from meshlib.errors import AttemptTimeout, ConnectFailed, MeshError
from meshlib.net.body import ReadyBody
from meshlib.net.wire import AsyncWireResponse, Progress, Target, WireLimits, WireRequest

__all__ = ["StockWire", "delivered"]

_GIVEN = "meshlib.aiohttp"
"""The extension of a wire's response that has aiohttp's."""


class StockWire:
    """Sends the attempts of one call by what comes behind the mesh's middleware.

    Args:
        request: of the call.
        handler: what comes behind.
        now: of the mesh's clock.
    """

    def __init__(self, request: ClientRequest, handler: ClientHandlerType, now: Any) -> None:
        self._request = request
        self._handler = handler
        self._now = now
        self._url = request.url
        self._own_host = request.headers.get("Host")

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        address, outgoing = target.endpoint.address, self._request
        fields = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in request.headers]
        outgoing.headers = CIMultiDict(fields)
        if self._own_host is not None:
            outgoing.headers["Host"] = self._own_host
        path = request.target.decode("ascii")
        outgoing.url = self._url if path == self._url.raw_path_qs else self._url.join(URL(path, encoded=True))
        left_s = None if limits.deadline is None else limits.deadline - self._now()
        progress.phase = "headers"
        try:
            async with asyncio.timeout(left_s):
                response = await self._handler(outgoing)
        except aiohttp.ClientError as error:
            raise _translated(error, address, progress) from error
        except TimeoutError as error:
            progress.bytes_written = True
            text = str(error) or "no answer within the attempt's time"
            raise AttemptTimeout(text, endpoint=address, phase="headers") from error
        return AsyncWireResponse(
            response.status,
            list(response.raw_headers),
            ReadyBody([]),
            _closer(response),
            reason=(response.reason or "").encode("latin-1", "replace"),
            extensions={_GIVEN: response},
        )


def delivered(exchange: Exchange, response: AsyncWireResponse) -> ClientResponse | None:
    """The response of aiohttp itself, watched for its end; None for one that the mesh gave."""
    given: Any = response.extensions.get(_GIVEN)
    if given is None:
        return None
    reading = Reading(exchange)
    given.extensions = {EXTENSION: exchange}
    if given.connection is not None:
        given.connection.add_callback(reading.forget)
    given.content.on_eof(reading.ended)
    made: ClientResponse = given
    return made


def _translated(error: aiohttp.ClientError, address: str, progress: Progress) -> MeshError:
    made = from_aiohttp(error, address)
    if isinstance(made, ConnectFailed):
        progress.phase = "connect"
    else:
        progress.bytes_written = True
    return made


def _closer(response: ClientResponse) -> Any:
    async def close() -> None:
        response.close()

    return close
