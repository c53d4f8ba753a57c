"""The event loop of the control plane. Loaded only when there is a coroutine to run: asyncio takes a while to load."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import selectors
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from meshlib.discovery.threads import start_thread

__all__ = ["ControlLoop", "DaemonThreads"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("meshlib")


class ControlLoop:
    """An event loop, made in any thread, that runs in the control thread."""

    def __init__(self) -> None:
        # A selector loop whatever the policy says: the fork and gevent handling is known to hold for this one.
        self._loop = asyncio.SelectorEventLoop(_native_selector())
        self._loop.set_default_executor(DaemonThreads(1))
        self._loop.set_exception_handler(_log_error)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `coroutine` without the caller's context variables. From any thread."""
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have `function` called. From any thread.

        Raises:
            RuntimeError: if the loop has ended.
        """
        self._loop.call_soon_threadsafe(function)

    def call_at(self, when: float, function: Callable[[], object]) -> asyncio.TimerHandle:
        """Have `function` called at `when` on the monotonic clock. In the control thread only."""
        return self._loop.call_at(when, function)

    def stop(self) -> None:
        """Have `run` end, once all that was submitted before has begun. From any thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self, grace_s: Callable[[], float]) -> None:
        """Run until it is stopped, then cancel all tasks and await them for up to `grace_s()` seconds."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._cancel_all(grace_s())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _cancel_all(self, grace_s: float) -> None:
        loop = self._loop
        ends_at = loop.time() + grace_s
        # Again and again, because a timer may start a task while the others end.
        while tasks := asyncio.all_tasks(loop):
            left_s = ends_at - loop.time()
            if left_s <= 0:
                names = ", ".join(sorted(task.get_name() for task in tasks))
                _log.warning("did not end within %g s of being cancelled: %s", grace_s, names)
                break
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=left_s))
        loop.run_until_complete(loop.shutdown_asyncgens())


class DaemonThreads(ThreadPoolExecutor):
    """An executor with one daemon thread per piece of work.

    A `ThreadPoolExecutor` by type only, because an event loop takes no other. Meant for rare work (a name to resolve, a
    registration); it keeps no thread, so nothing waits for one at exit, and it still works in `atexit` handlers.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` in a thread of its own."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        try:
            start_thread(run, "meshlib-control-io")
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            run()  # from Python 3.12 on no thread begins in `atexit` handlers; the loop has nothing else to do by then
        return future


def _native_selector() -> selectors.BaseSelector:
    """A selector that blocks the thread; gevent's own would run a hub in it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("selectors"):
        selector: selectors.BaseSelector = monkey.get_original("selectors", "DefaultSelector")()
        return selector
    return selectors.DefaultSelector()


def _log_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("control plane: %s", context.get("message", "unknown error"), exc_info=context.get("exception"))
