"""Servers of which some have busy neighbours: two fifths of them have 35 % of the speed of the others.

The situation of Prequal's paper ("Load is not what you should balance", NSDI 2024), small: 20 or 100 servers with one
worker and a first in, first out queue each, service times exponential with a mean of 10 ms at full speed, 20 clients,
and 80 % of what all servers together can do. No client knows which servers are slow. A balancer that gives all of them
the same lets queues of the slow ones grow without end.
"""

from __future__ import annotations

from typing import Any, Final

from meshlib.sim.fleet import Fleet
from meshlib.sim.network import exponential
from meshlib.sim.server import Server
from meshlib.sim.table import Table, milliseconds
from meshlib.sim.tally import Tally

__all__ = ["BALANCERS", "SIZES", "run", "table"]

SIZES: Final = (20, 100)
CLIENTS = 20
_SHARES = ("p50", "p99", "p99.9")
MEAN_S = 0.01
LOAD = 0.8
LEARN_S = 4.0

BALANCERS: Final[dict[str, dict[str, Any]]] = {
    "`random`": {"policy": "random"},
    "`round_robin`": {"policy": "round_robin"},
    "`round_robin` with the true speeds as weights": {"policy": "round_robin", "weights": True},
    "`server_weights`": {"policy": "server_weights", "server_weights": {"blackout": "1s"}},
    "`server_weights`, `load: least_request`": {
        "policy": "server_weights",
        "server_weights": {"blackout": "1s", "load": "least_request"},
    },
    "`server_weights`, `load: peak_ewma`": {
        "policy": "server_weights",
        "server_weights": {"blackout": "1s", "load": "peak_ewma"},
    },
    "`least_request`": {"policy": "least_request"},
    "`peak_ewma`": {"policy": "peak_ewma"},
    "`prequal`": {"policy": "prequal"},
    "`prequal`, `max_probes_per_s: 1000`": {"policy": "prequal", "prequal": {"max_probes_per_s": 1000}},
}


def run(load_balancing: dict[str, Any], *, servers: int = 20, calls: int = 100_000, seed: int = 1) -> Tally:
    """So many calls, after some at half of the rate from which clients learn; the first fifth is not counted."""
    settings = dict(load_balancing)
    slow = servers * 2 // 5
    speeds = [0.35] * slow + [1.0] * (servers - slow)
    fleet = Fleet(
        [Server(exponential(MEAN_S), speed=speed, reports=True) for speed in speeds],
        weights=speeds if settings.pop("weights", False) else None,
        seed=seed,
    )
    for _ in range(CLIENTS):
        fleet.plain_client(timeout=None, load_balancing=settings)
    rate = LOAD * sum(speeds) / MEAN_S
    fleet.load(rate / 2.0, LEARN_S)
    fleet.run(LEARN_S)
    fleet.load(rate, calls / rate)
    fleet.run(LEARN_S + 0.2 * calls / rate)
    fleet.tally.durations.clear()
    fleet.run()
    return fleet.tally


def table() -> Table:
    """Tails, by balancer."""
    rows = []
    for name, load_balancing in BALANCERS.items():
        cells = [name]
        for servers in SIZES:
            tally = run(load_balancing, servers=servers)
            cells += [milliseconds(tally.percentile(share)) for share in (50.0, 99.0, 99.9)]
        rows.append(cells)
    headings = [f"{servers} servers: {what}" if what == "p50" else what for servers in SIZES for what in _SHARES]
    return Table(["balancer", *headings], rows)
