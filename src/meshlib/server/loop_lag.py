"""How late an event loop is: the first sign that handlers compute where they should wait.

While requests come, and only then, the loop is asked ten times a second to call back after 100 ms; how much later it
does is its lag. Of late ones the worst counts, and is forgotten by half with each measurement. A process without
requests has no timer, and none has a thread for this.

With it comes what waits for a thread of the loop: for one of anyio's, in which Starlette and FastAPI run handlers and
dependencies that are no coroutines, and for one of the loop's own executor (`asyncio.to_thread`).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

__all__ = ["INTERVAL_S", "LoopLag"]

INTERVAL_S = 0.1


class LoopLag:
    """Of the event loops that serve in this process."""

    __slots__ = ("_loops",)

    def __init__(self) -> None:
        self._loops: dict[int, _Watched] = {}  # by thread

    def seen(self) -> None:
        """A request has come: in the loop that serves it, within a task."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop, as of trio
            return
        watched = self._loops.get(threading.get_ident())
        if watched is None or watched.loop is not loop:
            watched = self._loops[threading.get_ident()] = _Watched(loop)
        if not watched.waiting:
            watched.begin()

    @property
    def lag_s(self) -> float:
        """Of the loop that is latest; 0 where there is none."""
        return max((watched.lag_s for watched in self._living()), default=0.0)

    @property
    def threads_wanted(self) -> int:
        """How much waits for a thread."""
        return sum(watched.threads_wanted() for watched in self._living())

    def _living(self) -> list[_Watched]:
        for thread, watched in list(self._loops.items()):
            if watched.loop.is_closed():
                self._loops.pop(thread, None)
        return list(self._loops.values())


class _Watched:
    """One loop.

    Attributes:
        loop: which.
        waiting: whether it was asked to call back.
        lag_s: how late it was.
    """

    __slots__ = ("_due", "_limiter", "lag_s", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting = False
        self.lag_s = 0.0
        self._due = 0.0
        self._limiter: Any = None

    def begin(self) -> None:
        self.waiting = True
        self._due = self.loop.time() + INTERVAL_S
        self.loop.call_later(INTERVAL_S, self._called)
        if self._limiter is None and "anyio" in sys.modules:
            from anyio.to_thread import current_default_thread_limiter

            self._limiter = current_default_thread_limiter()

    def _called(self) -> None:
        self.waiting = False
        self.lag_s = max(self.loop.time() - self._due, self.lag_s / 2.0, 0.0)

    def threads_wanted(self) -> int:
        waiting = 0 if self._limiter is None else self._limiter.statistics().tasks_waiting
        executor = getattr(self.loop, "_default_executor", None)  # asyncio has no other name for it; uvloop has none
        queue = getattr(executor, "_work_queue", None)
        return int(waiting) + (0 if queue is None else int(queue.qsize()))
