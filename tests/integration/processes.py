"""Services as processes of their own, which enter themselves into the registry through `mesh.register`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def environment(**extra: str) -> dict[str, str]:
    """That of this process, in which `meshlib` and `tests` can be imported."""
    path = os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])
    return {**os.environ, "PYTHONPATH": path, **extra}


class Server:
    """``tests.integration.instance`` in a process: answers each request with its name, and is registered."""

    def __init__(self, config: dict[str, Any], name: str, **register: Any) -> None:
        self.name = name
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.instance", json.dumps(config), name, json.dumps(register)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = 0
        self.instance_id = ""

    def wait(self) -> Server:
        """Until it is registered."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, f"{self.name} ended with {self._child.wait()}"
        self.port, self.instance_id = json.loads(line)
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """As its own end would: it leaves the registry."""
        assert self._child.stdin is not None
        if self._child.poll() is None:
            self._child.stdin.close()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


@contextmanager
def servers(config: dict[str, Any], *names: str, **register: Any) -> Iterator[list[Server]]:
    """One process for each name, all registered."""
    with ExitStack() as stack:
        started = [Server(config, name, **register) for name in names]
        for server in started:
            stack.callback(server.close)
        yield [server.wait() for server in started]
