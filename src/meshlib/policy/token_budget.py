"""The token budget: the default, after gRPC.

Each retryable failure takes 1 token and each success puts back a little; retries go ahead only while the bucket is more
than half full:

    failure, hedge    tokens = max(0, tokens - 1)
    success           tokens = min(size, tokens + success_gain)
    may retry         tokens > size / 2

So a rare failure is always retried, and under sustained failure retries stop altogether, which a fixed ratio of retries
to calls does not do (it keeps an overloaded service overloaded).

Source: gRFC A6 of grpc/proposal, "Throttling Retry Attempts and Hedged RPCs".
"""

from __future__ import annotations

from meshlib.policy.budget import Budget

__all__ = ["TokenBudget"]


class TokenBudget(Budget):
    """The tokens of one service: never negative, never above their size.

    Attributes:
        size: of the bucket, which begins full.
        success_gain: what a success puts back.
        tokens: there now.
    """

    __slots__ = ("_half", "size", "success_gain", "tokens")

    def __init__(self, size: float = 20.0, success_gain: float = 0.1) -> None:
        super().__init__()
        self.size = size
        self.success_gain = success_gain
        self.tokens = size
        self._half = size / 2

    def may_retry(self, now: float) -> bool:
        return self.tokens > self._half

    def left(self, now: float) -> float:
        return self.tokens

    def hedge_began(self, now: float) -> bool:
        with self._lock:
            if self.tokens <= self._half:
                return False
            self.tokens = max(0.0, self.tokens - 1)
            return True

    def succeeded(self, now: float) -> None:
        # Most often it is full, and then a call pays for no lock.
        if self.tokens < self.size:
            with self._lock:
                self.tokens = min(self.size, self.tokens + self.success_gain)

    def failed(self, now: float, times: int = 1) -> None:
        with self._lock:
            self.tokens = max(0.0, self.tokens - times)

    def __repr__(self) -> str:
        state = "open" if self.tokens > self._half else "closed"
        return f"<TokenBudget {self.tokens:.1f} of {self.size:g} tokens, {state}>"
