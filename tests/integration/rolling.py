"""Servers of every kind, each in processes of its own, which serve `tests.integration.rolling_app`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from meshlib import Mesh
from meshlib.discovery import local_files
from tests.integration.processes import ROOT, environment
from tests.peers.process import free_port

_APP = "tests.integration.rolling_app"
_GUNICORN = ["-m", "gunicorn", "-c", "python:meshlib.server.gunicorn", "--no-control-socket", "-b", "127.0.0.1:{port}"]

SERVERS: dict[str, list[str]] = {
    "uvicorn": ["-m", _APP, "uvicorn", "{port}"],
    "uvicorn-workers": ["-m", _APP, "uvicorn-workers", "{port}"],
    "uvicorn-command": ["-m", "uvicorn", "--factory", f"{_APP}:starlette", "--port", "{port}"],
    "hypercorn": ["-m", _APP, "hypercorn", "{port}"],
    "werkzeug": ["-m", _APP, "werkzeug", "{port}"],
    "gunicorn-sync": [*_GUNICORN, "-w", "2", f"{_APP}:wsgi"],
    "gunicorn-gthread": [*_GUNICORN, "-k", "gthread", "--threads", "4", f"{_APP}:wsgi"],
    "gunicorn-gevent": [*_GUNICORN, "-k", "gevent", f"{_APP}:wsgi"],
    "gunicorn-asgi": [*_GUNICORN, "-k", "asgi", f"{_APP}:asgi"],
    "gunicorn-uvicorn": [*_GUNICORN, "-k", "uvicorn.workers.UvicornWorker", "-w", "2", f"{_APP}:asgi"],
}


def until(holds: Callable[[], bool], what: Callable[[], object], timeout_s: float = 30.0) -> None:
    ends_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < ends_at, what()
        time.sleep(0.02)


class Instance:
    """One server, at a port of its own."""

    def __init__(self, kind: str, config: dict[str, Any], log: Path, **variables: str) -> None:
        self.kind = kind
        self.port = free_port()
        self._config = {**config, "service": "orders", "register": {"port": self.port}}
        self._log = log / f"{kind}-{self.port}.log"
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [part.format(port=self.port) for part in SERVERS[self.kind]]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment(ROLLING_MESH=json.dumps(self._config), PYTHONWARNINGS="ignore", **self._variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def term(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout_s: float = 20.0) -> float:
        """Until it has ended; returns how long that took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.wait(timeout_s)
        return time.monotonic() - began

    def kill(self) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()


@contextmanager
def fleet(*instances: Instance) -> Iterator[None]:
    with ExitStack() as stack:
        for instance in instances:
            stack.callback(instance.kill)
            instance.start()
        yield


def entered(directory: Path) -> dict[int, list[local_files.Entry]]:
    """What the local registry has, by port."""
    found: dict[int, list[local_files.Entry]] = {}
    for path in directory.glob("v1/orders/*.json"):
        entry = local_files.read(str(path))
        if entry is not None:
            found.setdefault(entry.port, []).append(entry)
    return found


class Load:
    """Calls that are not safe to repeat unless `method` says so, from threads, until it is told to stop.

    Attributes:
        answers: of each call: when it began, and the process that answered.
        lost: what happened to those that were not answered with 200.
    """

    def __init__(self, mesh: Mesh, threads: int, method: str = "POST") -> None:
        self.answers: list[tuple[float, int]] = []
        self.lost: list[str] = []
        self._client, self._method = mesh.client("orders"), method
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                response = self._client.request(self._method, "/")
            except Exception as error:
                self.lost.append(repr(error))
            else:
                if response.status_code == 200:
                    self.answers.append((began, int(response.text)))
                else:
                    self.lost.append(f"{response.status_code} {response.text[:200]}")

    def since(self, when: float) -> set[int]:
        """The processes that answered calls begun since then."""
        return {pid for began, pid in tuple(self.answers) if began > when}
