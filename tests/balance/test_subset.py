"""Subsets by metadata: the matrix of fallbacks, as in Envoy's subset_test.cc."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.settings import LoadBalancing, SessionAffinity, SubsetSelector, SubsetSettings
from meshlib.balance.subset import chosen
from tests.core import NOW

HOSTS: dict[str, dict[str, str]] = {
    "a": {"version": "1.0", "stage": "prod"},
    "b": {"version": "1.0", "stage": "dev"},
    "c": {"version": "1.1", "stage": "prod"},
    "d": {"stage": "prod", "zones": "x, y"},
}


def cluster_of(
    *selectors: SubsetSelector,
    health: Mapping[str, Health] = MappingProxyType({}),
    panic_percent: float = 50.0,
    session_affinity: SessionAffinity | None = None,
    **fields: Any,
) -> Cluster:
    balancing = LoadBalancing(
        policy="round_robin",
        panic_percent=panic_percent,
        subset=SubsetSettings(selectors, **fields),
        session_affinity=session_affinity,
    )
    state = ClusterState("orders", now=NOW, load_balancing=balancing)
    hosts = [
        Endpoint(name, 80, metadata=metadata, health=health.get(name, Health.HEALTHY))
        for name, metadata in HOSTS.items()
    ]
    return state.view(hosts, NOW, Random(1))


def hosts(cluster: Cluster, **match: str) -> str:
    """Whom calls with these metadata reach."""
    rng, part = Random(1), chosen(cluster, tuple(sorted(match.items())))
    picked = [part.pick(NOW, rng) for _ in range(30)]
    return "".join(sorted({member.endpoint.host for member in picked if member is not None}))


VERSION = SubsetSelector(("version",))
BOTH = SubsetSelector(("version", "stage"))


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"version": "1.0"}, "ab"),
        ({"version": "1.1"}, "c"),
        ({"version": "1.0", "stage": "prod"}, "a"),
        ({"version": "1.1", "stage": "dev"}, ""),  # nobody
        ({"stage": "prod"}, ""),  # no selector of these keys
        ({"version": "1.0", "stage": "prod", "more": "x"}, ""),
        ({"version": "2"}, ""),
        ({}, ""),
    ],
)
def test_the_keys_of_a_call_are_exactly_those_of_a_selector(match: dict[str, str], expected: str) -> None:
    assert hosts(cluster_of(VERSION, BOTH), **match) == expected


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [("none", ""), ("any", "abcd"), ("default", "a")],
)
def test_the_fallback_takes_what_makes_no_subset(fallback: Any, expected: str) -> None:
    cluster = cluster_of(VERSION, fallback=fallback, default={"stage": "prod", "version": "1.0"})
    for match in ({"version": "9"}, {"stage": "prod"}, {}):
        assert hosts(cluster, **match) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (SubsetSelector(("version",), "none"), ""),
        (SubsetSelector(("version",), "any"), "abcd"),
        (SubsetSelector(("version",), "default"), "b"),
        (SubsetSelector(("version",)), "abcd"),
    ],
)
def test_a_selector_has_a_fallback_of_its_own(selector: SubsetSelector, expected: str) -> None:
    cluster = cluster_of(selector, fallback="any", default={"stage": "dev"})
    assert hosts(cluster, version="9") == expected
    assert hosts(cluster, stage="prod") == "abcd"  # not its keys, so not its fallback


def test_a_selector_may_fall_back_to_fewer_keys() -> None:
    stage = SubsetSelector(("stage",), "none")
    both = SubsetSelector(("stage", "version"), "keys", ("stage",))
    cluster = cluster_of(stage, both, fallback="any")
    assert hosts(cluster, stage="prod", version="1.1") == "c"
    assert hosts(cluster, stage="prod", version="9") == "acd"
    assert hosts(cluster, stage="x", version="9") == ""


def test_a_subset_whose_endpoints_are_all_down_is_one_still() -> None:
    down = dict.fromkeys(("a", "b"), Health.UNHEALTHY)
    cluster = cluster_of(VERSION, fallback="any", health=down)
    assert hosts(cluster, version="1.0") == "ab"  # in panic
    assert chosen(cluster, (("version", "1.0"),)).panicking()
    assert not chosen(cluster, (("version", "1.1"),)).panicking()


def test_all_are_used_where_the_fallback_has_nobody_well() -> None:
    for any_, expected in ((False, ""), (True, "acd")):
        cluster = cluster_of(
            VERSION,
            fallback="default",
            default={"stage": "dev"},
            panic_mode_any=any_,
            health={"b": Health.UNHEALTHY},
            panic_percent=0.0,
        )
        assert hosts(cluster, version="9") == expected


def test_metadata_may_be_lists() -> None:
    zones = SubsetSelector(("zones", "stage"))
    cluster = cluster_of(zones, list_as_any=True)
    assert [hosts(cluster, zones=zone, stage="prod") for zone in ("x", "y", "z", "x, y")] == ["d", "d", "", ""]
    assert hosts(cluster_of(zones), zones="x, y", stage="prod") == "d"


def test_a_cluster_without_selectors_is_not_divided() -> None:
    state = ClusterState("orders", now=NOW)
    cluster = state.view([Endpoint("a", 80)], NOW, Random(1))
    assert chosen(cluster, (("version", "1"),)) is cluster


def test_a_part_knows_what_it_is_and_is_made_once() -> None:
    cluster = cluster_of(VERSION, fallback="any")
    part = chosen(cluster, (("version", "1.1"),))
    assert part is chosen(cluster, (("version", "1.1"),))
    assert part.how(part.members[0]) == "subset version=1.1"
    assert chosen(cluster, ()).how(part.members[0]) == "fallback any"
    cluster.after_fork(NOW, Random(2))
    assert part is not chosen(cluster, (("version", "1.1"),))


def test_ejections_count_where_they_are_and_probes_stay_in_the_subset() -> None:
    cluster = cluster_of(VERSION, fallback="none")
    outlier = cluster.state.outlier
    assert outlier is not None
    for _ in range(5):
        outlier.failed(cluster.members[0], NOW)
    assert hosts(cluster, version="1.0") == "b"
    assert hosts(cluster, version="1.1") == "c"
    later = NOW + 100
    part, other = chosen(cluster, (("version", "1.0"),)), chosen(cluster, (("version", "1.1"),))
    assert outlier.due(later, True, (), other.own) is None
    lease = outlier.due(later, True, (), part.own)
    assert lease is not None
    assert lease.member.endpoint.host == "a"


KEYS = st.sampled_from(["k", "l", "m"])
VALUES = st.sampled_from(["1", "2", "1,2"])


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(KEYS, VALUES), max_size=8),
    st.lists(
        st.builds(
            SubsetSelector,
            st.sets(KEYS, min_size=1).map(lambda keys: tuple(sorted(keys))),
            st.sampled_from([None, "none", "any", "default", "keys"]),
            st.sets(KEYS).map(tuple),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["none", "any", "default"]),
    st.dictionaries(KEYS, VALUES),
    st.booleans(),
    st.dictionaries(KEYS, VALUES),
)
def test_nothing_raises_whatever_selectors_say(
    metadata: list[dict[str, str]],
    selectors: list[SubsetSelector],
    fallback: Any,
    default: dict[str, str],
    flag: bool,
    match: dict[str, str],
) -> None:
    subset = SubsetSettings(tuple(selectors), fallback, default, flag, flag)
    state = ClusterState("orders", now=NOW, load_balancing=LoadBalancing(subset=subset))
    cluster = state.view([Endpoint(f"h{at}", 80, metadata=one) for at, one in enumerate(metadata)], NOW, Random(1))
    part = chosen(cluster, tuple(sorted(match.items())))
    picked = part.pick(NOW, Random(1))
    assert (picked is None) is (not part.members)
    if part.label.startswith("subset"):
        assert picked is not None
        keys = [text.partition("=")[0] for text in part.label.removeprefix("subset ").split(", ")]
        assert set(keys) <= set(match)
        assert all(flag or picked.endpoint.metadata[key] == match[key] for key in keys if "," not in match[key])


def test_a_session_is_not_bound_to_an_endpoint_outside_of_the_subset() -> None:
    cluster = cluster_of(VERSION, fallback="any", session_affinity=SessionAffinity())
    sessions = cluster.state.sessions
    assert sessions is not None
    part = chosen(cluster, (("version", "1.0"),))
    assert sessions.member_at("a:80", part.own) is cluster.members[0]
    assert sessions.member_at("c:80", part.own) is None
    assert sessions.member_at("c:80", cluster.own) is cluster.members[2]
