"""What this process serves: the requests in flight and how they ended, for every middleware of one mesh together.

A middleware takes the same steps with each request, whatever its server interface: what comes in is read (`Intake`),
what is not worth serving is refused, the rest is admitted, begun here, and ended with the last byte of its response.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from meshlib import context
from meshlib.durations import Duration, parse_duration
from meshlib.net.fork import after_fork
from meshlib.server.cancellation import SAFE_METHODS
from meshlib.server.health import CheckFunction, Checks
from meshlib.server.intake import HasSettings, Intake
from meshlib.server.refusal import EXPIRED, HOPELESS

if TYPE_CHECKING:
    from meshlib.config.settings import MeshSettings, ServerSettings
    from meshlib.server.admission import Admission, Ticket
    from meshlib.server.endpoints import Endpoints
    from meshlib.server.hopeless import Hopeless
    from meshlib.server.intake import Arrival, ReceivedHeaders
    from meshlib.server.refusal import Refusal
    from meshlib.telemetry.events import Event

__all__ = ["HasServing", "Outcome", "Served", "Serving", "serving_of"]

Outcome: TypeAlias = Literal["ok", "error", "refused", "cancelled"]

_ERROR = 500


class Serving:
    """The requests of one process.

    Attributes:
        intake: reads what they bring along.
        in_flight: how many are being served, streamed responses included.
        busy_s: how long all requests together took that have ended, from when they were begun to their last byte.
        draining: whether this process is about to leave: it serves what comes, and says that it is not ready.
        closing: whether callers have heard of that, and those who keep a connection are to go elsewhere.
        mesh: whose they are; None for none.
        admission: what lets requests in; None where any number is served.
        endpoints: what the mesh answers itself; None for nothing.
        hopeless: what knows which requests cannot finish in time; None where none is refused for that.
        checks: of the user's, by which it is ready or not.

    Args:
        mesh: whose settings hold; None for the defaults.
        clock: in seconds, monotonic.
        tell: called with what happens.

    Raises:
        ConfigError: if a trusted peer is not written as CIDR.
    """

    def __init__(
        self,
        mesh: HasSettings | None = None,
        *,
        clock: Callable[[], float] | None = None,
        tell: Callable[[Event], object] | None = None,
    ) -> None:
        self.mesh = mesh
        self.intake = Intake(mesh)
        self.in_flight = 0
        self.draining = self.closing = False
        self.clock = clock or context.monotonic
        self.busy_s = 0.0
        self._outcomes: Counter[tuple[Outcome, str]] = Counter()
        self._life = object()
        self._lock = threading.Lock()
        self._tell = tell
        self.checks = Checks(self.clock)
        self.admission: Admission | None = None
        self.endpoints: Endpoints | None = None
        self.hopeless: Hopeless | None = None
        self._follow(self.intake.server)
        self.intake.on_change = self._follow
        after_fork(self)

    def _follow(self, server: ServerSettings) -> None:
        """Go by these settings from now on. Loaded here, not above: most processes have neither."""
        if server.admission is None:
            self.admission = None  # who waits there gets its turn as the others end
        elif self.admission is not None:
            self.admission.change(server.admission)
        else:
            from meshlib.server.admission import Admission

            self.admission = Admission(server.admission, clock=self.clock, tell=self._tell)
        if server.hopeless is None:
            self.hopeless = None
        elif self.hopeless is None or self.hopeless.settings != server.hopeless:
            from meshlib.server.hopeless import Hopeless

            self.hopeless = Hopeless(server.hopeless)
        if server.health is None:
            self.endpoints = None
        else:
            from meshlib.server.endpoints import Endpoints

            self.endpoints = Endpoints(self, server.health)

    def add_check(self, name: str, check: CheckFunction, *, timeout: Duration | None = None) -> None:
        """Have this process be ready only while `check` passes: see `meshlib.server.health`.

        Args:
            name: for those who read why it is not; a check of the same name is replaced.
            check: sync or async. It fails if it raises or returns False.
            timeout: how long it may take; ``check_timeout`` of the configuration unless given.

        Raises:
            ValueError: if `timeout` is not a duration.
        """
        self.checks.add(name, check, None if timeout is None else parse_duration(timeout))

    @property
    def settings(self) -> MeshSettings:
        """The configuration of now."""
        return self.intake.settings

    @property
    def outcomes(self) -> Mapping[tuple[Outcome, str], int]:
        """How many requests ended how, and why.

        ok: the application answered, below 500. error: it answered from 500, or let an error pass. refused: it was not
        called; why is in ``x-meshlib-refused`` (``expired``, ...). cancelled: nobody waited for the answer any more, as
        the ``deadline`` had passed, the caller had gone (``disconnect``), or the ``server`` gave the request up.
        """
        with self._lock:
            return dict(self._outcomes)

    @property
    def ended(self) -> Mapping[Outcome, int]:
        """How many requests ended how, whatever the reason."""
        ended: Counter[Outcome] = Counter()
        for (outcome, _), count in self.outcomes.items():
            ended[outcome] += count
        return ended

    def cancels(self, method: str) -> bool:
        """Whether a handler of this method ends when nobody waits for it any more."""
        cancel = self.intake.server.cancel
        return method in SAFE_METHODS if cancel == "safe_methods" else cancel == "all"

    def refusal(self, arrival: Arrival, method: str, path: str, source: Mapping[str, Any]) -> Refusal | None:
        """The answer to a request that is not worth beginning; None for one that is.

        Args:
            arrival: the request.
            method, path: of it.
            source: the ASGI scope or the WSGI environ.
        """
        if arrival.expired:
            self.refuse("expired")
            return EXPIRED
        if self.hopeless is None:
            return None
        from meshlib.server.hopeless import path_kind

        arrival.kind, arrival.source = path_kind(method, path), source
        deadline, now = arrival.request.deadline, self.clock()
        if deadline is None or not self.hopeless.refuses(arrival.kind, deadline - now, now):
            return None
        self.refuse("hopeless")
        return HOPELESS

    def observe(self, peer: str | None, headers: ReceivedHeaders) -> Ticket | None:
        """A request passes untouched; in mode ``observe`` admission counts what would become of it otherwise."""
        admission = self.admission
        if admission is None or self.settings.mode != "observe":
            return None
        return admission.observe(self.intake.glance(peer, headers), headers)

    def begin(self, arrival: Arrival, ticket: Ticket | None = None) -> Served:
        """A request is served from now on, in its place if there is admission."""
        with self._lock:
            self.in_flight += 1
        return Served(self, arrival, ticket)

    def refuse(self, reason: str) -> None:
        """A request is not served, for a reason that its caller is told."""
        with self._lock:
            self._outcomes["refused", reason] += 1

    def _end(self, served: Served, outcome: Outcome, reason: str) -> None:
        now = self.clock()
        took_s = now - served.began_at
        arrival = served.arrival
        if arrival.source is not None and self.hopeless is not None and outcome == "ok":
            self.hopeless.took(arrival.kind, template_of(arrival.source), took_s, now)
        with self._lock:
            if served.life is self._life:
                self.in_flight -= 1
                self._outcomes[outcome, reason] += 1
                self.busy_s += took_s if took_s > 0.0 else 0.0

    def after_fork_in_child(self) -> None:
        """What the parent serves is the parent's."""
        self._lock = threading.Lock()
        self._life = object()
        self._outcomes.clear()
        self.in_flight, self.busy_s = 0, 0.0
        self.checks.renew_locks()
        if self.admission is not None:
            self.admission.after_fork_in_child()


class Served:
    """One request in flight, until `end`.

    Attributes:
        arrival: what it brought along.
        began_at: on the clock of its `Serving`.
        life: of the process that began it, which may have forked since.
    """

    __slots__ = ("_open", "_serving", "_ticket", "arrival", "began_at", "life")

    def __init__(self, serving: Serving, arrival: Arrival, ticket: Ticket | None = None) -> None:
        self.arrival = arrival
        self.began_at = serving.clock()
        self.life = serving._life
        self._serving = serving
        self._ticket = ticket
        self._open = True

    def end(self, status: int = 0, cancelled: str = "") -> None:
        """The last byte has gone out, or nothing more will. Once more does nothing.

        Args:
            status: of the response; 0 where there was none.
            cancelled: why nobody waited for it any more; empty where somebody did.
        """
        if self._open:
            self._open = False
            self.arrival.request.close()
            outcome: Outcome = "cancelled" if cancelled else "ok" if 0 < status < _ERROR else "error"
            self._serving._end(self, outcome, cancelled)
            if self._ticket is not None:
                # An error may come early, and a caller that goes away at any time: neither says how long work takes.
                self._ticket.release(True if outcome == "ok" else False if cancelled == "deadline" else None)


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
