"""The circuit breaker of a cluster: stop calling what cannot answer.

States
------
closed     calls pass, and their final outcomes are counted in a sliding window.
open       calls are refused at once, for `open_for_s`, doubling with each failed probe up to `max_open_for_s`; one that
           found nobody to connect to costs nobody anything, and doubles nothing. While the service is known to shed
           load by itself, for `open_for_shedding_s` at most: see below.
half-open  one call at a time is let through as a probe; the others are still refused.

It opens when, within the window, at least `min_calls` calls ended and `failure_percent` of them failed, **and** no
endpoint has succeeded for half a window. The last condition is what a breaker per service lacks elsewhere: one broken
route, or one bad endpoint, must not close a service that works for everybody else. Single endpoints are the business of
`outlier`.

What is known of endpoints that failed says nothing of one that has come since, or that the registry calls healthy
again: then a probe is sent at once (`Breaker.endpoints_changed`), or a deploy that mends a service would have to wait.

A pause spares a service that takes in whatever comes: its backlog drains. One whose own mesh refuses what it cannot do
(``x-meshlib-refused: overload``) has none, so a long pause would only keep away what it could serve. Each such refusal
makes pauses short for the next `max_open_for_s` (`Breaker.callee_sheds`); without another they are as long as ever.

A probe is a lease: who holds it must give it back (`BreakerProbe.succeeded`, `failed`, or `abandoned` if the call was
cancelled), and the next call takes it over; so it does from a probe that has hung for `LEASE_S`. A call that could be
repeated is preferred; any other is taken only after `PATIENCE_S`, so that a service which only ever gets such calls
recovers too.
"""

from __future__ import annotations

import enum
import threading

from meshlib.policy.settings import BreakerSettings

__all__ = ["LEASE_S", "PATIENCE_S", "Breaker", "BreakerProbe", "BreakerState", "Rejected"]

PATIENCE_S = 5.0
LEASE_S = 30.0
"""The default of the total timeout: whoever takes longer with a probe has no timeouts at all."""
_BUCKETS = 10


