"""Tables are Envoy's, slot for slot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.consistent_hash import finished, normalized
from meshlib.balance.hashing import xxh64
from meshlib.balance.maglev import build_maglev

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_hash_balancers.json").read_text())["maglev"]


def table_of(hosts: Sequence[str], weights: Sequence[float] | None = None, size: int = 65537) -> list[int]:
    keys = [host.encode() for host in hosts]
    return list(finished(build_maglev(keys, normalized(weights or [1.0] * len(hosts)), size)).owners)


@pytest.mark.parametrize("name", ["m7", "m7_hostname", "m17_weighted"])
def test_a_table_is_envoys(name: str) -> None:
    row = GOLDEN[name]
    assert table_of(row["hosts"], row.get("weights"), row["M"]) == row["table"]


@pytest.mark.parametrize("row", GOLDEN["m17_localities"], ids=lambda row: str(row["weights"]))
def test_a_table_of_localities_is_envoys(row: dict[str, Any]) -> None:
    assert table_of(row["hosts"], row["weights"], 17) == row["table"]


def test_the_order_of_endpoints_does_not_matter() -> None:
    row = GOLDEN["m7"]
    backwards = table_of(row["hosts"][::-1], None, 7)
    assert [5 - owner for owner in backwards] == row["table"]


def test_a_retry_looks_up_another_hash() -> None:
    row = GOLDEN["m7_retry"]
    table = finished(build_maglev([host.encode() for host in GOLDEN["m7"]["hosts"]], [1 / 6] * 6, 7))
    assert [table.at(row["hash"], attempt) for attempt in range(3)] == row["attempts"]


def test_the_table_of_the_usual_size_is_shared_by_weight() -> None:
    row = GOLDEN["default_split"]
    shares = Counter(table_of(["127.0.0.1:90", "127.0.0.1:91"], [1.0, 2.0]))
    assert [shares[0], shares[1]] == list(row["counts"].values())


def plainly(keys: Sequence[bytes], weights: Sequence[float], size: int) -> list[int]:
    """The algorithm as it is described, without anything that makes it fast."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    most, table, left, turn = max(weights), [-1] * size, size, 0
    target, step = [0.0] * len(keys), [0] * len(keys)
    while left:
        turn += 1
        for index in order:
            if left and turn * weights[index] >= target[index]:
                target[index] += most
                slot = -1
                while slot < 0 or table[slot] >= 0:
                    skip = xxh64(keys[index], 1) % (size - 1) + 1
                    slot = (xxh64(keys[index]) + step[index] * skip) % size
                    step[index] += 1
                table[slot] = index
                left -= 1
    return table


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([1.0, 1.0, 2.0, 3.0, 7.0, 100.0, 0.3]), min_size=2, max_size=20),
    st.sampled_from([2, 7, 251, 1009]),
)
def test_the_fast_way_and_the_plain_one_agree(weights: list[float], size: int) -> None:
    hosts = [f"10.0.{number % 3}.{number}:80" for number in range(len(weights))]
    expected = plainly([host.encode() for host in hosts], normalized(weights), size)
    assert table_of(hosts, weights, size) == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=40))
def test_each_endpoint_has_a_slot_whatever_its_weight(weights: list[float]) -> None:
    hosts = [f"h{number}:80" for number in range(len(weights))]
    assert set(table_of(hosts, weights, 251)) == set(range(len(weights)))


@pytest.mark.parametrize("weights", [[1e-300, 1.0], [1e308, 1e308, 1.0], [5e-324, 1e308]], ids=str)
def test_extreme_weights_make_a_table(weights: list[float]) -> None:
    assert set(table_of([f"h{number}:80" for number in range(len(weights))], weights, 1009)) == set(range(len(weights)))


@settings(max_examples=5, deadline=None)
@given(st.integers(5, 30), st.data())
def test_when_one_of_many_goes_few_other_calls_move(count: int, data: Any) -> None:
    hosts = [f"10.0.0.{number}:80" for number in range(count)]
    gone = data.draw(st.integers(0, count - 1))
    left = hosts[:gone] + hosts[gone + 1 :]
    before, after = table_of(hosts, size=5003), table_of(left, size=5003)
    moved = sum(hosts[one] != left[other] for one, other in zip(before, after, strict=True))
    assert moved <= 5003 * (1 / count + 0.1)


def test_more_endpoints_than_slots_leave_some_without() -> None:
    assert len(set(table_of([f"h{number}:80" for number in range(20)], size=7))) == 7
