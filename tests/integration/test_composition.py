"""The failures of `meshlib.sim.scenarios.composition` with real servers, called from threads and from an event loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from meshlib import Mesh
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.dataclass import replace
from meshlib.mesh import MeshParts
from meshlib.sim.scenarios.composition import SCENARIOS
from tests.integration.replicas import Listing, Mode, Replica, Traffic, replicas
from tests.integration.test_sharing import nothing_is_held

BEGIN, END, CALLS = 200, 900, 1200
Script = dict[int, Callable[[], object]]


class Stage:
    """Replicas, and what happens to them at which call.

    Attributes:
        parts: the replicas.
        script: by the number of the call before which it happens.
    """

    def __init__(self, make: Callable[[], Replica], count: int) -> None:
        self.make = make
        self.parts = [make() for _ in range(count)]
        self.listings: list[Listing] = []
        self.script: Script = {}

    @property
    def endpoints(self) -> list[Endpoint]:
        return [part.endpoint for part in self.parts]

    def at(self, number: int, *what: Callable[[], object]) -> None:
        before = self.script.get(number)
        steps = [*([] if before is None else [before]), *what]
        self.script[number] = lambda: [step() for step in steps]

    def mode(self, part: Replica, mode: Mode) -> None:
        self.at(BEGIN, partial(setattr, part, "mode", mode))
        self.at(END, partial(setattr, part, "mode", "ok"))

    def down(self, part: Replica, begin: int = BEGIN, end: int = END) -> None:
        self.at(begin, part.stop)
        self.at(end, part.start)

    def say(self, endpoints: list[Endpoint]) -> None:
        for listing in self.listings:
            listing.say(tuple(endpoints))


def broken_route(stage: Stage) -> None:
    for part in stage.parts:
        stage.at(BEGIN, partial(setattr, part, "broken", b"/other"))
        stage.at(END, partial(setattr, part, "broken", None))


def bad_of_two(stage: Stage) -> None:
    stage.mode(stage.parts[0], "bad")


def half_unhealthy(stage: Stage) -> None:
    for part in stage.parts[:2]:
        stage.down(part)
    well = stage.endpoints
    ill = [replace(endpoint, health=Health.UNHEALTHY) for endpoint in well[:2]]
    stage.at(BEGIN + 50, partial(stage.say, [*ill, *well[2:]]))
    stage.at(END, partial(stage.say, well))


def all_down(stage: Stage) -> None:
    for part in stage.parts:
        stage.down(part)


def hung(stage: Stage) -> None:
    stage.mode(stage.parts[0], "hung")


def slow(stage: Stage) -> None:
    stage.mode(stage.parts[0], "slow")


def flapping(stage: Stage) -> None:
    for begin in range(BEGIN, END, 50):
        stage.down(stage.parts[0], begin, begin + 25)


def deploy(stage: Stage) -> None:
    """Each new replica is listed, the old one goes, and later the listing leaves it out."""
    listed = stage.endpoints
    for at, old in enumerate(list(stage.parts)):
        begin = BEGIN + 150 * at
        new = stage.make().endpoint
        replaced = [new if endpoint == old.endpoint else endpoint for endpoint in listed]
        stage.at(begin, partial(stage.say, [*listed, new]))
        stage.at(begin + 20, old.stop)
        stage.at(begin + 40, partial(stage.say, replaced))
        listed = replaced


FAILURES: dict[str, Callable[[Stage], None]] = {
    "one broken route of a healthy service": broken_route,
    "one bad endpoint of two": bad_of_two,
    "half the fleet fails its health checks": half_unhealthy,
    "all down for 30 s, and back": all_down,
    "a hung endpoint": hung,
    "a slow endpoint": slow,
    "a flapping endpoint": flapping,
    "a deploy that replaces every address": deploy,
}


def test_they_are_the_same_failures() -> None:
    assert list(FAILURES) == list(SCENARIOS)


@pytest.mark.parametrize("failure", FAILURES)
def test_what_callers_see_of_a_failure(failure: str) -> None:
    breaks = FAILURES[failure]
    with ExitStack() as stack:
        stage = Stage(stack.enter_context(replicas()), 2 if breaks is bad_of_two else 4)
        breaks(stage)
        # So that the circuit stays closed on a slow machine: it opens when nothing succeeds for half of the window.
        orders = {"per_try_timeout": "300ms", "circuit_breaker": {"window": "60s"}}
        meshes = []
        for _ in range(2):
            listing = Listing(tuple(stage.endpoints))
            stage.listings.append(listing)
            meshes.append(
                stack.enter_context(Mesh({"services": {"orders": orders}}, parts=MeshParts(sources=(listing,))))
            )
        sync, loop = meshes
        other = (lambda number: number % 4 == 0) if breaks is broken_route else (lambda number: False)
        traffic = Traffic(CALLS, stage.script, other)
        traffic.run(stack.enter_context(sync.client("orders")), partial(loop.async_client, "orders"))
        found = {kind: traffic.success_percent(kind) for kind in ("threads", "loop")}
        print(f"{failure}: {found}")
        if breaks is not all_down:
            assert min(found.values()) >= 99.5, traffic.errors[:5]
        assert [traffic.success_percent(kind, END) for kind in found] == [100.0, 100.0], traffic.errors[-5:]
        for mesh in meshes:
            nothing_is_held(mesh)
