"""The seam between a pool and a protocol: what a connection is, whatever speaks HTTP on it.

An engine knows only these protocols. A connection takes a `WireRequest` and gives an *exchange*: one request and its
response, from the head on. HTTP/1.1 has one exchange at a time, HTTP/2 many. Another implementation comes in as another
`connect` function of the engine, with nothing else touched.

The rules, the same in sync and async:

* Every operation ends by the earlier of its phase's limit and the attempt's deadline, as `WireLimits` says.
* `exchange` and `read` raise only the errors of `meshlib.net.wire`. An `exchange` that raises has cleaned up behind
  itself: a connection that is of no more use then says so by its ``capacity``. Whoever was given an exchange ends it by
  `finish`, after an error in `read` too. `finish` does not wait, not even for a lock, and does not raise: a finalizer
  may call it.
* `Progress` is written as things happen: the phase before each operation, ``bytes_written`` before a byte can leave,
  ``answered`` when a byte of the response has come.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, TypeAlias

from meshlib.dataclass import dataclass
from meshlib.errors import AttemptTimeout, BodyBroken, ConnectTimeout, ProtocolError, Reset
from meshlib.net.steps import Bell, Steps, Wait
from meshlib.net.wire import Headers, Progress, Target, WireLimits, WireRequest

__all__ = [
    "NO_GOODBYE",
    "TIMER_SLACK_S",
    "AsyncConnect",
    "AsyncConnection",
    "AsyncExchange",
    "ConnectSteps",
    "DeadlinePassed",
    "Head",
    "Prefetched",
    "SyncConnect",
    "SyncConnection",
    "SyncExchange",
    "VerifyPeer",
    "body_broken",
    "earlier",
    "has_passed",
    "may_resend",
    "not_http",
    "reset",
    "time_is_up",
]

TIMER_SLACK_S = 0.005
"""By how much a loop's timer may fire too early: uvloop counts in whole milliseconds."""

NO_GOODBYE = "the peer closed the connection without the end that TLS asks for"

VerifyPeer: TypeAlias = Callable[[Target, Any], None]
"""Called with the target and its `ssl.SSLObject` or `ssl.SSLSocket` after the handshake, before the first byte of a
request. Raises `ssl.CertificateError` to refuse the peer."""


class DeadlinePassed(Exception):
    """A stream's operation was not done by its deadline."""


@dataclass(slots=True)
class Head:
    """The head of a final response."""

    status: int
    headers: Headers
    http_version: bytes
    reason: bytes


@dataclass(slots=True)
class Prefetched:
    """What of a body had come together with the head.

    Attributes:
        chunks: its bytes.
        complete: whether that is all of it, so that the connection is free.
        error: why there will be no more.
    """

    chunks: list[bytes]
    complete: bool = False
    error: BaseException | None = None


class SyncExchange(Protocol):
    """One request and its response, from its head on, for threads."""

    head: Head
    extensions: dict[str, Any]

    def prefetch(self) -> Prefetched:
        """What of the body is there already. Does no I/O."""
        ...

    def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout: by the limits for bodies.
            BodyBroken: if it breaks off.
        """
        ...

    def read_steps(self, bell: Bell) -> Steps[bytes]:
        """`read`, in steps."""
        ...

    def finish(self) -> bool:
        """End the exchange, complete or not. True if the connection may take another request."""
        ...


class AsyncExchange(Protocol):
    """One request and its response, from its head on, for an event loop.

    Attributes:
        content: the whole body, if it came with the head; then there is nothing left to do but `finish`.
    """

    head: Head
    content: bytes | None
    extensions: dict[str, Any]

    def prefetch(self) -> Prefetched:
        """What of the body is there already. Does no I/O."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            AttemptTimeout: by the limits for bodies.
            BodyBroken: if it breaks off.
        """
        ...

    def finish(self) -> bool:
        """End the exchange, complete or not. True if the connection may take another request."""
        ...


class _Connection(Protocol):
    @property
    def capacity(self) -> int:
        """How many exchanges it can have at once; 0 when it takes no more."""
        ...

    def close(self) -> None:
        """Close it, at peace with the peer, without waiting."""
        ...

    def abandon(self) -> None:
        """Let go of the socket in a forked child: nothing is sent, and the parent's connection lives on."""
        ...


