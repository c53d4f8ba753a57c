"""Scenarios: published results, and failures of fleets, each run by the policies that production runs.

Each module has the model, with its source, a function that runs it, and `table`, which shows what comes of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from meshlib.sim.table import Table

__all__ = ["SCENARIOS", "table_of"]

SCENARIOS: Final[dict[str, str]] = {
    "slow-backend": "one slow backend of eleven, by balancer",
    "metastable": "a stall of ten seconds that does not end, by defence",
    "jitter": "a hundred clients contend for one row, by kind of jitter",
    "hedging": "a rare long tail, without a second attempt and with it",
    "throttling": "a service asked for five times what it can do, by throttle of its clients",
    "shedding": "three times too many calls of which a fifth matters, by defence",
    "antagonists": "servers of which some have busy neighbours, by balancer",
    "subsets": "how evenly a large fleet is shared out",
    "composition": "eight failures of a fleet, without policies and with them",
}
"""What there is, by name: the module's, with hyphens."""


def table_of(name: str) -> Table:
    """Run a scenario, and show what came of it.

    Raises:
        KeyError: if there is none of this name.
    """
    if name not in SCENARIOS:
        raise KeyError(name)
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    table: Table = module.table()
    return table
