"""A pool for threads: the bookkeeping of `Pool` under a lock, and threads that wait.

The lock is held for bookkeeping alone: connections are opened, used, looked at and closed without it. It is taken by
`with` and in no other way: an exception of a signal's handler may come right after a call of `acquire`, before any
`try`, and would leave it held for ever.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from meshlib.errors import MeshClosed
from meshlib.net.connection import SyncConnection, SyncExchange, earlier, has_passed
from meshlib.net.pool import Entry, Pool, PoolFull, Ticket, pool_full, pool_name, waited_too_long
from meshlib.net.steps import Bell, Steps, Wait
from meshlib.net.wire import Target, WireLimits

__all__ = ["SyncPool"]


class _ThreadTicket(Ticket[SyncConnection]):
    """Waits on a bare lock, which takes one step to wait on and one to release.

    A `threading.Event` has a lock within, and holds it as it begins to wait. A finalizer that runs in that moment, in
    that thread, and gives back the connection that is waited for, would wait for that lock for ever.
    """

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        super().__init__()
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> None:
        self._gate.release()

    def wait(self, deadline: float | None) -> bool:
        if deadline is None:
            return self._gate.acquire()
        return self._gate.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))


class _BellTicket(Ticket[SyncConnection]):
    """Waits in steps."""

    __slots__ = ("_bell",)

    def __init__(self, bell: Bell) -> None:
        super().__init__()
        self._bell = bell

    def wake(self) -> None:
        self._bell.ring()


K = TypeVar("K", bound=Ticket[SyncConnection])


class SyncPool:
    """The connections to one target, for any number of threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.book: Pool[SyncConnection] = Pool(pool_name(target), target.pool, multiplexed=target.http2, cap=target.cap)
        self._lock = threading.Lock()
        self._dropped: deque[tuple[Entry[SyncConnection], bool]] = deque()
        self._forked = False

    def __repr__(self) -> str:
        return repr(self.book)

    def acquire(self, resendable: bool, limits: WireLimits) -> Entry[SyncConnection] | None:
        """A connection, or None for leave to open one.

        Raises:
            PoolTimeout: if too many wait, or this one waited for too long.
            MeshClosed: if the engine was closed meanwhile.
        """
        granted = self._take(resendable, _ThreadTicket)
        if not isinstance(granted, _ThreadTicket):
            return granted
        try:
            if not granted.wait(earlier(limits.pool_s, limits.deadline)):
                raise waited_too_long(self.book, self.target)
        except BaseException:
            self._cancel(granted)
            raise
        return _granted(granted)

    def acquire_steps(self, resendable: bool, limits: WireLimits, bell: Bell) -> Steps[Entry[SyncConnection] | None]:
        """`acquire` in steps.

        Raises:
            PoolTimeout, MeshClosed.
        """
        granted = self._take(resendable, partial(_BellTicket, bell))
        if not isinstance(granted, _BellTicket):
            return granted
        until = earlier(limits.pool_s, limits.deadline)
        try:
            heard = Wait({bell.fileno(): select.POLLIN}, until)
            while not granted.granted:
                if has_passed(until):
                    raise waited_too_long(self.book, self.target)
                yield heard
        except BaseException:
            self._cancel(granted)
            raise
        return _granted(granted)

    def _take(self, resendable: bool, new_ticket: Callable[[], K]) -> Entry[SyncConnection] | K | None:
        """A connection, leave to open one, or a place in the queue."""
        try:
            with self._lock:
                granted = self.book.acquire(time.monotonic(), resendable)
                if granted is not False:
                    return granted
                ticket = new_ticket()
                self.book.enqueue(ticket)
                return ticket
        except PoolFull:
            raise pool_full(self.book, self.target) from None
        finally:
            self._settle()

    def _cancel(self, ticket: Ticket[SyncConnection]) -> None:
        try:
            with self._lock:
                self.book.cancel(ticket, time.monotonic())
        finally:
            self._settle()

    def connected(self, connection: SyncConnection) -> Entry[SyncConnection]:
        """Take in a connection that `acquire` gave leave to open; the caller holds a use of it."""
        try:
            with self._lock:
                return self.book.connected(connection, time.monotonic())
        finally:
            self._settle()

    def connect_failed(self) -> None:
        """Give that leave back."""
        try:
            with self._lock:
                self.book.connect_failed(time.monotonic())
        finally:
            self._settle()

    def release(self, entry: Entry[SyncConnection], reusable: bool) -> None:
        """Give a connection back."""
        try:
            with self._lock:
                self._give_back(entry, reusable)
        finally:
            self._settle()

    def replace(self, entry: Entry[SyncConnection]) -> bool:
        """Give back a connection that proved stale. True: open another in its place; False: acquire again."""
        try:
            with self._lock:
                return self.book.replace(entry)
        finally:
            self._settle()

    def drop(self, entry: Entry[SyncConnection], exchange: SyncExchange) -> None:
        """Give back the connection of a response that nobody closed. Safe in a finalizer.

        A finalizer runs in whatever thread, between any two of its instructions: also in one that holds the lock. So it
        asks for the lock only if nobody has it; whoever has it does the work afterwards.
        """
        self._dropped.append((entry, exchange.finish()))
        if not self._lock.locked():
            self._settle()

    def expire(self, now: float) -> bool:
        """Close what has been idle for too long. True if the pool itself is given up; who still has it may go on."""
        try:
            with self._lock:
                self.book.expire(now)
                return self.book.give_up(now)
        finally:
            self._settle()

    def drain(self) -> None:
        """Close what is idle, now and as it becomes so."""
        try:
            with self._lock:
                self.book.drain()
        finally:
            self._settle()

    def close(self, error: MeshClosed) -> None:
        """Drain, and fail all who wait."""
        try:
            with self._lock:
                self.book.close(error)
        finally:
            self._settle()

    def abandon(self) -> None:
        """In a forked child, where other threads are gone in the middle of whatever they did: let go of everything."""
        self._lock = threading.Lock()
        self._forked = True
        self._dropped.clear()
        for entry in self.book.entries:
            entry.connection.abandon()

    def _give_back(self, entry: Entry[SyncConnection], reusable: bool) -> None:
        if self._forked:
            return
        if reusable:
            self.book.release(entry, time.monotonic())
        else:
            self.book.discard(entry, time.monotonic())

    def _settle(self) -> None:
        """Do, without the lock, what the bookkeeping left to do, and what could not be done while it was held."""
        book = self.book
        while book.to_wake or book.to_close or self._dropped:
            with self._lock:
                while self._dropped:
                    self._give_back(*self._dropped.popleft())
                wake, book.to_wake = book.to_wake, []
                close, book.to_close = book.to_close, []
            for ticket in wake:
                ticket.wake()
            for connection in close:
                connection.close()


def _granted(ticket: Ticket[SyncConnection]) -> Entry[SyncConnection] | None:
    if ticket.error is not None:
        raise MeshClosed(ticket.error.message)
    return ticket.entry
