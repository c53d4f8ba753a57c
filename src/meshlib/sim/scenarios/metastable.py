"""A stall of ten seconds that does not end: metastable failure.

Model: the running example of "Metastable Failures in Distributed Systems" (Bronson et al., HotOS 2021): a database that
can do 300 calls a second, asked for 280, a timeout of 1 s, one retry at once, and a trigger of 10 s in which it does
nothing. Its queue is unbounded, first in, first out, and it works on what is asked whether or not somebody waits. After
the trigger all that it works on is older than a second: each answer is late, so each call is sent twice, 560 a second
for ever. The sustaining effect is the retry, and the work on what nobody waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.dataclass import dataclass
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.sim.fleet import Fleet
from meshlib.sim.server import Server
from meshlib.sim.table import Table

__all__ = ["CAPACITY", "RATES", "ROWS", "STALL_S", "Defence", "Outcome", "run", "table"]

CAPACITY = 300.0
RATES: Final = (150.0, 240.0, 260.0, 270.0, 280.0)
STALL_S = 10.0
_BEGIN = 10.0
_END = _BEGIN + STALL_S


@dataclass(frozen=True, slots=True)
class Defence:
    """What is done against it.

    Attributes:
        client: what its configuration says of the service, over `CLIENT`.
        server: see `Server`.
        clients: how many share the calls, each with a budget and a breaker of its own.
    """

    client: Mapping[str, Any] = {}
    server: Mapping[str, Any] = {}
    clients: int = 1


CLIENT: Final = {
    "timeout": None,
    "per_try_timeout": "1s",
    "retry": {"max_retries": 1, "backoff": {"base": 0, "max": 0}},
    "retry_budget": {"tokens": 1e9},
    "circuit_breaker": False,
    "outlier_detection": False,
}
"""One retry at once, and a budget that never ends."""
_RATE: Final = {"retry_budget": {"kind": "rate", "percent": 10, "min_per_second": 0, "ttl": "10s"}}
_CONCURRENCY: Final = {"retry_budget": {"kind": "concurrency", "percent": 20, "min_concurrency": 3}}
_A6: Final = {"retry_budget": {"tokens": 10, "success_gain": 0.1}}
_OURS: Final[Mapping[str, Any]] = {"retry": {}, "retry_budget": {}, "circuit_breaker": {}, "outlier_detection": {}}
_DROPS = {"drop_expired": True}
_ADMITS: Final[Mapping[str, Any]] = {**_DROPS, "admission": AdmissionSettings(max_in_flight=8)}
_LONG = {**_OURS, "circuit_breaker": {"open_for_shedding": "1m"}}
_NO_BREAKER = {**_OURS, "circuit_breaker": False}


def _throttle(max_rejection_percent: float) -> dict[str, Any]:
    return {"throttle": {"k": 2, "window": "30s", "max_rejection_percent": max_rejection_percent}}


ROWS: Final[dict[str, Defence]] = {
    "no retry": Defence({"retry": {"max_retries": 0}}),
    "1 retry": Defence(),
    "1 retry, gRPC's bucket (10, 0.1)": Defence(_A6),
    "1 retry, rate budget of 10 %": Defence(_RATE),
    "1 retry, Envoy's budget of 20 %": Defence(_CONCURRENCY),
    "1 retry, server drops expired": Defence(server=_DROPS),
    "1 retry, gRPC's bucket, server drops expired": Defence(_A6, _DROPS),
    "1 retry, last in first out beyond 20": Defence(server={"lifo_beyond": 20}),
    "1 retry, throttle without a cap": Defence(_throttle(100)),
    "1 retry, throttle, at most 90 %": Defence(_throttle(90)),
    "1 retry, throttle, at most 90 %, server drops expired": Defence(_throttle(90), _DROPS),
    "meshlib's defaults, per try 1 s": Defence(_OURS),
    "the same, server drops expired": Defence(_OURS, _DROPS),
    "the same, 100 clients": Defence(_OURS, clients=100),
    "the same, 100 clients, server drops expired": Defence(_OURS, _DROPS, 100),
    "1 retry, server with admission, 8 in flight": Defence(server=_ADMITS),
    "meshlib's defaults at both ends, admission with 8 in flight": Defence(_OURS, _ADMITS),
    "the same at both ends, 100 clients": Defence(_OURS, _ADMITS, 100),
    "the same at both ends, circuits open as long as for any callee, 100 clients": Defence(_LONG, _ADMITS, 100),
    "the same at both ends, no circuit breaker, 100 clients": Defence(_NO_BREAKER, _ADMITS, 100),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        recovered_s: after the stall's end, until goodput was back at 95 % of the rate for five seconds; None if it
            never was.
        good_per_s, attempts_per_s: at the end of the run.
    """

    recovered_s: int | None
    good_per_s: float
    attempts_per_s: float


def run(defence: Defence, rate: float, *, watch_s: float = 220.0, seed: int = 1) -> Outcome:
    """Ten good seconds, the stall, and what follows for at most `watch_s`; it ends when goodput is back."""
    server = Server.of_capacity(CAPACITY, **defence.server)
    fleet = Fleet([server], seed=seed)
    for _ in range(defence.clients):
        fleet.client(**{**CLIENT, **defence.client})
    fleet.clock.at(_BEGIN, lambda: server.stall(fleet.clock, STALL_S))
    fleet.load(rate, _END + watch_s)
    tally, now = fleet.tally, _END
    recovered = None
    while recovered is None and now < _END + watch_s:
        now += 10.0
        fleet.run(now)
        recovered = tally.first_second(tally.good, _END, now, lambda good: good > 0.95 * rate)
    last = now - 5.0
    return Outcome(
        None if recovered is None else int(recovered - _END),
        tally.rate(tally.good, last, now),
        tally.rate(tally.attempts, last, now),
    )


def table() -> Table:
    """Seconds from the end of the stall until it is over, by defence and rate."""
    rows = []
    for name, defence in ROWS.items():
        found = [run(defence, rate) for rate in RATES]
        cells = ["never" if outcome.recovered_s is None else f"{outcome.recovered_s} s" for outcome in found]
        rows.append([name, *cells])
    return Table(["defence", *(f"{rate:g}/s" for rate in RATES)], rows)
