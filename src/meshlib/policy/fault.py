"""Injected faults: a call is delayed, or answered here instead of being sent, to see what its callers make of it.

    delay       before the call is let in: `fixed_s`, for `percent` of the calls
    abort       instead of the call: a status, a gRPC status or a reset, for `percent` of the calls, after the delay

The two are drawn independently of one another, the delay first, each as ``U < percent`` with one part in a million as
the step; a percentage that is not given is 0. While `max_active` calls of the service have a fault (are delayed),
further ones have none. With `headers` a request may ask for faults itself, never more often than `percent` allows:

    x-envoy-fault-delay-request                 milliseconds, instead of `fixed_s`
    x-envoy-fault-delay-request-percentage      a whole number, instead of `percent`, if it is lower
    x-envoy-fault-abort-request                 a status from 200 to 599, instead of the one configured
    x-envoy-fault-abort-grpc-request            a gRPC status, the same; the other header goes before it
    x-envoy-fault-abort-request-percentage      as for the delay

Source: Envoy's fault filter (``fault_filter.cc``, fault.proto and its documentation), which Istio configures. There a
delay is outside the route's timeout (istio#13705); here the call's total timeout holds, and cuts it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from random import Random
from typing import Final

from meshlib.dataclass import dataclass
from meshlib.durations import format_duration

__all__ = [
    "AbortSettings",
    "ActiveFaults",
    "DelaySettings",
    "FaultSettings",
    "Injected",
    "draw_fault",
    "grpc_status_of",
    "reply_to",
]

_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class DelaySettings:
    """How long calls are delayed, and what share of them.

    Attributes:
        fixed_s: None where only a request's headers say.
        percent: of the calls.
    """

    fixed_s: float | None = None
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class AbortSettings:
    """What calls are answered with, and what share of them; all of the first three None or False: the headers say.

    Attributes:
        status: an HTTP status.
        grpc_status: a gRPC status.
        reset: fail as if the endpoint had reset the connection.
        percent: of the calls.
    """

    status: int | None = None
    grpc_status: int | None = None
    reset: bool = False
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """The faults of a route.

    Attributes:
        delay, abort: None where there is none.
        max_active: calls that have a fault at once; None for no limit.
        headers: whether a request may ask for faults.
    """

    delay: DelaySettings | None = None
    abort: AbortSettings | None = None
    max_active: int | None = None
    headers: bool = False

    def __str__(self) -> str:
        parts = []
        if self.delay is not None:
            span = "a delay" if self.delay.fixed_s is None else f"a delay of {format_duration(self.delay.fixed_s)}"
            parts.append(f"{span} for {self.delay.percent:g}%")
        if (abort := self.abort) is not None:
            what = f"status {abort.status}" if abort.status is not None else "a reset" if abort.reset else "an abort"
            what = what if abort.grpc_status is None else f"gRPC status {abort.grpc_status}"
            parts.append(f"{what} for {abort.percent:g}%")
        return " and ".join(parts) + (" of the requests that ask" if self.headers else "")


@dataclass(frozen=True, slots=True)
class Injected:
    """The fault of one call.

    Attributes:
        delay_s: 0 for none.
        abort: whether the call is answered here.
        status, grpc_status: with what; both None: a reset.
    """

    delay_s: float = 0.0
    abort: bool = False
    status: int | None = None
    grpc_status: int | None = None

    def __str__(self) -> str:
        parts = [f"a delay of {format_duration(self.delay_s)}"] if self.delay_s > 0 else []
        if self.is_reset:
            parts.append("a reset")
        elif self.abort:
            parts.append(f"status {self.status}" if self.status is not None else f"gRPC status {self.grpc_status}")
        return " and ".join(parts)

    @property
    def is_reset(self) -> bool:
        """Whether it fails as if the endpoint had reset the connection."""
        return self.abort and self.status is None and self.grpc_status is None


def draw_fault(settings: FaultSettings, headers: Mapping[str, str], rng: Random) -> Injected | None:
    """The fault that a call has; None for none.

    Args:
        settings: of its route.
        headers: of the request, with names in lower case.
        rng: for the draws, two of them if there are two faults to draw.
    """
    asked = headers if settings.headers else {}
    delay_s, abort = 0.0, None
    if (delay := settings.delay) is not None:
        drawn = _drawn(delay.percent, asked.get("x-envoy-fault-delay-request-percentage"), rng)
        wanted_ms = _number(asked.get("x-envoy-fault-delay-request"))
        wanted_s = (delay.fixed_s or 0.0) if wanted_ms is None else wanted_ms / 1000
        delay_s = wanted_s if drawn else 0.0
    if settings.abort is not None and _drawn(
        settings.abort.percent, asked.get("x-envoy-fault-abort-request-percentage"), rng
    ):
        abort = _abort(settings.abort, asked)
    if abort is None:
        return Injected(delay_s) if delay_s > 0 else None
    status, grpc_status = abort
    return Injected(delay_s, True, status, grpc_status)


def _abort(settings: AbortSettings, asked: Mapping[str, str]) -> tuple[int | None, int | None] | None:
    """The status and the gRPC status to answer with, both None for a reset; None if nobody says."""
    status = _number(asked.get("x-envoy-fault-abort-request"))
    if status is not None and 200 <= status <= 599:
        return status, None
    grpc_status = _number(asked.get("x-envoy-fault-abort-grpc-request"))
    if grpc_status is not None:
        return None, grpc_status
    if settings.status is None and settings.grpc_status is None and not settings.reset:
        return None
    return settings.status, settings.grpc_status


def _drawn(percent: float, asked: str | None, rng: Random) -> bool:
    share = _number(asked)
    percent = percent if share is None else min(percent, share)
    return int(rng.random() * _MILLION) < round(percent * 10_000)


def _number(text: str | None) -> int | None:
    """What a header says; None if it says no whole number that anybody could mean."""
    if text is None:
        return None
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


_HTTP_STATUS: Final = {
    0: 200,
    1: 499,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    14: 503,
    16: 401,
}
"""Of gRPC statuses, after google.rpc.Code; all others are 500."""

_GRPC_STATUS: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""Of HTTP statuses, after gRPC's http-grpc-status-mapping.md, which Envoy follows; all others are 2."""

