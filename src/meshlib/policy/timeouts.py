"""How long a call and each of its attempts may take, what cut them, and what the endpoint is told of it.

The call's deadline is the earlier of its own timeout and the deadline it inherited; an attempt's is the earlier of that
and the per-try timeout. On the wire goes the attempt's: the call's would keep work alive whose answer nobody waits for.

`Timeouts` is the first layer of a call: `Placement`, `Holdings` and `Call` add to the same object, since an object for
each would cost every call more than what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from meshlib.context import too_late
from meshlib.errors import DeadlineExceeded
from meshlib.policy.attempt import Attempt
from meshlib.policy.facts import CallFacts
from meshlib.propagation import MAX_TIMEOUT_S

__all__ = ["ANSWER_SLACK_S", "CLOCK_SLACK_S", "Timeouts", "attempt_headers", "stream_headers"]

ANSWER_SLACK_S = 0.02
"""A service that is told the deadline answers that it has passed about this much earlier at most: the caller is to see
one and the same thing, whoever is first."""

CLOCK_SLACK_S = 0.001
"""A wait on a socket may end this much early; a timeout so close to the deadline is the deadline."""


class Timeouts:
    """The limits of one call, from when it began.

    Attributes:
        facts: what the call is.
        inherited: the deadline that it inherited, on the monotonic clock; None for none.
        deadline: when it must be over; set by `_begin_timeouts`.
    """

    __slots__ = ("_began", "_limit", "deadline", "facts", "inherited")

    facts: CallFacts
    inherited: float | None
    deadline: float | None
    _began: float
    _limit: str  # what set it: ``timeout`` or ``client`` for the call's own, ``deadline`` for an inherited one

    def _begin_timeouts(self, now: float) -> bool:
        """Set them. Whether the time is up before the call began."""
        facts, inherited = self.facts, self.inherited
        own_s = facts.policy.timeout_s
        deadline = None if own_s is None else now + own_s
        self._limit = facts.timeout_name
        if inherited is not None and (deadline is None or inherited < deadline):
            deadline = inherited
            self._limit = "deadline"
        self.deadline = deadline
        self._began = now
        return deadline is not None and now >= deadline

    def _passed(self, now: float, slack_s: float = 0.0) -> bool:
        """Whether the call's time is up."""
        return self.deadline is not None and now >= self.deadline - slack_s

    def _left_s(self, now: float) -> float | None:
        """Seconds until the call's time is up; None without a deadline."""
        return None if self.deadline is None else self.deadline - now

    def _attempt_limit(self, now: float) -> tuple[float | None, str]:
        """When an attempt that starts now is cut, and what that limit is called."""
        per_try_s, deadline = self.facts.policy.per_try_timeout_s, self.deadline
        if per_try_s is not None and (deadline is None or now + per_try_s < deadline):
            return now + per_try_s, "per-try"
        return deadline, self._limit

    def _blames(self, attempt: Attempt, now: float) -> bool:
        """Whether the call's end is the failure of an endpoint that had not answered by then.

        One that kept a call for most of the service's own timeout is to blame. One that got only what was left of it,
        or of a deadline that the caller brought along, is not.
        """
        if self._limit != "timeout" or self.deadline is None:
            return False
        return now - attempt.started_at >= (self.deadline - self._began) / 2

    def _exceeded(self, attempts: Sequence[Attempt], phase: str) -> DeadlineExceeded:
        """The error of a call whose time is up.

        Args:
            attempts: those made.
            phase: what it was doing.
        """
        allowed_s = 0.0 if self.deadline is None else self.deadline - self._began
        if allowed_s <= 0:
            text = f"{too_late()} before the call began"
        else:
            tried = ", ".join(attempt.member.endpoint.address for attempt in attempts)
            missing = "its body was not complete" if phase == "body" else "no response"
            text = f"{missing} within {allowed_s:.3g}s ({self._limit}); tried {tried or 'nothing'}"
        return DeadlineExceeded(text, limit=self._limit, phase=phase, service=self.facts.service)


def attempt_headers(n: int, timeout_s: float | None) -> list[tuple[bytes, bytes]]:
    """What attempt `n` tells its endpoint: its number, and how long somebody will wait for it."""
    if timeout_s is None or timeout_s > MAX_TIMEOUT_S:
        return [(b"x-envoy-attempt-count", b"%d" % n)]
    # Up to a microsecond is given back: what adding a timeout to the clock and taking the clock off again loses.
    return [*_headers(n, int(timeout_s * 1000 + 0.001))]


def stream_headers(n: int, timeout_s: float | None, body_s: float | None) -> list[tuple[bytes, bytes]]:
    """What an attempt tells whose response is read as a stream: besides, how long that will be, if it is longer."""
    headers = attempt_headers(n, timeout_s)
    if body_s != timeout_s and len(headers) > 1:
        told = b"none" if body_s is None or body_s > MAX_TIMEOUT_S else b"%d" % int(body_s * 1000 + 0.001)
        headers.append((b"x-meshlib-body-deadline-ms", told))
    return headers


@lru_cache(maxsize=1024)
def _headers(n: int, timeout_ms: int) -> tuple[tuple[bytes, bytes], ...]:
    """The same few again and again: most attempts have all of the per-try timeout."""
    left_ms = b"%d" % max(1, timeout_ms)
    return (
        (b"x-envoy-attempt-count", b"%d" % n),
        (b"x-meshlib-deadline-ms", left_ms),
        (b"x-envoy-expected-rq-timeout-ms", left_ms),
    )
