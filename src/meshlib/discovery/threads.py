"""Threads that are threads: under gevent, over a fork, and while the interpreter exits.

The control plane needs a thread that goes on while the caller's code blocks. Three things stand in the way, and each is
met here, once:

- gevent's monkey patching turns `threading` into greenlets, so the originals are taken where it was applied;
- a fork copies locks in whatever state they were, so whoever holds one renews it in the child;
- `concurrent.futures` takes no work any more once the interpreter exits, just when a registration wants to be removed.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Renewed", "abandon", "native_lock", "renew_in_child", "start_thread"]


def _patched_by_gevent() -> Any:
    """Return `gevent.monkey` where it has patched threads, else None. Never imports gevent."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def native_lock() -> threading.Lock:
    """Return a lock of the operating system's threads. Hold it for a few lines only, and never over a blocking call."""
    monkey = _patched_by_gevent()
    allocate = monkey.get_original("_thread", "allocate_lock") if monkey is not None else threading.Lock
    lock: threading.Lock = allocate()
    return lock


def start_thread(function: Callable[[], None], name: str) -> None:
    """Run `function` in a new daemon thread of the operating system, with none of the caller's context variables.

    Python 3.14 starts a thread in a copy of them where it has no GIL, and with `-X thread_inherit_context=1`; the
    thread outlives the request, so the deadline, that was first to need it.
    """
    run = contextvars.Context().run
    monkey = _patched_by_gevent()
    if monkey is not None:
        monkey.get_original("_thread", "start_new_thread")(run, (function,))
    else:
        threading.Thread(target=run, args=(function,), name=name, daemon=True).start()


class Renewed(Protocol):
    """What has something to renew in a forked child."""

    def _after_fork(self) -> None:
        """Run in the child, in its only thread, before any other code of the child's."""
        ...


_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()
_abandoned: list[object] = []


def renew_in_child(holder: Renewed) -> None:
    """Have ``holder._after_fork()`` called in every child forked from now on, for as long as `holder` lives."""
    _renewed.add(holder)


def abandon(*inherited: object) -> None:
    """Keep what a child inherited but does not own alive for ever, so that no finalizer of it ever runs.

    Closing an inherited event loop, for one, takes the parent's sockets out of the epoll set that both still share.
    """
    _abandoned.extend(inherited)


def _renew_all() -> None:
    for holder in list(_renewed):
        try:
            holder._after_fork()
        except Exception:
            logging.getLogger("meshlib").exception("%r could not be renewed after a fork", holder)


os.register_at_fork(after_in_child=_renew_all)
