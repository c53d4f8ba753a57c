"""Live numbers, side by side: what every pick compares lies in one array, not in objects all over the memory.

Of 100 000 endpoints the two that a pick looks at are in no cache of the processor, and each object that is read to look
at one costs more than all the rest of the pick. So of each endpoint the two numbers that are compared, the attempts in
flight and the score (`meshlib.balance.load`), are cells of `CELLS`, the first mostly next to the second.

A cell belongs to one object from `take` until that object is gone, which gives it back to be taken by another. So who
keeps the index of a cell keeps the object too. The array grows and does not shrink: 8 bytes for each cell that was ever
in use at one time.

An array may move when it grows, and nothing but the GIL keeps others from reading or writing it meanwhile. So where
Python is built without one (``python3.13t``), the cells are a list: its every operation is safe under threads by
itself, and it takes five times the memory. The build decides, and not whether the GIL is on, which may change later.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import MutableSequence

__all__ = ["CELLS", "give_back", "take"]

_FREE_THREADED = "free-threading build" in sys.version
CELLS: MutableSequence[float] = [] if _FREE_THREADED else array("d")

# No lock: a cell may be given back by a finalizer, which runs wherever it likes, inside of `take` too. Each step here
# is one atomic operation, and no two calls get the same chunk.
_CHUNK = 256
_free: list[int] = []
_chunks = itertools.count()

give_back = _free.append
"""Gives the cell with this index back."""


def take() -> int:
    """The index of a cell that nobody else has. What it holds is to be set."""
    while True:
        try:
            return _free.pop()
        except IndexError:
            first = next(_chunks) * _CHUNK
            while len(CELLS) < first + _CHUNK:  # of two threads here at once, each may add some: too many do no harm
                CELLS.extend(array("d", bytes(8 * _CHUNK)))
            _free.extend(range(first + _CHUNK - 1, first - 1, -1))  # so that they are taken in order
