"""Admission at the callee's side: how many requests are served at once, who waits, and who is refused.

    limit       a fixed number, or one that finds itself from the times of the handlers (`meshlib.policy.adaptive`)
    queue       short and bounded; how long one may wait in it is up to CoDel (`meshlib.policy.codel`), and while it
                stands the last that came is served first, for of those who wait longest nobody waits for the answer
    criticality strict: a more critical request goes before all less critical ones, sees in the queue only those who
                go before it, and takes the place of one of the others where the queue is full
    headroom    while more critical ones come, the less critical get in only below their share of the limit in use, so
                that there is a place for the next critical one at once (trunk reservation, as telephone exchanges
                have it; Netflix sheds each priority beyond a utilization of its own)
    callers     fair among themselves (`meshlib.policy.serving_lane`); one who has less than an equal share of all that
                is here is let wait as if the queue did not stand

A refusal says after how long the queue will have drained. That a repeat cannot help anywhere it says only where many
of the requests are repetitions themselves, which they would not be if others had room: Google's SRE book, chapter 21.

The queue of Facebook's "Fail at Scale" has neither criticality nor callers: where all requests are alike in both, this
is that queue.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from math import inf
from random import Random
from typing import Final

from meshlib.context import Criticality
from meshlib.dataclass import dataclass
from meshlib.policy.adaptive import Algorithm, algorithm_of
from meshlib.policy.serving_lane import Lane, Waiter
from meshlib.policy.serving_settings import AdmissionSettings

__all__ = ["CALM_S", "REASONS", "ServingQueue", "Shed", "Waiter"]

REASONS: Final = ("queue_full", "queue_timeout", "outranked", "over_share", "expired", "gone")
"""Why one is refused: the queue is full; it waited for as long as it may; its place went to a more critical one, or to
a caller with fewer; its deadline passed, or its client went away, while it waited."""

CALM_S: Final = 5.0
"""For so long nobody is refused before shedding is taken to have ended."""

_HELPLESS = frozenset({"queue_full", "queue_timeout", "outranked"})
_REMEMBERED_S = 10.0
_LONGEST_RETRY_AFTER_S = 60.0
_OF_RETRIES = 0.01
_OF_TIMES = 0.1


@dataclass(frozen=True, slots=True)
class Shed:
    """A request is refused.

    Attributes:
        reason: one of `REASONS`.
        retry_after_s: by when the queue will have drained.
        final: whether a repeat would not help, here or at another endpoint.
    """

    reason: str
    retry_after_s: float = 1.0
    final: bool = False


class ServingQueue:
    """The requests of one process. Exact under threads; no lock is held while others are called.

    Attributes:
        settings: as of the last `change`.
        in_flight: requests that have a place.
        pending: requests that wait.
        admitted: requests that got a place, ever.
        waited, waited_s: of those how many had to wait, and for how long together.
        shed: how many were refused, by reason and criticality.
        shedding_since, losing_since: since when any, and since when critical ones, are refused; None if they are not.
    """

    def __init__(self, settings: AdmissionSettings, now: float, rng: Random) -> None:
        self.settings = settings
        self.in_flight = self.pending = 0
        self.admitted = self.waited = 0
        self.waited_s = 0.0
        self.shed: dict[tuple[str, Criticality], int] = {}
        self.shedding_since: float | None = None
        self.losing_since: float | None = None
        self._rng = rng
        self._lock = threading.Lock()
        self._lanes = [Lane() for _ in Criticality]
        self._callers: dict[Hashable, int] = {}
        self._ends: deque[tuple[float, float, bool | None, Hashable, float, Waiter | None]] = deque()
        self._algorithm: Algorithm | None = None
        self._seen = [-inf] * len(Criticality)
        self._last_shed = self._last_lost = now
        self._full_since: float | None = None
        self._mean_s = 0.0
        self._retries = 0.0
        self._set(settings, now)

    @property
    def limit(self) -> int:
        """Requests that may be served at once, now."""
        most = self.settings.max_in_flight
        if self._algorithm is None:
            return 1 if most is None else most
        found = self._algorithm.limit
        return found if most is None else min(found, most)

    def stuck_s(self, now: float) -> float:
        """For how long all places have been taken without any request having ended."""
        since = self._full_since
        return 0.0 if since is None else max(0.0, now - since)

    def enter(
        self,
        now: float,
        criticality: Criticality,
        caller: Hashable = None,
        deadline: float | None = None,
        retry: bool | None = None,
    ) -> Waiter | Shed | None:
        """A request came.

        Args:
            now: on the clock of all that follows.
            criticality: of the request.
            caller: whose it is; always None where callers are not told apart.
            deadline: until when somebody waits for the answer; None if nobody said.
            retry: whether it is a repetition; None if nobody said.

        Returns:
            None: it has a place; `end` gives it back. A `Waiter`: it waits, and `watch` tells of the end of that;
            `give_up` when its `leaves_at` is reached or it is not wanted any more. `Shed`: it is refused.
        """
        over: list[Waiter] = []
        answer: Waiter | Shed | None = None
        with self._lock:
            self._seen[criticality] = now
            if retry is not None:
                self._retries += (retry - self._retries) * _OF_RETRIES
            if self._algorithm is not None:
                self._algorithm.advance(now)
            if self.shedding_since is not None:
                self._calm(now)
            lane = self._lanes[criticality]
            if not lane.codel.count and self.in_flight < self._places(criticality, now):
                self._let_in(now, caller)
            else:
                answer = self._join(now, lane, criticality, caller, deadline, over)
        self._after(over)
        return answer

    def watch(self, waiter: Waiter, on_over: Callable[[], None]) -> None:
        """Have `on_over` called when the waiter has a place, or gets none; at once, if it is so already."""
        with self._lock:
            waiter.on_over = on_over
            over = waiter.granted or waiter.refused
        self._after([])
        if over:
            on_over()

    def give_up(self, now: float, waiter: Waiter, reason: str = "") -> Shed | None:
        """Its time is over, or it is not wanted any more.

        Args:
            now: the time.
            waiter: one that `enter` returned.
            reason: why; by default, because it is late.

        Returns:
            None if it has a place meanwhile, to be given back by `end`. Else its refusal.
        """
        with self._lock:
            if not (waiter.granted or waiter.refused):
                self._take_out(waiter)
                self._refuse(now, waiter, reason or waiter.why_late(now))
            shed = None if waiter.granted else self._shed(waiter.refused)
        self._after([])
        return shed

    def settle(self, now: float) -> None:
        """Refuse all who are late: for a driver that has no timers."""
        over: list[Waiter] = []
        with self._lock:
            self._settle(now, over)
        self._after(over)

    def end(
        self,
        now: float,
        took_s: float,
        ok: bool | None = True,
        caller: Hashable = None,
        blocked_s: float = 0.0,
        waiter: Waiter | None = None,
    ) -> None:
        """A request that had a place is over. This may be called from a finalizer, wherever that runs.

        Args:
            now: the time.
            took_s: since it had its place.
            ok: False if it was too late (a drop, to what adapts the limit); None if nothing is to be learnt of it.
            caller: as it was given to `enter`.
            blocked_s: for how long of that its client did not read, which says nothing of the work.
            waiter: of one that was not kept waiting, and may have no place.
        """
        self._ends.append((now, took_s, ok, caller, blocked_s, waiter))
        self._after([])

    def change(self, settings: AdmissionSettings, now: float) -> None:
        """Go by other settings from now on. Who has a place keeps it, and who waits goes on waiting."""
        over: list[Waiter] = []
        with self._lock:
            self._set(settings, now)
            self._hand_on(now, over)
        self._after(over)

    def renew(self, now: float) -> None:
        """After a fork, in the child: the parent's requests are not ours."""
        self._lock = threading.Lock()
        self.in_flight = self.pending = 0
        self._lanes = [Lane() for _ in Criticality]
        self._callers = {}
        self._ends.clear()
        self._full_since = self.shedding_since = self.losing_since = None

    def shed_by_reason(self) -> dict[str, int]:
        """How many were refused, by reason."""
        with self._lock:
            found = dict.fromkeys(REASONS, 0)
            for (reason, _), count in self.shed.items():
                found[reason] += count
        self._after([])
        return {reason: count for reason, count in found.items() if count}

    def _after(self, over: list[Waiter]) -> None:
        """What is due when the lock was given back: who waited is told, and ends are worked off.

        An end takes the lock only if it is free: a finalizer may run in the middle of what this very thread does with
        it. Otherwise whoever has the lock comes by here next, and finds the end that was put down before.
        """
        for waiter in over:
            if waiter.on_over is not None:
                waiter.on_over()
        while self._ends and self._lock.acquire(blocking=False):
            over = []
            try:
                while self._ends:
                    self._end(*self._ends.popleft(), over)
            finally:
                self._lock.release()
            for waiter in over:
                if waiter.on_over is not None:
                    waiter.on_over()

    # All that follows is called with the lock held

    def _settle(self, now: float, over: list[Waiter]) -> None:
        if self.pending:
            waiting = [each for lane in self._lanes for line in lane.lines.values() for each in line]
            for waiter in waiting:
                if waiter.leaves_at <= now:
                    self._take_out(waiter)
                    self._refuse(now, waiter, waiter.why_late(now))
                    over.append(waiter)

    def _end(
        self,
        now: float,
        took_s: float,
        ok: bool | None,
        caller: Hashable,
        blocked_s: float,
        waiter: Waiter | None,
        over: list[Waiter],
    ) -> None:
        if waiter is not None:
            self._settle(now, over)
            if not (waiter.granted or waiter.refused):
                self._take_out(waiter)
                self._refuse(now, waiter, "gone")
            if waiter.refused:
                return
        if ok is not None and 0.0 <= took_s < inf:
            self._mean_s += (took_s - self._mean_s) * (_OF_TIMES if self._mean_s else 1.0)
            if self._algorithm is not None:
                self._algorithm.ended(now, now - took_s, max(0.0, took_s - blocked_s), self.in_flight, not ok)
        if self.in_flight:  # else it began in the parent of this process
            self.in_flight -= 1
            self._forget(caller)
        self._full_since = None
        if self.shedding_since is not None:
            self._calm(now)
        if self.pending:
            self._hand_on(now, over)
        if self.in_flight >= self.limit:
            self._full_since = now

    def _set(self, settings: AdmissionSettings, now: float) -> None:
        adaptive = settings.adaptive
        if self._algorithm is None or adaptive != self.settings.adaptive:
            self._algorithm = None if adaptive is None else algorithm_of(adaptive, now, self._rng)
        self.settings = settings
        shares = settings.shares
        self._percents = (shares.sheddable_percent, shares.sheddable_plus_percent, shares.critical_percent, 100.0)

    def _places(self, criticality: Criticality, now: float) -> int:
        """How many may be in flight for one of this criticality to get in."""
        limit = self.limit
        for higher in self._seen[criticality + 1 :]:
            if 0.0 <= now - higher <= _REMEMBERED_S:
                return max(1, int(limit * self._percents[criticality] / 100.0 + 1e-9))
        return limit

    def _newest_first(self, lane: Lane, now: float) -> bool:
        order = self.settings.order
        return order == "lifo" or (order == "adaptive" and lane.codel.stands(now, self.settings.interval_s))

    def _let_in(self, now: float, caller: Hashable) -> None:
        self.in_flight += 1
        self.admitted += 1
        if caller is not None:
            self._callers[caller] = self._callers.get(caller, 0) + 1
        if self._full_since is None and self.in_flight >= self.limit:
            self._full_since = now

    def _forget(self, caller: Hashable) -> None:
        if caller is not None and (left := self._callers.get(caller, 0)):
            if left > 1:
                self._callers[caller] = left - 1
            else:
                del self._callers[caller]

    def _join(
        self,
        now: float,
        lane: Lane,
        criticality: Criticality,
        caller: Hashable,
        deadline: float | None,
        over: list[Waiter],
    ) -> Waiter | Shed:
        if self.pending >= self.settings.max_pending:
            loser = self._loser(now, lane, criticality, caller)
            if isinstance(loser, str):
                self._count(now, loser, criticality)
                return self._shed(loser)
            waiter, reason = loser
            self._take_out(waiter)
            self._refuse(now, waiter, reason)
            over.append(waiter)
        interval_s = self.settings.interval_s
        timeout_s = lane.codel.timeout_s(now, interval_s, self.settings.target_s)
        if caller is not None and timeout_s < interval_s and self._has_little(caller):
            timeout_s = interval_s
        leaves_at = now + timeout_s if deadline is None else min(now + timeout_s, deadline)
        waiter = Waiter(criticality, caller, now, leaves_at, deadline)
        lane.join(waiter)
        for each in self._lanes[: criticality + 1]:
            each.codel.joined(now)
        self.pending += 1
        if caller is not None:
            self._callers[caller] = self._callers.get(caller, 0) + 1
        return waiter

    def _has_little(self, caller: Hashable) -> bool:
        """Whether, with one more, it has no more than an equal share of all that is served or waits."""
        own = self._callers.get(caller, 0)
        return (own + 1) * (len(self._callers) + (not own)) <= self.in_flight + self.pending

    def _loser(self, now: float, lane: Lane, criticality: Criticality, caller: Hashable) -> tuple[Waiter, str] | str:
        """Who leaves the full queue for one who comes, and why; or why that one is refused itself."""
        if not self.pending:  # nobody may wait at all
            return "queue_full"
        lowest = next(each for each in self._lanes if each.count)
        newest = self._newest_first(lowest, now)
        longest = lowest.longest()
        if lowest is not lane:
            if self._lanes.index(lowest) > criticality:
                return "queue_full"
            return lowest.last(longest, newest), "outranked"
        own = len(lane.lines.get(caller, ()))
        most = len(lane.lines[longest])
        if own + 1 < most:
            return lane.last(longest, newest), "over_share"
        if newest:
            # Of those who wait the oldest is of least use to anybody: the one who comes takes its place.
            return lane.last(caller if own else longest, newest), "queue_full"
        return "over_share" if own == most and len(lane.lines) > 1 else "queue_full"

    def _take_out(self, waiter: Waiter) -> None:
        self._lanes[waiter.criticality].remove(waiter)
        self._left(waiter)
        self._forget(waiter.caller)

    def _left(self, waiter: Waiter) -> None:
        for each in self._lanes[: waiter.criticality + 1]:
            each.codel.left()
        self.pending -= 1

    def _hand_on(self, now: float, over: list[Waiter]) -> None:
        """Give the places that there are to those who wait, the most critical first."""
        for criticality in reversed(Criticality):
            lane = self._lanes[criticality]
            while lane.count and self.in_flight < self._places(criticality, now):
                waiter = lane.next(self._newest_first(lane, now))
                self._left(waiter)
                self._forget(waiter.caller)
                if waiter.deadline is not None and waiter.deadline <= now:
                    self._refuse(now, waiter, "expired")
                else:  # it may be late, where this process was held up: better served than a place left free
                    waiter.granted = True
                    self._let_in(now, waiter.caller)
                    self.waited += 1
                    self.waited_s += max(0.0, now - waiter.came_at)
                over.append(waiter)

    def _refuse(self, now: float, waiter: Waiter, reason: str) -> None:
        waiter.refused = reason
        self._count(now, reason, waiter.criticality)

    def _count(self, now: float, reason: str, criticality: Criticality) -> None:
        key = reason, criticality
        self.shed[key] = self.shed.get(key, 0) + 1
        if reason == "gone":
            return
        self._last_shed = now
        if self.shedding_since is None:
            self.shedding_since = now
        if criticality >= Criticality.CRITICAL:
            self._last_lost = now
            if self.losing_since is None:
                self.losing_since = now

    def _calm(self, now: float) -> None:
        if not 0.0 <= now - self._last_shed <= CALM_S:
            self.shedding_since = None
        if self.losing_since is not None and not 0.0 <= now - self._last_lost <= CALM_S:
            self.losing_since = None

    def _shed(self, reason: str) -> Shed:
        drained_s = (self.pending + 1) * self._mean_s / max(1, self.limit)
        final = reason in _HELPLESS and self._retries * 100.0 >= self.settings.retries_percent
        return Shed(reason, max(1.0, min(_LONGEST_RETRY_AFTER_S, drained_s)), final)
