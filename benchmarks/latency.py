"""Latency at a fixed rate of arrivals, from when a request was due, so that a slow client cannot hide its own queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from benchmarks.rounds import AsyncCall

_IN_FLIGHT = 32


async def peak_rate(call: AsyncCall, seconds: float) -> float:
    """Calls per second that a client completes with 32 in flight."""
    end = time.perf_counter() + seconds
    done = 0

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return done / (time.perf_counter() - began)


async def at_rate(call: AsyncCall, rate: float, seconds: float) -> list[float]:
    """Latencies in milliseconds, sorted, of calls that are due at even intervals."""
    loop = asyncio.get_running_loop()
    count = max(2, int(rate * seconds))
    latencies: list[float] = []

    async def one(due: float) -> None:
        await call()
        latencies.append((loop.time() - due) * 1e3)

    began = loop.time() + 0.01
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            due = began + number / rate
            delay_s = due - loop.time()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            tasks.create_task(one(due))
    return sorted(latencies)


def percentile(ordered: list[float], percent: float) -> float:
    """Of sorted numbers, the least that is at least as great as `percent` of them."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100.0))]


async def measure(
    calls: Mapping[str, AsyncCall], *, base: str, rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Percentiles of each contender's latency, one for each round, at half of the peak rate of `base`.

    Args:
        calls: by contender.
        base: whose peak sets the rate.
        rounds: how many each contender gets.
        seconds: that a round lasts.
    """
    for call in calls.values():
        await peak_rate(call, seconds / 4)
    rate = await peak_rate(calls[base], seconds) / 2
    found: dict[str, dict[str, list[float]]] = {name: {"p50": [], "p99": []} for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            ordered = await at_rate(call, rate, seconds)
            found[name]["p50"].append(percentile(ordered, 50))
            found[name]["p99"].append(percentile(ordered, 99))
    found["rate"] = {"per second": [rate]}
    return found
