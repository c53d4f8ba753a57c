"""The retry budget: who pays for further attempts. One per service, shared by its retries and hedges.

`Budget` is what a call sees of it. Which rule stands behind it is a matter of configuration:

    tokens          gRPC's throttle, the default: a bucket that failures empty (`meshlib.policy.token_budget`)
    rate            Finagle's and Linkerd's: so many percent of the calls lately (`meshlib.policy.rate_budget`)
    concurrency     Envoy's: so many retries at once (`meshlib.policy.concurrency_budget`)
"""

from __future__ import annotations

import threading

from meshlib.policy.settings import BudgetSettings

__all__ = ["Budget", "RetryBudget"]


class Budget:
    """What a call asks of a budget and tells it. Safe under threads; no method blocks, and none raises.

    A further attempt is asked for by `may_retry`, which takes nothing, and taken by `retry_began` or `hedge_began`,
    which say whether it was still there: another thread may have been faster. What was taken is given back once, by
    `retry_ended` or `hedge_ended`, when the call's next retry is decided or the call is over.
    """

    __slots__ = ()

    def may_retry(self, now: float) -> bool:
        """Whether a retry or a hedge may go ahead."""
        raise NotImplementedError

    def left(self, now: float) -> float:
        """What is left: tokens, or retries that may be begun now."""
        raise NotImplementedError

    def retry_began(self, now: float) -> bool:
        """A retry was decided on. False: there is nothing left for it after all, and nothing was taken."""
        return True

    def retry_ended(self, now: float) -> None:
        """The retry is over, or another follows it."""

    def hedge_began(self, now: float) -> bool:
        """A hedge is about to start. False: there is nothing left for it after all, and nothing was taken."""
        return self.retry_began(now)

    def hedge_ended(self, now: float) -> None:
        """The hedge is over."""
        self.retry_ended(now)

    def succeeded(self, now: float) -> None:
        """A call ended with an answer that the policy would not have retried."""

    def failed(self, now: float, times: int = 1) -> None:
        """So many attempts failed in a way that the policy names, whether they are retried or not."""

    def renew_lock(self) -> None:
        """After a fork, in the child: another thread of the parent may have held the lock."""


class RetryBudget:
    """The tokens of one service. Safe under threads; never negative, never above its size."""

    __slots__ = ("_lock", "settings", "tokens")

    def __init__(self, settings: BudgetSettings) -> None:
        self.settings = settings
        self.tokens = settings.tokens
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether a retry or a hedge may go ahead."""
        return self.tokens > self.settings.tokens / 2

    def failed(self, times: int = 1) -> None:
        """So many retryable failures: each takes a token, whether or not it is retried."""
        with self._lock:
            self.tokens = max(0.0, self.tokens - times)

    def hedged(self) -> None:
        """A hedge was sent: takes a token."""
        self.failed()

    def succeeded(self) -> None:
        """A success puts a fraction of a token back."""
        size = self.settings.tokens
        if self.tokens < size:
            with self._lock:
                self.tokens = min(size, self.tokens + self.settings.success_gain)

    def renew_lock(self) -> None:
        """After a fork, in the child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "open" if self.open else "closed"
        return f"<RetryBudget {self.tokens:.1f} of {self.settings.tokens:g} tokens, {state}>"
