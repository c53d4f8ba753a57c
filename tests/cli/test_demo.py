"""The demo as a user runs it: as a process, which leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.peers.fixtures import require
from tests.peers.process import wait_until

# In one worker, one after another: each keeps the machine busy for some seconds.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.xdist_group("demo")]


def lives(process: psutil.Process) -> bool:
    """Whether it runs; in a container nobody may reap the orphans of a process that was killed."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Demo:
    """A demo under way. Its temporary directory is a test's own, so what it leaves there can be seen."""

    def __init__(self, directory: Path, *options: str, stdout: int | None = None, **environment: str) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self._out, self._err = directory / "out", directory / "err"
        env = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1", **environment}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "meshlib", "demo", *options],
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env=env,
                cwd=directory,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_for_children(self, count: int) -> list[psutil.Process]:
        wait_until(lambda: len(self.children()) >= count, f"{count} processes run", timeout=40)
        return self.children()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.out or self.process.poll() is not None, f"it says {text!r}", timeout=60)
        assert text in self.out, self.out + self.err

    def end(self) -> int:
        return self.process.wait(timeout=60)

    def assert_nothing_is_left(self, children: list[psutil.Process]) -> None:
        assert children
        wait_until(lambda: not any(map(lives, children)), "all processes have gone", timeout=5)
        assert list(self.temporary.iterdir()) == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def begin(*options: str, **given: Any) -> Demo:
        started.append(Demo(tmp_path, *options, **given))
        return started[-1]

    yield begin
    for demo in started:
        demo.process.kill()
        demo.process.wait()


def check(figures: dict[str, Any], demo: Demo) -> None:
    told = json.dumps(figures["broken"]) + demo.out
    assert figures["passed"], told
    assert figures["mesh"]["success_percent"] >= 99.8, told
    assert figures["mesh"]["success_percent"] >= figures["plain"]["success_percent"], told
    assert figures["plain"]["lost"] > 0, "the faults were not felt"
    assert figures["mesh"]["retries"] > 0
    assert [phase["name"] for phase in figures["phases"]][0::6] == ["healthy", "after"]
    assert sum(phase["mesh"]["requests"] for phase in figures["phases"]) == figures["mesh"]["requests"]
    hops = {hop["service"]: hop["left_ms"] for hop in figures["deadline"]}
    assert 1000 >= hops["storefront"] > hops["orders"] > hops["catalogue"] > 0


def test_the_mesh_saves_what_plain_httpx_loses(start: Callable[..., Demo], tmp_path: Path) -> None:
    demo = start("--seconds", "9", "--json", "figures.json")
    demo.wait_for("-- all is well")
    children = demo.children()

    code = demo.end()

    assert code == 0, demo.out + demo.err
    check(json.loads((tmp_path / "figures.json").read_text()), demo)
    assert "succeeded" in demo.out
    assert "storefront 1000 ms -> orders 9" in demo.out
    assert "\x1b" not in demo.out  # no terminal, no control sequences
    demo.assert_nothing_is_left(children)


@pytest.mark.peer
def test_it_does_so_with_a_real_consul_that_is_restarted(start: Callable[..., Demo], tmp_path: Path) -> None:
    demo = start("--consul", "--seconds", "8", "--json", "figures.json", MESHLIB_CONSUL=str(require("consul")))
    demo.wait_for("-- all is well")
    children = demo.children()

    code = demo.end()

    assert code == 0, demo.out + demo.err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["registry"].startswith("Consul ")
    check(figures, demo)
    demo.assert_nothing_is_left(children)


def test_ctrl_c_in_a_terminal_ends_it_and_everything_it_started(start: Callable[..., Demo]) -> None:
    ours, theirs = pty.openpty()
    demo = start(stdout=theirs, TERM="xterm", COLUMNS="100", LINES="40")
    os.close(theirs)
    seen = b""
    while b"the mesh sees" not in seen:
        seen += os.read(ours, 65536)
    children = demo.children()

    demo.process.send_signal(signal.SIGINT)
    demo.process.send_signal(signal.SIGINT)  # somebody impatient
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:
        pass  # how a terminal says that nobody is at its other end
    os.close(ours)

    assert demo.end() == 130
    assert len(children) == 9
    assert b"catalogue-3" in seen
    assert seen.count(b"\x1b[?25h") == 1, "the cursor is shown again"
    assert "ended by SIGINT" in demo.err
    demo.assert_nothing_is_left(children)


def test_sigterm_while_it_starts_ends_everything(start: Callable[..., Demo]) -> None:
    demo = start()
    children = demo.wait_for_children(3)

    demo.process.send_signal(signal.SIGTERM)

    assert demo.end() == 143
    demo.assert_nothing_is_left(children)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_its_processes_do_not_outlive_it_even_if_it_is_killed(start: Callable[..., Demo]) -> None:
    demo = start()
    children = demo.wait_for_children(3)

    demo.process.kill()

    assert demo.end() == -signal.SIGKILL
    wait_until(lambda: not any(map(lives, children)), "all processes have gone", timeout=5)


def test_a_service_that_does_not_start_fails_it_with_what_the_service_wrote(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "uvicorn.py").write_text("raise RuntimeError('no uvicorn today')\n")

    demo = start(PYTHONPATH=os.pathsep.join(["broken", os.environ.get("PYTHONPATH", "")]))

    assert demo.end() == 1
    assert "the demo failed: orders-" in demo.err
    assert "RuntimeError: no uvicorn today" in demo.err
    assert list(demo.temporary.iterdir()) == []
