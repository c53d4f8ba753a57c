"""The rate limit of a whole fleet as a gate: each call asks the store that all processes share.

The answer is waited for, for as long as the store says and no longer. Without one the call goes on as if there were no
limit: what protects a service must not become what takes it down.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from meshlib.errors import MeshError, RateLimited
from meshlib.policy.admission_settings import FleetRateSettings
from meshlib.policy.gate import PlainGate
from meshlib.policy.keys import key_of, reader_of
from meshlib.policy.rate_limit import describe

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement
    from meshlib.policy.user_breaker import Errand

__all__ = ["FleetRateGate", "RateStore"]


class RateStore(Protocol):
    """Where rates are counted. `max_wait_s`: how long a call waits for an answer."""

    max_wait_s: float

    def take(self, name: str, interval_s: float, burst: int) -> Errand | None:
        """Ask for a place in the rate of this name; None if no answer can be expected.

        The errand's result is for how many seconds there is no place (0: there is one), or None if it failed.
        """
        ...


class FleetRateGate(PlainGate):
    """The rate limit of one cluster.

    Attributes:
        rejected: calls that it refused.
        failed_open: calls that passed because no answer came in time.
    """

    __slots__ = ("_cluster", "_interval_s", "_lock", "_store", "failed_open", "readers", "rejected", "settings")

    name = "fleet-rate-limit"

    def __init__(self, settings: FleetRateSettings, cluster: str, store: RateStore) -> None:
        self.settings = settings
        self.rejected = 0
        self.failed_open = 0
        self.readers = () if settings.by is None else (reader_of(settings.by),)
        self._cluster = cluster
        self._interval_s = 1.0 / settings.rate
        self._store = store
        self._lock = threading.Lock()

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        key = key_of(self.settings.by, call)
        name = self._cluster if self.settings.by is None else f"{self._cluster}:{key or ''}"
        errand = self._store.take(name, self._interval_s, self.settings.at_once)
        if errand is None:
            self._fail_open(call)
        return errand

    def decide(self, now: float, call: Placement, token: Ready, late: bool) -> MeshError | None:
        """The answer is there, or it is too late for it."""
        wait_s: float | None = None if late else getattr(token, "result", None)
        if wait_s is None:
            token.leave()
            self._fail_open(call)
            return None
        if wait_s <= 0.0:
            return None
        with self._lock:
            self.rejected += 1
        text = (
            f"its fleet's rate limit was reached ({describe(self.settings)}); "
            f"the next call may be made in {wait_s:.3g}s"
        )
        return RateLimited(text, gate=self.name, retry_after_s=wait_s, service=call.facts.service)

    def patience_s(self, call: Placement, token: Ready) -> float | None:
        """As long as the store says."""
        return self._store.max_wait_s

    def note(self, now: float) -> str | None:
        """What the limit is."""
        return f"its fleet's rate limit: {describe(self.settings)}"

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _fail_open(self, call: Placement) -> None:
        with self._lock:
            self.failed_open += 1
        call.say(f"{self.name}: no answer in time, so the call goes on")
