"""The cookie of session affinity."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.affinity import Sessions, affinity_cookie, applies, bound_to, status_of
from meshlib.balance.balancer import Member
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.health import EndpointHealth
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.settings import BoundStatus, LoadBalancing, SessionAffinity

SETTINGS = SessionAffinity("sticky-host", ttl_s=120.0)


def test_the_cookie_is_that_of_envoy() -> None:
    # The value is the example of Envoy's cookie.proto.
    assert affinity_cookie(SETTINGS, "1.2.3.4:80") == 'sticky-host="MS4yLjMuNDo4MA=="; Max-Age=120; Path=/; HttpOnly'
    assert bound_to(SETTINGS, 'a=1; sticky-host="MS4yLjMuNDo4MA=="') == "1.2.3.4:80"


def test_the_cluster_behind_the_address_is_passed_over() -> None:
    assert bound_to(SETTINGS, "sticky-host=MS4yLjMuNDo4MDtvcmRlcnM=") == "1.2.3.4:80"  # ...:80;orders


@pytest.mark.parametrize("value", ["", "%%%", "MS4", "/////w==", "A" * 4096, "Tm%C3%B6"])
def test_what_cannot_be_read_binds_nothing(value: str) -> None:
    assert bound_to(SETTINGS, f"sticky-host={value}") is None


@given(st.text())
def test_any_header_is_harmless(header: str) -> None:
    bound_to(SETTINGS, f"sticky-host={header}")


@pytest.mark.parametrize(
    ("own", "path", "expected"),
    [
        ("/", "/any", True),
        ("", "/any", True),
        ("/shop", "/shop", True),
        ("/shop", "/shop/cart", True),
        ("/shop", "/shopping", False),
        ("/shop/", "/shop/cart", True),
        ("/shop/", "/shop", False),
        ("/shop", "/", False),
    ],
)
def test_the_cookie_is_for_its_paths(own: str, path: str, expected: bool) -> None:
    assert applies(SessionAffinity("c", own), path) is expected


def member(reported: Health = Health.HEALTHY, **health: bool) -> Member:
    one = Member(Endpoint("10.0.0.1", 80, health=reported), EndpointNode(), Load(0.0, 0.03, 10.0), EndpointHealth())
    for name, value in health.items():
        setattr(one.health, name, value)
    return one


@pytest.mark.parametrize(
    ("one", "status"),
    [
        (member(), "healthy"),
        (member(Health.DEGRADED), "degraded"),
        (member(active_degraded=True), "degraded"),
        (member(Health.UNHEALTHY), "unhealthy"),
        (member(ejected=True), "unhealthy"),
        (member(active_failed=True, active_degraded=True), "unhealthy"),
        (member(Health.DRAINING, ejected=True), "draining"),
    ],
    ids=["well", "degraded", "check-degraded", "unhealthy", "ejected", "check-failed", "draining"],
)
def test_sessions_are_bound_to_members_of_the_chosen_statuses(one: Member, status: BoundStatus) -> None:
    assert status_of(one) == status
    bound, by_default = Sessions(SessionAffinity(statuses=(status,))), Sessions(SessionAffinity())
    assert bound.member_at("10.0.0.1:80") is None
    bound.rebind([one])
    by_default.rebind([one])
    assert bound.member_at("10.0.0.1:80") is one
    assert bound.member_at("10.0.0.2:80") is None
    assert bound.member_at(None) is None
    assert (bound.bound, bound.moved) == (1, 2)
    assert (by_default.member_at("10.0.0.1:80") is one) is (status in ("healthy", "degraded"))


def test_sessions_of_a_cluster_know_its_draining_members_and_follow_its_changes() -> None:
    affinity = SessionAffinity(statuses=("healthy", "draining"))
    state = ClusterState("orders", now=0.0, load_balancing=LoadBalancing(session_affinity=affinity))
    endpoints = [Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80, health=Health.DRAINING)]
    cluster = state.view(endpoints, 0.0, Random(1))
    assert state.sessions is not None
    assert state.sessions.member_at("10.0.0.2:80") in cluster.draining
    assert {cluster.pick(0.0, Random(seed)) for seed in range(20)} == {state.sessions.member_at("10.0.0.1:80")}
    state.view(endpoints[:1], 1.0, Random(1))
    assert state.sessions.member_at("10.0.0.2:80") is None
