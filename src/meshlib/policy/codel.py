"""How long one may wait in a queue: controlled delay (CoDel) as Facebook runs it before its services.

    timeout = target      if the queue was last empty longer than `interval` ago: it stands
    timeout = interval    else

A queue that takes up a burst is good, and empties soon after. One that stands only makes everybody late: what it holds
is as much after each request served as before. Then those who come are not let wait, until it is empty again. A
request's timeout is set when it joins.

Source: Ben Maurer, "Fail at Scale" (ACM Queue 13(8), 2015), with M = 5 ms for `target` and N = 100 ms for `interval`;
after Nichols and Jacobson, "Controlling Queue Delay" (2012).
"""

from __future__ import annotations

__all__ = ["Codel"]


class Codel:
    """Watches one queue. Whoever owns it holds a lock around each use.

    Attributes:
        count: of those who wait.
    """

    __slots__ = ("_last_empty", "count")

    def __init__(self) -> None:
        self.count = 0
        self._last_empty = 0.0

    def joined(self, now: float) -> None:
        """One more waits."""
        if self.count == 0:
            self._last_empty = now
        self.count += 1

    def left(self) -> None:
        """One waits no more."""
        self.count -= 1

    def stands(self, now: float, interval_s: float) -> bool:
        """Whether the queue was not empty for longer than `interval_s`."""
        return self.count > 0 and now - self._last_empty > interval_s

    def timeout_s(self, now: float, interval_s: float, target_s: float) -> float:
        """How long one who joins now may wait."""
        return target_s if self.stands(now, interval_s) else interval_s
