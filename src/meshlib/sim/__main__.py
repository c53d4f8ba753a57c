"""Runs scenarios and prints their tables: ``python -m meshlib.sim [NAME...] [--into PAGE]``.

Without a name it says which there are. With ``--into``, each table goes to its place in a page, between
``<!-- table: NAME -->`` and ``<!-- end -->``; without names, all that have a place there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from meshlib.sim.scenarios import SCENARIOS, table_of

__all__ = ["main", "names_in"]

_PLACE = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)


def names_in(page: str) -> list[str]:
    """The scenarios that have a place in a page, in its order."""
    return [match["name"] for match in _PLACE.finditer(page)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m meshlib.sim", description="Run scenarios in virtual time.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a scenario")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the tables into this page")
    given = parser.parse_args(arguments)
    page = "" if given.into is None else given.into.read_text()
    names = given.names or names_in(page)
    if unknown := [name for name in names if name not in SCENARIOS]:
        print(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    if not names:
        for name, what in SCENARIOS.items():
            print(f"{name:14} {what}")
        return 0
    tables = {name: str(table_of(name)) for name in names}
    if given.into is None:
        print("\n\n".join(tables.values()))
        return 0
    given.into.write_text(_PLACE.sub(lambda found: _filled(found, tables), page))
    return 0


def _filled(place: re.Match[str], tables: dict[str, str]) -> str:
    table = tables.get(place["name"])
    return place[0] if table is None else f"{place[1]}{table}\n{place[4]}"


if __name__ == "__main__":
    sys.exit(main())
