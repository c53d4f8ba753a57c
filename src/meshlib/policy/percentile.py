"""A percentile of the durations of late: a histogram over a sliding window, read out now and then.

    bucket of d         64 per doubling, from 2**-20 s (1 us) to 2**7 s: an error of at most 1/64 of the value
    window              3 slices of 10 s; the oldest is forgotten whole
    value               the upper edge of the bucket in which the ceil(percentile / 100 * n)-th smallest of n lies
    read out            every 3 s; before there are `least_samples` there is no value

Window, slices and the time between readings are those of Finagle's ``WindowedPercentileHistogram.scala``, which waits
for the first 3 s and counts in whole milliseconds up to 2 s. Here the first value is there with the sample that
completes `least_samples`: as many as it takes for one of them to lie above the percentile, and 20 at least.
"""

from __future__ import annotations

import math

__all__ = ["WindowedPercentile"]

SLICES = 3
SLICE_S = 10.0
REFRESH_S = 3.0
LEAST_SAMPLES = 20

_PER_DOUBLING = 64
_LEAST_S = 2.0**-20
_MOST_S = 2.0**7


class WindowedPercentile:
    """One percentile of what was noted in the last half a minute. Whoever owns it holds a lock around each use.

    Attributes:
        percentile: which one, above 0 and below 100.
        least_samples: how many it takes.
    """

    __slots__ = ("_read_at", "_sizes", "_slice_ends", "_slices", "_value_s", "least_samples", "percentile")

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.least_samples = max(LEAST_SAMPLES, _ceil(100.0 / (100.0 - percentile)))
        self._slices: list[dict[int, int]] = [{} for _ in range(SLICES)]
        self._sizes = [0] * SLICES
        self._slice_ends: float | None = None
        self._read_at: float | None = None
        self._value_s: float | None = None

    @property
    def samples(self) -> int:
        """How many durations it knows."""
        return sum(self._sizes)

    def note(self, now: float, duration_s: float) -> None:
        """One more duration. What is no number is passed over; what is below the range or above it is at its edge."""
        if math.isnan(duration_s):
            return
        self._move(now)
        counts, bucket = self._slices[0], _bucket(duration_s)
        counts[bucket] = counts.get(bucket, 0) + 1
        self._sizes[0] += 1

    def value(self, now: float) -> float | None:
        """The percentile in seconds, at most 3 s old; None while too little is known."""
        read_at = self._read_at
        if read_at is None or self._value_s is None or not 0.0 <= now - read_at < REFRESH_S:
            self._read_at = now
            self._value_s = self._read(now)
        return self._value_s

    def _read(self, now: float) -> float | None:
        self._move(now)
        samples = self.samples
        if samples < self.least_samples:
            return None
        merged: dict[int, int] = {}
        for counts in self._slices:
            for bucket, count in counts.items():
                merged[bucket] = merged.get(bucket, 0) + count
        left = _ceil(self.percentile / 100.0 * samples)
        for bucket in sorted(merged):
            left -= merged[bucket]
            if left <= 0:
                return _upper_edge(bucket)
        return None

    def _move(self, now: float) -> None:
        """Begin a new slice where one has ended. A clock that goes back stays in the slice it is in, for 10 s."""
        ends = self._slice_ends
        if ends is None or now < ends - SLICE_S:
            self._slice_ends = now + SLICE_S
            return
        passed = int((now - ends) / SLICE_S) + 1 if now >= ends else 0
        for _ in range(min(passed, SLICES)):
            self._slices = [{}, *self._slices[:-1]]
            self._sizes = [0, *self._sizes[:-1]]
        self._slice_ends = ends + passed * SLICE_S


def _ceil(value: float) -> int:
    """Rounded up, but not for the error that a product of decimal fractions has."""
    return math.ceil(round(value, 6))


def _bucket(duration_s: float) -> int:
    fraction, exponent = math.frexp(min(max(duration_s, _LEAST_S), _MOST_S))
    return exponent * _PER_DOUBLING + int((fraction * 2.0 - 1.0) * _PER_DOUBLING)


def _upper_edge(bucket: int) -> float:
    exponent, step = divmod(bucket, _PER_DOUBLING)
    return math.ldexp((1.0 + (step + 1) / _PER_DOUBLING) / 2.0, exponent)