class SyncConnection(_Connection, Protocol):
    """A connection for threads."""

    def usable(self) -> bool:
        """Look at a kept connection before it is used: False if the peer has closed it or said something unasked."""
        ...

    def exchange(self, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncExchange:
        """Send a request and return when the response's head is there."""
        ...

    def exchange_steps(
        self, request: WireRequest, limits: WireLimits, progress: Progress, bell: Bell
    ) -> Steps[SyncExchange]:
        """`exchange` in steps, for a request whose body is in memory."""
        ...


class AsyncConnection(_Connection, Protocol):
    """A connection of one event loop; all of it is called on that loop's thread, but `abandon`."""

    @property
    def closed(self) -> bool:
        """Whether its socket is gone, which takes the loop a few turns after it was told to close."""
        ...

    def usable(self) -> bool | None:
        """Look at a kept connection before it is used: False if the peer has closed it or said something unasked.

        None if that cannot be known before the loop has had a turn.
        """
        ...

    async def exchange(self, request: WireRequest, limits: WireLimits, progress: Progress) -> AsyncExchange:
        """Send a request and return when the response's head is there; may be cancelled at any point."""
        ...

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        ...

    def forsake(self) -> None:
        """Free the socket after its loop has been closed, so that nothing can run on it any more."""
        ...


SyncConnect: TypeAlias = Callable[[Target, WireLimits, Progress, VerifyPeer | None], SyncConnection]
ConnectSteps: TypeAlias = Callable[
    [Target, WireLimits, Progress, VerifyPeer | None, Bell | None], Generator[Wait, None, SyncConnection]
]
AsyncConnect: TypeAlias = Callable[[Target, WireLimits, Progress, VerifyPeer | None], Awaitable[AsyncConnection]]


def earlier(limit_s: float | None, deadline: float | None) -> float | None:
    """The point on the monotonic clock by which an operation that begins now must end; None for never."""
    if limit_s is None:
        return deadline
    until = time.monotonic() + limit_s
    return until if deadline is None or until < deadline else deadline


def has_passed(deadline: float | None) -> bool:
    """Whether that point on the monotonic clock lies behind us; None never does."""
    return deadline is not None and time.monotonic() >= deadline


def may_resend(request: WireRequest, progress: Progress, error: Reset) -> bool:
    """Whether to send it once more on a new connection, silently: it costs no retry, as nothing can have happened.

    Either no byte of it was written, or it sat on a kept connection that the server had closed before it could see the
    request, as far as can be told, and the request is one that may be sent twice.
    """
    if progress.resent or progress.answered:
        return False
    # A body that is noted down as it is sent may by now have outgrown its notes; to go on with it would send its tail.
    resendable = request.resendable and getattr(request.body, "replayable", True)
    if not progress.bytes_written:
        return resendable or isinstance(request.body, bytes)
    return progress.reused and resendable


_DID_NOT = {
    "write": "did not take the request",
    "headers": "sent no response headers",
    "body": "did not send the rest of the body",
}


def time_is_up(phase: str, limits: WireLimits, endpoint: str) -> AttemptTimeout | ConnectTimeout:
    """The error for an operation that was cut, saying which limit cut it."""
    deadline = limits.body_deadline if phase == "body" else limits.deadline
    by_deadline = deadline is not None and time.monotonic() >= deadline - TIMER_SLACK_S
    if phase in ("connect", "tls"):
        what = "no connection" if phase == "connect" else "no TLS handshake"
        why = "before the attempt's deadline" if by_deadline else f"within {limits.connect_s:g} s (connect timeout)"
        return ConnectTimeout(f"{what} to {endpoint} {why}", endpoint=endpoint)
    limit = {"write": limits.write_s, "headers": limits.read_s, "body": limits.body_idle_s}[phase]
    if by_deadline or limit is None:
        why = "before the deadline" if phase == "body" else "before the attempt's deadline"
    else:
        why = f"within {limit:g} s ({'idle' if phase == 'body' else 'write' if phase == 'write' else 'read'} timeout)"
    return AttemptTimeout(f"{endpoint} {_DID_NOT[phase]} {why}", phase=phase, endpoint=endpoint)


def reset(endpoint: str, error: BaseException | None = None, *, refused: bool = False) -> Reset:
    """The error for a connection that ended before the response's head was there.

    Args:
        endpoint: its address.
        error: why.
        refused: whether the peer vouches that it did not look at the request.
    """
    why = getattr(error, "strerror", None) or (str(error) if error else "") or "the peer closed the connection"
    made = Reset(f"{endpoint} sent no response: {why}", endpoint=endpoint)
    if refused:
        made.refused = True
    return made


def body_broken(endpoint: str, error: BaseException | None = None) -> BodyBroken:
    """The error for a body that broke off or broke the rules."""
    why = getattr(error, "strerror", None) or (str(error) if error else "") or "the peer closed the connection"
    return BodyBroken(f"the body of the response from {endpoint} broke off: {why}", endpoint=endpoint)


def not_http(endpoint: str, error: BaseException) -> ProtocolError:
    """The error for an answer that is not HTTP."""
    return ProtocolError(f"{endpoint} broke the rules of HTTP: {error}", endpoint=endpoint)
