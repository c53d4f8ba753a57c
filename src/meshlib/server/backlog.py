"""How many connections wait to be accepted: what has reached this machine, and no server process has seen yet.

That is where requests wait when all threads of a WSGI server are taken, or an event loop is held up, and no middleware
knows of them. Linux tells for each listening socket how many connections are in its accept queue, and how many may be:
``TCP_INFO`` has them as ``tcpi_unacked`` and ``tcpi_sacked`` (`tcp_get_info` in its ``net/ipv4/tcp.c``; ``ss -l`` shows
the same as ``Recv-Q`` and ``Send-Q``). Other systems do not; there, nothing is known.

A server's sockets belong to the server, which may close them at any moment, and then nothing of ours may keep its port
open. So they are asked by their number alone, without an object of Python's. They are made before any connection, so
their numbers are low: the lowest ones are looked through every ten seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from math import inf
from typing import Any, Final

from meshlib.dataclass import dataclass

__all__ = ["FIND_S", "READ_S", "Backlog", "Listeners", "backlog"]

READ_S: Final = 0.1
"""The sockets are asked this often at most."""

FIND_S: Final = 10.0
"""Sockets are looked for this often at most."""

_LOWEST = 1024
_TCP, _TCP_INFO, _LISTEN = 6, 11, 10
_STATE, _UNACKED, _SACKED, _WORDS = 0, 6, 7, 8


@dataclass(frozen=True, slots=True)
class Backlog:
    """The accept queues of this process's ports, together.

    Attributes:
        waiting: connections that wait to be accepted.
        limit: how many may; what comes beyond that is dropped, and tried again by its client's system after a second.
    """

    waiting: int
    limit: int


class Listeners:
    """The listening TCP sockets of this process, its own and those it shares with others.

    There is no lock: threads that read at once do the same.

    Args:
        clock: in seconds, monotonic; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ask = _asker()
        self._found: tuple[int, ...] = ()
        self._found_at = self._read_at = -inf
        self._last: Backlog | None = None

    def backlog(self) -> Backlog | None:
        """How many connections wait; None where that is not known, or there is no such socket."""
        if self._ask is None:
            return None
        now = self._clock()
        if not 0.0 <= now - self._read_at < READ_S:
            self._last, self._read_at = self._read(now), now
        return self._last

    def _read(self, now: float) -> Backlog | None:
        if not 0.0 <= now - self._found_at < FIND_S:
            self._found, self._found_at = self._find(), now
        read = [state for state in map(self._queue, self._found) if state is not None]
        if len(read) < len(self._found):
            self._found_at = -inf  # one was closed
        return Backlog(sum(each[0] for each in read), sum(each[1] for each in read)) if read else None

    def _find(self) -> tuple[int, ...]:
        found: dict[tuple[int, int], int] = {}  # a socket may have several numbers
        for number in range(_LOWEST):
            if self._queue(number) is not None:
                try:
                    status = os.fstat(number)
                except OSError:
                    continue
                found.setdefault((status.st_dev, status.st_ino), number)
        return tuple(found.values())

    def _queue(self, number: int) -> tuple[int, int] | None:
        """Of a listening TCP socket, how many wait and how many may; None for anything else."""
        words = None if self._ask is None else self._ask(number)
        if words is None or words[_STATE] & 0xFF != _LISTEN:
            return None
        return words[_UNACKED], words[_SACKED]


def _asker() -> Callable[[int], Any] | None:
    """What gives the first words of ``TCP_INFO`` of a file descriptor, or None if it is no TCP socket."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        # It keeps Python's lock: the call takes a microsecond, and to have the lock again may take milliseconds.
        getsockopt = ctypes.PyDLL(None).getsockopt
    except (ImportError, OSError, AttributeError):
        return None
    words = ctypes.c_uint32 * _WORDS

    def ask(number: int) -> Any:
        read, size = words(), ctypes.c_uint32(4 * _WORDS)
        failed = getsockopt(number, _TCP, _TCP_INFO, read, ctypes.byref(size))
        return None if failed or size.value < 4 * _WORDS else read

    return ask


_here: Listeners | None = None


def backlog() -> Backlog | None:
    """That of this process."""
    global _here
    if _here is None:
        _here = Listeners()
    return _here.backlog()
