"""Localities: how they are written, their weights, and whose turn it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from meshlib.balance.endpoint import Locality
from meshlib.balance.locality import (
    LocalityTurns,
    distribute,
    effective_weight,
    locality_text,
    matches,
    parse_locality,
    weight_of,
)
from meshlib.balance.settings import DistributeRule

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_localities.json").read_text())


def turns(weights: list[float], count: int, skip: int = 0) -> list[int | None]:
    order = LocalityTurns(list(enumerate(weights)), skip)
    return [order.next() for _ in range(count)]


@pytest.mark.parametrize("row", GOLDEN["turns"], ids=lambda row: str(row["weights"]))
def test_turns_are_those_of_envoys_tests(row: dict[str, Any]) -> None:
    assert turns(row["weights"], len(row["picks"])) == row["picks"]


@pytest.mark.parametrize("row", GOLDEN["first_pick_of_seeds_0_to_9"], ids=lambda row: str(row["weights"]))
def test_first_turns_of_many_clients_follow_the_weights(row: dict[str, Any]) -> None:
    firsts = Counter(turns(row["weights"], 1, skip)[0] for skip in range(10))
    assert [firsts[index] for index in range(3)] == row["counts"]


@pytest.mark.parametrize("row", GOLDEN["failover_weights_1_2_of_5_and_1"], ids=lambda row: str(row["healthy"]))
def test_load_moves_gently_as_a_locality_falls_ill(row: dict[str, Any]) -> None:
    weights = [effective_weight(1, row["healthy"], 5), effective_weight(2, 1, 1)]
    counts = Counter(turns(weights, 100))
    assert [counts[0], counts[1]] == row["picks"]


@pytest.mark.parametrize("row", GOLDEN["split_of_weights_1_2"], ids=lambda row: str(row["available_percent"]))
def test_splits_are_those_of_envoys_docs(row: dict[str, Any]) -> None:
    one, two = effective_weight(1, row["available_percent"], 100), effective_weight(2, 100, 100)
    # The docs round 14.9 and 25.9 to whole numbers, and cut 32.6.
    assert 100 * one / (one + two) == pytest.approx(row["split"][0], abs=0.7)


def test_nobody_has_a_turn_without_weight() -> None:
    assert turns([0, 0], 2) == [None, None]
    assert turns([], 1, skip=3) == [None]
    assert effective_weight(3, 0, 0) == 0.0


def test_localities_are_written_as_istio_writes_them() -> None:
    assert parse_locality("eu/eu-1/rack") == Locality("eu", "eu-1", "rack")
    assert parse_locality("eu/eu-1") == Locality("eu", "eu-1")
    assert locality_text(Locality("eu", "eu-1")) == "eu/eu-1"
    assert locality_text(Locality()) == ""
    for text in ("", "/z", "a//c", "a/b/c/d"):
        with pytest.raises(ValueError, match="is no locality"):
            parse_locality(text)


@pytest.mark.parametrize(
    ("pattern", "takes"),
    [("*", True), ("eu", True), ("eu/*", True), ("eu/1", True), ("eu/1/b", False), ("eu/*/a", True), ("us", False)],
)
def test_a_pattern_takes_in_what_it_leaves_out(pattern: str, takes: bool) -> None:
    assert matches(Locality("eu", "1", "a"), parse_locality(pattern)) is takes


def test_the_first_pattern_that_matches_gives_the_weight() -> None:
    weights = {"eu/1": 3.0, "eu": 1.0}
    places = [Locality("eu", "1"), Locality("eu", "2"), Locality("us", "1")]
    assert [weight_of(place, weights) for place in places] == [3.0, 1.0, 0.0]


def test_distribution_divides_a_share_among_the_places_in_it() -> None:
    """{80, 15, 5} over 7 localities, from Istio's loadbalancer_test.go."""
    here = Locality("region1", "zone1", "subzone1")
    places = [
        Locality("region1", "zone1", "subzone1"),
        Locality("region1", "zone1", "subzone2"),
        Locality("region1", "zone2", "subzone1"),
        Locality("region1", "zone3", "subzone1"),
        Locality("region2", "zone1", "subzone1"),
        Locality("region2", "zone2", "subzone1"),
        Locality("region3", "zone1", "subzone1"),
    ]
    to = {"region1/zone1/*": 80.0, "region1/zone2/*": 15.0, "region1/zone3/*": 5.0}
    rule = DistributeRule("region1/zone1/subzone1", to)
    weights = distribute(dict.fromkeys(places, 1.0), here, [rule])
    assert weights is not None
    assert [weights.get(place, 0) for place in places] == [40, 40, 15, 5, 0, 0, 0]


def test_a_share_is_divided_by_what_the_places_weigh_and_rounded_up() -> None:
    rule = DistributeRule("eu", {"eu": 80.0, "*": 20.0})
    places = {Locality("eu", "1"): 2.0, Locality("eu", "2"): 1.0, Locality("us", "1"): 5.0}
    assert distribute(places, Locality("eu", "1"), [rule]) == {
        Locality("eu", "1"): 54,
        Locality("eu", "2"): 27,
        Locality("us", "1"): 20,
    }
    assert distribute(places, Locality("us", "1"), [rule]) is None
