"""Back-off of every kind, by the numbers of where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.backoff import Jitter, backoff_s, lower_bound_s

DATA = Path(__file__).parents[1] / "data"
ENVOY = json.loads((DATA / "envoy_retry_state.json").read_text())["custom_backoff"]
ALMOST_ONE = 1 - 1e-12
KINDS: tuple[Jitter, ...] = ("full", "equal", "decorrelated", "additive", "none")


class Chance(Random):
    """Always the same number."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def waits(jitter: Jitter, chance: float, base_s: float = 0.025, max_s: float = 0.25) -> list[float]:
    found: list[float] = []
    for retries in range(5):
        before_s = found[-1] if found else 0.0
        found.append(backoff_s(jitter, base_s, max_s, retries, before_s, Chance(chance)))
    return found


@pytest.mark.parametrize("row", ENVOY, ids=lambda row: f"{row['base_ms']}-{row['max_ms']}")
def test_full_jitter_spans_what_envoy_draws_from(row: dict[str, Any]) -> None:
    spans = [span * 1000 for span in waits("full", ALMOST_ONE, row["base_ms"] / 1000, row["max_ms"] / 1000)]
    assert [drawn % round(span) for drawn, span in zip(row["random"], spans, strict=True)] == row["delays_ms"]


def test_equal_jitter_waits_at_least_half() -> None:
    assert waits("equal", 0.0) == [0.0125, 0.025, 0.05, 0.1, 0.125]
    assert waits("equal", ALMOST_ONE) == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.25])


def test_additive_jitter_is_linkerds() -> None:
    assert waits("additive", 0.0) == [0.025, 0.05, 0.1, 0.2, 0.25]
    assert waits("additive", ALMOST_ONE) == pytest.approx([0.05, 0.1, 0.2, 0.25, 0.25])


def test_decorrelated_jitter_grows_from_the_wait_before() -> None:
    assert waits("decorrelated", 0.0) == [0.025] * 5
    assert waits("decorrelated", ALMOST_ONE) == pytest.approx([0.075, 0.225, 0.25, 0.25, 0.25])
    assert waits("decorrelated", 0.5) == pytest.approx([0.05, 0.0875, 0.14375, 0.228125, 0.25])


def test_without_jitter_it_doubles() -> None:
    assert waits("none", 0.7) == [0.025, 0.05, 0.1, 0.2, 0.25]


@given(
    st.sampled_from(KINDS),
    st.floats(0, 10),
    st.floats(0, 100),
    st.integers(0, 10**6),
    st.floats(0, 1000),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_is_negative_or_beyond_the_most(
    jitter: Jitter, base_s: float, more_s: float, retries: int, before_s: float, chance: float
) -> None:
    wait = backoff_s(jitter, base_s, base_s + more_s, retries, before_s, Chance(chance))
    assert 0 <= wait <= (base_s + more_s) * (1 + 1e-9)


def test_what_a_server_asks_for_is_waited_for_and_up_to_half_more() -> None:
    # Envoy, retry_state_impl_test.cc: an interval of 2 s and a draw of 190 ms make 2190 ms.
    assert lower_bound_s(2.0, Chance(0.19)) == pytest.approx(2.19)
    assert lower_bound_s(300.0, Chance(0.0)) == 300
    assert lower_bound_s(300.0, Chance(ALMOST_ONE)) == pytest.approx(450)
