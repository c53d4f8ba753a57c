"""A service that is asked for five times what it can do, and declines the rest: what its clients' throttle spares it.

"Handling Overload", chapter 21 of Google's SRE book: a client refuses by itself the share
``max(0, (requests - k * accepts) / (requests + 1))`` of its calls. A service that can do 200 calls a second, is asked
for 1000 and declines at once what it cannot do accepts 200, so once the window has filled it sees k * 200: 400 for
k = 2, 300 for 1.5 and 220 for 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.dataclass import dataclass
from meshlib.sim.fleet import Fleet
from meshlib.sim.server import Server
from meshlib.sim.table import Table

__all__ = ["CAPACITY", "FACTORS", "OFFERED", "Outcome", "run", "table"]

OFFERED, CAPACITY = 1000.0, 200.0
FACTORS: Final = (2.0, 1.5, 1.1)
"""The k of the formula."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Per second, after the throttle has settled.

    Attributes:
        attempts: that the service sees.
        good: that it answers.
    """

    attempts: float
    good: float


def run(throttle: Mapping[str, Any] | None, *, for_s: float = 60.0, seed: int = 1) -> Outcome:
    """So long; the second half counts."""
    fleet = Fleet([Server.of_capacity(CAPACITY, max_queue=int(CAPACITY * 0.1))], seed=seed)
    fleet.plain_client(**({} if throttle is None else {"throttle": throttle}))
    fleet.load(OFFERED, for_s)
    fleet.run()
    tally = fleet.tally
    return Outcome(tally.rate(tally.attempts, for_s / 2, for_s), tally.rate(tally.good, for_s / 2, for_s))


def table() -> Table:
    """What the service sees, by throttle."""
    cases: dict[str, Mapping[str, Any] | None] = {
        "none": None,
        **{f"SRE book, k = {k:g}": {"k": k, "window": "20s"} for k in FACTORS},
        "Finagle's nack filter": {"algorithm": "nack", "window": "20s"},
        "Envoy's admission control": {"algorithm": "success_rate", "window": "20s"},
    }
    expected = ["", *(f"{k * CAPACITY:g}/s" for k in FACTORS), "", ""]
    rows = []
    for (name, throttle), formula in zip(cases.items(), expected, strict=True):
        outcome = run(throttle)
        rows.append([name, formula, f"{outcome.attempts:.0f}/s", f"{outcome.good:.0f}/s"])
    return Table(["throttle", "k x capacity", "attempts", "answered"], rows)
