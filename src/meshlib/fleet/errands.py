"""A thread that does for calls what may take time, while they wait no longer than they can afford.

A call submits a job and gets an `Errand`, which it waits for as it waits for anything else: in its own thread or on its
event loop, neither of which ever blocks on the job itself. Whoever has waited long enough goes on without; the job is
done all the same.

The thread starts with the first job and ends when nothing came for a while. A forked child starts its own.
"""

from __future__ import annotations

import logging
import os
import weakref
from _queue import Empty, SimpleQueue
from collections.abc import Callable
from typing import Any

from meshlib.discovery.threads import native_lock, start_thread

__all__ = ["Errand", "ErrandThread"]

_log = logging.getLogger("meshlib")

_MAX_QUEUED = 1000
_MAX_BATCH = 64
_IDLE_S = 10.0


class Errand:
    """Something that is done elsewhere; `meshlib.policy.facts.Ready`.

    Attributes:
        job: to be done.
        done: whether it was, well or not.
        result: what came of it; None if it failed.
    """

    __slots__ = ("_callback", "_lock", "done", "job", "result")

    def __init__(self, job: Any) -> None:
        self.job = job
        self.done = False
        self.result: Any = None
        self._callback: Callable[[], None] | None = None
        self._lock = native_lock()

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once it is done; at once, if it is."""
        with self._lock:
            self._callback = callback
            done = self.done
        if done:
            callback()

    def leave(self) -> None:
        """Stop waiting."""
        with self._lock:
            self._callback = None

    def finish(self, result: Any) -> None:
        """It was done."""
        with self._lock:
            self.result, self.done = result, True
            callback = self._callback
        if callback is not None:
            callback()


class ErrandThread:
    """Does errands, one after the other.

    Args:
        name: of the thread.
        max_wait_s: how long a call waits for one.
    """

    def __init__(self, name: str, max_wait_s: float) -> None:
        self.max_wait_s = max_wait_s
        self._name = name
        self._closed = False
        self._lock = native_lock()
        self._queue: SimpleQueue[Errand | None] = SimpleQueue()
        self._running = False
        _all.add(self)

    def submit(self, job: Any) -> Errand | None:
        """Have it done soon; None if too much waits already, or nothing is done any more."""
        queue = self._queue
        if self._closed or queue.qsize() >= _MAX_QUEUED:
            return None
        errand = Errand(job)
        with self._lock:
            queue.put(errand)
        self._start()
        return errand

    def close(self) -> None:
        """Do nothing more; who waits goes on without an answer. Idempotent."""
        self._closed = True
        with self._lock:
            self._queue.put(None)
            running = self._running
        if not running:
            self._ended()

    def after_fork(self) -> None:
        """In the child: the thread is the parent's, and so are those who wait."""
        self._lock = native_lock()
        self._queue = SimpleQueue()
        self._running = False

    def _start(self) -> None:
        with self._lock:
            if self._running or self._closed:
                return
            self._running = True
        start_thread(self._run, self._name)

    def _run(self) -> None:
        queue = self._queue
        while True:
            batch = self._batch(queue, _IDLE_S)
            if batch is None:
                break
            try:
                self._do(batch)
            except Exception as error:
                self._failed(error)
                for errand in batch:
                    if not errand.done:
                        errand.finish(None)
            if not batch and not self._stays():
                with self._lock:
                    if queue.empty():
                        self._running = False
                        return
        with self._lock:
            self._running = False
        self._ended()
        while not queue.empty():
            left = queue.get()
            if left is not None:
                left.finish(None)

    def _batch(self, queue: SimpleQueue[Errand | None], timeout_s: float) -> list[Errand] | None:
        """What is to be done next; empty after a while of nothing, None at the end."""
        batch: list[Errand] = []
        try:
            errand = queue.get(timeout=self._patience_s(timeout_s))
            while errand is not None:
                batch.append(errand)
                if len(batch) >= _MAX_BATCH:
                    return batch
                errand = queue.get_nowait()
        except Empty:
            return batch
        for each in batch:
            each.finish(None)
        return None

    def _patience_s(self, timeout_s: float) -> float:
        """How long to wait for something to do."""
        return timeout_s

    def _stays(self) -> bool:
        """Whether the thread has something to do although nobody asks."""
        return False

    def _do(self, batch: list[Errand]) -> None:
        for errand in batch:
            result = None
            try:
                result = errand.job()
            except Exception as error:
                self._failed(error)
            errand.finish(result)

    def _failed(self, error: Exception) -> None:
        """A job has raised an error."""
        _log.debug("an errand of %s failed", self._name, exc_info=error)

    def _ended(self) -> None:
        """The thread ends because it was closed."""


_all: weakref.WeakSet[ErrandThread] = weakref.WeakSet()


def _renew() -> None:
    for each in list(_all):
        each.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
