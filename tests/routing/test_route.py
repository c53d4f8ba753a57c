"""Routes: the first that matches, header edits, and backends by weight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.settings import CallPolicy
from meshlib.routing.match import PathMatch, RequestView, RouteMatch
from meshlib.routing.route import Backend, HeaderEdits, Route, find_route
from meshlib.routing.split import draw

POLICY = CallPolicy()


def route(name: str, *paths: str) -> Route:
    return Route(name, (Backend("orders"),), POLICY, tuple(RouteMatch(PathMatch("prefix", path)) for path in paths))


def test_the_first_match_wins_and_no_match_at_all_is_every_request() -> None:
    routes = [route("a", "/a", "/x"), route("ab", "/ab"), route("rest")]
    found = [find_route(routes, RequestView("GET", path)) for path in ("/ab", "/x", "/y")]
    assert [each.name for each in found if each] == ["a", "a", "rest"]
    assert find_route(routes[:2], RequestView("GET", "/y")) is None
    assert routes[0].why_not(RequestView("GET", "/y")) == ("path '/y' is not prefix '/a'; path '/y' is not prefix '/x'")
    assert routes[2].why_not(RequestView("GET", "/y")) is None


def test_headers_are_removed_set_and_added_in_that_order() -> None:
    edits = HeaderEdits(frozenset({b"x-debug"}), ((b"x-canary", b"1"),), ((b"via", b"mesh"),))
    given = [(b"X-Debug", b"1"), (b"X-Canary", b"0"), (b"via", b"proxy")]
    assert edits.apply(given) == [(b"via", b"proxy"), (b"x-canary", b"1"), (b"via", b"mesh")]
    assert edits
    assert not HeaderEdits()


@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True),
    st.sets(st.integers(0, 5)),
)
def test_only_backends_with_weight_that_are_not_left_out_are_drawn(
    weights: list[float], chance: float, left_out: set[int]
) -> None:
    backends = [Backend(str(index), weight=weight) for index, weight in enumerate(weights)]
    left_out &= set(range(len(weights)))
    drawn = draw(backends, chance, frozenset(left_out))
    left = [index for index, weight in enumerate(weights) if weight > 0 and index not in left_out]
    if len(weights) == 1:
        assert drawn == (None if left_out else 0)
    elif left and sum(weights[index] for index in left) > 0:
        assert drawn in left
    else:
        assert drawn is None


@pytest.mark.parametrize(("chance", "drawn"), [(0.0, 0), (0.899, 0), (0.901, 1), (0.999, 1)])
def test_weights_are_shares(chance: float, drawn: int) -> None:
    assert draw([Backend("a", weight=90), Backend("b", weight=10)], chance) == drawn


def test_a_cluster_is_a_service_or_a_subset_of_it() -> None:
    assert (Backend("orders").cluster, Backend("orders", "v2").cluster) == ("orders", "orders/v2")
