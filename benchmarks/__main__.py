"""Runs the benchmarks: `python -m benchmarks [--all] [--quick] [--rows NAME...] [--json FILE] [--docs]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import pages, report
from benchmarks.run import (
    BALANCERS,
    KNOWN,
    MATRIX,
    MIDDLEWARE,
    RATES,
    ROOT,
    ROUTES,
    STANDARD,
    STREAMING,
    Effort,
    measure,
)

PAGE = ROOT / "docs" / "performance.md"
DATA = ROOT / "docs" / "data"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; ends with 0 also where a goal is missed, since that is a finding and no fault."""
    options = _options(argv)
    if options.render:
        found = json.loads(Path(options.render).read_text())
    else:
        found = measure(options.names, Effort(options.rounds, options.seconds, options.quick))
        if options.json:
            file = Path(options.json)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found, indent=1) + "\n")
        print(report.as_text(found))
    if options.docs:
        pages.write(PAGE, DATA, found)
    return 1 if found.get("failed") else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--all", action="store_true", help="the standard rows and all that follows: under 20 minutes")
    parser.add_argument("--matrix", action="store_true", help="CPU time under each load: in flight, endpoints, ...")
    parser.add_argument("--rates", action="store_true", help="latency at fixed rates")
    parser.add_argument("--streaming", action="store_true", help="a download and an upload of 1 GiB")
    parser.add_argument(
        "--balancers", action="store_true", help="picks, updates and memory among up to 100 000 endpoints"
    )
    parser.add_argument("--routes", action="store_true", help="routes found among up to 10 000")
    parser.add_argument("--middleware", action="store_true", help="what the middleware adds to a request")
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=[], help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, 16 MiB for 1 GiB")
    parser.add_argument("--rounds", type=int, help="rounds per contender (default: 15, with --quick 3)")
    parser.add_argument("--seconds", type=float, help="CPU time of a round (default: 0.3, with --quick 0.05)")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--docs", action="store_true", help="write tables and plots into docs/performance.md")
    parser.add_argument("--render", metavar="FILE", help="with --docs: from these results, without a new run")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.rows if name not in KNOWN]:
        parser.error(f"no row {', '.join(unknown)}; there are: {', '.join(KNOWN)}")
    if options.rounds is None:
        options.rounds = 3 if options.quick else 15
    if options.seconds is None:
        options.seconds = 0.05 if options.quick else 0.3
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    families = {
        "matrix": MATRIX,
        "rates": (RATES,),
        "streaming": (STREAMING,),
        "balancers": (BALANCERS,),
        "routes": (ROUTES,),
        "middleware": (MIDDLEWARE,),
    }
    asked = [name for family, names in families.items() if getattr(options, family) for name in names]
    options.names = KNOWN if options.all else [*options.rows, *asked] or STANDARD
    return options


if __name__ == "__main__":
    raise SystemExit(main())
