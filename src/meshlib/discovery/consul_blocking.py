"""Consul's blocking queries as a state machine: no I/O, no clock.

A query with ``index=N`` is answered when the index has passed N, or after ``wait`` and up to a sixteenth of it more.
The rules that every client has to follow, and most forget (Consul's documentation, "Blocking Queries"):

- the index may go backwards (a restored snapshot, a new server): then start over without one;
- an index of 0 would be answered at once, for ever: it is at least 1;
- an answer does not mean a change: payloads are compared;
- a service that changes all the time must not make the client ask all the time: a token bucket of two;
- the client has to wait longer than the server: ``wait * 17/16`` and some slack for the network.
"""

from __future__ import annotations

import hashlib

from meshlib.dataclass import dataclass

__all__ = ["NON_BLOCKING_TIMEOUT_S", "BlockingQuery", "Query", "TokenBucket"]

NON_BLOCKING_TIMEOUT_S = 5.0
"""For a query that Consul answers at once."""
_SLACK_S = 5.0


class TokenBucket:
    """At most `burst` at once, and `rate_per_s` in the long run."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def delay_s(self, now: float) -> float:
        """Take a token, and return how long to wait until it is there."""
        if self._at is not None:
            self._tokens = min(float(self._burst), self._tokens + max(0.0, now - self._at) * self._rate_per_s)
        self._at = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate_per_s)


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask next.

    Attributes:
        delay_s: how long to wait before asking.
        params: ``index`` and ``wait``, or nothing for an answer at once.
        timeout_s: how long to wait for the answer.
    """

    delay_s: float
    params: dict[str, str]
    timeout_s: float


class BlockingQuery:
    """One series of blocking queries.

    Args:
        wait_s: how long the server may block, in seconds; from 1 s to Consul's own limit of 10 minutes.
        rate_per_s: queries a second in the long run.
    """

    def __init__(self, wait_s: float, *, rate_per_s: float = 4.0) -> None:
        self._wait_s = min(max(1.0, wait_s), 600.0)
        self._bucket = TokenBucket(rate_per_s, burst=2)
        self._index = 0
        self._digest = b""
        self.restarts = 0
        """How often the index went backwards: the server lost its memory, or is another one."""

    @property
    def index(self) -> int:
        """The index of the last answer; 0 for none."""
        return self._index

    def next(self, now: float, *, blocking: bool = True) -> Query:
        """Return what to ask, given the time `now`.

        Args:
            now: monotonic seconds.
            blocking: False to be answered at once whatever the index.
        """
        delay_s = self._bucket.delay_s(now)
        if not blocking or not self._index:
            return Query(delay_s, {}, NON_BLOCKING_TIMEOUT_S)
        params = {"index": str(self._index), "wait": f"{self._wait_s * 1000:.0f}ms"}
        return Query(delay_s, params, self._wait_s * 17 / 16 + _SLACK_S)

    def answered(self, index: str | None, payload: bytes) -> bool:
        """Take in an answer. Return whether its payload is another than the last one's.

        Args:
            index: the header ``X-Consul-Index``.
            payload: the body.

        Raises:
            ValueError: if the index is not a number.
        """
        if index is None or not (index.isascii() and index.isdigit()) or len(index) > 20:
            raise ValueError(f"the header X-Consul-Index is {index!r}, not a number")
        new = max(1, int(index))
        if new < self._index:
            self.restarts += 1
            self._index = 0
        else:
            self._index = new
        digest = hashlib.blake2b(payload, digest_size=16).digest()
        changed = digest != self._digest
        self._digest = digest
        return changed
