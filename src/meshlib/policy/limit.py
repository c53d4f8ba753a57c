"""Limits on the calls of a cluster: so many in flight, and so many more that wait in line for one of them to end.

A place that falls free is handed to one of those who wait rather than offered to all, so that nobody comes in between.
First in, first out, is fair; last in, first out, is what keeps an overloaded service useful: of calls that wait longer
than their callers do none is of use, while the last to come still has its time. A waiter that was handed a place and
gives up at the same moment passes it on.

The names and meanings are those of Envoy's circuit breakers (``max_requests`` is `max_in_flight` here, and
``max_pending_requests`` `max_pending`), except that Envoy lets requests wait for connections only.
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
    from meshlib.policy.traits import Reader

__all__ = ["LIMIT_FULL", "InFlightLimit", "LimitFull", "Waiter"]

_MAX_PENDING = 100


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

    Attributes:
        maximum: calls that may be in flight now; None for no limit. Changed by `resize` alone.
        max_pending: calls that may wait.
        rejected: calls that it refused.
        readers: what it must know of a request (`meshlib.policy.traits`).
        is_plain: whether `enter` is all that there is to ask it.
    """

    __slots__ = ("_lock", "_taken", "_waiting", "max_pending", "maximum", "rejected", "settings")

    name = "limit"
    readers: tuple[Reader, ...] = ()
    is_plain = True

    def __init__(self, settings: LimitSettings, max_pending: int = _MAX_PENDING) -> None:
        self.settings = settings
        self.maximum = settings.max_in_flight
        self.max_pending = max_pending if settings.max_pending is None else settings.max_pending
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
        if self.maximum is None:
            self._taken.append(None)
            return None
        with self._lock:
            if self._has_room() and not self._waiting:
                self._taken.append(None)
                return None
            if len(self._waiting) >= self.max_pending:
                self.rejected += 1
                return LIMIT_FULL
            waiter = Waiter(self)
            self._waiting.append(waiter)
            return waiter

    def exit(self) -> None:
        """Give a place back; one of those who wait gets it."""
        if self.maximum is None:
            self._give_back()
            if self._waiting:  # there is a limit since a moment ago
                self._hand_on()
            return
        callback = None
        with self._lock:
            self._give_back()
            if self._waiting and self._has_room():
                self._taken.append(None)
                callback = self._grant()
        if callback is not None:
            callback()

    def resize(self, maximum: int | None) -> None:
        """Allow so many from now on. Those under way stay; if there are more places, those who wait get them."""
        with self._lock:
            self.maximum = maximum
        self._hand_on()

    def change(self, settings: LimitSettings, max_pending: int = _MAX_PENDING) -> None:
        """Go by other settings from now on. Those under way and in line stay where they are."""
        self.settings = settings
        self.max_pending = max_pending if settings.max_pending is None else settings.max_pending
        self.resize(settings.max_in_flight)

    def _hand_on(self) -> None:
        """Give the places that there are to those who wait."""
        callbacks = []
        with self._lock:
            while self._waiting and self._has_room():
                self._taken.append(None)
                callbacks.append(self._grant())
        for callback in callbacks:
            if callback is not None:
                callback()

    def _has_room(self) -> bool:
        maximum = self.maximum
        return maximum is None or len(self._taken) < maximum

    def _grant(self) -> Callable[[], None] | None:
        waiter = self._waiting.pop() if self.settings.order == "lifo" else self._waiting.popleft()
        waiter.granted = True
        return waiter._callback

    # As a gate

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        place = self.enter()
        return self.full(call) if isinstance(place, LimitFull) else place

    def full(self, call: Placement) -> LimitExceeded:
        """The error of a call that found no place, not even in the line."""
        line = (
            f"{self.pending} {_wait(self.pending)} in line (max_pending)"
            if self.max_pending
            else "nobody may wait (max_pending: 0)"
        )
        count = self.in_flight
        calls, are = ("call", "is") if count == 1 else ("calls", "are")
        text = f"{count} {calls} to {_cluster(call)} {are} in flight (max_in_flight) and {line}"
        return LimitExceeded(text, gate=self.name, service=call.facts.service)

    def decide(self, now: float, call: Placement, token: Ready, late: bool) -> MeshError | None:
        """A place was granted, or the wait took too long."""
        if not late or (isinstance(token, Waiter) and token.granted):
            return None
        token.leave()
        with self._lock:
            self.rejected += 1
        text = f"no call to {_cluster(call)} ended within {self.settings.max_wait_s:.3g}s (max_wait)"
        return LimitExceeded(text, gate=self.name, service=call.facts.service)

    def patience_s(self, call: Placement, token: Ready) -> float | None:
        """As long as the deadline allows, unless the settings say otherwise."""
        return self.settings.max_wait_s

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """It does not look at outcomes."""

    def left(self, now: float, call: Placement) -> None:
        """Its place falls free."""
        self.exit()

    def note(self, now: float) -> str | None:
        """Whether it is reached."""
        if self.maximum is None or self.in_flight < self.maximum:
            return None
        return f"{self.in_flight} of {self.maximum} calls are in flight, {self.pending} {_wait(self.pending)} in line"

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


def _wait(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _cluster(call: Placement) -> str:
    return call.facts.service if call.cluster is None else call.cluster.name
