"""What it costs to choose among many endpoints: each balancer's pick, an update of them, and their memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks import rounds
from meshlib.balance.balancer import Member
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.probing import Probing
from meshlib.balance.settings import (
    ApertureSettings,
    LeastRequestSettings,
    LoadBalancing,
    SubsettingSettings,
)
from meshlib.balance.table import find_balancer
from meshlib.dataclass import replace
from meshlib.policy.traits import Traits

SIZES = (10, 100, 1_000, 100_000)
UPDATED = 10_000
"""Endpoints in an update, and of those whose memory is told."""

_FULL_SCAN = LoadBalancing("least_request", least_request=LeastRequestSettings(selection="full_scan"))
_UPDATES = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """A balancer, as it is set, over endpoints whose weights are alike or not, of `most` of them at most."""

    name: str
    settings: LoadBalancing
    weighted: bool = False
    most: int = SIZES[-1]


CHOICES = (
    Choice("`peak_ewma`", LoadBalancing()),
    Choice("`peak_ewma`, by weight", LoadBalancing(), weighted=True),
    Choice("`least_request`", LoadBalancing("least_request")),
    Choice("`least_request`, by weight", LoadBalancing("least_request"), weighted=True),
    Choice("`least_request`, full scan", _FULL_SCAN, most=1_000),
    Choice("`round_robin`", LoadBalancing("round_robin")),
    Choice("`round_robin`, by weight", LoadBalancing("round_robin"), weighted=True),
    Choice("`random`", LoadBalancing("random")),
    Choice("`random`, by weight", LoadBalancing("random"), weighted=True),
    Choice("`server_weights`", LoadBalancing("server_weights")),
    Choice("`prequal`, with the answers to its probes", LoadBalancing("prequal")),
    Choice("`aperture`, 1 of 100", LoadBalancing("aperture", aperture=ApertureSettings(0, 100))),
    Choice("`ring_hash`", LoadBalancing("ring_hash")),
    Choice("`maglev`", LoadBalancing("maglev"), most=1_000),
    Choice("`peak_ewma`, subset of 20", LoadBalancing(subsetting=SubsettingSettings(size=20, seed=1))),
)
FLOOR = "an element of a tuple"
"""Nothing but one object among as many, at random: what memory alone costs."""


def measure(*, rounds: int, seconds: float) -> dict[str, Any]:
    """All of it: picks in microseconds, updates in milliseconds, memory in bytes per endpoint."""
    memory = _memory()
    return {"picks": _picks(rounds, seconds), "updates": _updates(), "memory": memory}


def endpoints(size: int, *, weighted: bool = False) -> list[Endpoint]:
    """So many."""
    return [
        Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 8080, weight=1.0 + n % 3 * weighted) for n in range(size)
    ]


def _picks(count: int, seconds: float) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {choice.name: {} for choice in CHOICES}
    found[FLOOR] = {}
    for size in SIZES:
        some = {weighted: _members(size, weighted) for weighted in (False, True)}
        runners = {
            choice.name: rounds.Runner(_burst(choice, some[choice.weighted]))
            for choice in CHOICES
            if size <= choice.most
        }
        runners[FLOOR] = rounds.Runner(_touch(some[False]))
        for name, samples in rounds.take_turns(runners, rounds=count, seconds=seconds, warm=1000).items():
            found[name][str(size)] = sorted(samples)[len(samples) // 2]
    return found


def _members(size: int, weighted: bool) -> tuple[Member, ...]:
    """Members that have all been called before."""
    rng = Random(size)
    members = ClusterState("orders", now=0.0).view(endpoints(size, weighted=weighted), 0.0, rng).members
    for member in members:
        member.load.answered(0.5, rng.uniform(0.001, 0.002))
    return members


def _burst(choice: Choice, members: Sequence[Member]) -> Callable[[int], object]:
    rng = Random(1)
    pick = find_balancer(choice.settings.policy)(members, choice.settings, 1.0, rng).pick
    traits = Traits() if choice.settings.policy in ("ring_hash", "maglev") else None

    def burst(picks: int) -> None:
        for _ in range(picks):
            pick(1.0, rng, None)

    def hashed(picks: int) -> None:
        assert traits is not None
        for _ in range(picks):
            traits.hash = rng.getrandbits(64)
            pick(1.0, rng, None, traits)

    def probed(picks: int) -> None:
        for _ in range(picks):
            pick(1.0, rng, None)
            for pool, member in probing.take():
                pool.add(member, 2.0, 0.0015, 1.0, rng)
            probing.rest()

    if choice.settings.policy == "prequal":
        reported: Any = members[0].load.reported
        probing: Probing = reported.probing
        probing.wake = bool  # whoever probes is here
        return probed
    return burst if traits is None else hashed


def _touch(members: Sequence[Member]) -> Callable[[int], object]:
    rng = Random(1)

    def burst(picks: int) -> None:
        random, count = rng.random, len(members)
        for _ in range(picks):
            members[int(random() * count)]

    return burst


def _updates() -> dict[str, float]:
    """Milliseconds of CPU time until a cluster is there after what discovery tells, the median of a few."""
    same = endpoints(UPDATED)
    equal = [replace(endpoint) for endpoint in same]
    one = [replace(same[0], metadata={"version": "v2"}), *same[1:]]
    fresh = [replace(endpoint, instance_id="new") for endpoint in same]
    weighted = endpoints(UPDATED, weighted=True)
    return {
        "the first": _update(None, same),
        "the same objects": _update(same, same),
        "the same, made anew": _update(same, equal),
        "one has other metadata": _update(same, one),
        "all are others": _update(same, fresh),
        "all have other weights": _update(same, weighted),
    }


def _update(before: list[Endpoint] | None, after: list[Endpoint]) -> float:
    taken = []
    for _ in range(_UPDATES):
        rng, state = Random(1), ClusterState("orders", now=0.0)
        kept = None if before is None else state.view(before, 0.0, rng)
        gc.collect()
        began = time.process_time()
        cluster = state.view(after, 1.0, rng)
        taken.append((time.process_time() - began) * 1e3)
        del kept, cluster
    return sorted(taken)[_UPDATES // 2]


def _memory() -> dict[str, float]:
    """Bytes per endpoint: of what discovery tells, and of all that is kept of it in a cluster."""
    gc.collect()
    tracemalloc.start()
    try:
        told = endpoints(UPDATED)
        first = tracemalloc.get_traced_memory()[0]
        cluster = ClusterState("orders", now=0.0).view(told, 0.0, Random(1))
        second = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(cluster.members) == UPDATED
    return {"as discovery tells it": first / UPDATED, "in a cluster, besides": (second - first) / UPDATED}
