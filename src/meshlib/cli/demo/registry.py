"""The registry of the demo: the embedded one in a directory of its own, or a real Consul agent; and its restart."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import httpx

import meshlib
from meshlib.cli.demo.children import Child, Stage

__all__ = ["ConsulMissing", "ConsulRegistry", "EmbeddedRegistry", "Registry", "find_consul"]

_READY_S = 30.0


class ConsulMissing(Exception):
    """There is no Consul to start; the message says where it was looked for."""


class Registry(Protocol):
    """Where the services of the shop are entered.

    Attributes:
        title: for the report.
        discovery: the configuration by which services find it.
    """

    title: str
    discovery: dict[str, Any]

    async def start(self) -> None:
        """Make it work."""

    async def take_away(self) -> None:
        """Make it unreachable, and forget everything."""

    async def bring_back(self) -> None:
        """Make it work again, with nothing in it."""

    async def entries(self) -> int:
        """How many instances are entered."""


class EmbeddedRegistry:
    """The `local` source in a directory of the demo's own."""

    title = "the embedded registry"

    def __init__(self, stage: Stage) -> None:
        self._directory = stage.directory / "registry"
        self.discovery = {"local": {"directory": str(self._directory)}}

    async def start(self) -> None:
        self._directory.mkdir(mode=0o700)

    async def take_away(self) -> None:
        self._directory.rename(self._directory.with_name("registry-before"))
        # A file in its place, or the services would make a new directory at once.
        self._directory.write_text("The registry is away for a moment.\n")

    async def bring_back(self) -> None:
        self._directory.unlink()

    async def entries(self) -> int:
        return sum(1 for _ in self._directory.glob("v1/*/*.json"))


class ConsulRegistry:
    """A Consul agent in development mode: it keeps nothing, so a restart forgets all services."""

    def __init__(self, stage: Stage, binary: Path) -> None:
        self.title = f"Consul {_version(binary) or '(unknown version)'}"
        self._stage = stage
        self._binary = binary
        self._port, serf, server = _free_ports(3)
        self.discovery = {"consul": {"address": f"http://127.0.0.1:{self._port}"}}
        ports = {"http": self._port, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1}
        if _recent(binary):
            ports["grpc_tls"] = -1
        self._config = {"node_name": "meshlib-demo", "disable_update_check": True, "ports": ports}
        self._agent: Child | None = None

    async def start(self) -> None:
        file = self._stage.directory / "consul.json"
        file.write_text(json.dumps(self._config))
        argv = [str(self._binary), "agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1"]
        self._agent = self._stage.start("consul", [*argv, "-log-level", "warn", "-config-file", str(file)])
        await self._ready(self._agent)

    async def take_away(self) -> None:
        if self._agent is not None:
            self._agent.kill()

    async def bring_back(self) -> None:
        await self.start()

    async def entries(self) -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            return len((await client.get(f"http://127.0.0.1:{self._port}/v1/agent/services")).json())

    async def _ready(self, agent: Child) -> None:
        give_up_at = time.monotonic() + _READY_S
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", trust_env=False, timeout=2.0) as client:
            while True:
                if not agent.running:
                    raise agent.failed("ended")
                if time.monotonic() > give_up_at:
                    raise agent.failed(f"had no leader after {_READY_S:g} s")
                try:
                    leader = await client.get("/v1/status/leader")
                    nodes = await client.get("/v1/catalog/nodes")
                    if leader.is_success and leader.json() and nodes.is_success and nodes.json():
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)


def find_consul() -> Path:
    """The Consul to use: ``$MESHLIB_CONSUL``, one on the PATH, or in a checkout the one that its tests have fetched.

    Raises:
        ConsulMissing: if there is none.
    """
    if named := os.environ.get("MESHLIB_CONSUL"):
        if _version(Path(named)) is None:
            raise ConsulMissing(f"$MESHLIB_CONSUL is {named!r}, which does not run as Consul")
        return Path(named)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which("consul", path=path)
    if found is not None and _version(Path(found)) is not None:
        return Path(found)
    fetch = Path(meshlib.__file__).resolve().parents[2] / "tests" / "peers" / "fetch.py"
    if not fetch.is_file():
        raise ConsulMissing("no Consul found: set $MESHLIB_CONSUL to the program, or put `consul` on the PATH")
    cached = _cached(fetch)
    if cached is None:
        raise ConsulMissing(
            "no Consul found: set $MESHLIB_CONSUL to the program, put `consul` on the PATH, or let the tests' tool get "
            f"it: python {os.path.relpath(fetch)} consul"
        )
    return cached


def _cached(fetch: Path) -> Path | None:
    spec = importlib.util.spec_from_file_location("_meshlib_demo_fetch", fetch)
    if spec is None or spec.loader is None:
        return None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.find("consul")
    return found if isinstance(found, Path) else None


def _version(binary: Path) -> str | None:
    try:
        done = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()
    return words[1].removeprefix("v") if len(words) > 1 and words[0] == "Consul" else None


def _recent(binary: Path) -> bool:
    """Whether it has a second port for gRPC (from 1.14 on)."""
    try:
        major, minor = (int(part) for part in (_version(binary) or "").split(".")[:2])
    except ValueError:
        return True
    return (major, minor) >= (1, 14)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
