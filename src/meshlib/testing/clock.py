"""Time that is set by hand: it moves when somebody waits for it, and when a test says so. Nothing really waits.

In a thread it jumps: a call that backs off for 100 ms is 100 ms later at once. In an event loop others may have
something to do before then, so it jumps to the earliest time that any task waits for, and only when nothing else goes
on: after some turns of the loop in which no task began or ended a wait, while no served application runs (it may be in
a thread of its framework's pool, which the loop does not show). So of two calls at the same time the faster one ends
first, and both together take no longer than the slower.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Final

from meshlib import context
from meshlib.durations import Duration, parse_duration

__all__ = ["SettableClock", "aside"]

_QUIET_TURNS: Final = 20
"""How many turns of the loop without news mean that every task waits. A request through a few layers of an application
takes fewer, and one that runs in an application is counted by itself."""

_POLL_S: Final = 0.001
"""How often, in real time, a task looks again that waits while an application runs in another thread."""


class _Activity:
    """A served application at work on one request; it may be waiting for calls of its own meanwhile."""

    __slots__ = ("waits",)

    def __init__(self) -> None:
        self.waits = 0


_activity: ContextVar[_Activity | None] = ContextVar("meshlib.testing.activity", default=None)


_aside: ContextVar[bool] = ContextVar("meshlib.testing.aside", default=False)


def aside() -> Context:
    """A context for what happens at the same time as something else in a thread, so that no time passes for it."""
    made = Context()
    made.run(_aside.set, True)
    return made


class SettableClock:
    """The clock of a `MeshFixture`. Thread-safe; time never goes back."""

    def __init__(self) -> None:
        # It starts near the machine's own time, so that what was noted before it came to be is not far off; on a whole
        # second, so that the same steps give the same numbers in each run.
        self._began = self._now = float(int(time.monotonic()))
        self._wall_ahead_s = time.time() - self._now
        self._lock = threading.Lock()
        self._wakes: list[float] = []
        self._news = 0
        self._activities: set[_Activity] = set()

    def __repr__(self) -> str:
        return f"<SettableClock at {self.elapsed:g}s>"

    def now(self) -> float:
        """Monotonic seconds, on the scale of `time.monotonic`."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._now + self._wall_ahead_s

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return round(self._now - self._began, 9)

    def advance(self, by: Duration) -> None:
        """Let time pass: ``mesh.clock.advance("10s")``.

        Args:
            by: ``"500ms"``, seconds, or a timedelta.

        Raises:
            ValueError: if it is not a duration.
        """
        self.move_to(self._now + parse_duration(by))

    def move_to(self, when: float) -> None:
        """Let it be `when`, on the scale of `now`; a time that has passed changes nothing."""
        with self._lock:
            self._now = max(self._now, when)
            self._news += 1

    def sleep(self, delay_s: float) -> None:
        """Be `delay_s` seconds later, at once."""
        if not _aside.get():
            self.move_to(self._now + max(0.0, delay_s))

    async def asleep(self, delay_s: float) -> None:
        """Wait until it is `delay_s` seconds later, which it is as soon as nothing comes before."""
        if _aside.get():
            return
        wake_at = self._now + max(0.0, delay_s)
        with self._awaiting(wake_at), self.waiting():
            seen, quiet = self._news, 0
            while self._now < wake_at:
                busy = any(not activity.waits for activity in tuple(self._activities))
                await asyncio.sleep(_POLL_S if busy else 0)
                if busy or seen != self._news:
                    seen, quiet = self._news, 0
                    continue
                quiet += 1
                if quiet >= _QUIET_TURNS and wake_at == min(self._wakes):
                    self.move_to(wake_at)

    @contextmanager
    def _awaiting(self, wake_at: float) -> Iterator[None]:
        with self._lock:
            self._wakes.append(wake_at)
            self._news += 1
        try:
            yield
        finally:
            with self._lock:
                self._wakes.remove(wake_at)
                self._news += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The application that runs here, if any, waits for something that has its own time."""
        activity = _activity.get()
        if activity is None:
            yield
            return
        with self._lock:
            activity.waits += 1
        try:
            yield
        finally:
            with self._lock:
                activity.waits -= 1
                self._news += 1

    @contextmanager
    def working(self) -> Iterator[Context]:
        """A served application works; it is to run in the context given, which is empty, as in another process."""
        activity = _Activity()
        inside = Context()
        inside.run(_activity.set, activity)
        self._activities.add(activity)
        try:
            yield inside
        finally:
            self._activities.discard(activity)
            with self._lock:
                self._news += 1

    # Deadlines set by `meshlib.timeout` and inherited by the middleware are points on the same clock as the calls'.

    def install(self) -> None:
        """Let all of meshlib in this process go by this clock, until `uninstall`; the last one installed holds."""
        _installed.append(self)
        context.monotonic = self.now

    def uninstall(self) -> None:
        """End what `install` began, if it did."""
        if self in _installed:
            _installed.remove(self)
        context.monotonic = _installed[-1].now if _installed else time.monotonic


_installed: list[SettableClock] = []
