"""Runs the demo, from the first process to the last."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshlib.cli.demo.children import DidNotStart, Stage
from meshlib.cli.demo.faults import PHASES, REPLACEMENT, Breakdown
from meshlib.cli.demo.figures import Figures
from meshlib.cli.demo.registry import ConsulMissing, ConsulRegistry, EmbeddedRegistry, Registry, find_consul
from meshlib.cli.demo.report import Report
from meshlib.cli.demo.screen import Screen, View, make_screen
from meshlib.cli.demo.staff import Staff
from meshlib.cli.demo.traffic import Traffic
from meshlib.cli.demo.watching import Watch

__all__ = ["Options", "run_demo"]

_SHOWN_EVERY_S = 0.5
_SETTLED_S = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        consul: use a real Consul agent.
        seconds: how long traffic flows.
        plain: no live table.
        json_file: where to write the figures.
    """

    consul: bool = False
    seconds: float = 35.0
    plain: bool = False
    json_file: Path | None = None


def run_demo(options: Options) -> int:
    """Run the demo; return its exit code."""
    try:
        binary = find_consul() if options.consul else None
    except ConsulMissing as error:
        print(error, file=sys.stderr)
        return 2
    return asyncio.run(_guarded(options, binary))


async def _guarded(options: Options, binary: Path | None) -> int:
    """Run, and clean up whatever happens. A signal ends the run as if it had been cancelled."""
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    received: list[int] = []

    def interrupt(number: int) -> None:
        # Only the first counts: a second Ctrl-C must not interrupt the cleaning up.
        if not received and running is not None:
            running.cancel()
        received.append(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt, number)
    screen = make_screen(options.plain)
    try:
        with Stage() as stage:
            try:
                registry: Registry = ConsulRegistry(stage, binary) if binary else EmbeddedRegistry(stage)
                report = await _perform(options, stage, registry, screen)
            finally:
                screen.close()
            if options.json_file is not None:
                options.json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n")
            screen.say(report.text())
        return 1 if report.broken else 0
    except DidNotStart as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        if not received:
            raise
        print(f"ended by {signal.Signals(received[0]).name}; all processes are gone", file=sys.stderr)
        return 128 + received[0]


async def _perform(options: Options, stage: Stage, registry: Registry, screen: Screen) -> Report:
    screen.say(f"starting a shop of nine processes, found by {registry.title} ...")
    staff, watch, figures = Staff(stage, registry), Watch(), Figures()
    began = time.monotonic()
    await staff.start()
    await _all_known(staff, watch)
    screen.say(f"all up after {time.monotonic() - began:.1f} s")
    traffic = Traffic({"mesh": staff.storefronts["mesh"].url, "plain": staff.storefronts["plain"].url}, figures)
    report = Report(registry.title, options.seconds, figures, watch.events)
    try:
        deadlines = await traffic.deadlines()  # the first one also opens connections, which takes time of its own
        deadlines = await traffic.deadlines()
        report.deadlines = deadlines
        began = time.monotonic()
        watch.zero = time.time()
        view = View(staff, watch, figures, began)
        async with _beside(traffic.flow(), _keep_showing(screen, view)):
            report.found_after_s = await _phases(options, view, traffic, screen)
            report.seconds = time.monotonic() - began
        await traffic.settle()
        await watch.ask(staff.meshes())
    finally:
        await traffic.aclose()
        await watch.aclose()
    if report.found_after_s is None:
        report.problems.append("the mesh did not find the replacement of the killed instance")
    return report


async def _phases(options: Options, view: View, traffic: Traffic, screen: Screen) -> float | None:
    """Go through the phases; return how long it took until the replacement was used."""
    unit = options.seconds / sum(phase.share for phase in PHASES)
    breakdown = Breakdown(view.staff)
    for phase in PHASES:
        breakdown.seconds = unit * phase.share
        view.phase, view.ends = phase.title, time.monotonic() + breakdown.seconds
        traffic.phase = phase.name
        screen.phase(view)
        async with phase.fault(breakdown):
            await asyncio.sleep(breakdown.seconds)
    used_at = await _first_use(view)
    if used_at is None or breakdown.replaced_at is None:
        return None
    return max(0.0, used_at - breakdown.replaced_at)


async def _first_use(view: View) -> float | None:
    """When the mesh first used the replacement; waits for it, but not for ever."""
    address = view.staff.by_name[REPLACEMENT].address
    for _ in range(int(_SETTLED_S * 10)):
        if (used_at := view.figures.first_attempt_at(address)) is not None:
            return used_at
        await asyncio.sleep(0.1)
    return None


async def _all_known(staff: Staff, watch: Watch) -> None:
    """Wait until the storefront's mesh has found every instance, so that both sides start with the same."""
    give_up_at = time.monotonic() + _SETTLED_S
    while missing := {child.address for child in staff.by_name.values()} - watch.states.keys():
        if time.monotonic() > give_up_at:
            names = ", ".join(staff.name_of(address) for address in missing)
            raise DidNotStart(f"the storefront did not find {names} within {_SETTLED_S:g} s")
        await watch.ask(staff.meshes())
        await asyncio.sleep(0.05)


async def _keep_showing(screen: Screen, view: View) -> None:
    while True:
        await view.watch.ask(view.staff.meshes())
        screen.show(view)
        await asyncio.sleep(_SHOWN_EVERY_S)


@asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have `works` done while the block runs, and no longer. What goes wrong in one ends the block."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
