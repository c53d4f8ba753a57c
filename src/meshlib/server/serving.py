"""What this process serves: the requests in flight and how they ended, for every middleware of one mesh together.

A middleware takes the same steps with each request, whatever its server interface: what comes in is read (`Intake`),
what is not worth serving is refused, the rest is admitted, begun here, and ended with the last byte of its response.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from meshlib import context
from meshlib.net.fork import after_fork
from meshlib.server.intake import HasSettings, Intake

if TYPE_CHECKING:
    from meshlib.config.settings import MeshSettings
    from meshlib.server.intake import Arrival

__all__ = ["HasServing", "Served", "Serving", "serving_of"]

_ERROR = 500


class Serving:
    """The requests of one process.

    Attributes:
        intake: reads what they bring along.
        in_flight: how many are being served, streamed responses included.
        draining: whether this process is about to leave: it serves what comes, and says that it is not ready.

    Args:
        mesh: whose settings hold; None for the defaults.
        clock: in seconds, monotonic.

    Raises:
        ConfigError: if a trusted peer is not written as CIDR.
    """

    def __init__(self, mesh: HasSettings | None = None, *, clock: Callable[[], float] | None = None) -> None:
        self.intake = Intake(mesh)
        self.in_flight = 0
        self.draining = False
        self.clock = clock or context.monotonic
        self._ended: Counter[str] = Counter()
        self._lock = threading.Lock()
        after_fork(self)

    @property
    def settings(self) -> MeshSettings:
        """The configuration of now."""
        return self.intake.settings

    @property
    def ended(self) -> Mapping[str, int]:
        """How many requests ended how: ``ok``, ``error`` (from 500, or an error that the application let pass)."""
        with self._lock:
            return dict(self._ended)

    def begin(self, arrival: Arrival) -> Served:
        """A request is served from now on."""
        with self._lock:
            self.in_flight += 1
        return Served(self, arrival)

    def _end(self, outcome: str) -> None:
        with self._lock:
            self.in_flight -= 1
            self._ended[outcome] += 1

    def after_fork_in_child(self) -> None:
        """What the parent serves is the parent's."""
        self._lock = threading.Lock()
        self.in_flight = 0


class Served:
    """One request in flight, until `end`.

    Attributes:
        arrival: what it brought along.
        began_at: on the clock of its `Serving`.
    """

    __slots__ = ("_open", "_serving", "arrival", "began_at")

    def __init__(self, serving: Serving, arrival: Arrival) -> None:
        self.arrival = arrival
        self.began_at = serving.clock()
        self._serving = serving
        self._open = True

    def end(self, status: int = 0) -> None:
        """The last byte has gone out, or nothing more will. Once more does nothing.

        Args:
            status: of the response; 0 where there was none.
        """
        if self._open:
            self._open = False
            self.arrival.request.close()
            self._serving._end("ok" if 0 < status < _ERROR else "error")


@runtime_checkable
class HasServing(Protocol):
    """A mesh, whose middlewares share what they know."""

    @property
    def serving(self) -> Serving:
        """What the process serves."""


def serving_of(mesh: HasSettings | None) -> Serving:
    """That of the mesh, or one of its own for a middleware without."""
    owner: object = mesh
    return owner.serving if isinstance(owner, HasServing) else Serving(mesh)
