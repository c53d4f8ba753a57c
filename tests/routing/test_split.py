"""Draws that go by something of the request: the same user at the same backend, and few move with the weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.routing.actions import Sticky
from meshlib.routing.match import RequestView
from meshlib.routing.route import Backend
from meshlib.routing.split import draw, draw_again, draw_of

USERS = [f"user-{number}" for number in range(4000)]
BY_USER = Sticky(header="x-user")


def shares(*weights: float) -> list[Backend]:
    return [Backend("orders", f"v{index}", weight) for index, weight in enumerate(weights)]


def drawn(user: str, backends: list[Backend], left_out: frozenset[int] = frozenset()) -> int | None:
    by = draw_of(BY_USER, RequestView("GET", "/", headers={"x-user": user}), None)
    assert by is not None
    return draw(backends, draw_again(by, len(left_out)) if left_out else by, left_out)


def test_users_stay_and_shares_are_as_the_weights() -> None:
    first = [drawn(user, shares(10, 90)) for user in USERS]
    assert first == [drawn(user, shares(10, 90)) for user in USERS]
    assert 0.08 < first.count(0) / len(USERS) < 0.12


def test_only_the_share_that_changes_hands_moves() -> None:
    before, after = ([drawn(user, shares(*weights)) for user in USERS] for weights in ((10, 90), (20, 80)))
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert {*moved} == {(1, 0)}
    assert 0.08 < len(moved) / len(USERS) < 0.12
    assert before == [drawn(user, shares(1, 9)) for user in USERS]  # the same weights in other words


def test_without_its_backend_a_user_has_another_one_that_stays() -> None:
    users = [user for user in USERS[:500] if drawn(user, shares(50, 25, 25)) == 0]
    second = [drawn(user, shares(50, 25, 25), frozenset({0})) for user in users]
    assert 0.4 < second.count(1) / len(users) < 0.6
    assert second == [drawn(user, shares(50, 25, 25), frozenset({0})) for user in users]


@pytest.mark.parametrize(
    ("sticky", "value"),
    [
        (Sticky(header="x-user"), "h"),
        (Sticky(cookie="user"), "c"),
        (Sticky(query="user"), "q"),
        (Sticky(hash_key=True), "k"),
    ],
)
def test_what_a_draw_may_go_by(sticky: Sticky, value: str) -> None:
    request = RequestView("GET", "/", "user=q", {"x-user": "h", "cookie": "a=b; user=c"})
    by_header = draw_of(Sticky(header="x-user"), RequestView("GET", "/", headers={"x-user": value}), None)
    assert draw_of(sticky, request, "k") == by_header
    assert draw_of(sticky, RequestView("GET", "/"), None) is None


def test_the_point_of_a_value_is_its_xxhash64() -> None:
    # xxHash64 of "a" with seed 0, from the specification's own test tool: d24ec4f1a98c6e5b.
    by = draw_of(BY_USER, RequestView("GET", "/", headers={"x-user": "a"}), None)
    assert by == pytest.approx(0xD24EC4F1A98C6E5B / 2**64, abs=1e-15)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", 0), ("29", 0), ("30", 1), ("99", 1), ("100", 0), ("18446744073709551615", 0), (" +7 ", 0), ("129", 0)],
)
def test_a_number_is_the_draw_itself_modulo_the_weights(value: str, expected: int) -> None:
    by = draw_of(Sticky(number="x-draw"), RequestView("GET", "/", headers={"x-draw": value}), None)
    assert isinstance(by, int)
    assert draw(shares(30, 70), by) == expected


@pytest.mark.parametrize("value", ["", "-1", "1.5", "x", "18446744073709551616", "1,2", "0x10"])
def test_what_is_no_number_of_64_bits_leaves_it_to_chance(value: str) -> None:
    assert draw_of(Sticky(number="x-draw"), RequestView("GET", "/", headers={"x-draw": value}), None) is None


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 10**6), min_size=2, max_size=5).filter(any))
def test_numbers_fall_where_they_fall_in_whole_weights(number: int, weights: list[int]) -> None:
    point, expected = number % sum(weights), 0
    while point >= weights[expected]:
        point -= weights[expected]
        expected += 1
    assert draw(shares(*weights), number) == expected


def test_fractions_of_weights_do_no_harm() -> None:
    assert {draw(shares(0.25, 0.5), number) for number in range(100)} == {0, 1}
