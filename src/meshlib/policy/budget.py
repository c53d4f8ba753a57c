"""The retry budget: a token bucket per service, shared by retries and hedges.

Each retryable failure takes 1 token and each success puts back a little; retries go ahead only while the bucket is more
than half full. So a rare failure is always retried, and under sustained failure retries stop altogether, which a fixed
ratio of retries to calls does not do (it keeps an overloaded service overloaded).

Source: gRFC A6 of grpc/proposal, "Throttling Retry Attempts and Hedged RPCs".
"""

from __future__ import annotations

import threading

from meshlib.policy.settings import BudgetSettings

__all__ = ["RetryBudget"]


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
