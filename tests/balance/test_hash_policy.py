"""What a call's hash is made of, as Envoy makes it."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.balance.cookies import cookie_value, set_cookie
from meshlib.balance.hash_policy import hash_of_call, hash_of_key
from meshlib.balance.hashing import xxh64
from meshlib.balance.settings import HashCookie, HashOn

USER, QUERY, SOURCE = HashOn(header="x-user"), HashOn(query="user"), HashOn(source=True)
HEADERS = {"x-user": "ann", "cookie": 'a=1; session="s-7"; session=s-8'}


def hash_of(*policies: HashOn, query: str = "", source: str = "", headers: dict[str, str] = HEADERS) -> int | None:
    return hash_of_call(policies, headers, query, source, Random(1))[0]


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        (USER, "ann"),
        (HashOn(cookie=HashCookie("session")), "s-7"),
        (QUERY, "b%20c"),
        (HashOn(query="empty"), ""),
        (HashOn(query="flag"), ""),
        (SOURCE, "10.0.0.9"),
    ],
    ids=str,
)
def test_each_property_is_hashed_as_it_was_sent(policy: HashOn, value: str) -> None:
    query = "x=1&user=b%20c&user=d&empty=&flag"
    assert hash_of(policy, query=query, source="10.0.0.9") == xxh64(value.encode()) == hash_of_key(value)


@pytest.mark.parametrize(
    "policy", [HashOn(header="x-none"), HashOn(cookie=HashCookie("none")), QUERY, SOURCE, HashOn()], ids=str
)
def test_what_is_not_there_makes_no_hash(policy: HashOn) -> None:
    assert hash_of(policy) is None
    assert hash_of(policy, USER) == hash_of_key("ann")


def test_hashes_are_folded_with_a_turn_of_one_bit() -> None:
    ann, bob = hash_of_key("ann"), hash_of_key("bob")
    turned = (ann << 1 | ann >> 63) & (2**64 - 1)
    assert hash_of(USER, QUERY, query="user=bob") == turned ^ bob
    assert hash_of(USER, USER) == turned ^ ann != 0


def test_a_terminal_policy_ends_the_list_if_there_is_a_hash() -> None:
    last = HashOn(header="x-user", terminal=True)
    assert hash_of(last, QUERY, query="user=bob") == hash_of_key("ann")
    assert hash_of(last, QUERY, query="user=bob", headers={}) == hash_of_key("bob")


def test_a_cookie_with_a_lifetime_is_made_for_calls_without_one() -> None:
    policy = HashOn(cookie=HashCookie("route", ttl_s=60.0, path="/shop"))
    made, cookies = hash_of_call([policy], {}, "", "", Random(1))
    value = cookies[0].split('"')[1]
    assert cookies == (f'route="{value}"; Max-Age=60; Path=/shop; HttpOnly',)
    assert len(value) == 16
    assert made == hash_of_key(value)
    assert hash_of_call([policy], {"cookie": f'route="{value}"'}, "", "", Random(2)) == (made, ())
    assert hash_of_call([policy], {}, "", "", Random(2))[0] != made


def test_a_cookie_that_ends_with_the_session_has_no_age() -> None:
    assert set_cookie("route", "x", "", 0.0) == 'route="x"; HttpOnly'
    assert set_cookie("route", "x", "/", 0.5) == 'route="x"; Path=/; HttpOnly'


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("route=a", "a"),
        (" other=1;route=a ;route=b", "a"),
        ('route="a"', "a"),
        ('route="', '"'),
        ("route=a=b", "a=b"),
        ("route", ""),
        ("xroute=1; routex=2", ""),
        ("", ""),
        (";;=;", ""),
    ],
)
def test_cookies_are_read(header: str, value: str) -> None:
    assert cookie_value(header, "route") == value


def test_any_text_has_a_hash() -> None:
    assert hash_of_key("grüß") == xxh64("grüß".encode())
    assert hash_of_key("\ud800") != hash_of_key("\udcff")
