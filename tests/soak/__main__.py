"""Long runs, of the caller's side and of the callee's: no call is lost, and nothing grows.

    python -m tests.soak [caller|callee] [--calls N]

After each of twenty rounds it counts what the process holds: file descriptors, tasks, threads, memory, and objects that
only the garbage collector could free. It ends with 1 if a call was lost, or anything has grown since the first quarter.
"""

from __future__ import annotations

import argparse
import sys

from tests.soak import callee, caller

CALLS = {"caller": 1_000_000, "callee": 200_000}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs; see the module.")
    parser.add_argument("side", nargs="?", choices=tuple(CALLS), help="whose side (default: both, one after the other)")
    parser.add_argument("--calls", type=int, help="how many (default: a million; 200 000 to the callee)")
    options = parser.parse_args()
    found = []
    for side in CALLS if options.side is None else [options.side]:
        print(f"the {side}:")
        run = caller.run if side == "caller" else callee.run
        found += [f"{side}: {what}" for what in run(options.calls or CALLS[side])]
    print("\n".join(found) or "no call was lost, and nothing has grown")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
