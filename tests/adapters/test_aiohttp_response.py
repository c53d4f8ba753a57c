"""A body in memory is the stream that aiohttp makes, though most of it is never made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import aiohttp
import pytest
from aiohttp import StreamReader
from aiohttp.helpers import TimerContext

from meshlib.adapters.aiohttp_response import _PROTOCOL, Whole

_CONTENT = b"one\ntwo\nthree"


async def _left(pieces: Any) -> list[Any]:
    return [each async for each in pieces]


_WAYS: dict[str, Callable[[StreamReader], Any]] = {
    "read": lambda stream: stream.read(),
    "some": lambda stream: stream.read(5),
    "none": lambda stream: stream.read(0),
    "line": lambda stream: stream.readline(),
    "any": lambda stream: stream.readany(),
    "chunk": lambda stream: stream.readchunk(),
    "exactly": lambda stream: stream.readexactly(4),
    "until": lambda stream: stream.readuntil(b"w"),
    "chunks": lambda stream: _left(stream.iter_chunked(3)),
    "lines": lambda stream: _left(stream),
    "now": lambda stream: stream.read_nowait(),
    "broken": lambda stream: stream.set_exception(aiohttp.ClientConnectionError("Connection closed")),
    "told": lambda stream: stream.on_eof(lambda: None),
    "waited": lambda stream: stream.wait_eof(),
}


async def _told(stream: StreamReader, ways: tuple[str, ...]) -> list[Any]:
    told: list[Any] = []
    for way in ways:
        try:
            made = _WAYS[way](stream)
            told.append(await made if asyncio.iscoroutine(made) else made)
        except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
            told.append((type(error), str(error)))
        told.append((stream.is_eof(), repr(stream.exception())))
    return [*told, stream.at_eof(), stream.total_bytes, hasattr(stream, "nothing")]


@pytest.mark.parametrize("content", [_CONTENT, b""])
def test_however_it_is_read_it_gives_what_aiohttp_s_own_gives(content: bytes) -> None:
    async def compare() -> None:
        loop = asyncio.get_running_loop()
        for ways in (*product(_WAYS, repeat=1), *product(_WAYS, repeat=2), *product(_WAYS, repeat=3)):
            own = StreamReader(_PROTOCOL, 65536, loop=loop)
            own.feed_data(content)
            own.feed_eof()
            assert await _told(Whole(content, None, loop), ways) == await _told(own, ways), ways

    asyncio.run(compare())


def test_what_is_told_of_the_end_is_told_at_once() -> None:
    async def look() -> None:
        ended: list[int] = []
        Whole(_CONTENT, None, asyncio.get_running_loop()).on_eof(lambda: ended.append(1))
        assert ended == [1]

    asyncio.run(look())


def test_the_total_of_the_request_bounds_it_too() -> None:
    async def look() -> None:
        loop = asyncio.get_running_loop()
        timer = TimerContext(loop)
        body = Whole(_CONTENT, timer, loop)
        timer.timeout()
        with pytest.raises(TimeoutError):
            await body.read()

    asyncio.run(look())
