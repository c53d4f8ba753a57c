"""The load of all workers of one port: what one of them tells, callers take for the whole endpoint.

gunicorn's workers share their ports, and callers see one endpoint. So each writes what it knows of itself into a slot
of its own, in memory that the master made before it forked them, and who is asked reads them all. A slot has one
writer, and numbers of eight bytes, each written at once; so there is no lock, no file, and nothing that a worker that
is killed could leave locked. A slot counts while its process lives, and is free when the master has seen that end.

Nothing is written before a worker is asked for its load for the first time.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from math import exp, inf
from typing import NamedTuple

__all__ = ["Board", "Figures", "Slot", "join", "leave", "left", "mine", "share", "together"]

_SLOTS = 256
_STRIDE = 16  # numbers: two lines of a cache, so that no line has two writers
_PID, _AT, _FIRST = 0, 1, 2
_LOOK_S = 1.0
_FRESH_S = 2.0
"""How late a loop was longer ago, and what waited for its threads, says nothing any more."""


class Figures(NamedTuple):
    """What one worker knows of itself, or all of them together.

    Attributes:
        serving, waiting: requests.
        limit: how many may be served; 0 for any number.
        requests_per_s, errors_per_s: averages.
        cpu, own: shares in use: of its CPUs, and by the application's own measure; 0 for none.
        lag_s: how late the event loop is.
        threads_wanted: what waits for a thread.
    """

    serving: float
    waiting: float
    limit: float
    requests_per_s: float
    errors_per_s: float
    cpu: float
    own: float
    lag_s: float
    threads_wanted: float


def together(workers: Sequence[Figures]) -> Figures:
    """Counts and rates as sums, shares as means, the lag of the loop that is latest."""
    sums = Figures(*map(sum, zip(*workers, strict=True)))
    count, lag_s = len(workers), max(each.lag_s for each in workers)
    return sums._replace(cpu=sums.cpu / count, own=sums.own / count, lag_s=lag_s)


class Board:
    """The slots of one master's workers.

    Args:
        slots: how many workers there may be; those beyond tell of themselves alone.
        lives: whether there is a process of this number; for tests.
    """

    def __init__(self, slots: int = _SLOTS, lives: Callable[[int], bool] | None = None) -> None:
        self._numbers: memoryview[float] = memoryview(mmap.mmap(-1, 8 * _STRIDE * slots)).cast("d")
        self._lives = lives or _lives

    def join(self, pid: int, first: int = 0) -> Slot | None:
        """A free slot, from now on the one of this process; None if there is none.

        Args:
            pid: of this process.
            first: where to look first. The master numbers its workers, so two that start at once do not meet.
        """
        size = len(self._numbers)
        for step in range(0, size, _STRIDE):
            start = (_STRIDE * first + step) % size
            holder = int(self._numbers[start + _PID])
            if holder in (0, pid) or not self._lives(holder):
                for number in range(start, start + _STRIDE):
                    self._numbers[number] = 0.0
                self._numbers[start + _PID] = float(pid)
                return Slot(self, self._numbers[start : start + _STRIDE])
        return None

    def left(self, pid: int) -> None:
        """A process has ended."""
        for start in range(0, len(self._numbers), _STRIDE):
            if self._numbers[start + _PID] == pid:
                self._numbers[start + _PID] = 0.0

    def others(self, pid: int) -> list[memoryview[float]]:
        """The slots of the other processes that live."""
        starts = range(0, len(self._numbers), _STRIDE)
        pids = [(start, int(self._numbers[start + _PID])) for start in starts]
        return [
            self._numbers[start : start + _STRIDE] for start, each in pids if each not in (0, pid) and self._lives(each)
        ]


class Slot:
    """Where one worker writes, and from where it sees the others.

    Attributes:
        taken: whether somebody writes here already, of those who count in this process.
    """

    def __init__(self, board: Board, numbers: memoryview[float]) -> None:
        self.taken = False
        self._board: Board | None = board
        self._numbers = numbers
        self._others: list[memoryview[float]] = []
        self._looked_at = -inf

    def take(self, now: float) -> None:
        """Somebody writes here from now on; `now` on a clock that the workers have in common."""
        self.taken = True
        self._numbers[_AT] = now

    def count(self, serving: int, waiting: int, limit: int) -> None:
        """So many requests are here now."""
        numbers = self._numbers
        numbers[_FIRST], numbers[_FIRST + 1], numbers[_FIRST + 2] = float(serving), float(waiting), float(limit)

    def write(self, now: float, figures: Figures) -> None:
        """All that this worker knows of itself."""
        numbers = self._numbers
        numbers[_AT] = now
        for number, figure in enumerate(figures, _FIRST):
            numbers[number] = figure

    def in_flight(self, now: float) -> int:
        """Requests that the other workers serve, or that wait there."""
        return int(sum(numbers[_FIRST] + numbers[_FIRST + 1] for numbers in self._look(now)))

    def others(self, now: float, window_s: float) -> list[Figures]:
        """What the other workers wrote, if any; who wrote long ago is taken to do less and less, by `window_s`."""
        return [_read(numbers, now, window_s) for numbers in self._look(now) if numbers[_AT]]

    def _look(self, now: float) -> list[memoryview[float]]:
        if not 0.0 <= now - self._looked_at < _LOOK_S:
            self._others = [] if self._board is None else self._board.others(int(self._numbers[_PID]))
            self._looked_at = now
        return self._others

    def let_go(self) -> None:
        """This is another process now: what it writes and sees is its own."""
        self._board, self._others = None, []
        self._numbers = memoryview(bytearray(8 * _STRIDE)).cast("d")


def _read(numbers: memoryview[float], now: float, window_s: float) -> Figures:
    age_s = max(0.0, now - numbers[_AT])
    figures = Figures(*numbers[_FIRST : _FIRST + len(Figures._fields)])
    kept, fresh = exp(-age_s / window_s), age_s < _FRESH_S
    return figures._replace(
        requests_per_s=figures.requests_per_s * kept,
        errors_per_s=figures.errors_per_s * kept,
        cpu=figures.cpu * kept,
        own=figures.own * kept,
        lag_s=figures.lag_s if fresh else 0.0,
        threads_wanted=figures.threads_wanted if fresh else 0.0,
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # it is gone, or its number is another user's by now
        return False
    return True


# Of this process

_board: Board | None = None
_mine: Slot | None = None


def share() -> None:
    """The processes that are forked from now on may `join`. In their master."""
    global _board
    if _board is None:
        _board = Board()


def join(number: int) -> None:
    """This process is one of those workers, the one of that number."""
    global _mine
    if _board is not None:
        _mine = _board.join(os.getpid(), number)


def leave() -> None:
    """This process serves no more."""
    if _board is not None:
        _board.left(os.getpid())
    _let_go()


def left(pid: int) -> None:
    """That one has ended. In their master."""
    if _board is not None:
        _board.left(pid)


def mine() -> Slot | None:
    """The slot of this process."""
    return _mine


def _let_go() -> None:
    global _mine
    if _mine is not None:
        _mine.let_go()
        _mine = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
