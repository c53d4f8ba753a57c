"""Counts over a sliding window, in buckets: what happened lately, forgotten a bucket at a time."""

from __future__ import annotations

__all__ = ["RollingCounts"]


class RollingCounts:
    """Counts of several kinds over the last `window_s` seconds. Whoever owns it holds a lock around each use.

    Attributes:
        totals: of each kind over the window, as of the last `roll`. Not to be written.
    """

    __slots__ = ("_bucket_end", "_buckets", "_position", "_since", "_width_s", "totals")

    def __init__(self, kinds: int, window_s: float, now: float, buckets: int = 10) -> None:
        self.totals = [0] * kinds
        self._buckets = [[0] * kinds for _ in range(buckets)]
        self._position = 0
        self._width_s = window_s / buckets
        self._bucket_end = now + self._width_s
        self._since = now

    def add(self, kind: int, amount: int = 1) -> None:
        """Count something that happens now; `roll` comes first."""
        self._buckets[self._position][kind] += amount
        self.totals[kind] += amount

    def roll(self, now: float) -> None:
        """Forget what is older than the window; all of it if the clock went back by more than a bucket."""
        width_s = self._width_s
        early_s = self._bucket_end - now
        if 0.0 < early_s <= width_s:
            return
        steps = int(-early_s / width_s) + 1
        if early_s > width_s or steps >= len(self._buckets):
            for bucket in self._buckets:
                bucket[:] = [0] * len(self.totals)
            self.totals = [0] * len(self.totals)
            self._bucket_end = now + width_s
            self._since = now
            return
        for _ in range(steps):
            self._position = (self._position + 1) % len(self._buckets)
            bucket = self._buckets[self._position]
            for kind, amount in enumerate(bucket):
                self.totals[kind] -= amount
            bucket[:] = [0] * len(self.totals)
        self._bucket_end += steps * width_s

    def span_s(self, now: float) -> float:
        """For how long it has been counting, up to the window."""
        return min(max(0.0, now - self._since), self._width_s * len(self._buckets))
