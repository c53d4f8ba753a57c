"""A rare long tail, and a second attempt for the slowest few: what hedging is worth, and what it costs.

After "The Tail at Scale" (Dean and Barroso, CACM 56, 2, 2013), where a hedge after 10 ms cuts the p99.9 of reads from
BigTable from 1800 to 74 ms for 2 % more requests. Here answers take 5 ms (log-normal, sigma 0.4), but one in a hundred
takes 55 ms and more (Pareto, alpha 1.2), and a call is hedged when it takes longer than the 95th percentile of late.

In the second case all answers take 50 ms: a hedge could not be any faster. In the third all servers become ten times
slower at half time, and keep their tail. In the fourth nothing is answered any more from half time on, within the
100 ms that an attempt has.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final, Literal, TypeAlias

from meshlib.dataclass import dataclass
from meshlib.sim.fleet import Fleet
from meshlib.sim.network import SimEndpoint, constant, lognormal
from meshlib.sim.table import Table, milliseconds, percent

__all__ = ["HEDGE", "Outcome", "run", "table"]

SERVERS = 10
PER_SECOND = 500.0
HEDGE: Final[Mapping[str, Any]] = {"after": "p95", "max_extra_percent": 5}
Case: TypeAlias = Literal["usual", "uniform", "slow", "silent"]

_BODY = lognormal(0.005, 0.4)


def tailed(rng: Random) -> float:
    """What an answer takes."""
    return _BODY(rng) if rng.random() > 0.01 else 0.005 + 0.05 * rng.paretovariate(1.2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, over the second half.

    Attributes:
        p50_s, p99_s, p999_s: of all calls.
        extra_percent: attempts beyond one for each call.
    """

    p50_s: float
    p99_s: float
    p999_s: float
    extra_percent: float


def run(hedge: Mapping[str, Any] | None, case: Case = "usual", *, for_s: float = 120.0, seed: int = 1) -> Outcome:
    """Twice as long as `for_s`; the first half, in which clients learn, is not counted."""
    servers = [SimEndpoint(constant(0.05) if case == "uniform" else tailed) for _ in range(SERVERS)]
    fleet = Fleet(servers, seed=seed)
    fleet.client(
        timeout=None,
        per_try_timeout="100ms" if case == "silent" else None,
        retry={"max_retries": 0},
        circuit_breaker=False,
        outlier_detection=False,
        hedge=hedge or False,
    )
    fleet.load(PER_SECOND, 2 * for_s)
    fleet.run(for_s)
    for server in servers:
        if case == "slow":
            server.latency = lambda rng: 10.0 * tailed(rng)
        server.hung = case == "silent"
    fleet.tally.durations.clear()
    fleet.run()
    tally, end = fleet.tally, 2 * for_s
    begun, attempts = tally.rate(tally.begun, for_s, end), tally.rate(tally.attempts, for_s, end)
    return Outcome(
        tally.percentile(50.0), tally.percentile(99.0), tally.percentile(99.9), 100.0 * (attempts / begun - 1.0)
    )


def table() -> Table:
    """Tails and extra load, without hedging and with it."""
    cases: dict[str, tuple[Mapping[str, Any] | None, Case]] = {
        "no hedging": (None, "usual"),
        "after p95": (HEDGE, "usual"),
        "all answers take 50 ms, after p95": (HEDGE, "uniform"),
        "all ten times slower, no hedging": (None, "slow"),
        "all ten times slower, after p95": (HEDGE, "slow"),
        "no answers, after p95": (HEDGE, "silent"),
    }
    rows = []
    for name, (hedge, case) in cases.items():
        found = run(hedge, case)
        tails = [milliseconds(tail) for tail in (found.p50_s, found.p99_s, found.p999_s)]
        rows.append([name, *tails, percent(found.extra_percent)])
    return Table(["", "p50", "p99", "p99.9", "extra attempts"], rows)
