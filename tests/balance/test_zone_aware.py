"""Zone-aware routing: what stays in the zone, and where the rest goes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.settings import ZoneAwareSettings
from meshlib.balance.zone_aware import Callers, ZoneRouting, zone_routing

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_zone_aware.json").read_text())


def zone(name: str) -> Locality:
    return Locality("r", name)


def callers(counts: dict[str, int]) -> Callers:
    local = {zone(name): count for name, count in counts.items()}
    return Callers(local, local)


class Drawn(Random):
    """Gives what it was given."""

    def __init__(self, *values: float) -> None:
        super().__init__(0)
        self._values = list(values)

    def random(self) -> float:
        return self._values.pop(0)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_zones_are_chosen_as_in_envoys_tests(case: dict[str, Any]) -> None:
    settings = ZoneAwareSettings(min_cluster_size=case["min_cluster_size"])
    upstream = [(zone(name), count) for name, count in case["upstream"].items()]
    routing = zone_routing(settings, zone(case["here"]), upstream, callers(case["local"]))
    if case.get("off"):
        assert routing is None
        return
    assert routing is not None
    if case.get("direct"):
        assert upstream[routing.choose(Drawn())][0] == zone(case["here"])
    for of_ten_thousand, of_residual, name in case.get("picks", ()):
        drawn = [] if routing.here is None else [(of_ten_thousand + 0.5) / 10_000]
        drawn.append((of_residual + 0.5) / routing.residual[-1])
        assert upstream[routing.choose(Drawn(*drawn))][0] == zone(name)


def test_what_does_not_fit_is_spread_by_what_there_is_to_spare() -> None:
    upstream = [(zone("a"), 25), (zone("b"), 50), (zone("c"), 25)]
    routing = zone_routing(ZoneAwareSettings(), zone("a"), upstream, callers({"a": 40, "b": 40, "c": 20}))
    assert routing == ZoneRouting(0, 6250, (0, 1000, 1500))
    rng = Random(1)
    counts = Counter(routing.choose(rng) for _ in range(20_000))
    assert counts[0] == pytest.approx(12_500, rel=0.02)
    assert counts[1] == pytest.approx(2 * counts[2], rel=0.06)


def test_a_zone_is_forced_where_it_has_enough() -> None:
    upstream = [(zone("a"), 1), (zone("b"), 9)]
    one = ZoneAwareSettings(force_local_zone=1)
    assert zone_routing(one, zone("a"), upstream, callers({"a": 9, "b": 1})) == ZoneRouting(0, 10_000, (0, 0))
    assert zone_routing(one, zone("a"), upstream, callers({"a": 9})) == ZoneRouting(0, 10_000, (0, 0))
    two = zone_routing(ZoneAwareSettings(force_local_zone=2), zone("a"), upstream, callers({"a": 9, "b": 1}))
    assert two is not None
    assert two.stays == 1111


@pytest.mark.parametrize(
    ("upstream", "local"),
    [
        ({"a": 10}, {"a": 1, "b": 1}),
        ({"a": 5, "b": 5}, {"a": 10}),
        ({"a": 5, "b": 5}, {"b": 5, "c": 5}),
        ({"a": 3, "b": 2}, {"a": 1, "b": 1}),
        ({"a": 0, "b": 0}, {"a": 1, "b": 1}),
    ],
    ids=["one zone", "callers in one zone", "no callers here", "too small", "nobody healthy"],
)
def test_zones_do_not_count(upstream: dict[str, int], local: dict[str, int]) -> None:
    counts = [(zone(name), count) for name, count in upstream.items()]
    assert zone_routing(ZoneAwareSettings(), zone("a"), counts, callers(local)) is None


def test_callers_are_counted_and_panic_alone() -> None:
    found = [Endpoint("10.0.0.1", 80, locality=zone("a")), Endpoint("10.0.0.2", 80, locality=zone("a"))]
    found.append(Endpoint("10.0.0.3", 80, locality=zone("b"), health=Health.UNHEALTHY))
    counted = Callers.count(found)
    assert (counted.total, counted.healthy) == ({zone("a"): 2, zone("b"): 1}, {zone("a"): 2})
    assert not counted.panicking(50)
    assert counted.panicking(70)
    assert not Callers({}, {}).panicking(50)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5),
    st.sampled_from([None, 1, 5]),
    st.integers(0, 2**32),
)
def test_a_zone_that_is_chosen_has_someone_healthy(zones: list[tuple[int, int]], force: int | None, seed: int) -> None:
    upstream = [(zone(str(at)), healthy) for at, (healthy, _) in enumerate(zones)]
    local = callers({str(at): count for at, (_, count) in enumerate(zones) if count})
    routing = zone_routing(ZoneAwareSettings(force_local_zone=force), zone("0"), upstream, local)
    if routing is not None and (routing.residual[-1] or routing.stays == 10_000):
        assert upstream[routing.choose(Random(seed))][1] > 0
