"""The request being served, as those see it who work for it."""

from __future__ import annotations

from math import inf

__all__ = ["ServedRequest"]


class ServedRequest:
    """One request being served. The server side closes it with the last byte of the response.

    Attributes:
        deadline: by which the caller wants the answer, on the monotonic clock; None if it named none.
        body_deadline: what takes its place once the response has begun, infinite for none; None if it stays.
        peer: the caller's address; empty where it is not known.
        closed: whether the response has gone out.
        overloaded: whether a call made for it failed by overload, so that to repeat the request would add to that.
        cancelled: why it was ended before its response: its ``deadline`` passed, or its caller went away
            (``disconnect``); empty if it was not.
    """

    __slots__ = ("_abandoned", "body_deadline", "cancelled", "closed", "deadline", "overloaded", "peer")

    def __init__(self, deadline: float | None = None, peer: str = "") -> None:
        self.deadline = deadline
        self.body_deadline: float | None = None
        self.peer = peer
        self.cancelled = ""
        self.closed = False
        self.overloaded = False
        self._abandoned = False

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for its response."""
        return not (self.closed or self.cancelled or self._abandoned)

    def stay_within(self, outer: ServedRequest) -> None:
        """End with the request for which this one is served in the same process, if not before."""
        until, body_until = outer.deadline, outer.body_deadline
        if until is None:
            return
        if self.deadline is None:
            self.deadline, self.body_deadline = until, body_until
            return
        self.deadline = min(self.deadline, until)
        if self.body_deadline is not None:
            self.body_deadline = min(self.body_deadline, until if body_until is None else body_until)

    def begin_body(self, now: float) -> None:
        """The response has begun: from now on the deadline is that of its body; but one that has passed stays."""
        later, self.body_deadline = self.body_deadline, None
        if later is None or self.cancelled or self.deadline is None or now >= self.deadline:
            return
        self.deadline = None if later == inf else later

    def close(self) -> None:
        """The response has gone out: the deadline binds nothing any more."""
        self.closed = not self._abandoned

    def abandon(self, reason: str, now: float) -> None:
        """It has ended without a response, and leaves a thread behind that nothing can end.

        Each call that this begins from now on is too late, whether `close` comes before or behind.
        """
        if self.deadline is None or self.deadline > now:
            self.deadline = now
        self.cancelled = reason
        self._abandoned, self.closed = True, False
