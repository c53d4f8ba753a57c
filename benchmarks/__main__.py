"""Runs the benchmarks: `python -m benchmarks [--quick] [--rows NAME...] [--json FILE] [--docs]`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report, results
from benchmarks.rows import ROWS, Row
from benchmarks.servers import Peers, running

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
DATA = ROOT / "docs" / "data"

SERVERS = ("nginx", "envoy")
PROFILE = "profile"
METHOD = (
    "CPU time (user and system, all threads) of the process that calls, per request; on loopback, keep-alive, one "
    "fixed small JSON reply from nginx. Contenders of a group take turns in short rounds in one process; the ratio is "
    "that of the medians over rounds, its spread the quartiles of the ratios of each round."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; ends with 0 also where a goal is missed, since that is a finding and no fault."""
    options = _options(argv)
    if options.docs and options.render:
        report.write_docs(PAGE, json.loads(Path(options.render).read_text()))
        return 0
    known = [row.name for row in ROWS] + [PROFILE]
    wanted = options.rows or known
    if unknown := [name for name in wanted if name not in known]:
        print(f"no row {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    found = _measure([row for row in ROWS if row.name in wanted], PROFILE in wanted, options.rounds, options.seconds)
    print(report.as_text(found))
    if options.json:
        file = Path(options.json)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    if options.docs:
        report.write_docs(PAGE, found)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: less than a minute")
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help=f"of {', '.join(row.name for row in ROWS)}, {PROFILE}"
    )
    parser.add_argument("--rounds", type=int, help="rounds per contender (default: 15, with --quick 3)")
    parser.add_argument("--seconds", type=float, help="CPU time of a round (default: 0.3, with --quick 0.05)")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--render", metavar="FILE", help="with --docs: from these results, without a new run")
    options = parser.parse_args(argv)
    if options.rounds is None:
        options.rounds = 3 if options.quick else 15
    if options.seconds is None:
        options.seconds = 0.05 if options.quick else 0.3
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    return options


def _measure(rows: list[Row], profile: bool, rounds: int, seconds: float) -> dict[str, Any]:
    left_out = {}
    for row in rows:
        packages = [need for need in row.needs if need not in SERVERS]
        if absent := [name for name in packages if not _installed(name)]:
            left_out[row.name] = f"{', '.join(absent)} is not installed"
    servers = {need for row in rows for need in row.needs if need in SERVERS} | ({"nginx"} if profile else set())
    found: dict[str, Any] = {
        "date": results.today(),
        "method": METHOD,
        "machine": results.machine(),
        "rounds": rounds,
        "seconds_per_round": seconds,
    }
    with running(servers) as (peers, missing):
        for row in rows:
            for name in missing:
                if name in row.needs:
                    left_out.setdefault(row.name, f"no {name}: {missing[name]}")
        rows = [row for row in rows if row.name not in left_out]
        groups: dict[str, Any] = {}
        for group in dict.fromkeys(row.group for row in rows):
            mine = [row for row in rows if row.group == group]
            names = dict.fromkeys(name for row in mine for name in (row.ours, row.theirs))
            groups[group] = _work(group, list(names), mine[0].in_flight, peers, rounds, seconds)
        profiles = {}
        if profile and "nginx" not in missing:
            in_flight = 32
            profiles = _work(PROFILE, ["mesh", "httpx"], in_flight, peers, rounds, seconds)["profiles"]
            for each in profiles.values():
                each["in_flight"] = in_flight
    found["versions"] = results.versions(peers.versions)
    found["rows"] = [
        results.compare(row, groups[row.group]["samples"][row.ours], groups[row.group]["samples"][row.theirs])
        for row in rows
    ]
    found["left_out"] = left_out
    if "latency" in groups:
        found["rate_per_s"] = round(groups["latency"]["rate_per_s"], 1)
    found["profiles"] = profiles
    found["samples"] = {
        group: {name: [round(each, 3) for each in values] for name, values in result["samples"].items()}
        for group, result in groups.items()
    }
    return found


def _work(
    group: str, contenders: list[str], in_flight: int, peers: Peers, rounds: int, seconds: float
) -> dict[str, Any]:
    """Let a worker measure a group. It is ended with us, whatever happens."""
    order = {
        "group": group,
        "contenders": contenders,
        "in_flight": in_flight,
        "peers": peers.as_dict(),
        "rounds": rounds,
        "seconds": seconds,
    }
    print(f"measuring {group}: {', '.join(contenders)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", json.dumps(order)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the measurement of {group} failed (status {done.returncode}); its own words are above")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent of it is missing
        return False


if __name__ == "__main__":
    raise SystemExit(main())
