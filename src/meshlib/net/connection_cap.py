"""A limit on the connections of a whole service, over the pools of all its endpoints.

Envoy's ``max_connections``: an endpoint that has no connection may always open one, so that no endpoint is cut off and
whoever waits for a connection waits for one that is there. The count is exact: it is what the pools themselves hold, of
threads and of event loops.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["ConnectionCap"]


class ConnectionCap:
    """The limit of one service. Safe under threads; its lock is taken inside those of pools, never around them."""

    __slots__ = ("__weakref__", "_lock", "_pools", "maximum")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._lock = threading.Lock()
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()
        _all.add(self)

    @property
    def open(self) -> int:
        """Connections that are open or being opened."""
        with self._lock:
            return sum(pool.open for pool in self._pools)

    def enter(self, pool: Any) -> None:
        """Count a pool's connections from now on, for as long as it lives."""
        with self._lock:
            self._pools.add(pool)

    def reserve(self, pool: Any) -> bool:
        """Count one more connection of a pool, if there may be one more."""
        with self._lock:
            if pool.open and sum(each.open for each in self._pools) >= self.maximum:
                return False
            pool.open += 1
            return True

    def renew_lock(self) -> None:
        """After a fork, in the child: the connections are the parent's."""
        self._lock = threading.Lock()
        self._pools = weakref.WeakSet()


_all: weakref.WeakSet[ConnectionCap] = weakref.WeakSet()


def _renew() -> None:
    for each in list(_all):
        each.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
