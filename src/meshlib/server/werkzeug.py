"""Flask's own server, started by the mesh: ``meshlib.server.werkzeug.run(app, mesh, port=5000)``.

Registers when the port answers, as ``register:`` says, and drains on SIGTERM, at which Werkzeug alone drops what is in
flight. A server for development, as its makers say: in production, gunicorn.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer

from meshlib.server.lifecycle import HasLifecycle
from meshlib.server.signals import Signals

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["run"]

_POLL_S = 0.05


class _Server(ThreadedWSGIServer):
    """Knows how many connections it serves; each is for one request, as Werkzeug keeps none."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.serving = 0
        self._count = threading.Lock()
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._count:
            self.serving += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._count:
                self.serving -= 1


def run(app: WSGIApplication, mesh: HasLifecycle, *, host: str = "127.0.0.1", port: int = 5000, **options: Any) -> None:
    """Serve `app` until this process is told to end.

    Args:
        app: the application.
        mesh: of the process.
        host, port: where.
        options: those of `werkzeug.serving.ThreadedWSGIServer`: ``ssl_context``, ``handler``, ...
    """
    server = _Server(host, port, app, **options)
    server.log_startup()
    lifecycle, dropped = mesh.lifecycle, threading.Event()

    def stop(number: int = 0) -> None:
        # In a thread, as it waits for the loop, which this one runs.
        threading.Thread(target=server.shutdown, name="meshlib werkzeug stop", daemon=True).start()

    def drop() -> None:
        dropped.set()

    signals = Signals([lifecycle], pass_on=stop, force=drop)
    try:
        if not signals.take():
            raise RuntimeError("Flask's server has to be started in the main thread: nobody else is told of signals")
        lifecycle.begin()
        server.serve_forever(poll_interval=_POLL_S)
        ends_at = time.monotonic() + lifecycle.settings.timeout_s
        while server.serving and time.monotonic() < ends_at and not dropped.is_set():
            time.sleep(_POLL_S)
    finally:
        server.server_close()
        lifecycle.end()
        signals.give_back()
