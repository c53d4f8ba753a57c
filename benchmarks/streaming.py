"""Long bodies: a download and an upload of 1 GiB, each in a new process, so that its memory can be told apart.

What is taken: the time and the CPU time from the request to the last byte, and by how much the process's memory grew
at most. Downloads come from nginx, uploads go to `benchmarks.sink`. Sent is a file, where a client takes one, and by
asynchronous clients an iterator; all announce its length.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.loads import KIB, MIB, Load
from benchmarks.servers import Peers
from meshlib import Mesh

SYNC = ("mesh sync", "httpx sync", "httpx2 sync", "requests", "urllib3")
ASYNC = ("mesh async", "httpx async", "httpx2 async", "aiohttp")
HELD_AGAINST = ("httpx async", "httpx sync", "aiohttp", "requests")
"""The best of these is the goal."""
DIRECTIONS = ("download", "upload")

_CHUNK = bytes(64 * KIB)
_ROOT = Path(__file__).resolve().parent.parent


def measure(peers: Peers, *, rounds: int, size: int) -> dict[str, Any]:
    """All contenders in turns: seconds, CPU seconds and growth in MiB by direction and contender."""
    samples: dict[str, dict[str, Any]] = {
        direction: {name: {"wall_s": [], "cpu_s": [], "growth_mib": []} for name in (*ASYNC, *SYNC)}
        for direction in DIRECTIONS
    }
    for _ in range(rounds):
        for direction, found in samples.items():
            for name, kept in found.items():
                for key, value in _in_new_process(peers, direction, name, size).items():
                    kept[key].append(value)
    return {"bytes": size, "samples": samples}


def _in_new_process(peers: Peers, direction: str, name: str, size: int) -> dict[str, float]:
    order = {"peers": peers.as_dict(), "direction": direction, "contender": name, "size": size}
    argv = [sys.executable, "-m", "benchmarks.streaming", json.dumps(order)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, cwd=_ROOT, timeout=300, check=True)
    outcome: dict[str, float] = json.loads(done.stdout)
    return outcome


def run(order: dict[str, Any]) -> dict[str, float]:
    """One stream, in this process."""
    peers, size = Peers.from_dict(order["peers"]), order["size"]
    transfer = _sync if order["contender"] in SYNC else _async
    return transfer(peers, order["contender"].partition(" ")[0], order["direction"] == "upload", size)


def _urls(peers: Peers, meshed: bool, size: int) -> tuple[str, str]:
    """Of the download and of the upload."""
    path = Load(reply=size).path
    if meshed:
        return f"http://files{path}", "http://sink/"
    return f"http://127.0.0.1:{peers.ports[0]}{path}", f"http://127.0.0.1:{peers.sink_port}/"


def _mesh(peers: Peers) -> Mesh:
    patient = {"timeout": "5m", "per_try_timeout": "5m"}
    files, sink = f"127.0.0.1:{peers.ports[0]}", f"127.0.0.1:{peers.sink_port}"
    return Mesh.from_dict({"services": {"files": {"endpoints": [files]}, "sink": {"endpoints": [sink], **patient}}})


class _Meter:
    """Time, CPU time and memory from here on."""

    def __init__(self) -> None:
        gc.collect()
        self._memory = _memory_mib(reset=True)
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        return {
            "wall_s": round(time.perf_counter() - self._wall_s, 4),
            "cpu_s": round(time.process_time() - self._cpu_s, 4),
            "growth_mib": round(max(0.0, _memory_mib() - self._memory), 2),
        }


def _memory_mib(*, reset: bool = False) -> float:
    """The greatest resident size so far; on Linux, since the last reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else KIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KIB / MIB


def _same(count: int, size: int) -> None:
    if count != size:
        raise RuntimeError(f"{count} bytes of {size}")


