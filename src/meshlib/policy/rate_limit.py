"""A local rate limit: how many calls may be made in a time, in all and by each of those who make them.

The order is Linkerd's: first the limit for all, then that of the caller: its own override, or else the one that each
caller has. A call that the caller's own limit refuses has used up its part of the limit for all. Calls that do not say
whose they are share one limit, as Linkerd's unmeshed clients do.

Each limit is a `gcra` or a `token_bucket`. Of callers not more than `max_keys` are remembered; the one that was silent
for longest is forgotten first, and if it comes back it begins with a full burst. The limit is this process's own; for
one over a fleet see `meshlib.fleet.shared`.

With `max_wait_s` a call that is too early takes the next free turn and waits for it, unless that is further away. Its
deadline bounds the wait too.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TypeAlias

from meshlib.dataclass import dataclass
from meshlib.policy.admission_settings import GcraSettings, RateLimitSettings, RateSettings
from meshlib.policy.gcra import Gcra
from meshlib.policy.token_bucket import TokenBucket

__all__ = ["RateLimit", "TooFast", "Turn", "describe"]

_Meter: TypeAlias = Gcra | TokenBucket

_LONG = 120
"""A longer key is remembered by its hash: callers choose what they send, and ten thousand are kept."""


@dataclass(frozen=True, slots=True)
class TooFast:
    """The answer to a call that comes too early.

    Attributes:
        limit: in words.
        retry_after_s: when to come back.
    """

    limit: str
    retry_after_s: float


class Turn:
    """A turn in `wait_s` seconds, to be waited for. `give_back` if the call is not made after all."""

    __slots__ = ("_limit", "_meters", "wait_s")

    def __init__(self, limit: RateLimit, meters: tuple[_Meter, ...], wait_s: float) -> None:
        self._limit = limit
        self._meters = meters
        self.wait_s = wait_s

    def give_back(self) -> None:
        """The call is not made; once only."""
        meters, self._meters = self._meters, ()
        with self._limit._lock:
            for meter in meters:
                meter.give_back()


class RateLimit:
    """The rate limit of one cluster or route. Safe under threads.

    Attributes:
        rejected: calls that it refused.
    """

    __slots__ = ("_keys", "_lock", "_overrides", "_total", "rejected", "settings")

    def __init__(self, settings: RateLimitSettings, now: float) -> None:
        self.settings = settings
        self.rejected = 0
        self._total = None if settings.total is None else self._meter(settings.total, now)
        self._overrides = {key: self._meter(each, now) for key, each in settings.overrides.items()}
        self._keys: OrderedDict[str, _Meter] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def keys(self) -> int:
        """Callers that it remembers, besides those with an override."""
        return len(self._keys)

    def ask(self, now: float, key: str | None, left_s: float | None = None) -> TooFast | Turn | None:
        """May a call pass? None: now. A `Turn`: then. `TooFast`: no.

        Args:
            now: on the monotonic clock.
            key: whose call it is; None where it does not say.
            left_s: until its deadline; None without one.
        """
        settings = self.settings
        max_wait_s = settings.max_wait_s if left_s is None else max(0.0, min(settings.max_wait_s, left_s))
        with self._lock:
            wait_s, taken = 0.0, []
            if self._total is not None:
                passed, wait_s = self._total.take(now, max_wait_s)
                if not passed:
                    self.rejected += 1
                    assert settings.total is not None
                    return TooFast(f"{describe(settings.total)} in all", wait_s)
                taken.append(self._total)
            name = key or ""
            own = self._overrides.get(name)
            rate = settings.each if own is None else settings.overrides[name]
            if own is None and rate is not None:
                own = self._of(name, rate, now)
            if own is not None and rate is not None:
                passed, more_s = own.take(now, max_wait_s)
                if not passed:
                    # What is used up of the limit for all stays so; but a turn that is still to come is another's.
                    if wait_s > 0.0:
                        taken[0].give_back()
                    self.rejected += 1
                    return TooFast(f"{describe(rate)} each", more_s)
                taken.append(own)
                wait_s = max(wait_s, more_s)
        return Turn(self, tuple(taken), wait_s) if wait_s > 0.0 else None

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _of(self, key: str, rate: RateSettings, now: float) -> _Meter:
        keys = self._keys
        if len(key) > _LONG:
            key = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
        meter = keys.get(key)
        if meter is None:
            meter = keys[key] = self._meter(rate, now)
            if len(keys) > self.settings.max_keys:
                keys.popitem(last=False)
        else:
            keys.move_to_end(key)
        return meter

    def _meter(self, rate: RateSettings, now: float) -> _Meter:
        if isinstance(rate, GcraSettings):
            return Gcra(rate, now, self.settings.max_wait_s)
        return TokenBucket(rate, now)

    def __repr__(self) -> str:
        return f"<RateLimit {self.rejected} refused, {len(self._keys)} callers>"


def describe(rate: RateSettings) -> str:
    """A rate in words."""
    if isinstance(rate, GcraSettings):
        return f"{rate.rate:g} calls per second, {rate.at_once} at once"
    return f"{rate.tokens_per_fill} calls per {rate.fill_interval_s:g}s, {rate.max_tokens} at once"
