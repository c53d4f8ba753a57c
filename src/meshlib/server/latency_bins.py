"""How long requests take by how many others they find: what a probe of Prequal is told of latency.

Each request is noted under the number in flight that it found. Asked for a number, the answer is the median of the last
16 requests that found about as many: exactly as many up to 8, within an eighth beyond. Where there were none of late,
those that found the nearest number count. A median over all of them would say that a server that has just become idle
is as slow as under load, and the other way round. Source: Wydrowski et al., NSDI 2024, section 4.
"""

from __future__ import annotations

from collections import deque

__all__ = ["RECENT_S", "LatencyBins"]

RECENT_S = 10.0
"""What was last noted longer ago than this counts only where there is nothing newer."""

_KEPT = 16
_STALE = 4
"""A median is reckoned anew after so many more requests."""


class _Bin:
    __slots__ = ("at", "median_s", "new", "took_s")

    def __init__(self) -> None:
        self.at = self.median_s = 0.0
        self.new = _STALE  # requests since the median was reckoned
        self.took_s: deque[float] = deque(maxlen=_KEPT)


class LatencyBins:
    """Of one process. There is no lock: where threads overlap one sample more or less is nothing to a median."""

    __slots__ = ("_bins",)

    def __init__(self) -> None:
        self._bins: dict[int, _Bin] = {}

    def note(self, in_flight: int, took_s: float, now: float) -> None:
        """A request that found `in_flight` others took so long."""
        number = _bin_of(in_flight)
        found = self._bins.get(number)
        if found is None:
            found = self._bins.setdefault(number, _Bin())
        found.took_s.append(took_s)
        found.at = now
        found.new += 1

    def median(self, in_flight: int, now: float) -> float:
        """How long one would take that finds `in_flight` others, in seconds; 0 if nothing is known."""
        wanted = _bin_of(in_flight)
        found = self._bins.get(wanted)
        if found is None or now - found.at > RECENT_S:
            found = self._nearest(wanted, now)
            if found is None:
                return 0.0
        if found.new >= _STALE:
            found.new = 0
            ordered = sorted(found.took_s.copy())
            found.median_s = ordered[len(ordered) // 2]
        return found.median_s

    def _nearest(self, wanted: int, now: float) -> _Bin | None:
        bins = list(self._bins.items())
        recent = [each for each in bins if now - each[1].at <= RECENT_S]
        nearest = min(recent or bins, key=lambda each: abs(each[0] - wanted), default=None)
        return None if nearest is None else nearest[1]


def _bin_of(in_flight: int) -> int:
    """Numbers below 8 each for themselves, then eight bins for each doubling."""
    if in_flight < 8:
        return max(0, in_flight)
    doublings = in_flight.bit_length() - 4
    return 8 * doublings + (in_flight >> doublings)
