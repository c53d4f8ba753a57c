"""One idea of failure, for balancing, ejection, the breaker and retries alike.

A failure is what the endpoint, or the way to it, is to blame for: no connection, a reset, a broken protocol, a per-try
timeout, and the statuses by which servers and proxies say that they could not do the work (502, 503, 504). A 500 or a
404 is an answer: the same request would get it anywhere. A full connection pool is this process's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias

from meshlib.dataclass import dataclass
from meshlib.errors import MeshError, PoolTimeout, WireError
from meshlib.propagation import REFUSED

__all__ = [
    "FAILURE_STATUSES",
    "NOT_CALLED",
    "OVERLOAD_STATUSES",
    "TOO_LATE",
    "Failure",
    "ResponseHeaders",
    "asks_for_peace",
    "is_to_blame",
    "parse_reset",
    "parse_retry_after",
    "refused_by",
]

FAILURE_STATUSES: Final = frozenset({502, 503, 504})
OVERLOAD_STATUSES: Final = frozenset({429, 503})
"""Statuses with which ``Retry-After`` means: come back then."""

NOT_CALLED: Final = frozenset({"overload"})
"""Why a service's mesh refuses a request that it might serve at another time or place. Its application was not called,
so the request may be repeated as if it had not been sent."""

TOO_LATE: Final = frozenset({"expired", "hopeless", "deadline"})
"""Why it answers in the place of an application that could not have done it in time."""

ResponseHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

_LONGEST_RETRY_AFTER_S = 300.0


@dataclass(slots=True)
class Failure:
    """What is known of an attempt that failed, or may have.

    Attributes:
        status: of the response; None without one.
        error: why there is none; None with a response.
        sent: whether any byte of the request may have left, in this attempt or one before.
        retry_after_s: what the server asked for, with a 429 or 503; None without.
        overloaded: whether the server said not to retry.
        response: what a tenacity ``retry`` object sees as the result; the adapter's own response, if it has one.
        headers: of the response.
        reset_s: what one of the policy's reset headers asks for; None without.
        began: whether a byte of the request may have left in this attempt; None where that is what `sent` says.
        not_called: whether the application was called in no attempt, as the mesh of the service says.
        too_late: why there is no time to do it, as the mesh of the service says; None if it does not.
    """

    status: int | None = None
    error: MeshError | None = None
    sent: bool = True
    retry_after_s: float | None = None
    overloaded: bool = False
    response: Any = None
    headers: ResponseHeaders = ()
    reset_s: float | None = None
    began: bool | None = None
    not_called: bool = False
    too_late: str | None = None

    def header(self, name: str) -> str | None:
        """A header of the response, its values in one; None if it is not there."""
        wanted = name.encode("ascii")
        values = [value for key, value in self.headers if key.lower() == wanted]
        return b",".join(values).decode("latin-1") if values else None


def asks_for_peace(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a response says that the request is not to be retried, by whichever system's header.

    Envoy's ``x-envoy-overloaded`` and Finagle's ``finagle-http-nonretryable-nack`` say so by being there; gRPC's
    ``grpc-retry-pushback-ms`` does if it is negative or no number (gRFC A6).
    """
    for name, value in headers:
        lower = name.lower()
        if lower in _NO_RETRY:
            return True
        if lower == b"grpc-retry-pushback-ms" and not value.strip().isdigit():
            return True
    return False


_NO_RETRY = frozenset({b"x-envoy-overloaded", b"finagle-http-nonretryable-nack"})


def refused_by(status: int, headers: ResponseHeaders) -> str | None:
    """Why the mesh of the service, and not its application, gave this response; None if it does not say that it did.

    ``x-meshlib-refused`` counts with the status of its reason alone, and if it stands there once.
    """
    wanted = NOT_CALLED if status == 503 else TOO_LATE if status == 504 else None
    if wanted is None:
        return None
    said = [value for name, value in headers if name.lower() == _REFUSED]
    reason = said[0].decode("latin-1") if len(said) == 1 else ""
    return reason if reason in wanted else None


_REFUSED = REFUSED.encode()


def is_to_blame(error: MeshError) -> bool:
    """Whether the endpoint, or the way to it, caused this error; if not, it is the request, or this process."""
    return isinstance(error, WireError) and not isinstance(error, PoolTimeout)


def parse_reset(value: str | None, unix_timestamp: bool, wall_clock_s: float) -> float | None:
    """The seconds that a reset header asks to wait; None if it cannot be used.

    Args:
        value: the header's: whole seconds, or a point in time as seconds since the epoch.
        unix_timestamp: whether it is the latter.
        wall_clock_s: the time now, as seconds since the epoch.
    """
    text = "" if value is None else value.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return None
    if not unix_timestamp:
        return float(text)
    left_s = int(text) - int(wall_clock_s)
    return float(left_s) if left_s > 0 else None


def parse_retry_after(value: str | bytes | None, wall_clock_s: float | None = None) -> float | None:
    """The seconds that a ``Retry-After`` header asks to wait, at most 300; None without one that can be understood.

    Args:
        value: the header's value: seconds, or an HTTP date (RFC 9110, section 10.2.3).
        wall_clock_s: the time now, as seconds since the epoch; without it a date cannot be understood.
    """
    if value is None:
        return None
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_RETRY_AFTER_S)
    if wall_clock_s is None or not text:
        return None
    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is in UTC, as every date in HTTP is.
        seconds = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - wall_clock_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER_S)
