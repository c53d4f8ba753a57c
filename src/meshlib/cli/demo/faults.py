"""The phases of the demo: what is broken in each, and how it is mended.

A phase is an asynchronous context: what stands before its `yield` breaks something, what stands after it mends it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import httpx

from meshlib.cli.demo.staff import Staff

__all__ = ["PHASES", "REPLACEMENT", "Breakdown", "Phase"]

REPLACEMENT = "orders-4"

_LOOKS = 20
_LOOK_S = 0.5


@dataclass(slots=True)
class Breakdown:
    """What the faults have to work on, and what they leave to be told.

    Attributes:
        staff: the shop.
        seconds: how long the phase of now lasts.
        replaced_at: when the replacement of a killed instance was up, on the monotonic clock.
    """

    staff: Staff
    seconds: float = 0.0
    replaced_at: float | None = None


@asynccontextmanager
async def _nothing(_: Breakdown) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _slow(on: Breakdown) -> AsyncIterator[None]:
    await _trouble(on, "orders-2", delay_s=0.4)
    yield
    await _trouble(on, "orders-2")


@asynccontextmanager
async def _canary_fails(on: Breakdown) -> AsyncIterator[None]:
    await _trouble(on, "orders-v2", status=503)
    yield
    await _trouble(on, "orders-v2")


@asynccontextmanager
async def _hang(on: Breakdown) -> AsyncIterator[None]:
    hung = on.staff.by_name["catalogue-2"]
    hung.signal(signal.SIGSTOP)
    yield
    hung.signal(signal.SIGCONT)


@asynccontextmanager
async def _registry_restarts(on: Breakdown) -> AsyncIterator[None]:
    registry = on.staff.registry
    entries = await registry.entries()
    await registry.take_away()

    async def later() -> None:
        await asyncio.sleep(on.seconds * 0.4)
        await registry.bring_back()

    task = asyncio.create_task(later())
    try:
        yield
    finally:
        await task
    # On a busy machine that takes a while; who is killed next should not be the only one that callers have heard of.
    for _ in range(_LOOKS):
        if await registry.entries() >= entries:
            break
        await asyncio.sleep(_LOOK_S)


@asynccontextmanager
async def _kill(on: Breakdown) -> AsyncIterator[None]:
    on.staff.by_name["orders-1"].kill()

    async def later() -> None:
        await on.staff.replace()
        on.replaced_at = time.monotonic()

    task = asyncio.create_task(later())
    try:
        yield
    finally:
        await task


async def _trouble(on: Breakdown, name: str, *, delay_s: float = 0.0, status: int = 0) -> None:
    """Tell an instance to misbehave, or to stop that."""
    url = on.staff.by_name[name].url
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        answer = await client.put(f"{url}/trouble", json={"delay_s": delay_s, "status": status})
        answer.raise_for_status()


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase.

    Attributes:
        name: short, for figures.
        title: what happens.
        share: how long it lasts, relative to the others.
        fault: breaks, and mends.
    """

    name: str
    title: str
    share: float
    fault: Callable[[Breakdown], AbstractAsyncContextManager[None]]


# Who is killed comes last: the list of addresses of the plain side is wrong from then on, which would hide what the
# other faults cost it.
PHASES = (
    Phase("healthy", "all is well", 4.0, _nothing),
    Phase("slow", "orders-2 takes 400 ms longer", 5.0, _slow),
    Phase("canary", "the canary orders-v2 answers 503", 5.0, _canary_fails),
    Phase("hang", "catalogue-2 hangs, with its port open (SIGSTOP)", 6.0, _hang),
    Phase("registry", "the registry goes away and comes back empty", 5.0, _registry_restarts),
    Phase("kill", "orders-1 is killed (kill -9), and replaced elsewhere", 5.0, _kill),
    Phase("after", "nothing is broken any more", 3.0, _nothing),
)
