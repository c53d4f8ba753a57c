"""A long run of calls to servers that go wrong now and then: no call is lost, and nothing grows.

Half of the calls come from the tasks of one event loop, and half from threads.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

import meshlib
from meshlib import Mesh
from tests.soak.faulty_server import BODY
from tests.soak.held import Sample, grown

__all__ = ["run"]

ROUNDS = 20
TASKS = 32
THREADS = 4
SERVERS = 3
SETTLE_S = 1.0

LIMITS = {"descriptors": TASKS * SERVERS, "threads": 0, "tasks": 0, "memory_mib": 4.0, "objects": 5_000}
"""Idle connections come and go: as many as there can be from one loop. And memory, as the allocator pleases."""


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
                self.samples.append(Sample.of_here(self._done, runner.get_loop()))
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


def run(calls: int) -> list[str]:
    """Make so many calls; what was wrong."""
    with ExitStack() as stack:
        ports = []
        for seed in range(SERVERS):
            argv = [sys.executable, "-m", "tests.soak.faulty_server", str(seed)]
            root = Path(__file__).resolve().parents[2]
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
    print(f"{calls:,} calls in {took_s:.0f} s, {cpu_s / calls * 1e6:.0f} us of CPU each")
    return [f"lost {count}: {what}" for what, count in soak.wrong.items()] + [
        f"grown: {what}" for what in grown(soak.samples, LIMITS)
    ]
