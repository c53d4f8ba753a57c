"""The body of a response, and the connection that it holds until it is read, closed or forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from meshlib.net.connection import AsyncExchange, Prefetched, SyncExchange
from meshlib.net.steps import Bell, Steps

__all__ = ["AsyncBodyReader", "ReadyBody", "SyncBodyReader"]

X = TypeVar("X")


class ReadyBody:
    """A body that is in memory; it holds no connection. Iterable in both ways."""

    __slots__ = ("_chunks", "_error")

    def __init__(self, chunks: list[bytes], error: BaseException | None = None) -> None:
        self._chunks = chunks
        self._error = error

    def __iter__(self) -> ReadyBody:
        return self

    def __next__(self) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        raise StopIteration

    def __aiter__(self) -> ReadyBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            return self.__next__()
        except StopIteration:
            raise StopAsyncIteration from None

    def take(self) -> bytes:
        """All that is left, at once: small replies are common, and to iterate costs two exceptions each.

        Raises:
            WireError: if the body broke off.
        """
        if self._error is not None:
            error = self._error
            self.close()
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return data

    def close(self) -> None:
        """Forget the rest."""
        self._chunks.clear()
        self._error = None

    async def aclose(self) -> None:
        """Forget the rest."""
        self.close()


class _Reader(Generic[X]):
    """What both ways of reading share.

    Args:
        exchange: to read from.
        ready: what was received with the head.
        give_back: gives the connection back, told whether it can be used again.
        drop: the same for a finalizer, which must wait for nothing.
    """

    __slots__ = ("_drop", "_exchange", "_give_back", "_ready")

    def __init__(
        self, exchange: X, ready: Prefetched, give_back: Callable[[bool], None], drop: Callable[[X], None]
    ) -> None:
        self._exchange: X | None = exchange
        self._ready = ready.chunks
        self._give_back = give_back
        self._drop = drop

    def __del__(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._drop(exchange)


class SyncBodyReader(_Reader[SyncExchange]):
    """A body that comes over the wire as it is read."""

    __slots__ = ()

    def __iter__(self) -> SyncBodyReader:
        return self

    def __next__(self) -> bytes:
        if self._ready:
            return self._ready.pop(0)
        if self._exchange is None:
            raise StopIteration
        try:
            chunk = self._exchange.read()
        except BaseException:
            self.close()
            raise
        if chunk:
            return chunk
        self.close()
        raise StopIteration

    def read_steps(self, bell: Bell) -> Steps[bytes]:
        """All that is left, in steps. Who gives it up closes the response too.

        Raises:
            WireError: if the body broke off.
        """
        chunks, self._ready = self._ready, []
        try:
            while self._exchange is not None and (chunk := (yield from self._exchange.read_steps(bell))):
                chunks.append(chunk)
        finally:
            self.close()
        return b"".join(chunks)

    def close(self) -> None:
        """Give the connection back, read to the end or not."""
        exchange, self._exchange = self._exchange, None
        self._ready = []
        if exchange is not None:
            self._give_back(exchange.finish())


class AsyncBodyReader(_Reader[AsyncExchange]):
    """A body that comes over the wire as it is read."""

    __slots__ = ()

    def __aiter__(self) -> AsyncBodyReader:
        return self

    async def __anext__(self) -> bytes:
        if self._ready:
            return self._ready.pop(0)
        if self._exchange is None:
            raise StopAsyncIteration
        try:
            chunk = await self._exchange.read()
        except BaseException:
            self._end()
            raise
        if chunk:
            return chunk
        self._end()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Give the connection back, read to the end or not. Does not wait."""
        self._end()

    def _end(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._ready = []
        if exchange is not None:
            self._give_back(exchange.finish())
