"""One real server as a child process: started, waited for, and ended by its pid however the test ends.

Three nets, one below the other: the fixture stops it, an `atexit` handler kills what is left, and the kernel signals it
when the thread that started it is gone (`setpriv --pdeathsig`), so that a killed test run leaves nothing behind either.
The last one means: start a server in a thread that lives as long as the server should.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Below the range from which the kernel takes the ports of outgoing connections. Each of the processes that run tests
# side by side has its own, so that none takes what another has been given and does not listen on yet.
_PORTS = range(15_000 + _WORKER % 8, 32_000, 8)
_random = random.SystemRandom()
_given: set[int] = set()
_running: set[Process] = set()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, for TCP and UDP, and that was not given out before."""
    for _ in range(1_000):
        port = _random.choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def accepts(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], bool], what: str, *, timeout: float = 20.0, poll: float = 0.02) -> None:
    """Waits until `holds()` is true.

    Raises:
        TimeoutError: it was not within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(poll)


class Process:
    """A server in a process group of its own, with its output in a file.

    Args:
        argv: the command.
        ready: whether the server answers; asked until it does.
        log: where its output goes.
        timeout: how many seconds it may take until it answers.
    """

    def __init__(self, argv: Sequence[str], *, ready: Callable[[], bool], log: Path, timeout: float = 30.0) -> None:
        self.argv = list(argv)
        self.log = log
        self._ready = ready
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        name = Path(self.argv[0]).name
        return f"<{name} pid {self.pid}>" if self.alive else f"<{name} not running>"

    @property
    def pid(self) -> int:
        """The process id; that of the last run if it has ended."""
        if self._child is None:
            raise RuntimeError(f"{self.argv[0]} was never started")
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def output(self) -> str:
        """What the server has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of its output.
        """
        if self.alive:
            raise RuntimeError(f"{self!r} runs already")
        setpriv = shutil.which("setpriv")
        # TERM, not KILL: a master process ends its workers with it.
        bound = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*bound, *self.argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        _running.add(self)
        try:
            wait_until(lambda: not self.alive or self._ready(), "it answers", timeout=self._timeout)
        except TimeoutError:
            self.kill()
            raise RuntimeError(f"{self.argv[0]} does not answer; it said:\n{self._tail()}") from None
        if not self.alive:
            self.kill()
            raise RuntimeError(f"{self.argv[0]} ended with {self._child.returncode}; it said:\n{self._tail()}")

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the server as an operator would (SIGTERM), by force if it does not listen."""
        if self._child is not None and self.alive:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """Ends the server and its workers at once (SIGKILL)."""
        if self._child is not None:
            try:
                os.killpg(self._child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._child.wait()
        _running.discard(self)

    def restart(self) -> None:
        """Stops the server if it runs, and starts it again on the same ports."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Makes the server hang: connections are accepted by the kernel, nothing is answered."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a suspended server go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def _tail(self) -> str:
        return "\n".join(self.output.splitlines()[-20:])


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        process.kill()
