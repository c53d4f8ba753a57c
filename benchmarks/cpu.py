"""CPU time, which other processes on the machine disturb little: of this process, its threads, and a server's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

Clock = Callable[[], float]


def own() -> float:
    """CPU seconds of this process, user and system, all threads."""
    return time.process_time()


def with_process(pid: int) -> Clock:
    """A clock of the CPU seconds that this process and another one have used together.

    Linux tells a thread's time on a CPU in nanoseconds; where a kernel does not, in ticks of 10 ms, which is coarse.
    """
    tasks = Path(f"/proc/{pid}/task")

    def by_threads() -> float:
        total = 0
        for task in tasks.iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:  # a thread that has ended meanwhile
                continue
        return time.process_time() + total / 1e9

    def by_ticks() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return by_threads if Path(f"/proc/{pid}/schedstat").exists() else by_ticks


def of_run(argv: list[str], env: dict[str, str]) -> float:
    """CPU seconds that a program takes from start to end.

    Raises:
        RuntimeError: if it fails.
    """
    pid = os.posix_spawn(argv[0], argv, env)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(argv)[:200]} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime
