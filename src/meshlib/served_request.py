"""The request being served, as those see it who work for it."""

from __future__ import annotations

__all__ = ["ServedRequest"]


class ServedRequest:
    """One request being served. The server side closes it with the last byte of the response.

    Attributes:
        deadline: by which the caller wants the answer, on the monotonic clock; None if it named none.
        peer: the caller's address; empty where it is not known.
        closed: whether the response has gone out.
        overloaded: whether a call made for it failed by overload, so that to repeat the request would add to that.
        cancelled: why it was ended before its response: its ``deadline`` passed, or its caller went away
            (``disconnect``); empty if it was not.
    """

    __slots__ = ("_abandoned", "cancelled", "closed", "deadline", "overloaded", "peer")

    def __init__(self, deadline: float | None = None, peer: str = "") -> None:
        self.deadline = deadline
        self.peer = peer
        self.cancelled = ""
        self.closed = False
        self.overloaded = False
        self._abandoned = False

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
