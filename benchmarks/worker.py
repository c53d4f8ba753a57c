"""Measures one group of contenders in a process of its own. Reads what to do from its argument, prints the results."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import Any

from benchmarks import cpu, latency, rounds
from benchmarks.loads import Load
from benchmarks.servers import Peers

_PROFILE_SECONDS = 40  # times the seconds of a round
_LATENCY_SECONDS = 10  # times the seconds of a round: a percentile needs more requests than a mean of CPU time does
_RATES_SECONDS = 12
_RATES_REQUESTS = 6667  # times the same: 2 000 a round, so that p99.9 is of 4 000 at least
_RATES_ROUNDS = 2


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Measure a group.

    Args:
        order: `group`, `contenders`, `load`, `rounds`, `seconds` and `peers`; for some groups more.

    Returns:
        `samples` by contender; for some groups something else.
    """
    peers, load = Peers.from_dict(order["peers"]), Load(**order["load"])
    names, group = list(order["contenders"]), order["group"]
    options = {"rounds": order["rounds"], "seconds": order["seconds"]}
    if group == "start":
        from benchmarks import start

        return {"samples": start.measure(set(names), peers, order["rounds"])}
    if group == "streaming":
        from benchmarks import streaming

        return streaming.measure(peers, rounds=order["rounds"], size=order["size"])
    if group == "balancers":
        from benchmarks import balancers

        return balancers.measure(**options)
    if group == "routes":
        from benchmarks import routes

        return routes.measure(**options)
    if group == "middleware":
        from benchmarks import middleware

        return middleware.measure(**options)
    if group == "pick":
        from benchmarks import core

        bursts = core.picks({int(name) for name in names})
        runners = {name: rounds.Runner(burst) for name, burst in bursts.items()}
        return {"samples": rounds.take_turns(runners, warm=1000, **options)}
    if group == "core-1":
        return _without_io(names, options)
    with ExitStack() as stack:
        if group == "traced-32":
            from benchmarks.handmade import trace_all

            # Both sides write the stable conventions, or the instrumentation would measure nothing by them.
            os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
            stack.enter_context(trace_all())
        callers = stack.enter_context((_in_threads if load.threads else _in_tasks)(names, peers, load))
        if group == "latency":
            return _p99(callers, options)
        if group == "rates":
            return latency.at_rates(
                callers,
                rates=order["rates"],
                rounds=_RATES_ROUNDS,
                seconds=options["seconds"] * _RATES_SECONDS,
                requests=options["seconds"] * _RATES_REQUESTS,
            )
        runners = {}
        for name, caller in callers.items():
            clock = cpu.with_process(peers.envoy_pid) if name == "envoy" else cpu.own
            runners[name] = rounds.Runner(caller.burst, clock)
        if group == "profile":
            return _profile(runners, options)
        return {"samples": rounds.take_turns(runners, warm=_warm(load), **options)}


def _warm(load: Load) -> int:
    """Calls that open what has to be open."""
    return max(2 * load.in_flight if load.in_flight <= 100 else load.in_flight, load.endpoints)


def _without_io(names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import core

    with core.without_io(set(names)) as calls:
        runners = {name: rounds.Runner(rounds.one_by_one(call)) for name, call in calls.items()}
        return {"samples": rounds.take_turns(runners, warm=50, **options)}


@contextmanager
def _in_threads(names: list[str], peers: Peers, load: Load) -> Iterator[dict[str, latency.Caller]]:
    from benchmarks.contenders import SYNC

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(load.in_flight))
        calls = {name: stack.enter_context(SYNC[name](peers, load)) for name in names}
        yield {
            name: latency.Caller(
                rounds.in_threads(pool, call, load.in_flight), partial(latency.at_rate_in_threads, pool, call)
            )
            for name, call in calls.items()
        }


@contextmanager
def _in_tasks(names: list[str], peers: Peers, load: Load) -> Iterator[dict[str, latency.Caller]]:
    from benchmarks.contenders import ASYNC

    with _runner(load) as runner:
        loop, stack = runner.get_loop(), AsyncExitStack()

        def at_rate(call: rounds.AsyncCall, rate: float, seconds: float) -> list[float]:
            return runner.run(latency.at_rate(call, rate, seconds))

        try:
            calls = {name: runner.run(stack.enter_async_context(ASYNC[name](peers, load))) for name in names}
            yield {
                name: latency.Caller(rounds.in_tasks(loop, call, load.in_flight), partial(at_rate, call))
                for name, call in calls.items()
            }
        finally:
            runner.run(stack.aclose())


def _runner(load: Load) -> asyncio.Runner:
    if not load.uvloop:
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _p99(callers: dict[str, latency.Caller], options: dict[str, Any]) -> dict[str, Any]:
    count, seconds = max(1, options["rounds"] // 3), options["seconds"] * _LATENCY_SECONDS
    found = latency.at_half_of_peak(callers, base="httpx", rounds=count, seconds=seconds)
    samples = {name: [ms * 1e3 for ms in values] for name, values in found["p99_ms"].items()}
    return {"samples": samples, "rate_per_s": found["rate_per_s"]}


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
