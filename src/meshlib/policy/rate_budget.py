"""The rate budget: retries may be so many percent of the calls of late, and so many per second besides.

    deposit     1000 for each call that ends well; 0 if `percent` is 0
    withdraw    floor(1000 / (percent / 100)) for each retry and each hedge; 1 if `percent` is 0
    reserve     min_per_second * ttl_s * withdraw, always there
    balance     the sum of the last `ttl_s` seconds, in 10 slices, + reserve
    may retry   balance >= withdraw

What is withdrawn expires with its slice too, so the reserve comes back after `ttl_s`.

Source: Finagle's ``RetryBudget.scala`` and ``WindowedAdder.scala``. With the arithmetic of tower, and so of Linkerd
(``tps_budget.rs``), up to 100 % a deposit is 1 and ``withdraw = floor(1 / (percent / 100))``, so that 30 % allows 33 %
and 60 % allows 100 %; and of `ttl_s` only whole seconds count in the reserve.

A ratio does not recover from every overload: retries go on while the service fails. `meshlib.policy.token_budget` does.
"""

from __future__ import annotations

from meshlib.policy.budget import Budget
from meshlib.policy.retry_settings import BudgetArithmetic

__all__ = ["RateBudget"]

_SLICES = 10
_SCALE = 1000
_MOST = 1e15


class RateBudget(Budget):
    """Deposits and withdrawals of one service. Exact under threads.

    Attributes:
        deposit: what a call that ends well brings.
        withdrawal: what a retry takes.
        reserve: what is there without any deposit.
    """

    __slots__ = ("_slice_at", "_slice_s", "_slices", "_started", "deposit", "reserve", "withdrawal")

    def __init__(
        self,
        percent: float = 20.0,
        min_per_second: float = 10.0,
        ttl_s: float = 10.0,
        arithmetic: BudgetArithmetic = "finagle",
    ) -> None:
        """Begin with the reserve alone.

        Args:
            percent: of calls that may be retried; above 100 a call may be retried more than once.
            min_per_second: retries that are allowed besides.
            ttl_s: how long a deposit lasts.
            arithmetic: how these become whole numbers.
        """
        super().__init__()
        tower = arithmetic == "tower"
        scale = 1 if tower and percent <= 100 else _SCALE
        self.deposit = scale if percent > 0 else 0
        self.withdrawal = max(1, int(min(scale * 100 / percent, _MOST))) if percent > 0 else 1
        self.reserve = int(min_per_second * (int(ttl_s) if tower else ttl_s) * self.withdrawal)
        self._slice_s = ttl_s / _SLICES
        self._slices = [0] * _SLICES
        self._slice_at = 0
        self._started: float | None = None

    def may_retry(self, now: float) -> bool:
        with self._lock:
            return self._balance(now) >= self.withdrawal

    def left(self, now: float) -> float:
        with self._lock:
            return max(0, self._balance(now)) / self.withdrawal

    def retry_began(self, now: float) -> bool:
        with self._lock:
            if self._balance(now) < self.withdrawal:
                return False
            self._slices[self._slice_at % _SLICES] -= self.withdrawal
            return True

    def succeeded(self, now: float) -> None:
        with self._lock:
            self._move(now)
            self._slices[self._slice_at % _SLICES] += self.deposit

    def _balance(self, now: float) -> int:
        self._move(now)
        return sum(self._slices) + self.reserve

    def _move(self, now: float) -> None:
        """Empty the slices that have expired. A clock that goes back stays in the slice it is in."""
        if self._started is None:
            self._started = now
        at = int((now - self._started) / self._slice_s)
        if at < self._slice_at - _SLICES:
            at, self._started = self._slice_at, now - self._slice_at * self._slice_s
        for passed in range(self._slice_at + 1, min(at, self._slice_at + _SLICES) + 1):
            self._slices[passed % _SLICES] = 0
        if at > self._slice_at + _SLICES:
            self._slices = [0] * _SLICES
        self._slice_at = max(self._slice_at, at)

    def __repr__(self) -> str:
        retries = (sum(self._slices) + self.reserve) / self.withdrawal
        return f"<RateBudget {retries:.1f} retries left>"
