"""Whether this process is alive, and whether it is ready for requests: the truth, with the reasons.

    live    it answers. Nothing more: who restarts a process because its database is away has two troubles
    ready   unless one of these holds:
            threads       uWSGI runs this process without any, so no call to a service of the configuration can work
            starting      a service of `HealthSettings.services` has no healthy endpoint yet
            draining      this process is about to leave
            stuck         all places of admission are taken, and no request has ended, for `stuck_for`
            overloaded    critical requests were refused all the time for `overloaded_for`
            check: name   a check of the user's failed: it raised, returned False, or took too long

Overload by itself does not make a process unready unless `overloaded_for` is set. What is refused is more than the
process can do, and it goes on doing all that it can; where every process of a service is overloaded, to take them out
one after another gives the rest still more to do, until none is left (Google's SRE book, chapter 22). A process that is
stuck does nothing any more.

A result of a check holds for `FRESH_S`, so that however many ask, a check runs about once a second. A check that blocks
has a thread of its own; one that does not come back is not begun again.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from meshlib.discovery.control import lacks_threads
from meshlib.errors import MeshError

if TYPE_CHECKING:
    from meshlib.config.health_settings import HealthSettings
    from meshlib.server.admission import Admission

__all__ = ["FRESH_S", "Check", "CheckFunction", "Checks", "HasServices", "find_faults"]

_log = logging.getLogger("meshlib.server")

CheckFunction: TypeAlias = Callable[[], object] | Callable[[], Awaitable[object]]

FRESH_S: Final = 1.0
"""For so long the result of a check is not asked for again."""


@runtime_checkable
class HasServices(Protocol):
    """A mesh that knows of services."""

    def wait_ready(self, *services: str, timeout: float) -> None:
        """Raise a `MeshError` unless each has a healthy endpoint within `timeout` seconds."""


class Check:
    """One of the user's. Safe under threads and loops."""

    def __init__(self, name: str, function: CheckFunction, timeout_s: float | None, clock: Callable[[], float]) -> None:
        self.name = name
        self._function = function
        self._timeout_s = timeout_s
        self._clock = clock
        self._at: float | None = None
        self._fault = ""
        self._running: Future[str] | None = None
        self._begun_at = 0.0
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[str]] = {}
        self._lock = threading.Lock()

    def renew_lock(self) -> None:
        """After a fork, in the child, where the parent's threads and tasks do not run."""
        self._lock = threading.Lock()
        self._running = None
        self._tasks = {}

    def known(self) -> str | None:
        """Its fault, empty for none, if that is fresh."""
        at = self._at
        return self._fault if at is not None and 0.0 <= self._clock() - at < FRESH_S else None

    async def run(self, timeout_s: float) -> str:
        """Its fault, empty for none; in an event loop."""
        if (known := self.known()) is not None:
            return known
        # One run for all who ask meanwhile: anybody may, and a check that asks a database must not be what floods it.
        loop = asyncio.get_running_loop()
        task = self._tasks.get(loop)
        if task is None:
            task = self._tasks[loop] = loop.create_task(self._run(timeout_s), name=f"meshlib check {self.name}")
            task.add_done_callback(lambda _: self._tasks.pop(loop, None))
        return await asyncio.shield(task)

    async def _run(self, timeout_s: float) -> str:
        limit_s = timeout_s if self._timeout_s is None else self._timeout_s
        try:
            if inspect.iscoroutinefunction(self._function):
                async with asyncio.timeout(limit_s):
                    fault = _fault_in(await self._function())
            else:
                running = self.begin()
                async with asyncio.timeout(self._left_s(limit_s)):
                    fault = await asyncio.shield(asyncio.wrap_future(running))
        except TimeoutError:
            fault = _too_long(limit_s)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop ends, not something within the check
            fault = _raised(error)
        return self._judged(fault)

    def run_blocking(self, running: Future[str] | None, timeout_s: float) -> str:
        """Its fault, empty for none; in a thread. None: it does not run, as what it found is fresh."""
        if running is None:
            return self._fault
        limit_s = timeout_s if self._timeout_s is None else self._timeout_s
        try:
            fault = running.result(self._left_s(limit_s))
        except TimeoutError:
            fault = _too_long(limit_s)
        return self._judged(fault)

    def begin(self) -> Future[str]:
        """Run it in a thread, unless it runs already; what comes of it is its fault."""
        with self._lock:
            running = self._running
            if running is None or running.done():
                running = self._running = Future()
                self._begun_at = self._clock()
                name = f"meshlib-check-{self.name}"
                # Of who asks it has nothing: its result is for all.
                run, arguments = contextvars.Context().run, (self._call, running)
                threading.Thread(target=run, args=arguments, name=name, daemon=True).start()
            return running

    def _left_s(self, limit_s: float) -> float:
        """How long to wait for the one that runs: for one that hangs, no longer at all, whoever asks how often."""
        return min(limit_s, max(0.0, self._begun_at + limit_s - self._clock()))

    def _call(self, future: Future[str]) -> None:
        try:
            result = self._function()
            fault = _fault_in(asyncio.run(_as_coroutine(result)) if inspect.isawaitable(result) else result)
        except BaseException as error:
            fault = _raised(error)
        future.set_result(fault)

    def _judged(self, fault: str) -> str:
        if fault != self._fault:
            # The error's own text is for the check to log: it may hold what is secret.
            _log.warning("the check %r of readiness %s", self.name, fault or "passes again")
        self._fault, self._at = fault, self._clock()
        return fault


