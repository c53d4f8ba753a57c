"""``mode: observe``: decide everything, count it and record it, and change nothing.

The request goes out as it would without the mesh. Beside it the state machine of the call is asked what it would have
done. What it learns of single endpoints would be false, since the answer came from wherever the caller's own resolution
led; so it is told only how the call as a whole went.
"""

from __future__ import annotations

from meshlib.adapters.exchange import Exchange
from meshlib.errors import ConnectFailed, MeshError, PoolTimeout, Reset
from meshlib.policy.actions import Action, Deliver, Fail, Start
from meshlib.policy.call import CallState
from meshlib.policy.classify import parse_retry_after

__all__ = ["Shadow"]

_UNSENT = ("pool", "connect", "tls")


class Shadow:
    """The decisions about one call that is made without the mesh."""

    def __init__(self, exchange: Exchange) -> None:
        """Ask what would be done with the call, before it is made."""
        self.exchange = exchange
        self._call = exchange.call
        self._call.why = self._call.why or []
        self._n = 0
        traits = self._call.traits
        if traits is not None and traits.rewritten is not None:
            self._call.say(f"would send the path {traits.rewritten!r}")
        self._note(self._call.begin(self._now()))
        if self._call.state is CallState.WAITING:
            self._call.say(f"would have waited: {self._call.record(self._now()).waits[-1].reason}")

    def answered(self, status: int, retry_after: str | None) -> None:
        """The call was answered."""
        if self._call.state is CallState.RUNNING:
            seconds = parse_retry_after(retry_after)
            self._note(self._call.headers(self._now(), self._n, status, retry_after_s=seconds))
        self._call.say(f"was answered with {status}")
        self._call.settled(self._now(), status=status)
        self.exchange.ended()

    def failed(self, error: MeshError, phase: str) -> None:
        """The call failed in `phase`."""
        if self._call.state is CallState.RUNNING:
            if phase not in _UNSENT:
                self._call.bytes_written(self._now(), self._n)
            self._note(self._call.error(self._now(), self._n, error, phase))
        self._call.say(f"failed with {type(error).__name__}: {error}")
        self._call.settled(self._now(), error=error)
        self.exchange.ended()

    def raised(self, error: BaseException, meant: MeshError | None) -> None:
        """What was done in the place of the call raised.

        Args:
            error: what was raised.
            meant: what that is to the mesh; None where it is no error of the client's library.
        """
        if meant is None and not isinstance(error, Exception):
            self.cancelled()
            return
        meant = meant or Reset(str(error) or type(error).__name__)
        self.failed(meant, "connect" if isinstance(meant, (ConnectFailed, PoolTimeout)) else "headers")

    def cancelled(self) -> None:
        """The caller gave the call up."""
        self._call.cancelled(self._now())
        self.exchange.ended()

    def _note(self, actions: list[Action]) -> None:
        say, again = self._call.say, self._n > 0
        for action in actions:
            if isinstance(action, Start):
                self._n = action.n
                say(f"would {'retry' if again else 'go'} to {action.member.endpoint.address} ({action.cluster})")
            elif isinstance(action, Fail):
                say(f"would fail: {type(action.error).__name__}: {action.error}")
            elif isinstance(action, Deliver):
                say("would deliver the response")
        if again and self._call.state is CallState.WAITING:
            say("would retry after a back-off")

    def _now(self) -> float:
        return self.exchange.plane.clock.now()
