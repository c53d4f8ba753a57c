"""Virtual time: an event heap. Nothing sleeps; time jumps from one event to the next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timer", "VirtualClock"]


class Timer:
    """Something to be done at a certain time, unless it is cancelled."""

    __slots__ = ("at", "what")

    def __init__(self, at: float, what: Callable[[], object]) -> None:
        self.at = at
        self.what: Callable[[], object] | None = what

    def cancel(self) -> None:
        """Do not do it."""
        self.what = None


class VirtualClock:
    """Runs what is due in order of time; of two things at the same time the one that was asked for first.

    Attributes:
        now: seconds, as on a monotonic clock.
    """

    __slots__ = ("_heap", "_serial", "now")

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = 0

    def at(self, time: float, what: Callable[[], object]) -> Timer:
        """Do `what` at `time`; at once, if that has passed."""
        timer = Timer(max(time, self.now), what)
        self._serial += 1
        heapq.heappush(self._heap, (timer.at, self._serial, timer))
        return timer

    def after(self, delay_s: float, what: Callable[[], object]) -> Timer:
        """Do `what` in `delay_s` seconds."""
        return self.at(self.now + delay_s, what)

    def run(self, until: float | None = None) -> None:
        """Do what is due, up to `until`; without it, all there is."""
        while self._heap and (until is None or self._heap[0][0] <= until):
            self.now, _, timer = heapq.heappop(self._heap)
            if timer.what is not None:
                timer.what()
        if until is not None:
            self.now = max(self.now, until)
