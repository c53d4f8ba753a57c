"""The concurrency budget: so many retries at once, as a share of the calls under way or as a fixed number.

    share       retries under way < max(floor(percent / 100 * (in flight + pending)), min_concurrency)
    fixed       retries under way < max_retries

A retry counts from when it is decided, its back-off included, until the next one is decided or the call is over. It
bounds what retries add at any moment, and not what they add in all: where attempts fail fast, many fit in one after
another.

Source: Envoy, ``retry_budget`` (20 %, at least 3) and ``max_retries`` (3) of circuit_breaker.proto. There each cluster
and priority has its own; here each service has, and another for its calls of high priority.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.policy.budget import Budget

__all__ = ["ConcurrencyBudget"]


def _none() -> int:
    return 0


class ConcurrencyBudget(Budget):
    """The retries of one service that are under way. Exact under threads.

    Attributes:
        under_way: retries and hedges.
    """

    __slots__ = ("_active", "_max", "_min", "_share", "under_way")

    def __init__(
        self,
        percent: float = 20.0,
        min_concurrency: int = 3,
        max_retries: int | None = None,
        active: Callable[[], int] = _none,
    ) -> None:
        """Begin with none under way.

        Args:
            percent: of the calls under way or in line.
            min_concurrency: allowed however few these are.
            max_retries: a fixed number instead of both; None for the share.
            active: counts the calls under way and in line.
        """
        super().__init__()
        self._share = percent / 100
        self._min = min_concurrency
        self._max = max_retries
        self._active = active
        self.under_way = 0

    @property
    def limit(self) -> int:
        """How many retries may be under way now."""
        if self._max is not None:
            return self._max
        return max(int(self._share * self._active()), self._min)

    def may_retry(self, now: float) -> bool:
        return self.under_way < self.limit

    def left(self, now: float) -> float:
        return max(0, self.limit - self.under_way)

    def retry_began(self, now: float) -> bool:
        limit = self.limit
        with self._lock:
            if self.under_way >= limit:
                return False
            self.under_way += 1
            return True

    def ended(self, now: float) -> None:
        with self._lock:
            self.under_way = max(0, self.under_way - 1)

    def renew_lock(self) -> None:
        """The parent's retries are not the child's."""
        super().renew_lock()
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<ConcurrencyBudget {self.under_way} of {self.limit} retries under way>"
