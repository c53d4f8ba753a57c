"""A pool of one event loop: the bookkeeping of `Pool`, and tasks that wait.

All of it is called on the loop's own thread and nothing in it awaits but the wait itself, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from meshlib.errors import MeshClosed
from meshlib.net.connection import AsyncConnection, AsyncExchange, DeadlinePassed, earlier
from meshlib.net.pool import Entry, Pool, PoolFull, Ticket, pool_full, pool_name, waited_too_long
from meshlib.net.wire import Target, WireLimits

__all__ = ["AsyncPool"]


class _TaskTicket(Ticket[AsyncConnection]):
    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def expire(self) -> None:
        if not self.future.done():
            self.future.set_exception(DeadlinePassed())


class AsyncPool:
    """The connections to one target, for the tasks of one loop."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self.loop = loop
        name, multiplexed = pool_name(target), target.http2
        self.book: Pool[AsyncConnection] = Pool(name, target.pool, multiplexed=multiplexed, cap=target.cap)
        self._abandoned = False
        self._closing: list[AsyncConnection] = []
        """Told to close; kept in sight until they have, since the loop may end before."""

    def __repr__(self) -> str:
        return repr(self.book)

    def acquire_now(self, now: float, resendable: bool) -> Entry[AsyncConnection] | Literal[False] | None:
        """A connection, None for leave to open one, False if one has to `wait`."""
        granted = self.book.acquire(now, resendable)
        if self.book.to_close:
            self._settle()
        return granted

    async def wait(self, limits: WireLimits) -> Entry[AsyncConnection] | None:
        """Wait in the queue for a connection, or for leave to open one; may be cancelled.

        Raises:
            PoolTimeout: if too many wait, or this one waited for too long.
            MeshClosed: if the engine was closed meanwhile.
        """
        ticket = _TaskTicket(self.loop)
        try:
            self.book.enqueue(ticket)
        except PoolFull:
            raise pool_full(self.book, self.target) from None
        until = earlier(limits.pool_s, limits.deadline)
        timer = None if until is None else self.loop.call_later(until - time.monotonic(), ticket.expire)
        try:
            await ticket.future
        except BaseException as error:
            # It may have been granted something after it was cancelled and before it could notice.
            self.book.cancel(ticket, time.monotonic())
            self._settle()
            del ticket  # the error in it holds this frame, and with it all callers
            if isinstance(error, DeadlinePassed):
                raise waited_too_long(self.book, self.target) from None
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if ticket.error is not None:
            raise MeshClosed(ticket.error.message)
        return ticket.entry

    def connected(self, connection: AsyncConnection) -> Entry[AsyncConnection]:
        """Take in a connection that the caller had leave to open; the caller holds a use of it."""
        entry = self.book.connected(connection, time.monotonic())
        self._settle()
        return entry

    def connect_failed(self) -> None:
        """Give that leave back."""
        self.book.connect_failed(time.monotonic())
        self._settle()

    def release(self, entry: Entry[AsyncConnection], reusable: bool) -> None:
        """Give a connection back."""
        if self._abandoned:
            return
        book = self.book
        if reusable:
            book.release(entry, time.monotonic())
        else:
            book.discard(entry, time.monotonic())
        if book.to_wake or book.to_close:
            self._settle()

    def replace(self, entry: Entry[AsyncConnection]) -> bool:
        """Give back a connection that proved stale. True: open another in its place; False: acquire again."""
        granted = self.book.replace(entry)
        self._settle()
        return granted

    def drop(self, entry: Entry[AsyncConnection], exchange: AsyncExchange) -> None:
        """Give back the connection of a response that nobody closed. Safe in a finalizer, on any thread."""
        try:
            self.loop.call_soon_threadsafe(self._dropped, entry, exchange)
        except RuntimeError:
            pass  # the loop is closed, and its pools with it

    def _dropped(self, entry: Entry[AsyncConnection], exchange: AsyncExchange) -> None:
        self.release(entry, exchange.finish())

    def expire(self, now: float) -> bool:
        """Close what has been idle for too long. True if the pool itself is given up; who still has it may go on."""
        self.book.expire(now)
        self._settle()
        return self.book.give_up(now)

    def drain(self) -> None:
        """Close what is idle, now and as it becomes so."""
        self.book.drain()
        self._settle()

    def close(self, error: MeshClosed) -> None:
        """Drain, and fail all who wait."""
        self.book.close(error)
        self._settle()

    def abort(self, error: MeshClosed) -> None:
        """Close every connection, busy or not: the loop is about to end."""
        self.close(error)
        self._abandoned = True
        for connection in self._connections():
            connection.abort()

    def forsake(self) -> None:
        """The loop has been closed: free the sockets."""
        self._abandoned = True
        for connection in self._connections():
            connection.forsake()

    def abandon(self) -> None:
        """In a forked child: free the sockets, touching neither loop nor peer."""
        self._abandoned = True
        for connection in self._connections():
            connection.abandon()

    def _settle(self) -> None:
        book = self.book
        while book.to_wake:
            book.to_wake.pop(0).wake()
        if book.to_close:
            self._closing = [connection for connection in self._closing if not connection.closed]
            self._closing += book.to_close
            while book.to_close:
                book.to_close.pop().close()

    def _connections(self) -> list[AsyncConnection]:
        return [*(entry.connection for entry in self.book.entries), *self._closing]
