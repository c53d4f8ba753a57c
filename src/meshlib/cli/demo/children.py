"""Processes of the demo: each is ended, by its pid, however the demo ends.

Each child is in a session of its own, so that Ctrl-C reaches the demo alone and the demo ends the children in order. If
the demo itself is killed, the kernel kills them (`bound.py`).
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Child", "DidNotStart", "Stage"]

_BOUND = Path(__file__).with_name("bound.py")
_START_S = 30.0
_END_S = 1.5
_LINES_SHOWN = 15


class DidNotStart(Exception):
    """A process of the demo did not start; the message has the end of what it wrote."""


class Child:
    """One process.

    Attributes:
        name: such as ``orders-1``.
        port: on which it serves; 0 before it is ready.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.name = name
        self.port = 0
        self._process = process
        self._directory = directory

    def __repr__(self) -> str:
        return f"<Child {self.name} pid {self.pid} [{'running' if self.running else 'ended'}]>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def said(self) -> str:
        """The end of what it wrote."""
        try:
            text = (self._directory / f"{self.name}.log").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-_LINES_SHOWN:])

    async def ready(self) -> Child:
        """Wait until it says on which port it serves.

        Raises:
            DidNotStart: if it ends instead, or takes too long.
        """
        file = self._directory / f"{self.name}.ready"
        give_up_at = time.monotonic() + _START_S
        while not file.exists():
            if not self.running:
                raise self.failed(f"ended with exit code {self._process.returncode}")
            if time.monotonic() > give_up_at:
                raise self.failed(f"was not ready after {_START_S:g} s")
            await asyncio.sleep(0.02)
        self.port = int(file.read_text())
        return self

    def failed(self, what: str) -> DidNotStart:
        """Return the error that says so, with what the process wrote."""
        said = self.said
        return DidNotStart(f"{self.name} {what}" + (f"; it wrote:\n{said}" if said else ""))

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.running:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does, and wait until it has gone."""
        self.signal(signal.SIGKILL)
        self._process.wait()


class Stage:
    """The processes of the demo and their private directory. Use it with ``with``, or `close` it.

    Attributes:
        directory: readable by this user alone; removed at the end.
        children: all that were started, by name.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="meshlib-demo-"))
        self.children: dict[str, Child] = {}
        self._closed = False
        atexit.register(self.close)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a process. What it writes goes to a file in the directory.

        Args:
            name: new among the children, unless the one of this name has ended.
            argv: the program and its arguments.
            environment: for it, besides what this process has and the mesh does not read.

        Raises:
            DidNotStart: if it cannot be started at all.
        """
        log = self.directory / f"{name}.log"
        ready = self.directory / f"{name}.ready"
        bound = [sys.executable, "-I", "-S", str(_BOUND), str(os.getpid()), *argv]
        env = {**_inherited(), **(environment or {}), "SHOP_READY_FILE": str(ready)}
        try:
            with log.open("ab") as file:
                process = subprocess.Popen(
                    bound,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=env,
                    cwd=self.directory,
                    start_new_session=True,
                )
        except OSError as error:
            raise DidNotStart(f"{name} could not be started: {error}") from error
        child = self.children[name] = Child(name, process, self.directory)
        return child

    def start_python(self, name: str, module: str, *arguments: str, environment: Mapping[str, str]) -> Child:
        """Start a module as a process, with the Python and the packages of this one."""
        return self.start(name, [sys.executable, "-P", "-m", module, *arguments], environment)

    def close(self) -> None:
        """End all processes and remove the directory."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        running = [child for child in self.children.values() if child.running]
        for child in running:
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)  # a stopped process would keep the other signal waiting
        give_up_at = time.monotonic() + _END_S
        while time.monotonic() < give_up_at and any(child.running for child in running):
            time.sleep(0.02)
        for child in running:
            child.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _inherited() -> dict[str, str]:
    """The environment of this process, without what would change how the shop behaves."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MESHLIB_", "OTEL_"))}
    for name in list(env):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            del env[name]
    if path := env.get("PYTHONPATH"):  # it is relative to where this process is, and the children are elsewhere
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)
    return env
