"""Samples: what each attempt of a call says of the service's load, for the gates that learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshlib.dataclass import dataclass
from meshlib.errors import AttemptTimeout, ConnectFailed, DeadlineExceeded, MeshError, Reset, TLSFailed
from meshlib.policy.classify import OVERLOAD_STATUSES

if TYPE_CHECKING:
    from meshlib.policy.placement import Placement

__all__ = ["Sample", "samples"]

_LOST = (AttemptTimeout, ConnectFailed, DeadlineExceeded, Reset)


@dataclass(frozen=True, slots=True)
class Sample:
    """One attempt that says something.

    Attributes:
        began: when it started, on the monotonic clock.
        latency_s: to its headers, or until it failed.
        status: of its response; None without one.
        declined: a 429 or 503.
        lost: it timed out, or its connection was refused or reset.
    """

    began: float
    latency_s: float
    status: int | None
    declined: bool
    lost: bool

    @property
    def accepted(self) -> bool:
        """Whether the service took the request on."""
        return not (self.declined or self.lost)


def samples(now: float, call: Placement) -> Iterator[Sample]:
    """Those of a call's attempts in its cluster; of one that was cancelled, or failed on this side, there is none."""
    if call.facts.observe:
        # What really happened went another way, and only its end is known.
        if call.attempts:
            began, journal = call.attempts[0].started_at, call.journal
            yield from _judge(began, now - began, journal.status, journal.error)
        return
    for attempt in call.attempts:
        if attempt.cluster is call.cluster:
            end = attempt.headers_at if attempt.headers_at is not None else attempt.finished_at
            latency_s = (now if end is None else end) - attempt.started_at
            yield from _judge(attempt.started_at, latency_s, attempt.status, attempt.error)


def _judge(began: float, latency_s: float, status: int | None, error: MeshError | None) -> Iterator[Sample]:
    if status is not None:
        yield Sample(began, latency_s, status, status in OVERLOAD_STATUSES, False)
    elif isinstance(error, _LOST) and not isinstance(error, TLSFailed):
        yield Sample(began, latency_s, None, False, True)
