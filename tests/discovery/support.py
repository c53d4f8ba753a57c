"""What the tests of discovery share: sources that say what they are told, and waiting for conditions."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from meshlib.balance.endpoint import Endpoint
from meshlib.discovery.source import Answer
from meshlib.discovery.watch import Resolution

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """Wait until `condition()` is true, and return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.01)
    return result


def endpoint(port: int = 80, name: str = "") -> Endpoint:
    return Endpoint("127.0.0.1", port, instance_id=name or f"i{port}")


class Scripted:
    """A source of which a test decides, from any thread, what it says. One script per service."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.opened = 0
        self.closed = 0
        self.released = False
        self._says: dict[str, Answer | Exception] = {}
        self._changed = threading.Condition()
        self._version = 0

    def say(self, service: str, what: Answer | Exception) -> None:
        with self._changed:
            self._says[service] = what
            self._version += 1

    @property
    def watching(self) -> int:
        return self.opened - self.closed

    async def watch(self, service: str) -> AsyncGenerator[Answer, None]:
        self.opened += 1
        seen = -1
        try:
            while True:
                if seen != self._version:
                    seen = self._version
                    what = self._says.get(service)
                    if isinstance(what, Exception):
                        raise what
                    if what is not None:
                        yield what
                await asyncio.sleep(0.002)
        finally:
            self.closed += 1

    async def aclose(self) -> None:
        self.released = True


class Published:
    """Collects what a directory publishes."""

    def __init__(self) -> None:
        self.now: dict[str, Resolution | None] = {}
        self.all: list[tuple[str, Resolution | None]] = []
        self.events: list[tuple[str, str, str]] = []

    def __call__(self, service: str, resolution: Resolution | None) -> None:
        self.now[service] = resolution
        self.all.append((service, resolution))

    def event(self, kind: str, service: str, detail: str) -> None:
        self.events.append((kind, service, detail))

    def state(self, service: str) -> str:
        resolution = self.now.get(service)
        return resolution.state.value if resolution is not None else ""

    def ports(self, service: str) -> list[int]:
        resolution = self.now.get(service)
        return sorted(each.port for each in resolution.endpoints) if resolution is not None else []
