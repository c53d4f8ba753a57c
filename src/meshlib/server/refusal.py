"""Responses that the mesh gives in the place of the application: RFC 9457 problem documents, short."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import Final

from opentelemetry import trace

from meshlib.context import ServedRequest
from meshlib.dataclass import dataclass
from meshlib.errors import (
    AttemptTimeout,
    BodyBroken,
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    DiscoveryUnavailable,
    LimitExceeded,
    MeshError,
    NoEndpoint,
    PoolTimeout,
    Reset,
    TLSFailed,
)
from meshlib.propagation import REFUSED

__all__ = [
    "EXPIRED",
    "HOPELESS",
    "LATE",
    "OVERLOADED",
    "Refusal",
    "asks_for_peace",
    "not_ours",
    "overload",
    "refusal_for",
]

_log = logging.getLogger("meshlib.server")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole response.

    Attributes:
        status: its status.
        headers: in lower case, with the length and type of the body.
        body: a problem document.
    """

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status_line(self) -> str:
        """``504 Gateway Timeout``, as WSGI wants it."""
        return f"{self.status.value} {self.status.phrase}"

    @property
    def reason(self) -> str:
        """What its header `REFUSED` says; empty without."""
        return next((value for name, value in self.headers if name == REFUSED), "")


def _refusal(status: HTTPStatus, detail: str, *extra: tuple[str, str]) -> Refusal:
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    body = json.dumps(problem).encode()
    headers = (("content-type", "application/problem+json"), ("content-length", str(len(body))), *extra)
    return Refusal(status, headers, body)


EXPIRED = _refusal(
    HTTPStatus.GATEWAY_TIMEOUT,
    "The deadline that came with the request left no time to serve it; it was not begun.",
    (REFUSED, "expired"),
)
"""For a request whose caller no longer waits. The application was not called."""

HOPELESS = _refusal(
    HTTPStatus.GATEWAY_TIMEOUT,
    "Requests of this kind take longer than the deadline that came with this one leaves; it was not begun.",
    (REFUSED, "hopeless"),
)
"""For a request that would not be done in time. The application was not called."""

LATE = _refusal(
    HTTPStatus.GATEWAY_TIMEOUT,
    "The deadline that came with the request passed while it was being served.",
    (REFUSED, "deadline"),
)
"""For a request whose caller waits no longer than now. The application was called, and may have done its work."""


OVERLOADED: Final = ("x-envoy-overloaded", "true")
"""Envoy's header for: do not repeat this request, it was refused because there is too much to do."""


def not_ours(status: int) -> bool:
    """Whether `REFUSED` is taken off an application's own response of `status`.

    It would tell callers that the application was not called. One that passes on the response of a service below it,
    headers and all, does not mean to say that.
    """
    return status == HTTPStatus.SERVICE_UNAVAILABLE


def overload(detail: str, retry_after_s: float, *, final: bool) -> Refusal:
    """For a request of which there are too many. The application was not called.

    Args:
        detail: why it is this one.
        retry_after_s: how long to wait before it is repeated.
        final: whether it is not to be repeated, here or anywhere.
    """
    extra = [(REFUSED, "overload"), ("retry-after", str(max(1, math.ceil(retry_after_s))))]
    return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail, *extra, *([OVERLOADED] if final else []))


def asks_for_peace(status: int, request: ServedRequest) -> bool:
    """Whether the response to `request` is to bear `OVERLOADED`.

    A request that failed because a call made for it did, by overload, fails again for whoever repeats it, and each
    repetition would cost all the retries below once more.
    """
    return request.overloaded and (status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS)


_LATE = (DeadlineExceeded, AttemptTimeout)
_AWAY = (
    BodyBroken,
    CircuitOpen,
    ConnectFailed,
    DiscoveryUnavailable,
    LimitExceeded,
    NoEndpoint,
    PoolTimeout,
    Reset,
)


def refusal_for(error: BaseException, *, trusted: bool) -> Refusal | None:
    """The response for an error of a meshed call that the application let pass; None if it is not one with a status.

    No answer in time gives 504. What may be otherwise in a moment gives 503, with ``Retry-After`` where the error knows
    it: an open breaker, no endpoint, a limit reached, a connection that failed or broke off. Other errors of the mesh
    are faults to be seen as such, and stay the framework's.

    Args:
        error: what the application raised.
        trusted: whether the caller may read which service failed, and why.
    """
    if isinstance(error, _LATE):
        status, summary = HTTPStatus.GATEWAY_TIMEOUT, "A service that this one depends on did not answer in time."
    elif isinstance(error, _AWAY) and not isinstance(error, TLSFailed):
        status, summary = HTTPStatus.SERVICE_UNAVAILABLE, "A service that this one depends on cannot be called now."
    else:
        return None
    extra: list[tuple[str, str]] = []
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s and status is HTTPStatus.SERVICE_UNAVAILABLE:
        extra.append(("retry-after", str(max(1, math.ceil(retry_after_s)))))
    _note(error, status)
    return _refusal(status, str(error) if trusted else summary, *extra)


def _note(error: MeshError, status: HTTPStatus) -> None:
    # The status alone would hide from the service's own people what it stands for.
    _log.info("answered %d for %s: %s", status.value, type(error).__name__, error)
    span = trace.get_current_span()
    if span.is_recording():
        span.record_exception(error)