def _sync(peers: Peers, client: str, upload: bool, size: int) -> dict[str, float]:
    meshed = client == "mesh"
    down, up = _urls(peers, meshed, size)
    receive, send, close = _sync_client(client, peers)
    try:
        receive(_urls(peers, meshed, 64 * KIB)[0])  # whatever is imported or opened at first use
        send(up, _content_file(peers, 64 * KIB))
        file = _content_file(peers, size)
        meter = _Meter()
        _same(int(send(up, file)) if upload else receive(down), size)
        return meter.read()
    finally:
        close()


def _content_file(peers: Peers, size: int) -> Any:
    return (Path(peers.ca_file).parent / "bytes" / str(size)).open("rb")


Receive = Callable[[str], int]
Send = Callable[[str, Any], bytes]


def _sync_client(name: str, peers: Peers) -> tuple[Receive, Send, Callable[[], object]]:
    """Two functions, one that downloads and counts, one that uploads a file; and what closes the client."""
    if name == "requests":
        import requests

        session = requests.Session()

        def receive(url: str) -> int:
            with session.get(url, stream=True) as response:
                return sum(map(len, response.iter_content(64 * KIB)))

        return receive, lambda url, file: session.post(url, data=file).content, session.close
    if name == "urllib3":
        import urllib3

        pool = urllib3.PoolManager(blocksize=64 * KIB)

        def receive_raw(url: str) -> int:
            with pool.request("GET", url, preload_content=False) as response:
                return sum(map(len, response.stream(64 * KIB)))

        def send_raw(url: str, file: Any) -> bytes:
            length = str(os.fstat(file.fileno()).st_size)  # urllib3 itself would send chunks
            return pool.request("POST", url, body=file, headers={"content-length": length}).data

        return receive_raw, send_raw, pool.clear
    mesh = _mesh(peers) if name == "mesh" else None
    client: Any = mesh.client() if mesh else importlib.import_module(name).Client(timeout=None)

    def receive_bytes(url: str) -> int:
        with client.stream("GET", url) as response:
            return sum(map(len, response.iter_bytes()))

    def close() -> None:
        client.close()
        if mesh is not None:
            mesh.close()

    return receive_bytes, lambda url, file: client.post(url, content=file).content, close


def _async(peers: Peers, client: str, upload: bool, size: int) -> dict[str, float]:
    return asyncio.run(_transfer(peers, client, upload, size))


async def _transfer(peers: Peers, name: str, upload: bool, size: int) -> dict[str, float]:
    down, up = _urls(peers, name == "mesh", size)
    async with AsyncExitStack() as stack:
        if name == "aiohttp":
            import aiohttp

            client: Any = await stack.enter_async_context(aiohttp.ClientSession())
        else:
            if name == "mesh":
                mesh = await stack.enter_async_context(_mesh(peers))
                client = await stack.enter_async_context(mesh.async_client())
            else:
                client = await stack.enter_async_context(importlib.import_module(name).AsyncClient(timeout=None))
        receive, send = (_receive_aiohttp, _send_aiohttp) if name == "aiohttp" else (_receive, _send)
        await receive(client, _urls(peers, name == "mesh", 64 * KIB)[0])
        await send(client, up, 64 * KIB)
        meter = _Meter()
        _same(int(await send(client, up, size)) if upload else await receive(client, down), size)
        return meter.read()


async def _receive(client: Any, url: str) -> int:
    count = 0
    async with client.stream("GET", url) as response:
        async for chunk in response.aiter_bytes():
            count += len(chunk)
    return count


async def _receive_aiohttp(session: Any, url: str) -> int:
    count = 0
    async with session.get(url) as response:
        async for chunk in response.content.iter_any():
            count += len(chunk)
    return count


async def _send(client: Any, url: str, size: int) -> bytes:
    response = await client.post(url, content=_chunks(size), headers={"content-length": str(size)})
    body: bytes = response.content
    return body


async def _send_aiohttp(session: Any, url: str, size: int) -> bytes:
    async with session.post(url, data=_chunks(size), headers={"content-length": str(size)}) as response:
        body: bytes = await response.read()
        return body


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(_CHUNK)):
        yield _CHUNK


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
