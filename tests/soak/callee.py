"""A long run of callers that behave badly, against a service in the mesh: each has its answer, and nothing grows.

They ask for what is quick, slow, streamed or broken, with deadlines that are short, over or nonsense, and one in five
goes away at a random moment: before its request is written, while it waits, or in the middle of the answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.held import Sample, grown

__all__ = ["run"]

ROUNDS = 20
CALLERS = 48
ANSWER_S = 30.0
SETTLE_S = 2.0

LIMITS = {"descriptors": 8, "threads": 8, "tasks": 0, "memory_mib": 6.0, "objects": 5_000}
"""A pool of threads, and the connections of the service's own calls, may come and go."""

PATHS = ("/quick", "/slow", "/stream", "/chain", "/bug", "/upload", "/readyz", "/nowhere")
DEADLINES = ("1", "5", "20", "500", "0", "-1", "1e9", "NaN", "9" * 400)
_LENGTH = re.compile(rb"content-length: (\d+)")
ALLOWED = {200, 404, 405, 500, 503, 504}


class Soak:
    """The run."""

    def __init__(self, service: subprocess.Popen[str], ports: list[int], calls: int) -> None:
        self._service = service
        self._ports = ports
        self._each = calls // ROUNDS
        self._rng = Random(1)
        self._asked = 0
        self.answers: Counter[int] = Counter()
        self.left: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.samples: list[Sample] = []

    async def run(self) -> None:
        """All rounds."""
        for _ in range(ROUNDS):
            turns = iter(range(self._each))
            await asyncio.gather(*(self._caller(turns) for _ in range(CALLERS)))
            self._asked += self._each
            await self._look()

    async def _look(self) -> None:
        """When the service has had time to end what it does, it holds nothing of all these requests."""
        held: dict[str, Any] = {}
        for _ in range(10):
            await asyncio.sleep(SETTLE_S / 10)
            held = await asyncio.to_thread(self._ask_service)
            idle = [held[kind][what] == 0 for kind in ("asgi", "wsgi") for what in ("in_flight", "admitted", "pending")]
            if all(idle):
                break
        else:
            self.wrong[f"still held: {held['asgi']} {held['wsgi']}"] += 1
        self.samples.append(Sample(**held["sample"]))
        ended = {kind: held[kind]["ended"] for kind in ("asgi", "wsgi")}
        print(self.samples[-1], json.dumps(ended).replace('"', ""), flush=True)

    def _ask_service(self) -> dict[str, Any]:
        assert self._service.stdin is not None and self._service.stdout is not None
        self._service.stdin.write(f"{self._asked}\n")
        self._service.stdin.flush()
        found: dict[str, Any] = json.loads(self._service.stdout.readline())
        return found

    async def _caller(self, turns: Any) -> None:
        for _ in turns:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._one()
            except TimeoutError:
                self.wrong["no answer"] += 1
            except OSError as error:
                self.wrong[type(error).__name__] += 1

    async def _one(self) -> None:
        rng = self._rng
        path, leaves = rng.choice(PATHS), rng.random() < 0.2
        method = "POST" if path == "/upload" else rng.choice(("GET", "GET", "HEAD"))
        reader, writer = await asyncio.open_connection("127.0.0.1", rng.choice(self._ports))
        try:
            request = self._request(method, path)
            writer.write(request[: rng.randrange(len(request))] if leaves and rng.random() < 0.3 else request)
            if leaves:
                self.left[path] += 1
                await asyncio.sleep(rng.random() * 0.015)
                return
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(None, 2)[1])
            self.answers[status] += 1
            if status not in ALLOWED:
                self.wrong[f"status {status} of {path}"] += 1
            await self._read_body(reader, b"" if method == "HEAD" else head.lower())
        except asyncio.IncompleteReadError:
            if path != "/stream" or b"deadline-ms" not in request:  # else it was cut at the deadline
                self.wrong[f"half an answer of {path}"] += 1
        finally:
            writer.transport.abort()

    @staticmethod
    async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
        """To its own end: werkzeug closes a connection whose request it has not read when its peer does."""
        if length := _LENGTH.search(head):
            await reader.readexactly(int(length[1]))
        elif b"chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        elif head:
            await reader.read()

    def _request(self, method: str, path: str) -> bytes:
        rng = self._rng
        lines = [f"{method} {path} HTTP/1.1", "host: service", "connection: close"]
        if rng.random() < 0.6:
            lines += [f"x-meshlib-deadline-ms: {rng.choice(DEADLINES)}"] * rng.choice((1, 1, 1, 2))
        if rng.random() < 0.4:
            lines += [f"x-meshlib-criticality: {rng.choice(('sheddable', 'critical_plus', 'highest', ''))}"]
        if rng.random() < 0.3:
            lines += ["baggage: " + ",".join(f"k{n}=v{rng.random()}" for n in range(rng.randrange(100)))]
        body = b"u" * rng.randrange(100_000) if method == "POST" else b""
        lines += [f"content-length: {len(body)}"] if method == "POST" else []
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def run(calls: int) -> list[str]:
    """Make so many requests; what was wrong."""
    argv = [sys.executable, "-m", "tests.soak.service"]
    root = Path(__file__).resolve().parents[2]
    began = time.monotonic()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as service:
        assert service.stdin is not None and service.stdout is not None
        soak = Soak(service, [int(port) for port in service.stdout.readline().split()], calls)
        try:
            asyncio.run(soak.run())
        finally:
            service.stdin.close()
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(soak.answers.items()))
    took_s = time.monotonic() - began
    print(f"{calls:,} requests in {took_s:.0f} s: {answers}; {soak.left.total():,} callers went away")
    wrong = [f"lost {count}: {what}" for what, count in soak.wrong.items()]
    if service.returncode:
        wrong.append(f"the service ended with {service.returncode}")
    return wrong + [f"grown: {what}" for what in grown(soak.samples, LIMITS)]