class BreakerState(enum.Enum):
    """The state of a breaker, as reported."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_CLOSED = BreakerState.CLOSED


class Rejected:
    """The breaker refused; `retry_after_s` is when it will let a probe through, at the latest."""

    __slots__ = ("retry_after_s",)

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s


class BreakerProbe:
    """The lease of the one call that tests an open circuit. Exactly one of its three methods takes effect."""

    __slots__ = ("_breaker", "_done")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._done = False

    def succeeded(self, now: float) -> None:
        if not self._done:
            self._done = True
            self._breaker._close(self)

    def failed(self, now: float, *, reached: bool = True) -> None:
        """It failed; `reached` says whether any of it came to an endpoint."""
        if not self._done:
            self._done = True
            self._breaker._reopen(self, now, reached)

    def abandoned(self) -> None:
        if not self._done:
            self._done = True
            self._breaker._hand_on(self)


class Breaker:
    """The breaker of one cluster. Safe under threads. `changes` counts its changes of state, for telemetry."""

    __slots__ = (
        "_bucket_end",
        "_failures",
        "_last_success_at",
        "_lock",
        "_open_for_s",
        "_open_until",
        "_position",
        "_probe",
        "_probe_since",
        "_shed_at",
        "_totals",
        "_width_s",
        "changes",
        "rejected",
        "settings",
        "state",
    )

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self.settings = settings
        self.state = BreakerState.CLOSED
        self.changes = 0
        self.rejected = 0
        self._lock = threading.Lock()
        self._totals = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS
        self._position = 0
        self._width_s = settings.window_s / _BUCKETS
        self._bucket_end = now + self._width_s
        self._last_success_at = float("-inf")
        self._open_for_s = settings.open_for_s
        self._open_until = 0.0
        self._probe: BreakerProbe | None = None
        self._probe_since = 0.0
        self._shed_at = float("-inf")

    def admit(self, now: float, repeatable: bool) -> BreakerProbe | Rejected | None:
        """May a call pass? None: yes. A `BreakerProbe`: yes, as the probe. `Rejected`: no.

        Args:
            now: on the monotonic clock.
            repeatable: whether the call could be made again without harm; such a one makes the better probe.
        """
        if self.state is BreakerState.CLOSED:
            return None
        with self._lock:
            if self.closed:  # in the meantime
                return None
            # A clock that went back must not keep the circuit open for longer than it may ever be.
            if self._open_until - now > self.settings.max_open_for_s:
                self._open_until = now
            patience_s = 0.0 if repeatable else PATIENCE_S
            if now >= self._open_until + patience_s and not self._probe_held(now):
                self._set(BreakerState.HALF_OPEN)
                self._probe = BreakerProbe(self)
                self._probe_since = now
                return self._probe
            self.rejected += 1
            return Rejected(max(0.0, self._open_until - now))

    @property
    def closed(self) -> bool:
        """Whether calls pass freely."""
        return self.state is BreakerState.CLOSED

    def would_reject(self, now: float, repeatable: bool = True) -> bool:
        """Whether `admit` would refuse a call now; changes nothing."""
        patience_s = 0.0 if repeatable else PATIENCE_S
        return not self.closed and (now < self._open_until + patience_s or self._probe_held(now))

    def attempt_succeeded(self, now: float) -> None:
        """Some endpoint of the cluster answered well."""
        self._last_success_at = now

    def call_ended(self, now: float, success: bool) -> bool:
        """Count a call's final outcome; one that is neither (a cancelled call) is not reported here.

        Returns:
            Whether this opened the circuit.
        """
        if success:
            # What succeeds while the circuit is open was let through before it opened: it says nothing new.
            self._last_success_at = now
        # Not by hand, though that takes half as long: a signal's handler may raise between `acquire` and `try`.
        with self._lock:
            if self.state is not _CLOSED:
                return False
            if not 0.0 < self._bucket_end - now <= self._width_s:
                self._roll(now)
            self._totals[self._position] += 1
            if success:
                return False
            self._failures[self._position] += 1
            if self._last_success_at > now:  # the clock went back
                self._last_success_at = now
            total, failures = sum(self._totals), sum(self._failures)
            if total < self.settings.min_calls or failures * 100.0 < self.settings.failure_percent * total:
                return False
            if now - self._last_success_at < self.settings.window_s / 2:
                return False
            self._open(now)
            return True

    def open_for(self, now: float) -> float:
        """Seconds for which it still refuses everything; 0 when it is closed or ready for a probe."""
        return 0.0 if self.state is BreakerState.CLOSED else max(0.0, self._open_until - now)

    def endpoints_changed(self, now: float) -> None:
        """The cluster has an endpoint that it had not, or one is well again: the next probe is due now."""
        if self.state is _CLOSED:
            return
        with self._lock:
            self._open_for_s = self.settings.open_for_s
            self._open_until = min(self._open_until, now)

    def callee_sheds(self, now: float) -> None:
        """The mesh of the service has refused a request because there was too much to do."""
        self._shed_at = now

    def renew_lock(self) -> None:
        """After a fork, in the child: a lease held by a call of the parent will not come back here."""
        self._lock = threading.Lock()
        self._probe = None

    def _spares_itself(self, now: float) -> bool:
        return 0.0 <= now - self._shed_at <= self.settings.max_open_for_s

    def _probe_held(self, now: float) -> bool:
        return self._probe is not None and 0.0 <= now - self._probe_since < LEASE_S

    def _roll(self, now: float) -> None:
        """The time of a bucket is over, or the clock went back."""
        width = self._width_s
        early = self._bucket_end - now
        steps = int(-early / width) + 1
        if steps >= _BUCKETS or early > width:  # a long silence; or the clock went back
            self._clear(now)
            return
        for _ in range(steps):
            self._position = (self._position + 1) % _BUCKETS
            self._totals[self._position] = self._failures[self._position] = 0
        self._bucket_end += steps * width

    def _clear(self, now: float) -> None:
        self._totals = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS
        self._bucket_end = now + self._width_s

    def _set(self, state: BreakerState) -> None:
        if state is not self.state:
            self.state = state
            self.changes += 1

    def _open(self, now: float) -> None:
        self._set(BreakerState.OPEN)
        most_s = self.settings.open_for_shedding_s if self._spares_itself(now) else self._open_for_s
        self._open_until = now + min(self._open_for_s, most_s)
        self._clear(now)

    def _close(self, probe: BreakerProbe) -> None:
        with self._lock:
            if self._probe is probe:
                self._probe = None
                self._open_for_s = self.settings.open_for_s
                self._set(BreakerState.CLOSED)

    def _reopen(self, probe: BreakerProbe, now: float, reached: bool) -> None:
        with self._lock:
            if self._probe is probe:
                self._probe = None
                if reached and not self._spares_itself(now):
                    self._open_for_s = min(self._open_for_s * 2, self.settings.max_open_for_s)
                self._open(now)

    def _hand_on(self, probe: BreakerProbe) -> None:
        with self._lock:
            if self._probe is probe:
                self._probe = None
                self._set(BreakerState.OPEN)

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value}, {sum(self._failures)} of {sum(self._totals)} failed>"
