"""Gates: what may refuse a call at the door of a cluster, after its circuit breaker, before any attempt is made.

A cluster has a list of them, in the order in which they are asked. One that lets a call in is told how the call ended,
and when it left the cluster. A gate may also ask a call to wait (for a place in a line, for an answer from the fleet),
and is asked for its verdict once the wait is over. In which order they stand is said in `meshlib.policy.gates`.

Most clusters have one gate, the count of calls in flight, and a call pays for no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.errors import MeshError

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement
    from meshlib.policy.traits import Reader

__all__ = ["Gate", "PlainGate"]


class Gate(Protocol):
    """What may refuse a call. Safe under threads; it never raises, and holds no lock while it calls others.

    Attributes:
        name: for the record and metrics: ``throttle``, ``limit``, ``rate-limit``.
        rejected: how many calls it has refused.
        readers: what it must know of a request (`meshlib.policy.traits`).
    """

    @property
    def name(self) -> str: ...

    @property
    def rejected(self) -> int: ...

    @property
    def readers(self) -> tuple[Reader, ...]: ...

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """May the call pass?

        Returns:
            None: yes. An error: no, and this is what the caller gets. Something to wait for: `decide` says then.
        """
        ...

    def decide(self, now: float, call: Placement, token: Ready, late: bool) -> MeshError | None:
        """What the call waited for is ready; or (`late`) it has waited for as long as `patience_s` says.

        The token is the gate's now: a gate that has no more use for it leaves it.
        """
        ...

    def patience_s(self, call: Placement, token: Ready) -> float | None:
        """For how long a call waits at most; None for as long as its deadline allows."""
        ...

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """The outcome of a call that it let in is known; None is neither good nor bad. Comes once, before `left`."""
        ...

    def left(self, now: float, call: Placement) -> None:
        """A call that it let in is over, its body included, or has gone to another cluster. Comes once."""
        ...

    def note(self, now: float) -> str | None:
        """What there is to know of it now, for dry runs; None for nothing. Changes nothing."""
        ...

    def renew_lock(self) -> None:
        """After a fork, in the child: the parent's calls are not ours."""
        ...


class PlainGate:
    """What is alike in gates that have nobody wait, learn nothing from outcomes, and hold nothing: to derive from."""

    __slots__ = ()

    readers: tuple[Reader, ...] = ()

    def decide(self, now: float, call: Placement, token: Ready, late: bool) -> MeshError | None:
        """Whoever waited may pass."""
        return None

    def patience_s(self, call: Placement, token: Ready) -> float | None:
        """As long as the deadline allows."""
        return None

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """It does not look at outcomes."""

    def left(self, now: float, call: Placement) -> None:
        """It holds nothing."""

    def note(self, now: float) -> str | None:
        """There is nothing to tell."""
        return None
