"""The response of a lean call: an `httpx.Response` that makes what few look at when it is looked at.

What is read of most responses is the status and the content. Headers, the request, extensions, history and the rest are
made at first access, and are then what httpx would have made. Copied or pickled it becomes a plain `httpx.Response`.
"""

from __future__ import annotations

import datetime
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from meshlib.adapters.httpx_library import Foreign
from meshlib.adapters.names import Lookout
from meshlib.adapters.options import EXTENSION
from meshlib.net.wire import Headers

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.exchange import Exchange
    from meshlib.adapters.httpx_lean import LeanCall
    from meshlib.adapters.httpx_library import Library

__all__ = ["ATTRIBUTES", "AsyncLeanResponse", "AsyncSpent", "LeanResponse", "Replayed", "Spent", "to_be_replayed"]

_for_httpx = Lookout(b"content-encoding", b"set-cookie")
_redirects = Lookout(b"location")


def to_be_replayed(status: int, headers: Headers) -> bool:
    """Whether httpx has work with a response: a coding of its content, cookies to keep, a redirect to make."""
    return _for_httpx.sees_any(headers) or (300 <= status < 400 and _redirects.sees_any(headers))


class Spent:
    """The stream of a response whose content has been read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


class AsyncSpent:
    """The same of a call from an event loop."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class LeanResponse(Foreign):
    """What a lean call gave.

    Args:
        call: as it was sent.
        exchange: the call, for whoever asks for its record.
        status: as delivered.
        headers: with the route's edits.
        content: the whole body, which needs no decoding.
        extensions: of the wire.
        elapsed_s: from the call to the end of the body.
    """

    library: ClassVar[Library]

    # What httpx sets on every response that has been read. Class and instance look the same to who reads them.
    next_request = None
    is_closed = True
    is_stream_consumed = True
    default_encoding: str | Callable[[bytes], str] = "utf-8"

    def __init__(
        self,
        call: LeanCall,
        exchange: Exchange,
        status: int,
        headers: Headers,
        content: bytes,
        extensions: dict[str, Any],
        elapsed_s: float,
    ) -> None:
        self.status_code = status
        self._content = content
        self._lean = (call, exchange, headers, extensions, elapsed_s)
        if call.default_encoding != "utf-8":
            self.default_encoding = call.default_encoding

    def __getattr__(self, name: str) -> Any:
        make = _LATE.get(name)
        if make is None:
            raise AttributeError(f"'Response' object has no attribute {name!r}")
        return self.__dict__.setdefault(name, make(self))  # of two threads, both get the same

    def raise_for_status(self) -> httpx.Response:
        """Raise `httpx.HTTPStatusError` unless the status is one of success. Returns the response."""
        return self if 200 <= self.status_code < 300 else super().raise_for_status()

    def plain(self) -> httpx.Response:
        """The same as a plain `httpx.Response`."""
        made = {name: getattr(self, name) for name in (*_LATE, *_FIXED)}
        cls = self.library.httpx.Response
        response: httpx.Response = cls.__new__(cls)
        response.__dict__.update({name: value for name, value in {**made, **self.__dict__}.items() if name != "_lean"})
        return response

    def _stream(self) -> Any:
        """A stream of what has been read."""
        return self.library.spent(self._content)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(0)  # the later protocols insist on one class for both


class AsyncLeanResponse(LeanResponse):
    """The same of a call from an event loop."""

    def _stream(self) -> Any:
        return self.library.async_spent(self._content)


_FIXED = ("next_request", "is_closed", "is_stream_consumed", "default_encoding")


def _extensions(response: LeanResponse) -> dict[str, Any]:
    _, exchange, _, extensions, _ = response._lean
    return {**extensions, EXTENSION: exchange}


_LATE: dict[str, Callable[[LeanResponse], Any]] = {
    "headers": lambda response: response.library.httpx.Headers(response._lean[2]),
    "extensions": _extensions,
    "history": lambda response: [],
    "stream": lambda response: response._stream(),
    "_request": lambda response: response._lean[0].request,
    "_elapsed": lambda response: datetime.timedelta(seconds=response._lean[4]),
    "_num_bytes_downloaded": lambda response: len(response._content),
}

ATTRIBUTES = frozenset({*_LATE, *_FIXED, "status_code", "_content", "_decoder"})
"""What the attributes of an `httpx.Response` that has been read must be, for a lean one to stand in for it."""


class Replayed:
    """The content of a response that was delivered, and goes through httpx's own path now.

    httpx will measure how long that took; what counts is how long the call did.
    """

    def __init__(self, content: bytes, elapsed_s: float) -> None:
        self._content = content
        self._elapsed = datetime.timedelta(seconds=elapsed_s)
        self._response: weakref.ref[httpx.Response] | None = None

    def belongs_to(self, response: httpx.Response) -> httpx.Response:
        """Say whose stream this is; the response holds the stream, and the stream must not hold it."""
        self._response = weakref.ref(response)
        return response

    def __iter__(self) -> Iterator[bytes]:
        yield self._content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content

    def close(self) -> None:
        response = None if self._response is None else self._response()
        if response is not None:
            response.elapsed = self._elapsed

    async def aclose(self) -> None:
        self.close()
