"""One slow backend of eleven: what the choice of a balancer is worth.

Source: "Beyond Round Robin: Load Balancing for Latency" (Linkerd's blog, 16 March 2016), an experiment with Finagle's
balancers: one client at 1000 calls a second, eleven backends with a median latency of 167 ms and a standard deviation
of 5 ms, for a minute; from the 15th second on, one of them takes 2 s, for 30 s. Calls that take longer than a second
count as failed: about 95, 99 and 99.9 % success for round robin, least loaded and peak EWMA. Nothing else helps: no
retries, no ejections, and calls are not cut, so that a slow answer is seen as what it is.
"""

from __future__ import annotations

from typing import Final

from meshlib.balance.settings import BalancerName
from meshlib.sim.fleet import Fleet
from meshlib.sim.network import SimEndpoint, constant, normal
from meshlib.sim.table import Table, milliseconds, percent
from meshlib.sim.tally import Tally

__all__ = ["PUBLISHED", "TIMEOUT_S", "run", "success_percent", "table"]

PUBLISHED: Final[dict[BalancerName, float]] = {"round_robin": 95.0, "least_request": 99.0, "peak_ewma": 99.9}
"""Success in percent."""
TIMEOUT_S = 1.0


def run(balancer: BalancerName, *, seed: int = 1) -> Tally:
    """The minute, with this balancer."""
    usual = normal(0.167, 0.005)
    servers = [SimEndpoint(usual) for _ in range(11)]
    fleet = Fleet(servers, seed=seed)
    fleet.plain_client(timeout=None, load_balancing={"policy": balancer})
    fleet.clock.at(15.0, lambda: setattr(servers[0], "latency", constant(2.0)))
    fleet.clock.at(45.0, lambda: setattr(servers[0], "latency", usual))
    fleet.load(1000.0, 60.0)
    fleet.run()
    return fleet.tally


def success_percent(tally: Tally) -> float:
    """The share of calls that took no longer than the timeout."""
    return 100.0 * sum(duration <= TIMEOUT_S for duration in tally.durations) / len(tally.durations)


def table() -> Table:
    """Published and found, by balancer."""
    rows = []
    for balancer, published in PUBLISHED.items():
        tally = run(balancer)
        tails = [milliseconds(tally.percentile(share)) for share in (95.0, 99.0, 99.9)]
        rows.append([f"`{balancer}`", f"about {published:g} %", percent(success_percent(tally), 2), *tails])
    return Table(["balancer", "published", "success within 1 s", "p95", "p99", "p99.9"], rows)
