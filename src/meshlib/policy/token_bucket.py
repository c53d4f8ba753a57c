"""A rate by a bucket of tokens: each call takes one, and at each `fill_interval_s` `tokens_per_fill` are put back.

The bucket begins full and never holds more than `max_tokens`. Fields and meaning are those of Envoy's local rate limit;
tokens come in steps, as its documentation says (since 1.31 Envoy lets them trickle in; for that take `gcra`).
"""

from __future__ import annotations

from math import ceil

from meshlib.policy.admission_settings import BucketSettings

__all__ = ["TokenBucket"]


class TokenBucket:
    """One of them. Whoever owns it holds a lock around each use.

    Attributes:
        tokens: left; below zero, so many calls wait for theirs.
    """

    __slots__ = ("_filled_at", "settings", "tokens")

    def __init__(self, settings: BucketSettings, now: float) -> None:
        self.settings = settings
        self.tokens = settings.max_tokens
        self._filled_at = now

    def take(self, now: float, max_wait_s: float) -> tuple[bool, float]:
        """Let one more call pass, now or within `max_wait_s`.

        Returns:
            Whether it may, and in how many seconds; or whether not, and when to ask again.
        """
        self._fill(now)
        if self.tokens >= 1:
            self.tokens -= 1
            return True, 0.0
        settings = self.settings
        fills = ceil((1 - self.tokens) / settings.tokens_per_fill)
        wait_s = max(0.0, self._filled_at + fills * settings.fill_interval_s - now)
        if wait_s > max_wait_s:
            return False, wait_s
        self.tokens -= 1
        return True, wait_s

    def give_back(self) -> None:
        """A call that was to wait for its turn will not be made."""
        self.tokens = min(self.settings.max_tokens, self.tokens + 1)

    def _fill(self, now: float) -> None:
        interval_s = self.settings.fill_interval_s
        if now < self._filled_at:  # the clock went back
            self._filled_at = now
        fills = int((now - self._filled_at) / interval_s + 1e-9)
        if fills:
            self.tokens = min(self.settings.max_tokens, self.tokens + fills * self.settings.tokens_per_fill)
            self._filled_at += fills * interval_s
