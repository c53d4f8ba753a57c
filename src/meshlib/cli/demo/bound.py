"""Run a program that does not outlive the process that started it: ``python bound.py PARENT PROGRAM ARGUMENTS...``.

On Linux the kernel is told to kill this process when its parent dies, in whatever way. That holds over `exec`, so any
program can be bound. Elsewhere the program just runs. Imports as little as it can, because it runs before each service.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def bind(parent: int) -> None:
    """Have this process killed when its parent, of pid `parent`, dies."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    bind(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
