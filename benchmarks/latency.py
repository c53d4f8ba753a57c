"""Latency at a fixed rate of arrivals, from when a request was due, so that a slow client cannot hide its own queue.

Arrivals are open: the next request is sent when it is due, whether or not those before it have been answered. On a loop
nothing bounds how many are under way; threads are 32, and a request that has to wait for one is counted from its time.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from benchmarks.rounds import AsyncCall, SyncCall

IN_FLIGHT = 32
_PEAK_CALLS = 500
_REACH = 0.8
"""Of its peak rate a client can be asked for this much: beyond, one sees its queue grow and nothing else."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One contender, ready to be called at a rate.

    Attributes:
        burst: makes so many calls, 32 at once.
        at_rate: makes calls at a rate for so many seconds, and gives their latencies in milliseconds.
    """

    burst: Callable[[int], object]
    at_rate: Callable[[float, float], list[float]]

    def peak(self, seconds: float) -> float:
        """Calls per second with 32 in flight; of few, if rounds last for less than some seconds."""
        calls = min(_PEAK_CALLS, max(IN_FLIGHT, int(_PEAK_CALLS * seconds)))
        self.burst(calls)
        began = time.perf_counter()
        self.burst(calls)
        return calls / (time.perf_counter() - began)


async def at_rate(call: AsyncCall, rate: float, seconds: float) -> list[float]:
    """Latencies in milliseconds of calls that are due at even intervals, made by tasks."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = loop.time() + 0.01

    async def one(due: float) -> None:
        await call()
        latencies.append((loop.time() - due) * 1e3)

    async with asyncio.TaskGroup() as tasks:

        def start(due: float) -> None:
            tasks.create_task(one(due))

        def tick() -> None:
            # A thread, since the loop's own timers are coarse by a millisecond.
            for number in range(max(2, int(rate * seconds))):
                due = began + number / rate
                if (delay_s := due - time.monotonic()) > 0:
                    time.sleep(delay_s)
                loop.call_soon_threadsafe(start, due)

        await asyncio.to_thread(tick)
    return latencies


def at_rate_in_threads(pool: ThreadPoolExecutor, call: SyncCall, rate: float, seconds: float) -> list[float]:
    """The same, made by threads, each of which takes the next request that is due."""
    last, numbers = max(2, int(rate * seconds)), count()
    began = time.perf_counter() + 0.01

    def work() -> list[float]:
        latencies = []
        while (number := next(numbers)) < last:
            due = began + number / rate
            if (delay_s := due - time.perf_counter()) > 0:
                time.sleep(delay_s)
            call()
            latencies.append((time.perf_counter() - due) * 1e3)
        return latencies

    return [each for done in [pool.submit(work) for _ in range(IN_FLIGHT)] for each in done.result()]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of sorted numbers, the least that is at least as great as `percent` of them."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100.0))]


def at_half_of_peak(callers: Mapping[str, Caller], *, base: str, rounds: int, seconds: float) -> dict[str, Any]:
    """The p99 of each contender in ms, one for each round, at half of the peak rate of `base`."""
    for caller in callers.values():
        caller.peak(seconds)
    rate = callers[base].peak(seconds) / 2
    found: dict[str, list[float]] = {name: [] for name in callers}
    with _frozen():
        for _ in range(rounds):
            for name, caller in callers.items():
                found[name].append(percentile(sorted(caller.at_rate(rate, seconds)), 99))
    return {"rate_per_s": rate, "p99_ms": found}


def at_rates(
    callers: Mapping[str, Caller], *, rates: Sequence[int], rounds: int, seconds: float, requests: float
) -> dict[str, dict[str, Any]]:
    """Percentiles in ms of each contender at each rate that it can reach, over the requests of all rounds.

    Args:
        callers: by contender.
        rates: per second.
        rounds: how many each contender gets at each rate.
        seconds: that a round lasts at least.
        requests: that it has at least.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"peak_per_s": round(caller.peak(seconds)), "rates": {}, "failed": {}} for name, caller in callers.items()
    }
    with _frozen():
        for rate in rates:
            able = [name for name in callers if rate <= found[name]["peak_per_s"] * _REACH]
            latencies: dict[str, list[float]] = {name: [] for name in able}
            for _ in range(rounds):
                for name in able:
                    try:
                        latencies[name] += callers[name].at_rate(rate, max(seconds, requests / rate))
                    except Exception as error:  # its own timeouts, as a rule: what it could not do is a result too
                        found[name]["failed"][str(rate)] = repr(error)[:200]
            for name in able:
                if str(rate) not in found[name]["failed"]:
                    found[name]["rates"][str(rate)] = _summary(sorted(latencies[name]))
    return found


def _summary(ordered: list[float]) -> dict[str, float]:
    percents = {"p50": 50, "p99": 99, "p99.9": 99.9}
    return {"count": len(ordered), **{name: round(percentile(ordered, at), 3) for name, at in percents.items()}}


@contextmanager
def _frozen() -> Iterator[None]:
    """As in `rounds`: what was made while things were set up is not collected again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
