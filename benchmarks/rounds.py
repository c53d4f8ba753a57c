"""Contenders in turns: many short rounds, each of one after the other, so that what disturbs one disturbs all.

A round makes a fixed number of calls, after a few that are not counted (they open what was closed meanwhile), and gives
CPU time per call. Objects that were made while things were set up are frozen out of the garbage collector's sight:
a process that has loaded six HTTP clients would otherwise make each of them pay for walking over the other five.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.cpu import Clock, own

AsyncCall = Callable[[], Awaitable[object]]
SyncCall = Callable[[], object]

_TRIAL_CALLS = 64


@dataclass(frozen=True, slots=True)
class Runner:
    """One contender, ready to run.

    Attributes:
        burst: makes so many calls, as many of them at once as the group says.
        clock: CPU seconds of all that work for it.
    """

    burst: Callable[[int], object]
    clock: Clock = own


def take_turns(runners: Mapping[str, Runner], *, rounds: int, seconds: float, warm: int) -> dict[str, list[float]]:
    """Microseconds of CPU time per call, by contender, one for each round.

    Args:
        runners: by name.
        rounds: how many each gets.
        seconds: of CPU time that a round should take.
        warm: calls before the first round that are not counted; before each later one, some of them.
    """
    calls = {}
    for name, runner in runners.items():
        runner.burst(max(warm, _TRIAL_CALLS))
        each_s = _cpu_s(runner, max(warm, _TRIAL_CALLS))
        calls[name] = max(warm, _TRIAL_CALLS, int(seconds / max(each_s, 1e-9)))
    gc.collect()
    gc.freeze()
    samples: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    for number in range(rounds):
        # Each goes first once in a while, so that none always follows the same one.
        shift = number % len(order)
        for name in order[shift:] + order[:shift]:
            runner = runners[name]
            runner.burst(min(warm, _TRIAL_CALLS))
            samples[name].append(_cpu_s(runner, calls[name]) * 1e6)
    gc.unfreeze()
    return samples


def _cpu_s(runner: Runner, calls: int) -> float:
    began = runner.clock()
    runner.burst(calls)
    return (runner.clock() - began) / calls


def in_tasks(loop: asyncio.AbstractEventLoop, call: AsyncCall, in_flight: int) -> Callable[[int], object]:
    """A burst that keeps `in_flight` calls under way on a loop."""

    async def burst(calls: int) -> None:
        left = calls

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await call()

        await asyncio.gather(*(work() for _ in range(in_flight)))

    return lambda calls: loop.run_until_complete(burst(calls))


def in_threads(pool: ThreadPoolExecutor, call: SyncCall, threads: int) -> Callable[[int], object]:
    """A burst that shares its calls out among threads."""

    def work(calls: int) -> None:
        for _ in range(calls):
            call()

    def burst(calls: int) -> None:
        share, more = divmod(calls, threads)
        for done in [pool.submit(work, share + (number < more)) for number in range(threads)]:
            done.result()

    return burst


def one_by_one(call: SyncCall) -> Callable[[int], object]:
    """A burst in this thread."""

    def burst(calls: int) -> None:
        for _ in range(calls):
            call()

    return burst
