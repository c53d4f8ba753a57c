"""What came of the calls of a simulation: by second, and all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import ceil

__all__ = ["Tally", "percentile"]


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed (nearest rank); NaN if there is none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered), max(1, ceil(len(ordered) * percent / 100.0))) - 1]


class Tally:
    """Counts. Seconds are those of the virtual clock.

    Attributes:
        begun, attempts, good, bad: calls begun, attempts made, calls that ended well (a status below 500) and badly, in
            each second.
        durations: of the calls that ended well, up to their headers.
        bad_durations: of the others.
    """

    __slots__ = ("attempts", "bad", "bad_durations", "begun", "durations", "good")

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.good: Counter[int] = Counter()
        self.bad: Counter[int] = Counter()
        self.durations: list[float] = []
        self.bad_durations: list[float] = []

    def ended(self, now: float, good: bool, duration_s: float) -> None:
        """A call ended."""
        if good:
            self.good[int(now)] += 1
            self.durations.append(duration_s)
        else:
            self.bad[int(now)] += 1
            self.bad_durations.append(duration_s)

    @property
    def success_percent(self) -> float:
        """The share of the calls that ended well; NaN if none ended."""
        good, bad = len(self.durations), len(self.bad_durations)
        return 100.0 * good / (good + bad) if good + bad else float("nan")

    def percentile(self, percent: float, *, within_s: float | None = None) -> float:
        """A percentile of all durations. With `within_s`, what failed counts as having taken that long.

        A caller that gets an error after a millisecond has not been served in a millisecond.
        """
        if within_s is None:
            return percentile([*self.durations, *self.bad_durations], percent)
        return percentile([*self.durations, *(within_s for _ in self.bad_durations)], percent)

    def rate(self, counter: Counter[int], start: float, end: float) -> float:
        """The mean per second of `begun`, `attempts`, `good` or `bad`, from `start` to `end`."""
        return sum(counter[second] for second in range(int(start), int(end))) / (int(end) - int(start))

    def first_second(
        self, counter: Counter[int], start: float, end: float, suits: Callable[[float], bool]
    ) -> int | None:
        """The first second from `start` from which on the mean over five seconds suits; None if there is none."""
        return next((at for at in range(int(start), int(end) - 4) if suits(self.rate(counter, at, at + 5))), None)
