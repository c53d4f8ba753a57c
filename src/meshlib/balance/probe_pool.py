"""What a client lately heard of its servers' load, and which of them it would call: the probe pool of Prequal.

Each entry is the answer to a probe: the requests in flight at a server, and the time that a request takes there at
about that many. There is one for each server at most, the newest. The *hot* ones have more in flight than the quantile
`hot_percent` of the numbers heard of late, the others are *cold*. Picked is the cold one with the lowest latency; where
all are hot, the one with the fewest in flight. This is the rule "hot-cold lexicographic" of Wydrowski et al., "Load is
not what you should balance: Introducing Prequal", NSDI 2024, section 4, and so is what keeps the pool fresh:

- an entry lives for `max_age_s`, and the oldest makes room when the pool is full;
- what is sent to a server counts as in flight there at once, in its entry, before the server says so itself;
- an entry is used a bounded number of times, ``max(1, (1 + delta) / ((1 - m / n) * probes - removals))`` with `m`
  places for `n` servers, rounded by chance;
- for each call `removals` entries go, in turn the oldest and the worst: the hot one with the most in flight, and where
  none is hot the one with the highest latency. Without that what is left in a pool are the bad ones.

With few servers nearly each probe renews an entry that is there, and the denominator comes to nothing or less: then an
entry is used once. In between the bound is `MAX_USES`, for more only has callers meet at the same server.

Ours is that calls and answers keep to each other. Were each answer used, all servers would get the same, since all are
probed alike; the pool is as good as what is left of it unused. So where fewer answers come than `probes` for each call
(there is a bound on their number, and some are lost), the pool picks for as many calls as there are answers for, and
for the others nobody.

And so is what is not believed: no server has fewer in flight than this client itself has there, and one that failed
counts with what failing costs (`meshlib.balance.load`), however fast it says it is.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from math import inf
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Member, Usable
from meshlib.balance.settings import PrequalSettings

if TYPE_CHECKING:
    from meshlib.balance.reported import Reported

__all__ = ["LEAST", "MAX_USES", "Entry", "ProbePool", "reuse"]

LEAST = 2
"""With fewer entries than this there is no choice, and the pool picks nobody."""

MAX_USES = 1.5
_HEARD = 64
"""Of so many of the last answers the quantile is taken."""


def reuse(settings: PrequalSettings, servers: int) -> float:
    """How many calls an entry serves, on average."""
    fresh = (1.0 - min(1.0, settings.pool_size / servers)) * settings.probes - settings.removals
    return max(1.0, min(MAX_USES, (1.0 + settings.delta) / fresh)) if fresh > 0.0 else 1.0


class Entry:
    """What a server said last.

    Attributes:
        member: the server.
        in_flight: requests there, as it said, and those sent there since.
        latency_s: that a request takes there.
        at: when it said so.
        uses: how many calls may go by it still.
    """

    __slots__ = ("at", "in_flight", "latency_s", "member", "uses")

    def __init__(self, member: Member, in_flight: float, latency_s: float, at: float, uses: int) -> None:
        self.member = member
        self.in_flight = in_flight
        self.latency_s = latency_s
        self.at = at
        self.uses = uses


class ProbePool:
    """The pool of one balancer. Safe under threads."""

    __slots__ = (
        "_answers",
        "_entries",
        "_heard",
        "_limit",
        "_lock",
        "_oldest_next",
        "_owed",
        "_reuse",
        "_settings",
        "_sorted",
    )

    def __init__(self, settings: PrequalSettings, servers: int) -> None:
        self._settings = settings
        self._reuse = reuse(settings, servers)
        self._entries: list[Entry] = []  # the oldest first
        self._heard: deque[float] = deque()
        self._sorted: list[float] = []
        self._limit = inf
        self._answers = 0.0  # that no call has gone by yet
        self._owed = 0.0
        self._oldest_next = True
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, member: Member, in_flight: float, latency_s: float, now: float, rng: Random) -> None:
        """A server has answered a probe.

        Args:
            member: the server.
            in_flight: what it said, neither negative nor NaN.
            latency_s: likewise.
            now: on the monotonic clock.
            rng: rounds the number of uses.
        """
        in_flight = max(in_flight, float(member.node.in_flight))
        uses = int(self._reuse + rng.random())
        with self._lock:
            self._hear(in_flight)
            self._answers = min(self._answers + 1.0, float(self._settings.pool_size))
            entries = self._entries
            for at, entry in enumerate(entries):
                if entry.member.load is member.load:
                    del entries[at]
                    break
            else:
                if len(entries) >= self._settings.pool_size:
                    del entries[0]
            entries.append(Entry(member, in_flight, latency_s, now, uses))

    def refresh(self, said: Reported, in_flight: float, latency_s: float, now: float) -> None:
        """A server has said so with the answer to a call: that renews its entry, not how often that may be used.

        So a server cannot keep itself in the pool by what it says of itself: only probes, which go to all alike, do.
        """
        with self._lock:
            for at, entry in enumerate(self._entries):
                if entry.member.load.reported is said:
                    del self._entries[at]
                    entry.in_flight = max(in_flight, float(entry.member.node.in_flight))
                    entry.latency_s, entry.at = latency_s, now
                    self._hear(entry.in_flight)
                    self._entries.append(entry)
                    return

    def pick(self, now: float, usable: Usable | None) -> Member | None:
        """The best of those that may be used; None with too few to choose among."""
        with self._lock:
            entries, max_age_s = self._entries, self._settings.max_age_s
            while entries and not 0.0 <= now - entries[0].at < max_age_s:  # the clock may have gone back
                del entries[0]
            if len(entries) < LEAST or self._answers < self._settings.probes:
                return None
            limit = self._limit
            best: Entry | None = None
            fewest: Entry | None = None
            least_s = few = inf
            for entry in entries:
                if usable is not None and not usable(entry.member):
                    continue
                in_flight = entry.in_flight
                if in_flight <= limit:
                    load = entry.member.load
                    latency_s = max(entry.latency_s, load.cost(now)) if load.penalty_s else entry.latency_s
                    if best is None or latency_s < least_s:
                        best, least_s = entry, latency_s
                elif fewest is None or in_flight < few:
                    fewest, few = entry, in_flight
            found = best or fewest
            if found is None:
                return None
            self._answers -= self._settings.probes
            found.in_flight += 1.0
            found.uses -= 1
            if found.uses <= 0:
                entries.remove(found)
            self._owed += self._settings.removals
            while self._owed >= 1.0:
                self._owed -= 1.0
                self._remove()
            return found.member

    def _remove(self) -> None:
        entries = self._entries
        self._oldest_next = not self._oldest_next
        if len(entries) <= LEAST:
            return
        if not self._oldest_next:
            del entries[0]
            return
        worst = max(entries, key=_in_flight)
        if worst.in_flight <= self._limit:
            worst = max(entries, key=_latency)
        entries.remove(worst)

    def _hear(self, in_flight: float) -> None:
        heard, ordered = self._heard, self._sorted
        if len(heard) >= _HEARD:
            del ordered[bisect_left(ordered, heard.popleft())]
        heard.append(in_flight)
        insort(ordered, in_flight)
        self._limit = ordered[min(len(ordered) - 1, int(self._settings.hot_percent / 100.0 * len(ordered)))]

    def __repr__(self) -> str:
        return f"<ProbePool [{len(self._entries)} of {self._settings.pool_size}, hot above {self._limit:g}]>"


def _in_flight(entry: Entry) -> float:
    return entry.in_flight


def _latency(entry: Entry) -> float:
    return entry.latency_s
