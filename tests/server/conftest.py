"""Servers for the tests of the callee's side, each on a socket that is bound before it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
import uvicorn
from werkzeug.serving import make_server

Serve = Callable[[Any], str]
ServeWsgi = Callable[[WSGIApplication], str]


@contextmanager
def _bound() -> Iterator[socket.socket]:
    # With the protocol named; without it asyncio would leave Nagle's algorithm on, and answers come 40 ms late.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _uvicorn(app: Any, listener: socket.socket, **options: Any) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", **options))
    # A loop runner of our own, since `Server.run()` would take over the signals of the process.
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), name="uvicorn")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an ASGI application by uvicorn, in a thread; returns its URL."""
    with ExitStack() as running:

        def start(app: Any) -> str:
            listener = running.enter_context(_bound())
            running.enter_context(_uvicorn(app, listener))
            return _url(listener)

        yield start


@pytest.fixture
def serve_unix(tmp_path: Path) -> Iterator[Serve]:
    """Serves an ASGI application by uvicorn at a Unix socket; returns the path."""
    with ExitStack() as running:

        def start(app: Any) -> str:
            path = str(tmp_path / "app.sock")
            listener = running.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()
            running.enter_context(_uvicorn(app, listener))
            return path

        yield start


@pytest.fixture
def serve_wsgi() -> Iterator[ServeWsgi]:
    """Serves a WSGI application by Werkzeug, a thread for each connection; returns its URL."""
    with ExitStack() as running:

        def start(app: WSGIApplication) -> str:
            server = make_server("127.0.0.1", 0, app, threaded=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="werkzeug")
            thread.start()

            def stop() -> None:
                server.shutdown()
                thread.join()
                server.server_close()

            running.callback(stop)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


@pytest.fixture
def serve_gunicorn(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serves ``module:application`` by gunicorn, in processes; returns its URL, or the path of its Unix socket."""
    with ExitStack() as running:

        def start(application: str, *options: str, unix: bool = False) -> str:
            if unix:
                listener = running.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(str(tmp_path / "gunicorn.sock"))
                listener.listen()
            else:
                listener = running.enter_context(_bound())
            log = running.enter_context((tmp_path / "gunicorn.log").open("wb"))
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gunicorn",
                    f"--bind=fd://{listener.fileno()}",
                    "--no-control-socket",
                    *options,
                    application,
                ],
                pass_fds=[listener.fileno()],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

            def stop() -> None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

            running.callback(stop)
            return listener.getsockname() if unix else _url(listener)

        yield start
