"""Operations in steps: how one thread has several attempts under way, without a thread for each.

An operation in steps is a generator. Where a blocking one would wait, it yields a `Wait`: what for, and until when. It
is resumed when something of that has happened, or may have: it looks for itself, and yields again if nothing has. Who
closes it gives the operation up, and it lets go of what it holds.

What is no socket (a place in a pool, a name that is looked up, what another thread has read for all) rings a `Bell`.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import TypeAlias, TypeVar

from meshlib.dataclass import dataclass

__all__ = ["LONGEST_WAIT_S", "Bell", "Steps", "Wait", "run", "wait_for"]

T = TypeVar("T")

LONGEST_WAIT_S = 2_000_000.0
"""Poll counts milliseconds in 31 bits; nobody waits three weeks for a byte."""


@dataclass(slots=True, eq=False)
class Wait:
    """What an operation waits for.

    Attributes:
        files: file descriptors, each with the events of `select.poll`; any will do.
        until: the point on the monotonic clock at which it wants to go on in any case; None for never.
    """

    files: dict[int, int]
    until: float | None


Steps: TypeAlias = Generator[Wait, None, T]


class Bell:
    """Wakes who waits for files, from any thread, and from a finalizer: it waits for nothing itself."""

    __slots__ = ("_lock", "_pair")

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """What becomes readable when it rings. Opened at first use; by the one who waits alone."""
        if self._pair is None:
            pair = socket.socketpair()
            for end in pair:
                end.setblocking(False)
            self._pair = pair
        return self._pair[0].fileno()

    def ring(self) -> None:
        """Wake the one who waits, now or when it next waits; whoever never called `fileno` cannot have waited."""
        # Whoever has the lock either rings, which is enough, or closes it. Without it the number of a closed socket
        # could be another one's by the time the byte is sent.
        if self._lock.acquire(blocking=False):
            try:
                if self._pair is not None:
                    with suppress(OSError):  # it is full of rings already
                        self._pair[1].send(b"!")
            finally:
                self._lock.release()

    def quiet(self) -> None:
        """Forget the rings so far; before looking at what they may be for."""
        if self._pair is not None:
            with suppress(OSError):
                while self._pair[0].recv(4096):
                    pass

    def close(self) -> None:
        """It rings no more."""
        with self._lock:
            pair, self._pair = self._pair, None
        for end in pair or ():
            end.close()


def wait_for(waits: Iterable[Wait], until: float | None = None) -> set[int]:
    """Wait until a file of any of `waits` is ready, or the first of their times has come, or `until`.

    Returns:
        The files that are ready.
    """
    files: dict[int, int] = {}
    for wait in waits:
        for fd, events in wait.files.items():
            files[fd] = files.get(fd, 0) | events
        if wait.until is not None and (until is None or wait.until < until):
            until = wait.until
    poller = select.poll()
    for fd, events in files.items():
        poller.register(fd, events)
    if until is None:
        return {fd for fd, _ in poller.poll()}
    # Rounded up: poll counts in milliseconds, and to wake too early would be to spin.
    left_s = min(until - time.monotonic(), LONGEST_WAIT_S)
    return {fd for fd, _ in poller.poll(int(left_s * 1000) + 1 if left_s > 0 else 0)}


def run(steps: Steps[T]) -> T:
    """Carry out an operation, and block where it waits."""
    try:
        wait = next(steps)
        while True:
            wait_for((wait,))
            wait = next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()
