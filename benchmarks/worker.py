"""Measures one group of rows in a process of its own. Reads what to do from its argument, and prints the results."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from benchmarks import cpu, rounds
from benchmarks.servers import Peers

_PROFILE_SECONDS = 40  # times the seconds of a round


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Measure a group.

    Args:
        order: `group`, `contenders`, `in_flight`, `rounds`, `seconds` and `peers`.

    Returns:
        `samples` by contender, and for some groups more.
    """
    peers = Peers(**{**order["peers"], "ports": tuple(order["peers"]["ports"])})
    names, group = list(order["contenders"]), order["group"]
    options = {"rounds": order["rounds"], "seconds": order["seconds"]}
    if group == "start":
        from benchmarks import start

        return {"samples": start.measure(set(names), peers, order["rounds"])}
    if group == "pick":
        from benchmarks import core

        bursts = core.picks({int(name) for name in names})
        runners = {name: rounds.Runner(burst) for name, burst in bursts.items()}
        return {"samples": rounds.take_turns(runners, warm=1000, **options)}
    if group == "core-1":
        return _without_io(names, options)
    if group == "threads-16":
        return _threads(names, peers, order["in_flight"], options)
    with ExitStack() as stack:
        if group == "traced-32":
            from benchmarks.contenders import trace_all

            # Both sides write the stable conventions, or the instrumentation would measure nothing by them.
            os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
            stack.enter_context(trace_all())
        runner = stack.enter_context(asyncio.Runner())
        return _async(runner, group, names, peers, order["in_flight"], options)


def _without_io(names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import core

    with core.without_io(set(names)) as calls:
        runners = {name: rounds.Runner(rounds.one_by_one(call)) for name, call in calls.items()}
        return {"samples": rounds.take_turns(runners, warm=50, **options)}


def _threads(names: list[str], peers: Peers, threads: int, options: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.contenders import SYNC

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        runners = {
            name: rounds.Runner(rounds.in_threads(pool, stack.enter_context(SYNC[name](peers)), threads))
            for name in names
        }
        return {"samples": rounds.take_turns(runners, warm=2 * threads, **options)}


def _async(
    runner: asyncio.Runner, group: str, names: list[str], peers: Peers, in_flight: int, options: dict[str, Any]
) -> dict[str, Any]:
    from benchmarks.contenders import ASYNC

    loop, stack = runner.get_loop(), AsyncExitStack()
    try:
        calls = {name: runner.run(stack.enter_async_context(ASYNC[name](peers))) for name in names}
        if group == "latency":
            return _latency(runner, calls, options)
        runners = {}
        for name, call in calls.items():
            clock = cpu.with_process(peers.envoy_pid) if name == "envoy" else cpu.own
            runners[name] = rounds.Runner(rounds.in_tasks(loop, call, in_flight), clock)
        if group == "profile":
            return _profile(runners, options)
        return {"samples": rounds.take_turns(runners, warm=2 * in_flight, **options)}
    finally:
        runner.run(stack.aclose())


def _latency(runner: asyncio.Runner, calls: dict[str, rounds.AsyncCall], options: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import latency

    # A percentile of latency needs more requests than a mean of CPU time does.
    count, seconds = max(1, options["rounds"] // 3), options["seconds"] * 10
    found = runner.run(latency.measure(calls, base="httpx", rounds=count, seconds=seconds))
    rate = found.pop("rate")["per second"][0]
    samples = {name: [ms * 1e3 for ms in each["p99"]] for name, each in found.items()}
    medians = {name: [ms * 1e3 for ms in each["p50"]] for name, each in found.items()}
    return {"samples": samples, "rate_per_s": rate, "p50_us": medians}


def _profile(runners: dict[str, rounds.Runner], options: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import sampling

    seconds = options["seconds"]
    samples = rounds.take_turns(runners, warm=64, rounds=5, seconds=seconds)
    profiles = {}
    for name, runner in runners.items():
        each_us = sorted(samples[name])[len(samples[name]) // 2]
        found = sampling.sample(runner.burst, max(64, int(_PROFILE_SECONDS * seconds * 1e6 / each_us)))
        profiles[name] = {
            "us": each_us,
            "samples": found.total,
            "layers": dict(found.layers.most_common()),
            "functions": [[layer, name, count] for (layer, name), count in found.functions.most_common(40)],
        }
    return {"profiles": profiles}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