_BODY: Final = b"fault filter abort"


def grpc_status_of(status: int) -> int:
    """The gRPC status that stands for an HTTP status."""
    return _GRPC_STATUS.get(status, 2)


def reply_to(fault: Injected, headers: Mapping[str, str]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The status, headers and body of an abort, which is no reset.

    A gRPC client is told in ``grpc-status``, of an HTTP status what it stands for; any other client by the HTTP status
    that a gRPC status stands for.

    Args:
        fault: of the call.
        headers: of the request, with names in lower case.
    """
    code = fault.grpc_status
    if headers.get("content-type", "").startswith("application/grpc"):
        told = grpc_status_of(fault.status or 0) if code is None else code
        grpc = [(b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % told), (b"grpc-message", _BODY)]
        return 200, [*grpc, (b"content-length", b"0")], b""
    status = _HTTP_STATUS.get(code, 500) if code is not None else fault.status or 500
    plain = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_BODY))]
    return status, plain, _BODY


class ActiveFaults:
    """The calls of one service that have a fault now. Exact under threads.

    Attributes:
        count: of them.
        delays, aborts, overflowed: calls that were delayed, that were aborted, and that would have had a fault, but
            that there were enough. Only grow.
    """

    __slots__ = ("_lock", "aborts", "count", "delays", "overflowed")

    def __init__(self) -> None:
        self.count = self.delays = self.aborts = self.overflowed = 0
        self._lock = threading.Lock()

    def enter(self, fault: Injected, max_active: int | None) -> bool:
        """Count one more, with this fault; False if there are `max_active` already."""
        with self._lock:
            if max_active is not None and self.count >= max_active:
                self.overflowed += 1
                return False
            self.count += 1
            self.delays += fault.delay_s > 0
            self.aborts += fault.abort
            return True

    def exit(self) -> None:
        """One is over."""
        with self._lock:
            self.count = max(0, self.count - 1)

    def renew_lock(self) -> None:
        """After a fork, in the child: the parent's calls are not ours."""
        self._lock = threading.Lock()
        self.count = 0
