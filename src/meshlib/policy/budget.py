"""The retry budget: who pays for further attempts. One per service, shared by its retries and hedges.

`Budget` is what a call sees of it. Which rule stands behind it is a matter of configuration:

    tokens          gRPC's throttle, the default: a bucket that failures empty (`meshlib.policy.token_budget`)
    rate            Finagle's and Linkerd's: so many percent of the calls lately (`meshlib.policy.rate_budget`)
    concurrency     Envoy's: so many retries at once (`meshlib.policy.concurrency_budget`)
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshlib.policy.retry_settings import BudgetSettings

__all__ = ["Budget", "make_budget"]


class Budget:
    """What a call asks of a budget and tells it. Safe under threads; no method blocks, and none raises.

    A further attempt is asked for by `may_retry`, which takes nothing, and taken by `retry_began` or `hedge_began`,
    which say whether it was still there: another thread may have been faster. What was taken is given back once, by
    `ended`, when the call's next retry is decided or the call's outcome is known.

    Attributes:
        refused: retries that would have been made, had there been something left. Only grows.
    """

    __slots__ = ("_lock", "refused")

    def __init__(self) -> None:
        self.refused = 0
        self._lock = threading.Lock()

    def may_retry(self, now: float) -> bool:
        """Whether a retry or a hedge may go ahead."""
        raise NotImplementedError

    def left(self, now: float) -> float:
        """What is left: tokens, or retries that may be begun now."""
        raise NotImplementedError

    def retry_began(self, now: float) -> bool:
        """A retry was decided on. False: there is nothing left for it after all, and nothing was taken."""
        return True

    def hedge_began(self, now: float) -> bool:
        """A hedge is about to start. False: there is nothing left for it after all, and nothing was taken."""
        return self.retry_began(now)

    def count_refused(self) -> None:
        """A retry was not made for want of budget."""
        with self._lock:
            self.refused += 1

    def ended(self, now: float) -> None:
        """A retry or a hedge is over."""

    def succeeded(self, now: float) -> None:
        """A call ended with an answer that the policy would not have retried."""

    def failed(self, now: float, times: int = 1) -> None:
        """So many attempts failed in a way that the policy names, whether they are retried or not."""

    def renew_lock(self) -> None:
        """After a fork, in the child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()


def make_budget(settings: BudgetSettings, active: Callable[[], int] = lambda: 0) -> Budget:
    """The budget of one service.

    Args:
        settings: which, and how large.
        active: counts the calls of the service that are under way or in line.
    """
    if settings.kind == "tokens":
        from meshlib.policy.token_budget import TokenBudget

        return TokenBudget(settings.tokens, settings.success_gain)
    if settings.kind == "rate":
        from meshlib.policy.rate_budget import RateBudget

        return RateBudget(settings.percent, settings.min_per_second, settings.ttl_s, settings.arithmetic)
    from meshlib.policy.concurrency_budget import ConcurrencyBudget

    return ConcurrencyBudget(settings.percent, settings.min_concurrency, settings.max_retries, active)
