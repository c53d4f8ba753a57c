"""Rings are Envoy's, point for point."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshlib.balance.consistent_hash import finished, normalized
from meshlib.balance.hashing import hash_of, xxh64
from meshlib.balance.ring_hash import Ring, build_ring

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_hash_balancers.json").read_text())["ring_hash"]
MAX = 2**64 - 1


def ring_of(hosts: Sequence[str], weights: Sequence[float] | None = None, **sizes: Any) -> Ring:
    keys = [host.encode() for host in hosts]
    return finished(build_ring(keys, normalized(weights or [1.0] * len(hosts)), **sizes))


@pytest.mark.parametrize("name", ["basic", "hostname", "murmur2"])
def test_a_ring_is_envoys(name: str) -> None:
    row = GOLDEN[name]
    hosts = row["hosts"]
    ring = ring_of(hosts, min_size=row["min_ring_size"], hash_key=hash_of("murmur2" if name == "murmur2" else "xxhash"))
    assert [[hosts[owner], point] for owner, point in zip(ring.owners, ring.points, strict=True)] == row["ring"]
    for hash, host in row.get("lookups", ()):
        assert hosts[ring.at(hash, 0)] == host


@pytest.mark.parametrize("row", GOLDEN["uneven"], ids=lambda row: row["hosts"][0])
def test_a_ring_that_does_not_divide_is_envoys(row: dict[str, Any]) -> None:
    ring = ring_of(row["hosts"], min_size=row["min_ring_size"])
    assert [[row["hosts"][owner], point] for owner, point in zip(ring.owners, ring.points, strict=True)] == row["ring"]


def test_a_small_ring_with_weights_is_envoys() -> None:
    row = GOLDEN["weighted_tiny"]
    hosts = list(row["weights"])
    ring = ring_of(hosts, list(row["weights"].values()), min_size=row["min_ring_size"], max_size=row["max_ring_size"])
    assert {str(point): hosts[ring.at(point, 0)] for point in ring.points} == row["lookup_exact"]


@pytest.mark.parametrize("row", GOLDEN["basic"]["retry"], ids=str)
def test_a_retry_goes_on_along_the_ring(row: dict[str, Any]) -> None:
    hosts = GOLDEN["basic"]["hosts"]
    ring = ring_of(hosts, min_size=12)
    host = ""
    for attempt in range(row["max_reselect"] + 1):
        host = hosts[ring.at(row["hash"], attempt)]
        if row["reject"] != "all" and host not in row["reject"]:
            break
    assert host == row["host"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, MAX))
@example([18, 18, 31, 50, 50, 31, 25], 0)
def test_each_endpoint_has_its_share_and_each_hash_an_endpoint(weights: list[int], hash: int) -> None:
    hosts = [f"10.0.0.{number}:80" for number in range(len(weights))]
    ring = ring_of(hosts, [float(weight) for weight in weights], min_size=1024)
    points = Counter(ring.owners)
    assert list(ring.points) == sorted(ring.points)
    for index, weight in enumerate(weights):
        share = weight / sum(weights)  # of the whole ring, whose size is rounded up as each endpoint's points are
        assert abs(points[index] - len(ring.points) * share) <= 1.0 + share
    later = [point for point in ring.points if point >= hash] or list(ring.points)
    assert ring.at(hash, 0) == ring.owners[ring.points.index(later[0])]


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 40), st.data())
def test_when_one_of_many_goes_only_its_calls_move(count: int, data: Any) -> None:
    hosts = [f"10.0.0.{number}:80" for number in range(count)]
    gone = data.draw(st.integers(0, count - 1))
    left = hosts[:gone] + hosts[gone + 1 :]
    before, after = ring_of(hosts, min_size=count * 100), ring_of(left, min_size=(count - 1) * 100)
    keys = [xxh64(b"%d" % number) for number in range(400)]
    moved = sum(hosts[before.at(key, 0)] != left[after.at(key, 0)] for key in keys)
    assert moved <= 400 * 2.5 / count + 10  # a share of a ring of 100 points each is within a third of even


@pytest.mark.parametrize(
    "weights", [[1e-300, 1.0], [1e308, 1e308, 1.0], [5e-324, 1e308], [1e-9] * 3], ids=lambda weights: str(weights)
)
def test_extreme_weights_make_a_ring(weights: list[float]) -> None:
    ring = ring_of([f"h{number}:80" for number in range(len(weights))], weights, min_size=64, max_size=256)
    assert 64 <= len(ring.points) <= 257
