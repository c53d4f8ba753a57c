"""Failover: the order of endpoints by locality and by label, to the letter of Istio's."""

from __future__ import annotations

import pytest

from meshlib.balance.endpoint import Endpoint, Locality
from meshlib.balance.failover import NETWORK, label_distance, locality_distance, priorities
from meshlib.balance.settings import FailoverRegion, LoadBalancing

HERE = Locality("region1", "zone1", "subzone1")


def at(*localities: Locality, priority: int = 0, **metadata: str) -> list[Endpoint]:
    return [
        Endpoint(f"10.0.0.{index}", 80, locality=locality, metadata=metadata, priority=priority)
        for index, locality in enumerate(localities)
    ]


PLACES = (
    HERE,
    Locality("region1", "zone1", "subzone2"),
    Locality("region1", "zone2", "subzone1"),
    Locality("region2", "zone1", "subzone1"),
    Locality("region3", "zone1", "subzone1"),
)


def test_the_nearest_come_first() -> None:
    assert priorities(at(*PLACES), LoadBalancing(failover=True), HERE) == [0, 1, 2, 3, 3]


def test_a_region_fails_over_to_the_one_that_is_named() -> None:
    settings = LoadBalancing(failover=(FailoverRegion("region1", "region3"), FailoverRegion("region2", "region1")))
    assert priorities(at(*PLACES), settings, HERE) == [0, 1, 2, 4, 3]
    assert locality_distance(Locality("region9"), PLACES[3], (FailoverRegion("region1", "region3"),)) == 3


def test_priorities_have_no_gaps() -> None:
    assert priorities(at(PLACES[1], PLACES[4]), LoadBalancing(failover=True), HERE) == [0, 1]
    ends = [*at(HERE, priority=7), *at(HERE, priority=2), *at(HERE, priority=7)]
    assert priorities(ends, LoadBalancing()) == [1, 0, 1]
    assert priorities([], LoadBalancing(failover=True), HERE) == []


@pytest.mark.parametrize(
    ("order", "theirs", "distance"),
    [
        (("a", "b", "c"), {"a": "1", "b": "1", "c": "1"}, 0),
        (("a", "b", "c"), {"a": "1", "b": "1", "c": "2"}, 1),
        (("a", "b", "c"), {"a": "1", "b": "2", "c": "1"}, 2),
        (("a", "b", "c"), {"a": "2", "b": "1", "c": "1"}, 3),
        (("a", "b", "c"), {}, 3),
        (("z", "a"), {"a": "1"}, 0),
        (("a=2", "b"), {"a": "2", "b": "1"}, 0),
        (("a=2", "b"), {"a": "1", "b": "1"}, 2),
        ((NETWORK, "a", "b"), {NETWORK: "n1", "a": "1", "b": "1"}, 0),
        ((NETWORK, "a", "b"), {NETWORK: "n2", "a": "1", "b": "1"}, 3),
        ((NETWORK, "a", "b"), {NETWORK: "n2", "a": "1", "b": "2"}, 4),
        ((NETWORK, "a", "b"), {NETWORK: "n2", "a": "2", "b": "1"}, 5),
        (("a", NETWORK), {"a": "1", NETWORK: "n2"}, 1),
    ],
)
def test_only_the_leading_run_of_labels_counts(order: tuple[str, ...], theirs: dict[str, str], distance: int) -> None:
    own = {"a": "1", "b": "1", "c": "1", NETWORK: "n1"}
    assert label_distance(order, own, theirs) == distance


def test_labels_of_the_locality_need_not_be_written() -> None:
    settings = LoadBalancing(failover_priority=("topology.kubernetes.io/region", "topology.kubernetes.io/zone"))
    assert priorities(at(*PLACES), settings, HERE) == [0, 0, 1, 2, 2]


def test_labels_come_before_localities_and_a_priority_of_its_own_before_both() -> None:
    settings = LoadBalancing(failover=True, failover_priority=("version=v2",))
    ends = [*at(HERE, PLACES[3], version="v1"), *at(HERE, PLACES[3], version="v2")]
    ends += at(HERE, priority=1, version="v2")
    assert priorities(ends, settings, HERE) == [2, 3, 0, 1, 4]
