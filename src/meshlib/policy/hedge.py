"""Hedging: where an attempt takes long, a second one starts beside it, and the first good answer wins.

When a call's attempt has no headers after a delay, a hedge starts at an endpoint that the call has not tried:

    after: 50ms     after that long
    after: p95      after the 95th percentile of how long the attempts of these calls took to their headers of late
                    (`meshlib.policy.percentile`), and `min_delay` at least; while too little is known, not at all

What goes into the percentile: one duration for each attempt that is no hedge itself. For one that was answered the time
to its headers; for one that ran out of time, or was given up because its hedge was faster, the time until then. Fast
failures say nothing of how long an answer takes, and are left out.

A hedge costs what the load allows, twice: it is charged to the retry budget of the service, as a retry is, and to a
budget of its own, a rate budget (`meshlib.policy.rate_budget`) into which each call pays, without a reserve:

    hedges in the last 10 s <= max_extra_percent / 100 * calls in the last 10 s

So few hedges are sent where all endpoints have become slow and hedges would only make them slower.

`on_per_try_timeout` is Envoy's ``hedge_on_per_try_timeout``: when an attempt's per-try timeout comes, it is not given
up, and its retry starts beside it. It is a retry in all other respects: after the usual back-off, if retries and their
budget allow. Until then a failed attempt is retried as ever; from then on its failure changes nothing.

Sources: Dean and Barroso, "The Tail at Scale" (CACM 56, 2, 2013); Finagle's ``BackupRequestFilter.scala``; Envoy's
``HedgePolicy`` and ``router.cc`` (``onSoftPerTryTimeout``).
"""

from __future__ import annotations

import threading

from meshlib.policy.percentile import WindowedPercentile
from meshlib.policy.rate_budget import RateBudget
from meshlib.policy.settings import HedgeSettings

__all__ = ["Hedging"]


class Hedging:
    """What the hedged calls of one route share. Safe under threads.

    Attributes:
        settings: of the route.
        sent, won, refused: hedges; those whose answer was delivered; those that a budget did not allow. Only grow.
    """

    __slots__ = ("_extra", "_fixed_s", "_latency", "_lock", "refused", "sent", "settings", "won")

    def __init__(self, settings: HedgeSettings) -> None:
        self.settings = settings
        self.sent = self.won = self.refused = 0
        self._extra = RateBudget(settings.max_extra_percent, 0.0)
        rule = settings.rule
        self._fixed_s = None if isinstance(rule, str) else rule
        self._latency = WindowedPercentile(float(rule[1:])) if isinstance(rule, str) else None
        self._lock = threading.Lock()

    def delay_s(self, now: float) -> float | None:
        """How long an attempt that starts now is waited for; None if there is nothing to go by."""
        if self._latency is None:
            return self._fixed_s
        with self._lock:
            usual_s = self._latency.value(now)
        return None if usual_s is None else max(usual_s, self.settings.min_delay_s)

    def took(self, now: float, duration_s: float) -> None:
        """An attempt that is no hedge was answered, ran out of time or was overtaken, after so long."""
        if self._latency is not None:
            with self._lock:
                self._latency.note(now, duration_s)

    def call_began(self, now: float) -> None:
        """A call that may be hedged began: it pays for a part of a hedge."""
        self._extra.succeeded(now)

    def take(self, now: float) -> bool:
        """Take what a hedge costs; False, and nothing taken, if there is too little."""
        return self._extra.retry_began(now)

    def count_sent(self) -> None:
        """A hedge starts."""
        with self._lock:
            self.sent += 1

    def count_won(self) -> None:
        """A hedge's answer was delivered."""
        with self._lock:
            self.won += 1

    def count_refused(self) -> None:
        """A hedge was due, and a budget did not allow it."""
        with self._lock:
            self.refused += 1

    def renew_lock(self) -> None:
        """After a fork, in the child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self._extra.renew_lock()

    def __repr__(self) -> str:
        return f"<Hedging after {self.settings.rule}: {self.sent} sent, {self.won} won, {self.refused} refused>"
