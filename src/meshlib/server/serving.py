"""What this process serves: the requests in flight and how they ended, for every middleware of one mesh together.

A middleware takes the same steps with each request, whatever its server interface: `Serving.enter` has their order, up
to where the application is called; `Served.answers` comes with the status of the response, `Served.end` with its last
byte.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, MutableMapping
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from opentelemetry import trace

from meshlib import context
from meshlib.durations import Duration, parse_duration
from meshlib.net.fork import after_fork
from meshlib.policy.serving_lane import Waiter
from meshlib.propagation import LOAD_PROBE
from meshlib.server.cancellation import SAFE_METHODS
from meshlib.server.health import CheckFunction, Checks
from meshlib.server.hopeless import Hopeless, path_kind, template_of
from meshlib.server.intake import HasSettings, Intake, expect_mesh
from meshlib.server.refusal import EXPIRED, HOPELESS, Refusal
from meshlib.server.served import Observed, Served
from meshlib.server.waiting import ForAnswer, ForPlace, Waiting

if TYPE_CHECKING:
    from meshlib.config.settings import MeshSettings, ServerSettings
    from meshlib.server.admission import Admission, Ticket
    from meshlib.server.backlog import Backlog
    from meshlib.server.endpoints import Endpoints
    from meshlib.server.intake import Arrival, ReceivedHeaders
    from meshlib.server.load import LoadReporter
    from meshlib.server.served import Outcome
    from meshlib.telemetry.events import Event

__all__ = ["HasServing", "Serving", "serving_of"]

_log = logging.getLogger("meshlib.server")

_OBSERVED = "meshlib.observed"
_LOOK_S = 1.0
_ENTRY_S = 5.0


class Serving:
    """The requests of one process.

    Attributes:
        intake: reads what they bring along.
        draining: whether this process is about to leave: it serves what comes, and says that it is not ready.
        closing: whether callers have heard of that, and those who keep a connection are to go elsewhere.
        mesh: whose they are; None for none.
        admission: what lets requests in; None where any number is served.
        endpoints: what the mesh answers itself; None for nothing.
        hopeless: what knows which requests cannot finish in time; None where none is refused for that.
        checks: of the user's, by which it is ready or not.
        load: tells callers how loaded it is; None as long as nobody has asked.

    Args:
        mesh: whose settings hold; None for the defaults.
        clock: in seconds, monotonic.
        tell: called with what happens.
        look_for_meter: called once a second at most, as requests end.

    Raises:
        ConfigError: if a trusted peer is not written as CIDR.
    """

    def __init__(
        self,
        mesh: HasSettings | None = None,
        *,
        clock: Callable[[], float] | None = None,
        tell: Callable[[Event], object] | None = None,
        look_for_meter: Callable[[], object] | None = None,
    ) -> None:
        self.mesh = mesh
        self._look_for_meter = look_for_meter
        self._looked_at = -inf
        self._entry_due: float | None = time.monotonic() + _ENTRY_S
        self.intake = Intake(mesh)
        self._in_flight = 0
        self.draining = self.closing = False
        self.clock = clock or context.monotonic
        self._busy_s = 0.0
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._life = object()
        self._lock = threading.Lock()
        self._through: deque[tuple[object, Outcome, str, float]] = deque()
        self._tell = tell
        self.checks = Checks(self.clock)
        self.load: LoadReporter | None = None
        self._tells_load = False
        self.admission: Admission | None = None
        self.endpoints: Endpoints | None = None
        self.hopeless: Hopeless | None = None
        self._follow(self.intake.server)
        self.intake.on_change = self._follow
        after_fork(self)

    def __repr__(self) -> str:
        ended = "".join(f", {count} {outcome}" for outcome, count in self.ended.items())
        return f"<Serving [{self.in_flight} in flight{ended}]>"

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
    def outcomes(self) -> Mapping[tuple[str, str], int]:
        """How many requests ended how, and why.

        ok: the application answered, below 500. error: it answered from 500, or let an error pass. refused: it was not
        called; why is in ``x-meshlib-refused`` (``expired``, ...). cancelled: nobody waited for the answer any more, as
        the ``deadline`` had passed, the caller had gone (``disconnect``), or the ``server`` gave the request up.
        """
        self._settle()
        with self._lock:
            return {**self._outcomes}

    @property
    def in_flight(self) -> int:
        """How many requests are being served, streamed responses included."""
        self._settle()
        return self._in_flight

    @property
    def backlog(self) -> Backlog | None:
        """Connections that wait to be accepted at this process's ports; None where that is not known."""
        from meshlib.server.backlog import backlog

        return backlog()

    @property
    def busy_s(self) -> float:
        """How long all requests that ended took together, from when they were begun to their last byte, in seconds."""
        self._settle()
        return self._busy_s

    @property
    def ended(self) -> Mapping[str, int]:
        """How many requests ended how, whatever the reason."""
        ended: Counter[str] = Counter()
        for (outcome, _), count in self.outcomes.items():
            ended[outcome] += count
        return ended

    def cancels(self, method: str) -> bool:
        """Whether a handler of this method ends when nobody waits for it any more."""
        cancel = self.intake.server.cancel
        return method in SAFE_METHODS if cancel == "safe_methods" else cancel == "all"

    def enter(
        self,
        peer: str | None,
        headers: ReceivedHeaders,
        method: str,
        path: str,
        mount: str,
        source: MutableMapping[str, Any],
    ) -> Served | Refusal | Waiting | None:
        """A request came: the steps in front of the application, in their order.

        What it brings along is read. The mesh's own endpoints are answered, in every mode; a probe of load is. What has
        expired, or cannot finish in time, is refused. What is left is admitted, and begun.

        Args:
            peer, headers: for `Intake.take`.
            method, path: of it, with the path where the application is mounted.
            mount: that path.
            source: the ASGI scope or the WSGI environ.

        Returns:
            A request that is begun, to be ended, and to pass untouched where it is `Served.observed`; or the answer to
            one that is not; or a step that may wait, which leads to one of these; or None: it is to pass unseen.
        """
        intake = self.intake
        arrival = intake.take(peer, headers)
        endpoints, admission = self.endpoints, self.admission  # another thread may read the configuration anew
        if endpoints is not None and (endpoint := endpoints.asked_for(method, mount, path)) is not None:
            return ForAnswer(endpoints, endpoint, intake.trusts(peer))
        if arrival is None:
            return self._observe(peer, headers, method, path, source)
        if arrival.asks and (answer := self._probed(arrival, path)) is not None:
            return answer
        if (refusal := self._in_vain(arrival, method, path, source)) is not None:
            return self._refused(refusal)
        if admission is None:
            return self.begin(arrival)
        place = admission.enter(arrival, headers)
        if isinstance(place, Waiter):
            return ForPlace(self, admission, arrival, place)
        return self.admitted(arrival, place)

    def _in_vain(self, arrival: Arrival, method: str, path: str, source: Mapping[str, Any]) -> Refusal | None:
        """The answer to a request that is not worth beginning; None to any other."""
        if arrival.expired:
            return EXPIRED
        hopeless = self.hopeless
        if hopeless is None or not arrival.trusted:
            # Nor are the times of strangers noted: one who asks for what takes long could have all others refused.
            return None
        arrival.kind, arrival.source = path_kind(method, path), source
        deadline, now = arrival.request.deadline, self.clock()
        if deadline is None or not hopeless.refuses(arrival.kind, deadline - now, now):
            return None
        return HOPELESS

    def _observe(
        self, peer: str | None, headers: ReceivedHeaders, method: str, path: str, source: MutableMapping[str, Any]
    ) -> Observed | None:
        """In mode ``observe``, take the same steps with a request that is served whatever comes out.

        One that would be refused is counted as such, and not as served.
        """
        if self.settings.mode != "observe" or _OBSERVED in source:
            return None
        source[_OBSERVED] = True  # for another middleware further in
        arrival = self.intake.glance(peer, headers)
        answer: Ticket | Refusal | None = self._in_vain(arrival, method, path, source)
        if answer is None and (admission := self.admission) is not None:
            answer = admission.observe(arrival, headers)
        if isinstance(answer, Refusal):
            self._count(answer.reason)
            return None
        return Observed(self, arrival, self._one_more(), answer)

    def admitted(self, arrival: Arrival, answer: Ticket | Refusal) -> Served | Refusal:
        """Admission has said what becomes of a request."""
        return self._refused(answer) if isinstance(answer, Refusal) else self.begin(arrival, answer)

    def report_by(self, load: LoadReporter) -> None:
        """Have `load` tell all trusted callers how loaded this process is, unless ``server.load`` is ``off``."""
        if not hasattr(type(load), "report"):
            raise TypeError(f"a LoadReporter is expected, not {load!r}: LoadReporter(measure)")
        load.occupancy = self._occupancy
        self.load, self._tells_load = load, True

    def _reporter(self, arrival: Arrival) -> LoadReporter | None:
        """What tells the caller of a request how loaded this process is; None if it is not to be told."""
        told = self.intake.server.load
        if not arrival.asks and not self._tells_load and told != "always":
            return None
        if not arrival.trusted or told == "off":
            return None
        if self.load is None:
            from meshlib.server.load import LoadReporter

            load = LoadReporter(clock=self.clock)
            load.occupancy = self._occupancy
            self.load = load
        return self.load

    def _probed(self, arrival: Arrival, path: str) -> Refusal | None:
        """The answer to a request that is a probe of load; None if it is none, or its caller is not told."""
        if not path.endswith(LOAD_PROBE):  # before it may stand where the application is mounted
            return None
        load = self._reporter(arrival)
        return None if load is None else load.answer(arrival.asks)

    def _occupancy(self) -> tuple[int, int, int]:
        """Requests that are served, and that wait, and how many may be served; 0 for any number."""
        admission = self.admission
        if admission is None:
            return self.in_flight, 0, 0
        queue = admission.queue
        return self.in_flight, queue.pending, queue.limit

    def begin(self, arrival: Arrival, ticket: Ticket | None = None) -> Served:
        """A request is served from now on, in its place if there is admission."""
        load = self._reporter(arrival)
        return Served(self, arrival, self._one_more(), ticket, load)

    def _one_more(self) -> int:
        """Count a request as in flight; how many were before."""
        with self._lock:
            found = self._in_flight
            self._in_flight = found + 1
        if self.load is not None:
            self.load.arrived()
        return found

    def _refused(self, refusal: Refusal) -> Refusal:
        self.refuse(refusal.reason)
        return refusal

    def refuse(self, reason: str) -> None:
        """A request is not served, for a reason that its caller is told, and the framework's span with it."""
        trace.get_current_span().set_attribute("meshlib.refused", reason)
        self._count(reason)

    def _count(self, reason: str) -> None:
        with self._lock:
            self._outcomes["refused", reason] += 1

    def _answered(self, served: Served) -> None:
        """A request that is timed has its answer, which is no error."""
        arrival, hopeless, now = served.arrival, self.hopeless, self.clock()
        if arrival.source is not None and hopeless is not None:
            template = arrival.template or template_of(arrival.source)
            hopeless.took(arrival.kind, template, now - served.began_at, now)

    def _end(self, served: Served, outcome: Outcome, reason: str) -> None:
        now = self.clock()
        took_s = now - served.began_at
        if self._look_for_meter is not None and not 0.0 <= now - self._looked_at < _LOOK_S:
            self._looked_at = now
            self._look_for_meter()
            self._look_for_entry()
        self._through.append((served.life, outcome, reason, max(0.0, took_s)))
        self._settle()
        if self.load is not None:
            self.load.ended(served.found, took_s, outcome == "error")

    def _look_for_entry(self) -> None:
        """Say once that the configuration has this process registered, where nobody does."""
        if self._entry_due is None or time.monotonic() < self._entry_due:
            return
        self._entry_due = None
        if self.settings.register is None or self.draining:
            return
        from meshlib.server.lifecycle import HasLifecycle

        mesh: object = self.mesh
        if isinstance(mesh, HasLifecycle) and not mesh.lifecycle.begun:
            _log.warning(
                "`register` is written, but nobody acts on it, so this process is in no registry and does not drain: "
                "give FastAPI lifespan=meshlib.server.fastapi.lifespan(mesh), start gunicorn with "
                "-c python:meshlib.server.gunicorn, or call mesh.register(); see Registration in the documentation"
            )

    def _settle(self) -> None:
        """Count what ended.

        A response may be ended by its finalizer, which the collector may run in a thread that holds the lock: nobody
        waits for it here, and what is left over is counted by whoever comes next.
        """
        through = self._through
        while through and self._lock.acquire(blocking=False):
            try:
                while through:
                    life, outcome, reason, took_s = through.popleft()
                    if life is self._life:
                        self._in_flight -= 1
                        self._outcomes[outcome, reason] += 1
                        self._busy_s += took_s
            finally:
                self._lock.release()

    def after_fork_in_child(self) -> None:
        """What the parent serves is the parent's."""
        self._lock = threading.Lock()
        self._life = object()
        self._outcomes.clear()
        self._through.clear()
        self._in_flight, self._busy_s = 0, 0.0
        self.checks.renew_locks()
        self.intake.counts.renew_lock()
        if self.admission is not None:
            self.admission.after_fork_in_child()


@runtime_checkable
class HasServing(Protocol):
    """A mesh, whose middlewares share what they know."""

    @property
    def serving(self) -> Serving:
        """What the process serves."""


def serving_of(mesh: HasSettings | None) -> Serving:
    """That of the mesh, or one of its own for a middleware without."""
    expect_mesh(mesh)
    owner: object = mesh
    return owner.serving if isinstance(owner, HasServing) else Serving(mesh)
