"""The control plane: one daemon thread with one asyncio loop, which runs every watch and every registration.

The loop is made when there is first something to run on it; until then the thread calls functions (`control_thread`).

It starts at first use, not when it is made, so a program that only imports or configures a mesh has no thread, and a
server that forks its workers after loading the application gives each worker a thread of its own. A child abandons the
inherited loop without touching it and starts anew at its own first use.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import sys
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from meshlib.discovery.control_thread import ControlThread, Timer, never
from meshlib.discovery.threads import abandon, native_lock, renew_in_child
from meshlib.errors import MeshClosed, MeshError

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["ControlPlane", "ThreadsUnavailable", "Work", "lacks_threads"]

T = TypeVar("T")
Work: TypeAlias = Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]
"""A coroutine, or a function without arguments that returns one."""

_log = logging.getLogger("meshlib")


class ThreadsUnavailable(MeshError, RuntimeError):
    """This process runs no threads (uWSGI without ``enable-threads``), so nothing could watch a registry."""

    retryable = False


class ControlPlane:
    """One thread, one event loop; see the module.

    Attributes:
        generation: 0, and one more in a child after each fork. What was started under another number does not run here.
    """

    def __init__(self, name: str = "meshlib-control") -> None:
        self._name = name
        self._lock = native_lock()
        self._running: ControlThread | None = None
        self._closed = False
        self.generation = 0
        renew_in_child(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._running is not None else "not started"
        return f"<ControlPlane {self._name} [{state}]>"

    @property
    def started(self) -> bool:
        """Whether the thread runs."""
        return self._running is not None

    @property
    def looping(self) -> bool:
        """Whether there is a loop: something was submitted."""
        running = self._running
        return running is not None and running.loop is not None

    def submit(self, work: Work[T], *, log_errors: bool = True) -> Future[T]:
        """Run `work` on the control loop, starting the thread if need be.

        The work sees none of the caller's context variables: a watch outlives the request that was first to need it,
        and must inherit neither its deadline nor its trace.

        Args:
            work: a coroutine, or a function that returns one.
            log_errors: whether an exception that ends it is logged; False for callers that look at the result.

        Returns:
            Its result; cancelling it cancels the work.

        Raises:
            MeshClosed: after `close`.
            ThreadsUnavailable: where this process can have no thread.
        """
        # Here, and not in the control thread: a child forked meanwhile would have half of a module.
        from meshlib.discovery.control_loop import ControlLoop

        coroutine: Coroutine[Any, Any, T] | None = work if inspect.iscoroutine(work) else None
        try:
            with self._lock:
                # Under the lock, so that all that was accepted lies before the stop in the loop's queue.
                loop = self._ensure_running().ensure_loop(ControlLoop)
                if coroutine is None:
                    assert callable(work)
                    coroutine = work()
                future = loop.submit(coroutine)
        except BaseException:
            if coroutine is not None:
                coroutine.close()
            raise
        if log_errors:
            future.add_done_callback(_log_error)
        return future

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have `function` called on the control thread, if it runs; never starts it.

        Raises:
            RuntimeError: if it does not run.
        """
        running = self._running
        if running is None:
            raise RuntimeError("the control thread does not run")
        running.call_soon(function)

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called on the control thread, starting it if need be, but no loop.

        Raises:
            MeshClosed: after `close`.
            ThreadsUnavailable: where this process can have no thread.
        """
        with self._lock:
            self._ensure_running().call_soon(function)

    def call_later(self, delay_s: float, function: Callable[[], object]) -> Timer:
        """Have `function` called in `delay_s` seconds. On the control thread only; after `close` it is never called."""
        running = self._running
        return never(function) if running is None else running.call_later(delay_s, function)

    def call_every(self, period_s: float, function: Callable[[], object]) -> None:
        """Have `function` called on the control thread every `period_s` seconds until `close`; see `call`.

        An exception of it is logged, and does not end it.
        """
        with self._lock:
            self._ensure_running().call_every(period_s, function)

    def run_sync(self, work: Work[T], timeout_s: float) -> T:
        """Run `work` on the control loop and wait for its result.

        Raises:
            TimeoutError: if it takes longer than `timeout_s` seconds; it is cancelled then.
            RuntimeError: if called on the control thread itself, which would wait for itself.
            MeshClosed: after `close`, or if the plane was closed meanwhile.
        """
        from concurrent.futures import CancelledError

        running = self._running
        if running is not None and running.is_current():
            if inspect.iscoroutine(work):
                work.close()
            raise RuntimeError("run_sync() was called on the control thread, which would wait for itself")
        future = self.submit(work, log_errors=False)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():
                raise  # the work's own
            raise TimeoutError(f"no result from the control plane within {timeout_s:g} s") from None
        except CancelledError:
            raise MeshClosed("the control plane was closed") from None
        finally:
            future.cancel()

    def close(self, timeout_s: float = 5.0) -> None:
        """Cancel all tasks, await them, and end the thread. May be called again, and from any thread.

        Args:
            timeout_s: how long to wait for tasks that do not end when they are cancelled; they are logged and left.
        """
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
            if running is not None:
                running.stop(timeout_s)
        if running is not None and not running.is_current() and not running.join(timeout_s + 1.0):
            _log.warning("the control thread did not end within %g s", timeout_s + 1.0)

    def _ensure_running(self) -> ControlThread:
        if self._closed:
            raise MeshClosed("the mesh was closed; make a new one")
        if self._running is None:
            _refuse_uwsgi_without_threads()
            self._running = ControlThread(self._name)
            # Weakly: a plane that nobody holds any more must not live until the process ends.
            atexit.register(_close_at_exit, weakref.ref(self))
        return self._running

    def _after_fork(self) -> None:
        self._lock = native_lock()
        self.generation += 1
        if self._running is not None:
            abandon(self._running)
            self._running = None


def lacks_threads() -> bool:
    """Whether this process is one of uWSGI's that runs no threads."""
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    if options is None:
        return False
    names = {name.decode() if isinstance(name, bytes) else str(name) for name in options}
    return names.isdisjoint({"enable-threads", "threads"})


def _refuse_uwsgi_without_threads() -> None:
    if lacks_threads():
        raise ThreadsUnavailable(
            "uWSGI runs this application without threads, and the mesh watches its registries in one; "
            "set `enable-threads = true` (or `threads = N`) in uWSGI's configuration"
        )


def _log_error(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("a task of the control plane failed: %s", error, exc_info=error)


def _close_at_exit(reference: weakref.ref[ControlPlane]) -> None:
    plane = reference()
    if plane is not None:
        plane.close(timeout_s=1.0)
