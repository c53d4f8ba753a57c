"""The bodies of meshed responses and requests, as streams; `Library` makes each library's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from meshlib.adapters.body import FileBody
from meshlib.adapters.exchange import Exchange
from meshlib.adapters.httpx_errors import as_httpx
from meshlib.adapters.reading import Reading
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWireResponse, SyncWireResponse

if TYPE_CHECKING:
    import httpx

__all__ = [
    "SWITCHED",
    "AsyncResponseStream",
    "AsyncUpload",
    "FileStream",
    "ResponseStream",
    "SyncResponseStream",
    "SyncUpload",
]


SWITCHED = 101
"""The status of a response that has no body: the connection is used for something else until it is closed."""


class FileStream:
    """A request's body that is read from a file, from the offset at which it was handed over, as often as needed."""

    def __init__(self, body: FileBody) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.body:
            yield chunk


class ResponseStream:
    """A response that the caller reads.

    Attributes:
        extensions: those of the httpx response. What comes behind the body, its trailers, is added to them.
    """

    def __init__(self, exchange: Exchange, request: httpx.Request) -> None:
        self.extensions: dict[str, Any] = {}
        self._reading = Reading(exchange)
        self._request = request

    def _end(self, response: SyncWireResponse | AsyncWireResponse) -> None:
        if "trailers" in response.extensions:
            self.extensions["trailers"] = response.extensions["trailers"]
        self._reading.ended()

    def _leave(self, response: SyncWireResponse | AsyncWireResponse) -> None:
        if response.status == SWITCHED:
            self._reading.ended()
        else:
            self._reading.left()

    def _broken(self, error: MeshError) -> MeshError:
        return as_httpx(self._reading.broken(error), self._request)


class SyncResponseStream(ResponseStream):
    """The body of a response to a call from a thread."""

    def __init__(self, exchange: Exchange, request: httpx.Request, response: SyncWireResponse) -> None:
        super().__init__(exchange, request)
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.body
        except MeshError as error:
            raise self._broken(error) from error.__cause__
        self._end(self._response)

    def close(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        self._response.close()
        self._leave(self._response)


class AsyncResponseStream(ResponseStream):
    """The body of a response to a call from an event loop."""

    def __init__(self, exchange: Exchange, request: httpx.Request, response: AsyncWireResponse) -> None:
        super().__init__(exchange, request)
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.body:
                yield chunk
        except MeshError as error:
            raise self._broken(error) from error.__cause__
        self._end(self._response)

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        try:
            await self._response.aclose()
        finally:
            self._leave(self._response)


class SyncUpload:
    """A request's body, of an attempt that is sent through a transport of the library."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


class AsyncUpload:
    """The same for an event loop."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        iterator: AsyncIterator[bytes] = aiter(self._body)
        return iterator
