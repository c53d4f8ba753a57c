"""A process that enters itself into the embedded registry: ``python -m tests.discovery.local_process DIR PORT [MODE]``.

It prints ``entered``, then does what MODE says, then waits until its input ends.
"""

from __future__ import annotations

import os
import sys

from meshlib.config.settings import LocalSettings
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.local import LocalRegistry
from meshlib.discovery.source import Instance


def main(directory: str, port: int, mode: str = "") -> None:
    control = ControlPlane()
    registry = LocalRegistry(LocalSettings(directory))
    instance = Instance("orders", "127.0.0.1", port, f"orders-{port}")
    control.run_sync(lambda: registry.register(instance), 20)
    print("entered", flush=True)
    if mode == "churn":
        other = Instance("orders", "127.0.0.1", port + 1000, f"churn-{port}")
        for _ in range(20):
            control.run_sync(lambda: registry.register(other), 20)
            control.run_sync(lambda: registry.deregister(other), 20)
        print("done", flush=True)
    if mode == "fork" and (child := os.fork()):
        print(child, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
