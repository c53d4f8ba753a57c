"""Failures of a fleet, and what a caller sees of them: without policies, with the defaults, with a per-try timeout.

Four servers answer within 10 to 30 ms; one client calls them 50 times a second, for a minute. From the 10th second to
the 40th something is wrong. All policies are at work together: balancer, retries and their budget, ejection, breaker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from meshlib.balance.endpoint import Endpoint, Health
from meshlib.dataclass import dataclass
from meshlib.policy.call import Call
from meshlib.sim.client import Client
from meshlib.sim.fleet import Fleet
from meshlib.sim.network import SimEndpoint, constant, uniform
from meshlib.sim.table import Table, milliseconds, percent
from meshlib.sim.tally import percentile

__all__ = ["CLIENTS", "SCENARIOS", "Outcome", "run", "table"]

PER_SECOND, FOR_S = 50.0, 60.0
BEGIN, END = 10.0, 40.0
USUAL = uniform(0.01, 0.03)
OTHER = "/other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller saw of the calls to healthy routes.

    Attributes:
        success_percent: the share that ended with a status below 500.
        p99_s, p999_s: how long 99 and 99.9 % took at most, however they ended.
        after_percent: success from a second after the end of the trouble on.
        attempts_per_call: how much more was sent than asked.
    """

    success_percent: float
    p99_s: float
    p999_s: float
    after_percent: float
    attempts_per_call: float


class Stage:
    """The fleet and its client, and the means to break them.

    Attributes:
        fleet, client: as they are.
        parts: the servers.
        calls: all those made, and whether each was to the other route.
    """

    def __init__(self, client_of: Callable[[Fleet], Client], servers: int, seed: int) -> None:
        self.parts = [SimEndpoint(USUAL) for _ in range(servers)]
        self.fleet = Fleet(self.parts, seed=seed)
        self.client = client_of(self.fleet)
        self.calls: list[tuple[Call, bool]] = []

    def at(self, time: float, what: Callable[[], object]) -> None:
        """Do something then."""
        self.fleet.clock.at(time, what)

    def set(self, part: SimEndpoint, **attributes: object) -> None:
        """From the beginning of the trouble to its end a server is like this."""
        for name, value in attributes.items():
            self.at(BEGIN, partial(setattr, part, name, value))
            self.at(END, partial(setattr, part, name, getattr(part, name)))

    def listed(self, endpoints: list[Endpoint]) -> None:
        """Discovery reports these endpoints."""
        self.client.publish(endpoints)

    def call(self) -> None:
        """A call, every fourth of them to another route."""
        other = self.fleet.rng.random() < 0.25
        self.calls.append((self.client.call(path=OTHER if other else "/").call, other))


def broken_route(stage: Stage) -> None:
    """One route, a quarter of all calls, is answered 503 by every server; the others are fine."""
    for part in stage.parts:
        stage.set(part, broken=frozenset({OTHER}))


def bad_of_two(stage: Stage) -> None:
    """One of two servers answers 503 to everything, at once."""
    stage.set(stage.parts[0], fail_percent=100.0)


def half_unhealthy(stage: Stage) -> None:
    """Half of the servers refuse connections, and 2 s later the registry knows."""
    fleet = stage.fleet
    for part in stage.parts[:2]:
        stage.set(part, refuses=True)
    ill = [Endpoint(each.host, each.port, health=Health.UNHEALTHY) for each in fleet.endpoints[:2]]
    stage.at(BEGIN + 2.0, lambda: stage.listed([*ill, *fleet.endpoints[2:]]))
    stage.at(END + 2.0, lambda: stage.listed(fleet.endpoints))


def all_down(stage: Stage) -> None:
    """All servers refuse connections."""
    for part in stage.parts:
        stage.set(part, refuses=True)


def hung(stage: Stage) -> None:
    """One server takes requests and never answers."""
    stage.set(stage.parts[0], hung=True)


def slow(stage: Stage) -> None:
    """One server takes 2 s for each request."""
    stage.set(stage.parts[0], latency=constant(2.0))


def flapping(stage: Stage) -> None:
    """One server refuses connections every other second."""
    for second in range(int(BEGIN), int(END), 2):
        stage.at(second, partial(setattr, stage.parts[0], "refuses", True))
        stage.at(second + 1, partial(setattr, stage.parts[0], "refuses", False))


def deploy(stage: Stage) -> None:
    """Each server is replaced by one at another address; the old one is listed for half a second after it went."""
    fleet, listed = stage.fleet, list(stage.fleet.endpoints)
    for at, part in enumerate(stage.parts):
        new = Endpoint(f"10.0.1.{at + 1}", 80)
        replaced = list(listed)
        replaced[at] = new
        joined, listed = [*listed, new], replaced
        begin = BEGIN + 5.0 * at
        stage.at(begin, partial(fleet.network.endpoints.update, {new.address: SimEndpoint(USUAL)}))
        stage.at(begin, partial(stage.listed, joined))
        stage.at(begin + 2.0, partial(setattr, part, "refuses", True))
        stage.at(begin + 2.5, partial(stage.listed, replaced))


SCENARIOS: Final[dict[str, Callable[[Stage], None]]] = {
    "one broken route of a healthy service": broken_route,
    "one bad endpoint of two": bad_of_two,
    "half the fleet fails its health checks": half_unhealthy,
    "all down for 30 s, and back": all_down,
    "a hung endpoint": hung,
    "a slow endpoint": slow,
    "a flapping endpoint": flapping,
    "a deploy that replaces every address": deploy,
}
CLIENTS: Final[dict[str, Callable[[Fleet], Client]]] = {
    "no policies": Fleet.plain_client,
    "defaults": Fleet.client,
    "defaults, per try 500 ms": lambda fleet: fleet.client(per_try_timeout="500ms"),
}


def run(scenario: str, client: str, *, seed: int = 1) -> Outcome:
    """One failure, seen by one client."""
    breaks = SCENARIOS[scenario]
    stage = Stage(CLIENTS[client], 2 if breaks is bad_of_two else 4, seed)
    breaks(stage)
    stage.fleet.load(PER_SECOND, FOR_S, stage.call)
    stage.fleet.run()
    # What a broken route answers is no fault of what is tried here; that the others suffer from it would be.
    journals = [call.journal for call, other in stage.calls if not (other and breaks is broken_route)]
    good = [each.error is None and (each.status or 0) < 500 for each in journals]
    took = [(each.ended or 0.0) - (each.began or 0.0) for each in journals]
    after = [well for each, well in zip(journals, good, strict=True) if (each.began or 0.0) >= END + 1.0]
    return Outcome(
        100.0 * sum(good) / len(good),
        percentile(took, 99.0),
        percentile(took, 99.9),
        100.0 * sum(after) / len(after),
        sum(part.attempts for part in stage.fleet.network.endpoints.values()) / len(stage.calls),
    )


def table() -> Table:
    """Success, p99 and p99.9, by failure and client."""
    rows = []
    for scenario in SCENARIOS:
        found = [run(scenario, client) for client in CLIENTS]
        cells = [
            f"{percent(each.success_percent, 2)} / {milliseconds(each.p99_s)} / {milliseconds(each.p999_s)}"
            for each in found
        ]
        rows.append([scenario, *cells])
    return Table(["failure", *CLIENTS], rows)
