"""A thread pool whose tasks inherit the context; `meshlib.context` hands it out."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["ContextExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class ContextExecutor(ThreadPoolExecutor):
    """A thread pool whose tasks run in the context of their submitter: deadline, trace and baggage included.

    There is none of processes, to which a context cannot be sent: give what a task needs of it as an argument.
    """

    @classmethod
    def install(cls, loop: AbstractEventLoop, max_workers: int | None = None) -> Self:
        """Make a pool the default executor of `loop`, so that ``loop.run_in_executor(None, ...)`` inherits, too.

        The loop shuts it down when it ends.

        Args:
            loop: whose default executor it is from now on; mostly ``asyncio.get_running_loop()``.
            max_workers: threads; None for as many as `concurrent.futures.ThreadPoolExecutor` has by default.
        """
        executor = cls(max_workers, "meshlib-context")
        loop.set_default_executor(executor)
        return executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` in a copy of the context of here and now."""
        return super().submit(functools.partial(contextvars.copy_context().run, fn, *args, **kwargs))
