"""A long run against servers that go wrong now and then: no call is lost, and nothing grows.

    python -m tests.soak [--calls N]

Half of the calls come from the tasks of one event loop, and half from threads. After each of twenty rounds it counts
what the process holds: file descriptors, tasks, threads, memory, and objects that only the garbage collector could
free. It ends with 1 if a call was lost, or if anything has grown since the first quarter.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

import meshlib
from meshlib import Mesh
from tests.soak.server import BODY

ROUNDS = 20
TASKS = 32
THREADS = 4
SERVERS = 3
SETTLE_S = 1.0

MEMORY_MIB = 4.0
"""By how much resident memory may differ between the first quarter and the end: what the allocator makes of it."""
DESCRIPTORS = TASKS * SERVERS
"""Idle connections come and go; this is as many as there can be from one loop."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds."""

    calls: int
    descriptors: int
    threads: int
    tasks: int
    memory_mib: float
    objects: int

    def __str__(self) -> str:
        return (
            f"{self.calls:>9,} calls  {self.descriptors:>4} descriptors  {self.threads:>3} threads"
            f"  {self.tasks:>3} tasks"
            f"  {self.memory_mib:7.1f} MiB  {self.objects:>9,} objects"
        )


class Soak:
    """The run."""

    def __init__(self, mesh: Mesh, calls: int) -> None:
        self._mesh = mesh
        self._each = calls // ROUNDS // 2
        self._done = 0
        self.wrong: Counter[str] = Counter()
        self.samples: list[Sample] = []

    def run(self) -> None:
        """All rounds."""
        with asyncio.Runner() as runner, self._mesh.client("orders") as client:
            tasks = self._mesh.async_client("orders")
            for _ in range(ROUNDS):
                runner.run(self._from_tasks(tasks))
                self._from_threads(client)
                self._done += 2 * self._each
                runner.run(asyncio.sleep(SETTLE_S))
                self.samples.append(self._sample(runner.get_loop()))
                print(self.samples[-1], flush=True)
            runner.run(tasks.aclose())

    async def _from_tasks(self, client: httpx.AsyncClient) -> None:
        left = iter(range(self._each))

        async def work() -> None:
            for n in left:
                try:
                    if n % 5:
                        response = await client.get(f"/orders/{n}")
                    else:
                        response = await client.put("/orders", json={"n": n})
                    self._check(response)
                except meshlib.MeshError as error:
                    self.wrong[type(error).__name__] += 1

        await asyncio.gather(*(work() for _ in range(TASKS)))

    def _from_threads(self, client: httpx.Client) -> None:
        left, lock = iter(range(self._each)), threading.Lock()

        def work(_: int) -> None:
            while True:
                with lock:
                    n = next(left, None)
                if n is None:
                    return
                try:
                    self._check(client.get(f"/orders/{n}"))
                except meshlib.MeshError as error:
                    self.wrong[type(error).__name__] += 1

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))

    def _check(self, response: httpx.Response) -> None:
        if response.status_code != 200 or response.content != BODY:
            self.wrong[f"status {response.status_code}, {len(response.content)} bytes"] += 1

    def _sample(self, loop: asyncio.AbstractEventLoop) -> Sample:
        gc.collect()
        return Sample(
            calls=self._done,
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
            tasks=len(asyncio.all_tasks(loop)),
            memory_mib=psutil.Process().memory_info().rss / 2**20,
            objects=len(gc.get_objects()),
        )

    def grown(self) -> list[str]:
        """What has grown since the first quarter."""
        start, end = self.samples[ROUNDS // 4], self.samples[-1]
        limits = {"descriptors": DESCRIPTORS, "threads": 0, "tasks": 0, "memory_mib": MEMORY_MIB, "objects": 5_000}
        return [
            f"{name}: {getattr(start, name):,} -> {getattr(end, name):,}"
            for name, limit in limits.items()
            if getattr(end, name) - getattr(start, name) > limit
        ]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A long run; see the module.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="in all (default: a million)")
    calls = parser.parse_args().calls
    root = Path(__file__).resolve().parents[2]
    with ExitStack() as stack:
        ports = []
        for seed in range(SERVERS):
            argv = [sys.executable, "-m", "tests.soak.server", str(seed)]
            server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
            stack.callback(server.wait, 10)
            assert server.stdin is not None and server.stdout is not None
            stack.callback(server.stdin.close)
            ports.append(int(server.stdout.readline()))
        endpoints = [f"127.0.0.1:{port}" for port in ports]
        mesh = stack.enter_context(Mesh({"discovery": [], "services": {"orders": {"endpoints": endpoints}}}))
        soak, began, cpu = Soak(mesh, calls), time.monotonic(), time.process_time()
        soak.run()
        took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
        lines = [f"lost {count}: {what}" for what, count in soak.wrong.items()]
        lines += [f"grown: {what}" for what in soak.grown()]
        print(f"{calls:,} calls in {took_s:.0f} s, {cpu_s / calls * 1e6:.0f} us of CPU each")
    print("\n".join(lines) or "no call was lost, and nothing has grown")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
