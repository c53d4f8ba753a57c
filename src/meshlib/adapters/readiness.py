"""Waiting until services have endpoints, before the first call needs them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from meshlib.adapters.plane import DataPlane
from meshlib.config.views import EndpointsWaiter
from meshlib.errors import DeadlineExceeded

__all__ = ["wait_until_ready"]

_LOOK_AGAIN_S = 0.05


def wait_until_ready(plane: DataPlane, services: Iterable[str], timeout_s: float) -> None:
    """Block until each service has a healthy endpoint.

    Raises:
        DeadlineExceeded: if it takes longer than `timeout_s`; the message says what is missing.
    """
    clock = plane.clock
    deadline = clock.now() + timeout_s
    names = tuple(services)
    for name in names:
        plane.service(name)
    for name in names:
        while not plane.service(name).clusters[None].usable:
            left_s = deadline - clock.now()
            if left_s <= 0:
                view = plane.service(name)
                count = len(view.clusters[None].members)
                there = f"; {count} endpoint{'s' if count > 1 else ''}, unhealthy" if count else ""
                detail = f": {view.detail}" if view.detail else ""
                text = f"no healthy endpoint within {timeout_s:g}s (discovery: {view.known.value}{there}{detail})"
                raise DeadlineExceeded(text, service=name, limit="ready")
            if plane.snapshots.answered((name,)):
                # It has answered, but not with a healthy endpoint; of the next answer no waiter is told.
                clock.sleep(min(left_s, _LOOK_AGAIN_S))
                continue
            waiter, ready = EndpointsWaiter(plane.snapshots, (name,)), threading.Event()
            waiter.on_ready(ready.set)
            ready.wait(min(left_s, _LOOK_AGAIN_S))
            waiter.leave()
