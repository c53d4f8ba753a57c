"""Static stride: a schedule by weight without a heap and without a lock, for weights that change now and then.

Picks go around the list; ``sequence`` counts the places passed, ``generation`` the rounds. Weights are scaled so that
the largest is 65 535. The place with index ``i`` is picked in a round, rather than skipped, if

    (weight * generation + i * 32 767) mod 65 535 >= 65 535 - weight

so each is picked in ``weight`` of 65 535 rounds, evenly spread, and its turns are out of step with its neighbours'.
Weights above 10 times the mean, or below a hundredth of it, count as that much: a pick passes 10 places on average at
the most. Source: gRPC's ``static_stride_scheduler.cc``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["StaticStride"]

_MAX = 65535
_OFFSET = _MAX // 2
_MAX_RATIO = 10.0
_MIN_RATIO = 0.01


class StaticStride:
    """The schedule over one list of weights. Immutable: what advances is the sequence, which outlives it."""

    __slots__ = ("_count", "_next", "_weights")

    def __init__(self, weights: Sequence[float], sequence: Callable[[], int]) -> None:
        """Scale the weights.

        Args:
            weights: at least one, finite, none negative. 0 is one that is not known, which counts as the mean of the
                others; if none is known, all are alike.
            sequence: gives the next whole number, each once.
        """
        known = [weight for weight in weights if weight > 0.0]
        mean = sum(known) / len(known) if known else 1.0
        largest = min(max(known, default=1.0), _MAX_RATIO * mean)
        scale = _MAX / largest
        scaled_mean = _rounded(scale * mean)
        least = max(1, _rounded(scaled_mean * _MIN_RATIO))
        self._weights = [
            max(least, _rounded(min(weight, largest) * scale)) if weight > 0.0 else min(scaled_mean, _MAX)
            for weight in weights
        ]
        self._count = len(weights)
        self._next = sequence

    def pick(self) -> int:
        """The index of the one whose turn it is."""
        weights, count, following = self._weights, self._count, self._next
        while True:
            generation, index = divmod(following(), count)
            weight = weights[index]
            if (weight * generation + index * _OFFSET) % _MAX >= _MAX - weight:
                return index


def _rounded(value: float) -> int:
    """To the nearest whole number, halves up, as C's ``lround`` does with what is positive."""
    return int(value + 0.5)
