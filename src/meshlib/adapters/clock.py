"""Time as the drivers see it: real, or in tests settable. The core never asks; the drivers pass `now` in."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "RealClock"]


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for dates in headers."""
        ...

    def sleep(self, delay_s: float) -> None:
        """Block this thread for `delay_s`."""
        ...

    async def asleep(self, delay_s: float) -> None:
        """Suspend this task for `delay_s`."""
        ...


class RealClock:
    """The machine's clock."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    @staticmethod
    async def asleep(delay_s: float) -> None:
        """Suspend this task for `delay_s`."""
        import asyncio

        await asyncio.sleep(delay_s)
