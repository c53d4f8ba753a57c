"""Limits on the calls of a cluster: so many in flight, and so many more that wait in line for one of them to end.

A place that falls free is handed to the longest waiting call (first in, first out) rather than offered to all, so that
nobody is overtaken. A waiter that was handed a place and gives up at the same moment passes it on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.errors import LimitExceeded, MeshError
from meshlib.policy.settings import LimitSettings

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement

__all__ = ["LIMIT_FULL", "InFlightLimit", "LimitFull", "Waiter"]


class LimitFull:
    """The answer of `InFlightLimit.enter` when the line is full too."""

    __slots__ = ()


LIMIT_FULL = LimitFull()


class Waiter:
    """A place in the line. `on_ready` is called once, from whichever thread freed a place, and must not block."""

    __slots__ = ("_callback", "_limit", "granted")

    def __init__(self, limit: InFlightLimit) -> None:
        self._limit = limit
        self._callback: Callable[[], None] | None = None
        self.granted = False

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the place is granted; at once, if it already is."""
        with self._limit._lock:
            self._callback = callback
            granted = self.granted
        if granted:
            callback()

    def leave(self) -> None:
        """Give up: leave the line, or pass on the place that was granted."""
        self._limit._leave(self)


class InFlightLimit:
    """The limit of one cluster, and a gate. Counts are exact under threads.

    The places taken are the length of a list. To append to one and to pop from it is exact without a lock, with the GIL
    and without it, so that where there is no limit a call pays for none.
    """

    __slots__ = ("_lock", "_taken", "_waiting", "rejected", "settings")

    name = "limit"

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self.rejected = 0
        self._taken: list[None] = []
        self._waiting: deque[Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._taken)

    @property
    def pending(self) -> int:
        """Calls that wait in line."""
        return len(self._waiting)

    def enter(self) -> Waiter | LimitFull | None:
        """Take a place. None: taken. A `Waiter`: wait for it. `LIMIT_FULL`: the line is full."""
        limit = self.settings.max_in_flight
        if limit is None:
            self._taken.append(None)
            return None
        with self._lock:
            if len(self._taken) < limit and not self._waiting:
                self._taken.append(None)
                return None
            if len(self._waiting) >= self.settings.max_pending:
                self.rejected += 1
                return LIMIT_FULL
            waiter = Waiter(self)
            self._waiting.append(waiter)
            return waiter

    def exit(self) -> None:
        """Give a place back; the first in line gets it."""
        if self.settings.max_in_flight is None:
            self._give_back()
            return
        callback = None
        with self._lock:
            if self._waiting:
                waiter = self._waiting.popleft()
                waiter.granted = True
                callback = waiter._callback
            else:
                self._give_back()
        if callback is not None:
            callback()

    # As a gate

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        place = self.enter()
        return self.full(call) if isinstance(place, LimitFull) else place

    def full(self, call: Placement) -> LimitExceeded:
        """The error of a call that found no place, not even in the line."""
        cluster = call.cluster
        name = call.facts.service if cluster is None else cluster.name
        text = f"{self.in_flight} calls to {name} are in flight and its queue is full"
        return LimitExceeded(text, service=call.facts.service)

    def decide(self, now: float, call: Placement, token: Ready | None) -> MeshError | None:
        """A place was granted."""
        return None

    def patience_s(self, call: Placement) -> float | None:
        """As long as the deadline allows."""
        return None

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """It does not look at outcomes."""

    def left(self, now: float, call: Placement) -> None:
        """Its place falls free."""
        self.exit()

    def _give_back(self) -> None:
        try:
            self._taken.pop()
        except IndexError:  # it was taken in the parent of this process
            return

    def _leave(self, waiter: Waiter) -> None:
        with self._lock:
            if not waiter.granted:
                # It may have left before: leaving twice is harmless.
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                return
            waiter.granted = False
        self.exit()

    def renew_lock(self) -> None:
        """After a fork, in the child: the parent's calls are not ours, and its waiters will not come."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self._taken = []
