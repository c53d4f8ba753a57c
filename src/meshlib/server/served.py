"""One request in flight, from where it is begun to the last byte of its response."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from meshlib import context
from meshlib.propagation import REFUSED
from meshlib.server.refusal import OVERLOADED, asks_for_peace, not_ours

if TYPE_CHECKING:
    from meshlib.server.admission import Ticket
    from meshlib.server.intake import Arrival
    from meshlib.server.load import LoadReporter
    from meshlib.server.serving import Serving

__all__ = ["Observed", "Outcome", "Served"]

Outcome: TypeAlias = Literal["ok", "error", "refused", "cancelled"]

_ERROR = 500
_LOWEST_CHANGED = 429  # see `asks_for_peace` and `not_ours`
_OVERLOADED = (OVERLOADED[0].encode(), OVERLOADED[1].encode())
_REFUSED = frozenset({REFUSED.encode()})


class Served:
    """One request in flight, until `end`.

    Attributes:
        arrival: what it brought along.
        began_at: on the clock of its `Serving`.
        found: how many others were in flight by then.
        life: of the process that began it, which may have forked since.
        load: what tells its caller how loaded this process is; None if it is not to be told.
        ticket: its place; None where any number is served.
    """

    observed: ClassVar[bool] = False
    """Whether the request is to pass untouched."""

    __slots__ = ("_open", "_serving", "arrival", "began_at", "found", "life", "load", "ticket")

    def __init__(
        self,
        serving: Serving,
        arrival: Arrival,
        found: int,
        ticket: Ticket | None = None,
        load: LoadReporter | None = None,
    ) -> None:
        self.arrival = arrival
        self.found = found
        self.began_at = serving.clock()
        self.life = serving._life
        self.load = load
        self.ticket = ticket
        self._serving = serving
        self._open = True

    def answers(self, status: int, begins: bool = True) -> tuple[frozenset[bytes], list[tuple[bytes, bytes]]] | None:
        """The application has said the status of its response.

        Args:
            status: that.
            begins: whether it begins with that, not with its first bytes, of which `begins` tells then.

        Returns:
            The names, in lower case, of headers that the response loses, and headers that it gets; None for no change.
        """
        arrival, load = self.arrival, self.load
        if arrival.source is not None and 0 < status < _ERROR:
            self._serving._answered(self)  # by now: Flask takes the route away before the end
        if begins and arrival.request.body_deadline is not None:
            self.begins()
        if load is None and status < _LOWEST_CHANGED:
            return None
        names: frozenset[bytes] = _REFUSED if not_ours(status) else frozenset()
        gets: list[tuple[bytes, bytes]] = []
        if asks_for_peace(status, arrival.request):
            names |= {_OVERLOADED[0]}
            gets.append(_OVERLOADED)
        if load is not None:
            gets += load.headers(arrival.asks)
        return (names, gets) if names or gets else None

    def begins(self) -> None:
        """The response begins, on which its caller may have waited less long than it reads. Once more does nothing."""
        if self.arrival.request.body_deadline is not None:
            self.arrival.request.begin_body(context.monotonic())

    def end(self, status: int = 0, cancelled: str = "") -> None:
        """The last byte has gone out, or nothing more will. Once more does nothing.

        Args:
            status: of the response; 0 where there was none.
            cancelled: why nobody waited for it any more; empty where somebody did.
        """
        if self._open:
            self._open = False
            self.arrival.request.close()
            if self.arrival.late:
                cancelled = "deadline"
            outcome: Outcome = "cancelled" if cancelled else "ok" if 0 < status < _ERROR else "error"
            self._serving._end(self, outcome, cancelled)
            if self.ticket is not None:
                # An error may come early, and a caller that goes away at any time: neither says how long work takes.
                self.ticket.release(True if outcome == "ok" else False if cancelled == "deadline" else None)


class Observed(Served):
    """One request in flight that passes untouched, and is counted as if it did not (mode ``observe``).

    Attributes:
        cut_at: when its handler would be cut, on the clock of its `Serving`; None for never.
    """

    observed = True

    __slots__ = ("cut_at",)

    def __init__(self, serving: Serving, arrival: Arrival, found: int, ticket: Ticket | None = None) -> None:
        super().__init__(serving, arrival, found, ticket)
        self.cut_at: float | None = None

    def answers(self, status: int, begins: bool = True) -> None:
        """Nothing is changed."""
        super().answers(status, begins)
        if self.cut_at is not None and self._serving.clock() < self.cut_at:
            self.cut_at = None  # a response that has begun is not cut

    def end(self, status: int = 0, cancelled: str = "") -> None:
        """Count what would have become of it."""
        if self._open:
            if self.ticket is not None and (reason := self.ticket.refused):
                self._open = False
                self._serving._end(self, "refused", reason)
                self.ticket.release(None)
                return
            if not cancelled and self.cut_at is not None and self._serving.clock() >= self.cut_at:
                cancelled = "deadline"
            super().end(status, cancelled)
