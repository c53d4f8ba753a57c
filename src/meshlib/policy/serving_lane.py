"""Those who wait to be served and are equally critical: fair among their callers.

Each caller has a line of its own, and places go round: one to each caller who waits, whoever sends how much (fair
queueing over callers, one request a turn). When there are too many the longest line loses. So a caller who sends most
loses most, and one who sends less than its share loses nothing as long as there is any room.

A caller is remembered only while it has a request here, so that there are never more of them than may wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from meshlib.policy.codel import Codel

if TYPE_CHECKING:
    from meshlib.context import Criticality

__all__ = ["Lane", "Waiter"]


class Waiter:
    """A request that waits. It is over when `granted` or `refused` is set; `on_over` is called then, once.

    Attributes:
        criticality, caller: whose it is.
        came_at: when it joined.
        leaves_at: when it is to give up.
        granted: whether it has a place.
        refused: why it gets none; empty while it may.
        on_over: called without a lock, from whichever thread; must not block.
    """

    __slots__ = ("caller", "came_at", "criticality", "deadline", "granted", "leaves_at", "on_over", "refused")

    def __init__(
        self, criticality: Criticality, caller: Hashable, came_at: float, leaves_at: float, deadline: float | None
    ) -> None:
        self.criticality = criticality
        self.caller = caller
        self.came_at = came_at
        self.leaves_at = leaves_at
        self.deadline = deadline
        self.granted = False
        self.refused = ""
        self.on_over: Callable[[], None] | None = None

    def why_late(self, now: float) -> str:
        """Why it gives up now: its deadline has passed, or it has waited for long enough."""
        return "expired" if self.deadline is not None and self.deadline <= now else "queue_timeout"


class Lane:
    """Those of one criticality. Whoever owns it holds a lock around each use.

    Attributes:
        codel: watches the queue as those of this lane see it: they and whoever goes before them.
        lines: of those who wait, by caller, in the order of their turns.
        count: how many wait here.
    """

    __slots__ = ("codel", "count", "lines")

    def __init__(self) -> None:
        self.codel = Codel()
        self.lines: OrderedDict[Hashable, deque[Waiter]] = OrderedDict()
        self.count = 0

    def join(self, waiter: Waiter) -> None:
        """Stand last in its caller's line; a caller who has none yet is the last to have a turn."""
        line = self.lines.get(waiter.caller)
        if line is None:
            line = self.lines[waiter.caller] = deque()
        line.append(waiter)
        self.count += 1

    def next(self, newest: bool) -> Waiter:
        """Take out whose turn it is: of the next caller, the one that came last, or first."""
        caller, line = next(iter(self.lines.items()))
        waiter = line.pop() if newest else line.popleft()
        self.count -= 1
        if line:
            self.lines.move_to_end(caller)
        else:
            del self.lines[caller]
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Take out one of them."""
        line = self.lines[waiter.caller]
        line.remove(waiter)
        self.count -= 1
        if not line:
            del self.lines[waiter.caller]

    def longest(self) -> Hashable:
        """Who has most waiting here."""
        return max(self.lines, key=lambda caller: len(self.lines[caller]))

    def last(self, caller: Hashable, newest: bool) -> Waiter:
        """Who of a caller would be served last, where the newest goes first or not."""
        line = self.lines[caller]
        return line[0] if newest else line[-1]
