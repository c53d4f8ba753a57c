"""`requests.Response.raw`: urllib3's response, over a body that comes from the mesh's wire."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from http.client import responses
from typing import Any

from requests import PreparedRequest
from urllib3 import HTTPResponse

from meshlib.adapters.exchange import Exchange
from meshlib.adapters.reading import Reading
from meshlib.adapters.requests_errors import as_requests
from meshlib.errors import MeshError
from meshlib.net.wire import Headers, SyncWireResponse

try:
    from urllib3 import HTTPHeaderDict
except ImportError:  # before urllib3 2.0 it was not public
    from urllib3._collections import HTTPHeaderDict

__all__ = ["Incoming", "RawResponse", "raw_response"]

_VERSIONS = {b"HTTP/1.0": 10, b"HTTP/1.1": 11, b"HTTP/2": 20}


class Incoming(io.RawIOBase):
    """The body of a response as a file. Closing it gives the connection back, or closes that if more is to come."""

    def __init__(self, exchange: Exchange, request: PreparedRequest, response: SyncWireResponse) -> None:
        self._reading = Reading(exchange)
        self._request = request
        self._response = response
        self._left = b""

    def readable(self) -> bool:
        return True

    def read1(self, size: int | None = -1) -> bytes:
        """What comes next, as soon as it is there; at most `size` bytes. ``b""`` at the end."""
        data = self._left or self._next()
        if size is None or size < 0 or len(data) <= size:
            self._left = b""
            return data
        self._left = data[size:]
        return data[:size]

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, or all; fewer only at the end."""
        if size is None or size < 0:
            return b"".join(iter(self.read1, b""))
        chunks = []
        while size and (data := self.read1(size)):
            chunks.append(data)
            size -= len(data)
        return b"".join(chunks)

    def isclosed(self) -> bool:
        """Whether nothing more can be read: what urllib3 asks of `http.client.HTTPResponse`."""
        return self.closed

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._left = b""
            self._response.close()
            self._reading.left()

    def __del__(self) -> None:
        pass  # not closed here, which could wait for a lock that this very thread holds: `Reading` sees to it

    def _next(self) -> bytes:
        if self.closed:
            return b""
        try:
            for data in self._response.body:
                if data:
                    return data
        except MeshError as error:
            cause = error.__cause__
            self._reading.broken(error)
            self.close()
            raise as_requests(error, self._request) from cause
        self._reading.ended()
        self.close()
        return b""


class _Whole(io.BytesIO):
    """A body that is in memory. It closes with its last byte, as a body from a connection does."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() == len(self.getbuffer()):
            self.close()
        return data

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(size)


class _Original:
    """What requests looks for cookies in, in the shape of an `http.client.HTTPResponse`."""

    def __init__(self, headers: HTTPHeaderDict) -> None:
        self.msg = headers

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        pass


class RawResponse(HTTPResponse):
    """urllib3's response, which decodes what it reads; errors of the body are the mesh's."""

    def supports_chunked_reads(self) -> bool:
        return True

    def read_chunked(self, amt: int | None = None, decode_content: bool | None = None) -> Iterator[bytes]:  # type: ignore[override]
        """What comes, as soon as it comes."""
        self._init_decoder()
        if decode_content is None:
            decode_content = self.decode_content
        file: Any = self._fp
        while not file.closed and (data := file.read1(amt)):
            content = self._decode(data, decode_content, False)
            if content:
                yield content
        if decode_content and (content := self._flush_decoder()):
            yield content

    def __del__(self) -> None:
        pass  # as `Incoming`

    def _error_catcher(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()  # the mesh's errors are what they are: urllib3 would say that of any `OSError` less well


def raw_response(request: PreparedRequest, response: SyncWireResponse, headers: Headers, body: Any) -> RawResponse:
    """The response as urllib3 has it.

    Args:
        request: as sent.
        response: of the wire.
        headers: with the route's edits.
        body: bytes, or an `Incoming`.
    """
    fields = HTTPHeaderDict()
    for name, value in headers:
        fields.add(name.decode("latin-1"), value.decode("latin-1"))
    made = RawResponse(
        _Whole(body) if isinstance(body, bytes) else body,
        headers=fields,
        status=response.status,
        version=_VERSIONS.get(response.http_version, 11),
        reason=response.reason.decode("latin-1") or responses.get(response.status, ""),
        preload_content=False,
        decode_content=False,
        original_response=_Original(fields),  # type: ignore[arg-type]
        enforce_content_length=False,  # the wire has counted; and a route may have edited the headers
        request_method=request.method,
        request_url=request.path_url,
    )
    made.version_string = response.http_version.decode("ascii")
    return made
