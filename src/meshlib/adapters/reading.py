"""A response that the caller reads: tells the call how its body ends, also if nobody ever reads or closes it."""

from __future__ import annotations

from meshlib.adapters.exchange import Exchange
from meshlib.errors import MeshError

__all__ = ["Reading"]


class Reading:
    """The body of a call's response, from the call's point of view.

    Args:
        exchange: the call; what is open of its attempts is the one whose response is read.

    Attributes:
        exchange: it.
        open: whether the body has not ended yet, nor was given up.
    """

    __slots__ = ("_n", "exchange", "open")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.open = True
        attempts = exchange.call.attempts
        self._n = len(attempts)
        if self._n > 1:  # a hedge that lost the race comes behind, and is over
            self._n = next((each.n for each in attempts if each.open), self._n)

    def ended(self) -> None:
        """The body was read to its end."""
        if self.open:
            self.open = False
            self.exchange.call.body_end(self.exchange.plane.clock.now(), self._n)

    def left(self) -> None:
        """Nobody wants the rest."""
        if self.open:
            self.open = False
            self.exchange.call.cancelled(self.exchange.plane.clock.now(), self._n)

    def broken(self, error: MeshError) -> MeshError:
        """The body broke off; returns the error, with all that is known of the call."""
        exchange = self.exchange
        error.name_service(exchange.call.facts.service)
        if self.open:
            self.open = False
            exchange.call.error(exchange.plane.clock.now(), self._n, error, "body")
        error.record = exchange.record()
        exchange.forget_frames()
        return error

    def forget(self) -> None:
        """Nobody wants the rest; the mesh settles that at its next turn.

        A finalizer may say so: it runs at any moment, perhaps while this very thread holds a lock that ending the call
        needs.
        """
        if self.open:
            self.open = False
            self.exchange.plane.abandoned.append((self.exchange.call, self._n))

    __del__ = forget
