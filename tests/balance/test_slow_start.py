"""Slow start: how a newcomer's share grows."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.cluster import ClusterState
from meshlib.balance.settings import LoadBalancing, SlowStartSettings
from meshlib.balance.slow_start import factor
from tests.core import NOW, endpoints

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_slow_start.json").read_text())


def settings_of(row: dict[str, Any]) -> SlowStartSettings:
    return SlowStartSettings(
        **{name: row[name] for name in ("window_s", "aggression", "min_weight_percent") if name in row}
    )


@pytest.mark.parametrize("row", GOLDEN["factors"], ids=str)
def test_factors_are_those_of_envoys_tests(row: dict[str, Any]) -> None:
    assert factor(settings_of(row), 100.0, 100.0 + row["elapsed_s"]) == pytest.approx(row["factor"], rel=1e-6)


class First(Random):
    """Begins every schedule at its beginning."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return 0


@pytest.mark.parametrize("row", GOLDEN["picks"], ids=str)
def test_round_robin_picks_are_those_of_envoys_tests(row: dict[str, Any]) -> None:
    balancing = LoadBalancing(policy="round_robin", slow_start=settings_of(row))
    state = ClusterState("orders", now=NOW, load_balancing=balancing)
    rng, reported = First(), endpoints(len(row["elapsed_s"]))
    for member, elapsed_s in zip(state.view(reported, NOW, rng).members, row["elapsed_s"], strict=True):
        member.health.joined_at = None if elapsed_s is None else NOW - elapsed_s
    cluster = state.view(reported, NOW, rng)
    picked = [cluster.pick(NOW, rng) for _ in row["picks"]]
    assert [cluster.members.index(member) for member in picked if member is not None] == row["picks"]


def test_one_that_has_long_been_there_has_its_full_weight() -> None:
    assert factor(SlowStartSettings(60.0), None, 5.0) == 1.0


def test_a_clock_that_went_back_past_the_window_does_not_hold_it_back() -> None:
    settings = SlowStartSettings(60.0)
    assert factor(settings, 1000.0, 999.0) == 0.1
    assert factor(settings, 1000.0, 900.0) == 1.0


@given(
    st.floats(0.001, 1e6),
    st.floats(0.01, 100.0),
    st.floats(0.0, 100.0),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -inf, inf]) | st.floats(-1e9, 1e9),
)
def test_it_is_a_share_of_the_weight_whatever_the_time(
    window_s: float, aggression: float, least: float, now: float, joined_at: float
) -> None:
    assert 0.0 < factor(SlowStartSettings(window_s, aggression, least), joined_at, now) <= 1.0