async def _as_coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable


def _fault_in(result: object) -> str:
    return "returned False" if result is False else ""


def _raised(error: BaseException) -> str:
    return f"raised {type(error).__name__}"


def _too_long(limit_s: float) -> str:
    return f"took longer than {limit_s:g} s"


class Checks:
    """The checks of one process, in the order in which they were added."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._checks: dict[str, Check] = {}

    def add(self, name: str, function: CheckFunction, timeout_s: float | None = None) -> None:
        """Add a check, or replace the one of this name."""
        if not callable(function):
            raise TypeError(f"the check {name!r} has to be a function, sync or async, not {function!r}")
        self._checks[name] = Check(name, function, timeout_s, self._clock)

    def remove(self, name: str) -> None:
        """Take one away, if there is one of this name."""
        self._checks.pop(name, None)

    async def run(self, timeout_s: float) -> list[str]:
        """What fails; all are run at once."""
        checks = list(self._checks.values())
        if not checks:
            return []
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop, as of trio
            return self.run_blocking(timeout_s)
        faults = await asyncio.gather(*(each.run(timeout_s) for each in checks))
        return _reasons(checks, faults)

    def run_blocking(self, timeout_s: float) -> list[str]:
        """Do what `run` does, in a thread."""
        begun = [(check, check.begin() if check.known() is None else None) for check in list(self._checks.values())]
        return _reasons(
            [check for check, _ in begun], [check.run_blocking(running, timeout_s) for check, running in begun]
        )

    def renew_locks(self) -> None:
        """After a fork, in the child."""
        for check in self._checks.values():
            check.renew_lock()


def _reasons(checks: list[Check], faults: list[str]) -> list[str]:
    return [f"check: {check.name} {fault}" for check, fault in zip(checks, faults, strict=True) if fault]


def find_faults(
    settings: HealthSettings,
    *,
    now: float,
    draining: bool,
    admission: Admission | None,
    services: object,
    calls: bool = False,
) -> list[str]:
    """Why this process is not ready, as far as it is known without asking anybody.

    Args:
        settings: which conditions there are.
        now: on the clock of `admission`.
        draining: whether it is about to leave.
        admission: of this process.
        services: a mesh, if it `HasServices`.
        calls: whether it is there to make calls.
    """
    reasons = []
    if calls and lacks_threads():
        reasons.append("threads: uWSGI runs none, and no meshed call works; set `enable-threads = true`")
    if settings.services and isinstance(services, HasServices):
        reasons += [f"starting: no healthy endpoint of {name}" for name in settings.services if _misses(services, name)]
    if draining:
        reasons.append("draining")
    if admission is not None:
        queue = admission.queue
        if settings.stuck_for_s is not None and (stuck_s := queue.stuck_s(now)) >= settings.stuck_for_s:
            reasons.append(f"stuck: all {queue.limit} places taken, and no request has ended for {stuck_s:.0f} s")
        since = queue.losing_since
        if settings.overloaded_for_s is not None and since is not None and now - since >= settings.overloaded_for_s:
            reasons.append(f"overloaded: critical requests are refused for {now - since:.0f} s")
    return reasons


def _misses(services: HasServices, name: str) -> bool:
    try:
        services.wait_ready(name, timeout=0.0)
    except MeshError:
        return True
    return False
