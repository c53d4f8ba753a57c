"""Priorities: what each gets, to the letter of Envoy's arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.priority import Level, Loads, choose_priority, loads

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_priorities.json").read_text())


@pytest.mark.parametrize("row", GOLDEN["levels"], ids=json.dumps)
def test_loads_and_panic_are_those_of_envoys_tests(row: dict[str, Any]) -> None:
    levels = [Level(**{**level, "weights": tuple(level.get("weights", ())) or None}) for level in row["levels"]]
    shares = loads(levels, row.get("overprovisioning_percent", 140), row.get("panic_percent", 50))
    assert list(shares.healthy) == row["healthy"]
    assert list(shares.degraded) == row.get("degraded", [0] * len(levels))
    if "panic" in row:
        assert list(shares.panic) == row["panic"]


@pytest.mark.parametrize("row", GOLDEN["percent_healthy"], ids=lambda row: str(row["healthy_percent"]))
def test_loads_are_those_of_envoys_docs(row: dict[str, Any]) -> None:
    shares = loads([Level(100, healthy) for healthy in row["healthy_percent"]], panic_percent=0)
    assert list(shares.healthy) == row["load"]


def test_without_panic_and_without_anyone_healthy_the_first_priority_is_named() -> None:
    assert loads([Level(3, 0), Level(2, 0)], panic_percent=0) == Loads((100, 0), (0, 0), (False, False))


def test_a_factor_that_is_no_whole_number_is_not_cut_by_rounding() -> None:
    assert loads([Level(10, 5), Level(10, 10)], 1.1 * 100).healthy == (55, 45)


def test_a_draw_walks_the_healthy_loads_and_then_the_degraded() -> None:
    shares = Loads((40, 10), (30, 20), (False, False))
    assert [choose_priority(shares, drawn) for drawn in (0, 39, 40, 49, 50, 79, 80, 99, 100, 2**64 - 1)] == [
        (0, False),
        (0, False),
        (1, False),
        (1, False),
        (0, True),
        (0, True),
        (1, True),
        (1, True),
        (0, False),
        (0, False),  # 2**64 - 1 is 15 in a hundred
    ]


@st.composite
def levels(draw: st.DrawFn) -> Level:
    healthy, degraded, excluded, sick = (draw(st.integers(0, 30)) for _ in range(4))
    weights = None
    if draw(st.booleans()):
        parts = [draw(st.floats(0, 10)) * count for count in (healthy, degraded, excluded, sick)]
        weights = (sum(parts), parts[0], parts[1], parts[2])
    return Level(healthy + degraded + excluded + sick, healthy, degraded, excluded, weights)


@given(
    st.lists(levels(), min_size=1, max_size=5),
    st.floats(100, 1000),
    st.floats(0, 100),
    st.integers(0, 2**64 - 1),
)
def test_loads_are_always_a_hundred_in_all(
    parts: list[Level], overprovisioning: float, panic: float, drawn: int
) -> None:
    shares = loads(parts, overprovisioning, panic)
    assert sum(shares.healthy) + sum(shares.degraded) == 100
    assert min(shares.healthy + shares.degraded) >= 0
    assert shares.total_panic == all(shares.panic)
    priority, degraded = choose_priority(shares, drawn)
    assert (shares.degraded if degraded else shares.healthy)[priority] > 0
