"""Waiting until services have endpoints, before the first call needs them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from meshlib.adapters.plane import DataPlane
from meshlib.config.views import EndpointsWaiter
from meshlib.errors import DeadlineExceeded
from meshlib.routing.route import Backend

__all__ = ["wait_until_ready"]

_LOOK_AGAIN_S = 0.05


def wait_until_ready(plane: DataPlane, services: Iterable[str], timeout_s: float) -> None:
    """Block until each service has a healthy endpoint where its calls go.

    That is a backend of the route that takes what no other does, which for most is the service itself. A service that
    answers all by itself, or of which each host is one of its own, waits for nobody.

    Raises:
        DeadlineExceeded: if it takes longer than `timeout_s`; the message says what is missing.
        TypeError: if one is no name.
    """
    clock = plane.clock
    deadline = clock.now() + timeout_s
    names = tuple(services)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a service is expected, such as 'orders', not {name!r}")
        for backend in _backends(plane, name):
            plane.service(backend.service)
    for name in names:
        while not _is_ready(plane, backends := _backends(plane, name)):
            left_s = deadline - clock.now()
            if left_s <= 0:
                view = plane.service(backends[0].service)
                count = len(view.clusters[backends[0].subset].members)
                there = f"; {count} endpoint{'s' if count > 1 else ''}, unhealthy" if count else ""
                detail = f": {view.detail}" if view.detail else ""
                whose = "" if backends[0].cluster == name else f" of {' or '.join(each.cluster for each in backends)}"
                text = (
                    f"no healthy endpoint{whose} within {timeout_s:g}s (discovery: {view.known.value}{there}{detail})"
                )
                raise DeadlineExceeded(text, service=name, limit="ready")
            asked = tuple({backend.service for backend in backends})
            if plane.snapshots.answered(asked):
                # It has answered, but not with a healthy endpoint; of the next answer no waiter is told.
                clock.sleep(min(left_s, _LOOK_AGAIN_S))
                continue
            waiter, ready = EndpointsWaiter(plane.snapshots, asked), threading.Event()
            waiter.on_ready(ready.set)
            ready.wait(min(left_s, _LOOK_AGAIN_S))
            waiter.leave()


def _is_ready(plane: DataPlane, backends: tuple[Backend, ...]) -> bool:
    found = [plane.service(backend.service).clusters.get(backend.subset) for backend in backends]
    return not backends or any(cluster is not None and cluster.usable for cluster in found)


def _backends(plane: DataPlane, name: str) -> tuple[Backend, ...]:
    """Where the calls of a service go that no condition sends elsewhere; nowhere if it answers them itself."""
    settings = plane.service(name).settings
    last: tuple[Backend, ...] = ()
    for route in settings.routes:
        if route.reply is None:
            last = tuple(backend for backend in route.backends if backend.weight > 0)
        if not route.matches:
            break
    return () if settings.each_host else last
