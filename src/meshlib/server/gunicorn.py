"""gunicorn in the mesh: ``gunicorn -c python:meshlib.server.gunicorn shop:app``.

Each worker drains when it is told to end, whatever its class (sync, gthread, gevent, uvicorn's, gunicorn's own for
ASGI), and the port has one entry in the registry, as ``register:`` says, held by one of them. With a configuration file
of your own: ``from meshlib.server.gunicorn import child_exit, graceful_timeout, post_worker_init, worker_exit``.

What callers are told of load is that of all workers together (`meshlib.server.workers`).

All meshes that the application makes take part; a worker finds them when it has loaded the application. This module is
loaded by the master before anything is patched for gevent, so it imports nothing that this would change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.server import workers as _workers  # without the bar gunicorn would take it for a setting

if TYPE_CHECKING:
    from meshlib.server.lifecycle import Lifecycle

__all__ = ["child_exit", "graceful_timeout", "post_worker_init", "worker_exit"]

_workers.share()  # before the workers are forked

graceful_timeout = 60
"""How long the master waits for workers: a notice and the time for what is in flight, with a margin."""


def post_worker_init(worker: Any) -> None:
    """The hook of gunicorn: a worker has loaded the application, and is about to serve."""
    import logging

    from meshlib.server.lifecycle import lifecycles

    found = lifecycles(None)
    if not found:
        text = "there is no mesh in the application, so nothing is registered and nothing drains"
        logging.getLogger("meshlib.server").warning(text)
    elif not worker.alive:
        return  # it was told to end while it loaded
    else:
        _workers.join(worker.age)
        _begin(worker, found)


def _begin(worker: Any, found: list[Lifecycle]) -> None:
    if type(worker).__module__.startswith("uvicorn"):
        _by_lifespan(worker)
    else:
        _by_signal(worker, found)


def worker_exit(server: Any, worker: Any) -> None:
    """The hook of gunicorn: a worker has served what it had."""
    from meshlib.server.lifecycle import lifecycles

    _workers.leave()
    for lifecycle in lifecycles(None):
        lifecycle.end()


def child_exit(server: Any, worker: Any) -> None:
    """The hook of gunicorn, in its master: a worker has ended, however it did."""
    _workers.left(worker.pid)


def _by_lifespan(worker: Any) -> None:
    """For uvicorn, which takes the signals only when it begins to serve."""
    import math

    from meshlib.server.asgi_lifespan import Lifespan
    from meshlib.server.lifecycle import lifecycles

    if not isinstance(worker.wsgi, Lifespan):
        worker.wsgi = Lifespan(worker.wsgi)
        timeout_s = max(lifecycle.settings.timeout_s for lifecycle in lifecycles(None))
        worker.config.timeout_graceful_shutdown = math.ceil(timeout_s)


def _by_signal(worker: Any, found: list[Lifecycle]) -> None:
    import math
    import signal

    from meshlib.server.signals import Signals

    # Of this process alone: the master's own copies stay. How long a worker takes is bounded by itself, then by it.
    worker.cfg.set("graceful_timeout", math.ceil(max(lifecycle.settings.timeout_s for lifecycle in found)))
    loop = getattr(worker, "loop", None)
    if loop is not None:  # gunicorn's own for ASGI
        signals = Signals(found, (signal.SIGTERM,), pass_on=lambda number: worker.handle_exit_signal(), patient=True)
        signals.take(lambda number, handler: loop.add_signal_handler(number, handler, number, None))
    else:
        Signals(found, (signal.SIGTERM,), force=lambda: worker.handle_quit(signal.SIGINT, None), patient=True).take()
        signal.siginterrupt(signal.SIGTERM, False)  # as gunicorn has it
        found[0].when_closing(lambda: worker.cfg.set("keepalive", 0))
    for lifecycle in found:
        lifecycle.begin()
