"""A hundred clients contend for one row: what jitter in the back-off is worth.

Model: "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): each client wants to write once, under optimistic
concurrency control. A write succeeds if nobody else wrote while it was on its way; else the client backs off and tries
again. A round trip takes 10 ms with a standard deviation of 2 ms, the back-off is 10 ms, doubling, at most 2 s. Without
jitter those who collided once collide again; the blog reports less than half of the calls for full jitter.
"""

from __future__ import annotations

from typing import Final

from meshlib.dataclass import dataclass
from meshlib.policy.backoff import Jitter
from meshlib.sim.fleet import Fleet
from meshlib.sim.network import Answer, Exchange, normal
from meshlib.sim.table import Table, milliseconds

__all__ = ["CLIENTS", "JITTERS", "Outcome", "Row", "run", "table"]

CLIENTS = 100
CONFLICT = 409
JITTERS: Final[tuple[Jitter, ...]] = ("none", "equal", "full", "decorrelated")


class Row:
    """A server that keeps one row under optimistic concurrency control."""

    __slots__ = ("_round_trip", "_version", "attempts")

    def __init__(self) -> None:
        self.attempts = 0
        self._version = 0
        self._round_trip = normal(0.01, 0.002)

    def serve(self, exchange: Exchange) -> bool:
        """Take a write, based on the version that is there when it sets out."""
        self.attempts += 1
        version = self._version
        exchange.clock.after(self._round_trip(exchange.rng), lambda: self._write(exchange, version))
        return True

    def _write(self, exchange: Exchange, version: int) -> None:
        alone = version == self._version
        self._version += alone
        exchange.answer_now(Answer(0.0, status=200 if alone else CONFLICT))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        attempts: that all clients needed together.
        finished_s: when the last had written.
        written: by how many clients.
    """

    attempts: int
    finished_s: float
    written: int


def run(jitter: Jitter, *, seed: int = 1) -> Outcome:
    """All begin within a second."""
    fleet = Fleet([Row()], seed=seed)
    for _ in range(CLIENTS):
        client = fleet.client(
            timeout=None,
            per_try_timeout=None,
            retry={
                "max_retries": 100,
                "on": [CONFLICT],
                "backoff": {"base": "10ms", "max": "2s", "jitter": jitter},
            },
            retry_budget={"tokens": 1e9},
            circuit_breaker=False,
            outlier_detection=False,
        )
        fleet.clock.at(fleet.rng.random() * 0.001, client.call)
    fleet.run()
    tally = fleet.tally
    written = sum(client.cluster.members[0].load.has_answered for client in fleet.clients)
    return Outcome(sum(tally.attempts.values()), max(tally.durations), written)


def table() -> Table:
    """Calls and time, by kind of jitter."""
    rows = []
    for jitter in JITTERS:
        outcome = run(jitter)
        rows.append([jitter, str(outcome.attempts), milliseconds(outcome.finished_s)])
    return Table(["jitter", "attempts", "all have written after"], rows)
