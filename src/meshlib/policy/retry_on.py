"""The conditions of a retry policy: which failures they name. Envoy's words with Envoy's meaning, and two of our own.

    condition               names
    5xx                     a status from 500, and any attempt without a response
    gateway-error           502, 503, 504, and any attempt without a response
    reset                   any attempt without a response: no connection, closed, broken, cut by the per-try timeout
    reset-before-request    the same, if no byte of the request left in this attempt
    connect-failure         no connection was made, in time or at all
    refused-stream          HTTP/2: the peer did not look at the request, it says (REFUSED_STREAM, or past its GOAWAY)
    retriable-4xx           409
    retriable-status-codes  those listed in `retriable_status_codes`; a status among the conditions means the same
    retriable-headers       responses that bear one of `retriable_headers`
    envoy-ratelimited       responses with ``x-envoy-ratelimited``, which no other condition names
    cancelled, deadline-exceeded, resource-exhausted, internal, unavailable
                            responses with that ``grpc-status`` (1, 4, 8, 13, 14) in their headers, not in trailers
    retry-after             ours: a 429 or 503 that bears ``Retry-After``
    a status                ours and Istio's: that status

A full pool or line of this process is named by none of them: Envoy calls it overflow, and never retries it.

Source: Envoy, ``retry_state_impl.cc`` (the order of its questions included) and its router_filter documentation. What
is named is not yet retried: `meshlib.policy.retry` asks whether that is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from meshlib.errors import AttemptTimeout, BodyBroken, ConnectFailed, MeshError, ProtocolError, Reset
from meshlib.policy.classify import OVERLOAD_STATUSES, Failure
from meshlib.routing.match import StringMatch

__all__ = ["CONDITIONS", "HEADER_CONDITIONS", "HeaderMatch", "RetryCondition", "named_by"]

RetryCondition: TypeAlias = str | int
HeaderMatch: TypeAlias = tuple[str, StringMatch]
"""The name of a header in lower case, and what it is to be."""

_Kind: TypeAlias = Literal["connect", "refused", "timeout", "reset"]

_ANY: Final[frozenset[_Kind]] = frozenset({"connect", "refused", "timeout", "reset"})

_NO_RESPONSE: Final[dict[str, frozenset[_Kind]]] = {
    "reset": _ANY,
    "5xx": _ANY,
    "gateway-error": _ANY,
    "refused-stream": frozenset({"refused"}),
    "connect-failure": frozenset({"connect"}),
}
_STATUSES: Final[dict[str, frozenset[int]]] = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset({502, 503, 504}),
    "retriable-4xx": frozenset({409}),
}
_GRPC: Final[dict[str, str]] = {
    "cancelled": "1",
    "deadline-exceeded": "4",
    "resource-exhausted": "8",
    "internal": "13",
    "unavailable": "14",
}

HEADER_CONDITIONS: Final = frozenset({"envoy-ratelimited", "retriable-headers", *_GRPC})
"""Those that look at the headers of responses, good ones included."""

CONDITIONS: Final = (
    "connect-failure",
    "reset",
    "5xx",
    "retry-after",
    "gateway-error",
    "reset-before-request",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    *_GRPC,
)
"""All that have a name."""


def named_by(
    on: frozenset[RetryCondition],
    failure: Failure,
    *,
    statuses: frozenset[int] = frozenset(),
    headers: Sequence[HeaderMatch] = (),
) -> RetryCondition | None:
    """The condition that names this failure; None if none does.

    Args:
        on: the conditions of the policy.
        failure: what happened.
        statuses: what ``retriable-status-codes`` stands for.
        headers: what ``retriable-headers`` stands for: any of them.
    """
    if failure.error is not None:
        return _without_response(on, failure, failure.error)
    status = failure.status
    if status is None:
        return None
    if failure.header("x-envoy-ratelimited") is not None:
        return "envoy-ratelimited" if "envoy-ratelimited" in on else None
    if status in on:
        return status
    for condition, named in _STATUSES.items():
        if condition in on and status in named:
            return condition
    if "retriable-status-codes" in on and status in statuses:
        return "retriable-status-codes"
    if "retry-after" in on and failure.retry_after_s is not None and status in OVERLOAD_STATUSES:
        return "retry-after"
    if "retriable-headers" in on and any(wanted.matches(failure.header(name)) for name, wanted in headers):
        return "retriable-headers"
    grpc_status = failure.header("grpc-status")
    if grpc_status is not None:
        for condition, code in _GRPC.items():
            if condition in on and grpc_status.strip() == code:
                return condition
    return None


def _without_response(on: frozenset[RetryCondition], failure: Failure, error: MeshError) -> RetryCondition | None:
    kind = _kind(error)
    if kind is None:
        return None
    for condition, named in _NO_RESPONSE.items():
        if condition in on and kind in named:
            return condition
    began = failure.sent if failure.began is None else failure.began
    return "reset-before-request" if "reset-before-request" in on and not began else None


def _kind(error: MeshError) -> _Kind | None:
    """How an attempt ended without a response; None if not by the endpoint, or the way to it."""
    if isinstance(error, ConnectFailed):
        return "connect"
    if isinstance(error, AttemptTimeout):
        return "timeout"
    if isinstance(error, Reset) and error.refused:
        return "refused"
    return "reset" if isinstance(error, (Reset, ProtocolError, BodyBroken)) else None
