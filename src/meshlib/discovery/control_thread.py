"""The thread of the control plane: it calls functions, soon or later, and runs an event loop once there is one.

Until then it waits on a lock. Much needs no loop: events to hand on, connections to close, services whose endpoints are
written in the configuration. A program of threads that needs nothing else never loads asyncio.
"""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from meshlib.discovery.threads import native_lock, start_thread

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from meshlib.discovery.control_loop import ControlLoop

__all__ = ["ControlThread", "Timer", "never"]

_log = logging.getLogger("meshlib")


class Timer:
    """A function that will be called, unless it is cancelled."""

    __slots__ = ("_function", "_handle", "when")

    def __init__(self, when: float, function: Callable[[], object]) -> None:
        self.when = when
        self._function: Callable[[], object] | None = function
        self._handle: TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether it was neither called nor cancelled."""
        return self._function is not None

    def cancel(self) -> None:
        """Never call it. In the control thread, or while there is no loop."""
        self._function = None
        if self._handle is not None:
            self._handle.cancel()

    def fire(self) -> None:
        """Call it. In the control thread."""
        function, self._function = self._function, None
        if function is not None:
            _call(function)

    def hand_over(self, loop: ControlLoop) -> None:
        """Have `loop` fire it. In the control thread."""
        if self.pending:
            self._handle = loop.call_at(self.when, self.fire)


def never(function: Callable[[], object]) -> Timer:
    """A timer that does not call `function`."""
    return Timer(math.inf, function)


class ControlThread:
    """The thread, which starts at once.

    Attributes:
        loop: None until something needed it.
    """

    def __init__(self, name: str) -> None:
        self.loop: ControlLoop | None = None
        self._functions: deque[Callable[[], object]] = deque()
        self._timers: list[Timer] = []
        # Released when there is something to do. No lock guards the rest: a finalizer may add a function while the same
        # thread adds another.
        self._added = native_lock()
        self._added.acquire()
        self._finished = native_lock()
        self._finished.acquire()
        self._stopping = False
        self._ended = False
        self._grace_s = 5.0
        self._thread_id: int | None = None
        start_thread(self._run, name)

    def is_current(self) -> bool:
        """Whether the caller runs in it."""
        return self._thread_id == threading.get_native_id()

    def ensure_loop(self, make: Callable[[], ControlLoop]) -> ControlLoop:
        """Return the loop; `make` it if there is none. Not after `stop`, nor in two threads at once."""
        if self.loop is None:
            self.loop = make()
            self._wake()
        return self.loop

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have `function` called, after those given before. From any thread.

        Raises:
            RuntimeError: if the thread has ended.
        """
        self._functions.append(function)
        if self._ended:
            with suppress(ValueError):  # else it was called with the last ones
                self._functions.remove(function)
                raise RuntimeError("the control thread has ended")
        elif self.loop is None:
            self._wake()
        else:
            with suppress(RuntimeError):  # the loop is closed: the thread calls what is left, then ends
                self.loop.call_soon(self._call_added)

    def call_later(self, delay_s: float, function: Callable[[], object]) -> Timer:
        """Have `function` called in `delay_s` seconds. From any thread."""
        timer = Timer(time.monotonic() + delay_s, function)
        if self.is_current():
            self._set(timer)
        else:
            self.call_soon(partial(self._set, timer))
        return timer

    def call_every(self, period_s: float, function: Callable[[], object]) -> None:
        """Have `function` called every `period_s` seconds until the end, also after it failed. From any thread."""

        def again() -> None:
            self.call_later(period_s, again)
            function()

        self.call_later(period_s, again)

    def stop(self, grace_s: float) -> None:
        """End, after all that was asked for before; tasks have `grace_s` seconds. Not while a loop is being made."""
        self._grace_s = grace_s
        if self.loop is None:
            self._stopping = True
            self._wake()
        else:
            self.loop.stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end. Return whether it came in time."""
        if self._finished.acquire(timeout=max(0.0, timeout_s)):
            self._finished.release()
            return True
        return False

    def _wake(self) -> None:
        with suppress(RuntimeError):  # it is about to wake
            self._added.release()

    def _set(self, timer: Timer) -> None:
        if self.loop is None:
            self._timers.append(timer)
        else:
            timer.hand_over(self.loop)

    def _run(self) -> None:
        self._thread_id = threading.get_native_id()
        try:
            self._run_without_loop()
            if self.loop is not None:
                self._run_loop(self.loop)
        except Exception:
            _log.exception("the control loop ended by an error")
        finally:
            self._ended = True
            self._call_added()
            self._finished.release()

    def _run_without_loop(self) -> None:
        while self.loop is None and not self._stopping:
            self._timers = [timer for timer in self._timers if timer.pending]
            next_at = min((timer.when for timer in self._timers), default=None)
            self._added.acquire(timeout=-1 if next_at is None else max(0.0, next_at - time.monotonic()))
            self._call_added()
            now = time.monotonic()
            for timer in [timer for timer in self._timers if timer.when <= now]:
                timer.fire()

    def _run_loop(self, loop: ControlLoop) -> None:
        for timer in self._timers:
            timer.hand_over(loop)
        self._timers.clear()
        loop.call_soon(self._call_added)
        loop.run(lambda: self._grace_s)

    def _call_added(self) -> None:
        # Not those that these add: they come next time, as an end may.
        for _ in range(len(self._functions)):
            _call(self._functions.popleft())


def _call(function: Callable[[], object]) -> None:
    try:
        contextvars.Context().run(function)
    except BaseException:  # also what is meant to end a program: it would end the control plane alone
        _log.exception("control plane: %r failed", function)
