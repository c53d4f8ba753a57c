"""Request bodies, and whether they can be produced again.

Bytes can. A file can, from the offset at which it was handed over. Anything else is noted down as it is sent, up to
`BUFFER_BYTES`: as long as that suffices a further attempt gets the same bytes, those noted first and then the rest of
the source; beyond it the request is not retried.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import BinaryIO

from meshlib.errors import RequestBodyError

__all__ = ["BUFFER_BYTES", "AsyncBufferedBody", "BufferedBody", "FileBody"]

BUFFER_BYTES = 65536
_CHUNK_BYTES = 65536


class FileBody:
    """A file, from the offset it had when it was handed over. Iterate it as often as you like, sync or async.

    Reading blocks, as it does in httpx; local files are fast.
    """

    replayable = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = file.tell()

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._offset)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


class _Notes:
    """What was sent so far, as long as it is little enough."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.then: list[Callable[[bytes | None], object]] = []

    @property
    def replayable(self) -> bool:
        return self.size <= BUFFER_BYTES

    def again(self) -> list[bytes]:
        """What to begin a further attempt with.

        Raises:
            RequestBodyError: if its beginning is no longer there; what is left of it must not pass for the whole.
        """
        if not self.replayable:
            raise RequestBodyError(f"the request's body is longer than {BUFFER_BYTES} bytes and cannot be sent again")
        return list(self.chunks)

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.replayable:
            self.chunks.append(chunk)
        else:
            self.chunks.clear()
            self.ended()

    def ended(self) -> None:
        """Nothing more comes, or nothing more is noted."""
        if self.then:
            asked, self.then = self.then, []
            whole = b"".join(self.chunks) if self.replayable else None
            for function in asked:
                function(whole)


class BufferedBody:
    """A body that can be read once only, made repeatable within bounds."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)
        self._notes = _Notes()

    @property
    def replayable(self) -> bool:
        """Whether it can still be produced from the start."""
        return self._notes.replayable

    def __iter__(self) -> Iterator[bytes]:
        yield from self._notes.again()
        for chunk in self._source:
            self._notes.add(chunk)
            yield chunk
        self._notes.ended()

    def when_known(self, function: Callable[[bytes | None], object]) -> None:
        """Have `function` called with the whole body once it was sent; with None if that is too long to be kept."""
        self._notes.then.append(function)


class AsyncBufferedBody:
    """The same for a body that is produced asynchronously."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source.__aiter__()
        self._notes = _Notes()

    @property
    def replayable(self) -> bool:
        """Whether it can still be produced from the start."""
        return self._notes.replayable

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._notes.again():
            yield chunk
        async for chunk in self._source:
            self._notes.add(chunk)
            yield chunk
        self._notes.ended()

    def when_known(self, function: Callable[[bytes | None], object]) -> None:
        """Have `function` called with the whole body once it was sent; with None if that is too long to be kept."""
        self._notes.then.append(function)
