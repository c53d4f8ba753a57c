"""A run: starts the servers, lets a worker measure each group in turn, and collects what they found."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.loads import SCENARIOS, TASKS, THREADS, Load, contenders
from benchmarks.rows import ROWS, Row
from benchmarks.servers import QUICK_STREAM_BYTES, STREAM_BYTES, Peers, running

ROOT = Path(__file__).resolve().parent.parent

PROFILE, RATES, STREAMING, BALANCERS, ROUTES = "profile", "rates", "streaming", "balancers", "routes"
MIDDLEWARE = "middleware"
STANDARD = (*(row.name for row in ROWS), PROFILE)
MATRIX = tuple(SCENARIOS)
KNOWN = (*STANDARD, *MATRIX, RATES, STREAMING, BALANCERS, ROUTES, MIDDLEWARE)

_SERVERS = ("nginx", "envoy", "sink")
_RATES_PER_S = (250, 1000, 2000, 4000)
_RATES_LOADS = {"async": TASKS, "sync": replace(THREADS, in_flight=32)}
_METHOD = (
    "CPU time (user and system, all threads) of the process that calls, per request; on loopback, keep-alive, one "
    "fixed small JSON reply from nginx. Contenders of a group take turns in short rounds in one process; the ratio is "
    "that of the medians over rounds, its spread the quartiles of the ratios of each round."
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long it may take.

    Attributes:
        rounds: of each contender of a row; the matrix has fewer and shorter ones.
        seconds: of CPU time in a round.
        quick: streams are short.
    """

    rounds: int
    seconds: float
    quick: bool

    @property
    def fewer(self) -> Effort:
        """For one load of the matrix."""
        return replace(self, rounds=max(1, self.rounds // 3), seconds=self.seconds / 2)

    @property
    def fewest(self) -> Effort:
        """For the streams, and for loads under which a round takes a thousand calls, of milliseconds each with some."""
        return replace(self.fewer, rounds=max(1, self.rounds // 5))


def measure(names: Iterable[str], effort: Effort) -> dict[str, Any]:
    """Measure rows, scenarios and families by their names.

    What this machine lacks something for is in `left_out`, what went wrong in `failed`, each with the reason.
    """
    wanted, began = set(names), time.monotonic()
    rows = [row for row in ROWS if row.name in wanted]
    scenarios = {name: load for name, load in SCENARIOS.items() if name in wanted}
    with running(_servers(rows, wanted), [TASKS, *scenarios.values()]) as (peers, missing):
        run = _Run(peers, missing, effort)
        found: dict[str, Any] = {
            **run.rows(rows),
            "profiles": run.profiles() if PROFILE in wanted else {},
            "matrix": {name: cell for name, load in scenarios.items() if (cell := run.cell(name, load))},
            "rates": run.rates() if RATES in wanted else {},
            "streaming": run.streaming() if STREAMING in wanted else {},
            "balancers": run.balancers() if BALANCERS in wanted else {},
            "routes": run.routes() if ROUTES in wanted else {},
            "middleware": run.middleware() if MIDDLEWARE in wanted else {},
        }
    return {
        "date": results.today(),
        "method": _METHOD,
        "machine": results.machine(),
        "versions": results.versions(peers.versions),
        "rounds": effort.rounds,
        "seconds_per_round": effort.seconds,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "left_out": run.left_out,
        "failed": run.failed,
        **found,
    }


def _servers(rows: Sequence[Row], wanted: set[str]) -> set[str]:
    needed = {need for row in rows for need in row.needs if need in _SERVERS}
    if wanted.intersection((*MATRIX, RATES)):
        needed |= {"nginx", "envoy"}
    if PROFILE in wanted:
        needed.add("nginx")
    if STREAMING in wanted:
        needed |= {"nginx", "sink"}
    return needed


class _Run:
    """What is measured against running servers."""

    def __init__(self, peers: Peers, missing: dict[str, str], effort: Effort) -> None:
        self.left_out: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._peers = peers
        self._missing = missing
        self._effort = effort

    def rows(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Each group of rows in one process."""
        rows = [row for row in rows if self._has(row.name, row.needs)]
        groups: dict[str, Any] = {}
        for group in dict.fromkeys(row.group for row in rows):
            mine = [row for row in rows if row.group == group]
            names = dict.fromkeys(name for row in mine for name in (row.ours, row.theirs))
            groups[group] = self._work(group, list(names), mine[0].load, self._effort)
        samples = {group: outcome["samples"] for group, outcome in groups.items() if outcome}
        found = {
            "rows": [
                results.compare(row, samples[row.group][row.ours], samples[row.group][row.theirs])
                for row in rows
                if row.group in samples
            ],
            "samples": {
                group: {name: [round(each, 3) for each in values] for name, values in outcome.items()}
                for group, outcome in samples.items()
            },
        }
        if outcome := groups.get("latency"):
            found["rate_per_s"] = round(outcome["rate_per_s"], 1)
        return found

    def profiles(self) -> dict[str, Any]:
        """Where the time of a call goes."""
        if not self._has(PROFILE, ("nginx",)):
            return {}
        found: dict[str, Any] = self._work(PROFILE, ["mesh", "httpx"], TASKS, self._effort).get("profiles", {})
        for each in found.values():
            each["in_flight"] = TASKS.in_flight
        return found

    def cell(self, name: str, load: Load) -> dict[str, Any]:
        """One load of the matrix: microseconds per call of each contender."""
        if not self._has(name, ("nginx",)):
            return {}
        effort = self._effort.fewest if load.is_large else self._effort.fewer
        samples = self._work(name, self._present(load), load, effort).get("samples", {})
        return {who: results.summary(values) for who, values in samples.items()}

    def rates(self) -> dict[str, Any]:
        """Latency at fixed rates, on a loop and by threads."""
        if not self._has(RATES, ("nginx",)):
            return {}
        return {
            style: found
            for style, load in _RATES_LOADS.items()
            if (found := self._work(RATES, self._present(load), load, self._effort, rates=_RATES_PER_S))
        }

    def streaming(self) -> dict[str, Any]:
        """Long bodies."""
        if not self._has(STREAMING, ("nginx",)):
            return {}
        size = QUICK_STREAM_BYTES if self._effort.quick else STREAM_BYTES
        return self._work(STREAMING, [], TASKS, self._effort.fewest, size=size)

    def balancers(self) -> dict[str, Any]:
        """Picks, updates and memory among few and many endpoints; no server, and nothing is sent."""
        return self._work(BALANCERS, [], TASKS, self._effort.fewer)

    def routes(self) -> dict[str, Any]:
        """Routes found among few and many; no server, and nothing is sent."""
        return self._work(ROUTES, [], TASKS, self._effort.fewer)

    def middleware(self) -> dict[str, Any]:
        """The callee's side: what a request costs with the middleware and without; no socket."""
        return self._work(MIDDLEWARE, [], TASKS, self._effort.fewer)

    def _has(self, name: str, needs: Sequence[str]) -> bool:
        """Whether this can be measured here; if not, it is noted down."""
        for need in needs:
            if need in self._missing:
                self.left_out[name] = f"no {need}: {self._missing[need]}"
            elif need not in _SERVERS and not _installed(need):
                self.left_out[name] = f"{need} is not installed"
        return name not in self.left_out

    def _present(self, load: Load) -> list[str]:
        return [
            name
            for name in contenders(load)
            if name == "mesh" or (name not in self._missing if name == "envoy" else _installed(name))
        ]

    def _work(self, group: str, names: Sequence[str], load: Load, effort: Effort, **more: Any) -> dict[str, Any]:
        """Let a worker measure a group; nothing if it fails. It is ended with us, whatever happens."""
        order = {
            "group": group,
            "contenders": names,
            "load": asdict(load),
            "peers": self._peers.as_dict(),
            "rounds": effort.rounds,
            "seconds": effort.seconds,
            **more,
        }
        print(f"measuring {group}: {', '.join(names)}", file=sys.stderr, flush=True)
        argv = [sys.executable, "-m", "benchmarks.worker", json.dumps(order)]
        try:
            done = subprocess.run(
                argv, stdout=subprocess.PIPE, cwd=ROOT, env=_environment(), text=True, timeout=600, check=True
            )
        except subprocess.SubprocessError as error:
            why = f"status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else "took too long"
            self.failed[group] = why
            return {}
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome


def _environment() -> dict[str, str]:
    """Ours without what would send some clients through a proxy, or let them trust others than those they are told."""
    foreign = re.compile(r"MESHLIB_.*|(?:.*_)?PROXY|.*_CA_BUNDLE|SSL_CERT_(?:FILE|DIR)", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent of it is missing
        return False
