"""Streams of items: lines of JSON, server-sent events, chunks. Bytes in, items out; whoever reads them is elsewhere.

Server-sent events are read as the HTML standard says (9.2.6), lines of JSON as the NDJSON specification does; the
record separators of JSON text sequences (RFC 7464) are taken for what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from meshlib.dataclass import dataclass

__all__ = ["MAX_ITEM", "Chunks", "Decoder", "Events", "JsonLines", "ServerSentEvent", "TooLong"]

MAX_ITEM = 16 * 1024 * 1024
"""An item of a stream has at most so many bytes; else a peer that never ends one would fill the memory."""


class TooLong(Exception):
    """An item is longer than `MAX_ITEM`."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event.

    Attributes:
        data: its lines, joined.
        event: its type.
        id: the last that was sent, to go on from.
        retry_ms: how long to wait before connecting again, if that was said.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry_ms: int | None = None


class Decoder(Protocol):
    """Makes items of bytes."""

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """The items that end in this chunk.

        Raises:
            TooLong: if one is too long.
        """
        ...

    def end(self) -> Iterator[Any]:
        """Those that the end of the stream ends."""
        ...


class Chunks:
    """The bytes as they come."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The chunk."""
        if chunk:
            yield chunk

    def end(self) -> Iterator[bytes]:
        """Nothing."""
        yield from ()


class _Lines:
    """Splits bytes at line feeds; at carriage returns too where that is said."""

    def __init__(self, *, universal: bool) -> None:
        self._universal = universal
        self._parts: list[bytes] = []
        self._length = 0
        self._after_return = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, without their ends."""
        if self._universal:
            if not chunk:
                return []
            if self._after_return and chunk[:1] == b"\n":
                chunk = chunk[1:]
            self._after_return = chunk.endswith(b"\r")
            lines = chunk.splitlines(keepends=True)
        else:
            lines = [line + b"\n" for line in chunk.split(b"\n")]
            lines[-1] = lines[-1][:-1]
        done = []
        for line in lines:
            text = line.rstrip(b"\r\n") if self._universal else line.removesuffix(b"\n")
            self._length += len(text)
            if self._length > MAX_ITEM:
                raise TooLong
            self._parts.append(text)
            if len(text) < len(line):
                done.append(b"".join(self._parts))
                self._parts, self._length = [], 0
        return done

    def rest(self) -> bytes:
        """What came after the last line end."""
        return b"".join(self._parts)


class JsonLines:
    """One item a line.

    Args:
        parse: makes an item of a line.
    """

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._lines = _Lines(universal=False)
        self._parse = parse

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """The items that end in this chunk."""
        for line in self._lines.feed(chunk):
            yield from self._item(line)

    def end(self) -> Iterator[Any]:
        """The last, which needs no line end."""
        yield from self._item(self._lines.rest())

    def _item(self, line: bytes) -> Iterator[Any]:
        text = line.lstrip(b"\x1e").strip()
        if text:
            yield self._parse(text)


class Events:
    """Server-sent events.

    Args:
        parse: makes an item of an event.
    """

    def __init__(self, parse: Callable[[ServerSentEvent], Any]) -> None:
        self._lines = _Lines(universal=True)
        self._parse = parse
        self._first = True
        self._id = ""
        self._retry_ms: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._data: list[str] = []
        self._event = ""
        self._length = 0

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """The events that end in this chunk."""
        for raw in self._lines.feed(chunk):
            line = raw.decode("utf-8", "replace")
            if self._first:
                self._first, line = False, line.removeprefix("\ufeff")
            if line:
                self._field(line)
                continue
            if self._data:
                event = ServerSentEvent("\n".join(self._data), self._event or "message", self._id, self._retry_ms)
                self._begin()
                yield self._parse(event)
            else:
                self._begin()

    def end(self) -> Iterator[Any]:
        """Nothing: an event that was not ended is none."""
        yield from ()

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._length += len(value) + 1  # a line of nothing takes its place, too
            if self._length > MAX_ITEM:
                raise TooLong
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self._retry_ms = int(value)
