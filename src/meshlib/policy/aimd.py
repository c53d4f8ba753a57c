"""Adaptive concurrency by additive increase and multiplicative decrease: Netflix's ``AIMDLimit``.

    a drop, or a latency above timeout_s      limit = int(limit * backoff)
    else, with half of the limit or more used    limit + 1

within `min_limit` and `max_limit`. It needs no measure of latency, only to be told of drops, which suits a caller.
"""

from __future__ import annotations

from random import Random

from meshlib.policy.admission_settings import AimdSettings

__all__ = ["AimdLimit"]


class AimdLimit:
    """The limit of one cluster. Whoever owns it holds a lock around each use.

    Attributes:
        limit: calls that may be under way.
    """

    __slots__ = ("limit", "settings")

    def __init__(self, settings: AimdSettings, now: float, rng: Random) -> None:
        self.settings = settings
        self.limit = settings.initial_limit

    def advance(self, now: float) -> None:
        """Nothing happens with time alone."""

    def ended(self, now: float, began: float, latency_s: float, in_flight: int, dropped: bool) -> None:
        """A call that was one of `in_flight` ended after `latency_s`; `dropped`: by a timeout, or declined."""
        settings, limit = self.settings, self.limit
        if dropped or latency_s > settings.timeout_s:
            limit = int(limit * settings.backoff_percent / 100.0)
        elif in_flight * 2 >= limit:
            limit += 1
        self.limit = max(settings.min_limit, min(settings.max_limit, limit))
