"""Overrides: what is believed of the header, and what is not."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.context import Override, current_scope
from meshlib.dataclass import replace
from meshlib.routing.override import (
    MAX_LENGTH,
    MAX_PAIRS,
    address_of,
    overriding,
    permits,
    read_override,
    sign_override,
)
from meshlib.routing.override_settings import AllowedOverride, OverrideSettings

KEY, OTHER = "a" * 32, "b" * 32
NOW = 1_700_000_000.0
SIGNED = OverrideSettings(key=(KEY,))
BY_NAME = OverrideSettings(allow=(AllowedOverride("users", ("users-dev-*",)), AllowedOverride("*", ("sandbox",))))


def _signed(pairs: Mapping[str, str] | None = None, key: str = KEY, for_s: float = 3600.0) -> str:
    return sign_override(pairs or {"users": "users-dev-alice"}, key, expires_at=NOW + for_s)


def test_a_signature_is_the_hmac_of_what_stands_before_it() -> None:
    text = sign_override({"users": "users-dev-alice", "billing": "10.8.0.9:8080"}, KEY, expires_at=1767225600.9)
    payload, _, signature = text.rpartition("; @sig=")
    assert payload == "users=users-dev-alice; billing=10.8.0.9:8080; @exp=1767225600"
    digest = hmac.digest(KEY.encode(), b"meshlib-override-1\n" + payload.encode(), "sha256")
    assert signature == urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_what_is_signed_is_believed_and_travels_as_it_is() -> None:
    text = _signed({"users": "users-dev-alice", "billing": "billing-dev"})
    override = read_override([text], SIGNED, NOW)
    pairs = (("users", "users-dev-alice"), ("billing", "billing-dev"))
    assert override == Override(pairs, text, NOW + 3600)
    assert text not in repr(override)
    assert "@sig" not in repr(override)
    loose = text.replace("; ", " ;\t")
    assert read_override([loose], SIGNED, NOW) == override


def test_each_of_several_keys_will_do_so_that_they_can_be_rotated() -> None:
    both = OverrideSettings(key=(OTHER, KEY))
    assert isinstance(read_override([_signed()], both, NOW), Override)
    assert isinstance(read_override([_signed(key=OTHER)], both, NOW), Override)
    assert read_override([_signed(key="c" * 32)], both, NOW) == "wrong signature"
    assert KEY not in repr(both)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("users=users-dev-alice", "unsigned"),
        (_signed().replace("alice", "mallory"), "wrong signature"),
        (_signed().replace(f"@exp={int(NOW) + 3600}", f"@exp={int(NOW) + 7200}"), "wrong signature"),
        (_signed(key=OTHER), "wrong signature"),
        (_signed().replace("users=", "users=x; users2=", 1), "wrong signature"),
        (_signed(for_s=0.0), "expired"),
        (_signed(for_s=-10.0), "expired"),
        (_signed(for_s=86_401.0), "valid for too long"),
        (_signed() + "; billing=x", "malformed"),
        (_signed().replace("; @sig=", "; @sig=A"), "malformed"),
        (_signed().partition("; @sig=")[0], "malformed"),
        ("users=x; @sig=" + "A" * 43, "malformed"),
        ("users=x; @sig=" + "A" * 43 + "; @exp=1", "malformed"),
        ("users=x; @exp=-1; @sig=" + "A" * 43, "malformed"),
        ("users=x; @exp=١; @sig=" + "A" * 43, "malformed"),
    ],
)
def test_what_is_not_signed_as_it_should_be_is_not_believed(text: str, why: str) -> None:
    assert read_override([text], SIGNED, NOW) == why


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "=",
        "users",
        "users=",
        "=users",
        "users=a; users=b",
        "users=a;",
        "Users=a",
        "users=A",
        "users=a,b",
        "users=a\r\nx-evil: 1",
        "users=a\nb",
        "users=a\x00",
        "users=ａ",
        "usérs=a",
        "users=../../etc",
        "users=http://evil",
        "users=evil/path",
        "users=user@evil",
        "users=[::1",
        "users=10.0.0.256:80",
        "users=10.0.0.1:0",
        "users=10.0.0.1:65536",
        "users=evil.com:80",
        "users=[::1%eth0]:80",
        "users=" + "a" * 300,
        "; ".join(f"s{n}=t{n}" for n in range(MAX_PAIRS + 1)),
        "users=a" + " " * MAX_LENGTH,
        "@exp=1; @sig=" + "A" * 43,
    ],
)
def test_what_is_malformed_says_nothing(text: str) -> None:
    for settings in (SIGNED, BY_NAME):
        assert read_override([text], settings, NOW) == "malformed"
    with pytest.raises(ValueError, match="users-dev-alice"):
        overriding(text)


def test_a_header_that_comes_twice_or_joined_says_nothing() -> None:
    assert read_override([_signed(), _signed()], SIGNED, NOW) == "malformed"
    assert read_override([f"{_signed()},{_signed()}"], SIGNED, NOW) == "malformed"
    assert read_override(["users=users-dev-a,users=users-dev-b"], BY_NAME, NOW) == "malformed"


def test_a_huge_header_is_refused_before_it_is_looked_at() -> None:
    huge = "users=" + "a;" * 5_000_000
    began = time.process_time()
    assert read_override([huge], SIGNED, NOW) == "malformed"
    assert time.process_time() - began < 0.05


def test_by_name_only_what_is_allowed_here_is_taken_and_passed_on() -> None:
    text = "users=users-dev-alice; billing=billing-prod; orders=sandbox; stock=10.8.0.9:80"
    override = read_override([text], BY_NAME, NOW)
    assert override == Override(
        (("users", "users-dev-alice"), ("orders", "sandbox")), "users=users-dev-alice; orders=sandbox"
    )
    assert read_override(["billing=billing-prod"], BY_NAME, NOW) == "not allowed"
    assert read_override(["users=users"], BY_NAME, NOW) == "not allowed"


def test_what_is_signed_travels_whole_though_not_all_is_allowed_here() -> None:
    settings = OverrideSettings(key=(KEY,), allow=BY_NAME.allow)
    text = _signed({"users": "users-dev-alice", "billing": "billing-prod"})
    override = read_override([text], settings, NOW)
    assert isinstance(override, Override)
    assert override.text == text
    assert permits(settings, "users", "users-dev-alice")
    assert not permits(settings, "billing", "billing-prod")


def test_addresses_are_allowed_only_where_they_are_signed_and_in_a_network() -> None:
    settings = OverrideSettings(key=(KEY,), addresses=("10.8.0.0/16", "fd00::/8"))
    assert permits(settings, "users", "10.8.0.9:8080")
    assert permits(settings, "users", "[fd00::1]:80")
    assert not permits(settings, "users", "10.9.0.9:8080")
    assert not permits(settings, "users", "169.254.169.254:80")
    assert not permits(settings, "users", "[::ffff:10.8.0.9]:80")
    assert not permits(SIGNED, "users", "10.8.0.9:8080")
    assert not permits(replace(BY_NAME, addresses=("0.0.0.0/0",)), "users", "10.8.0.9:8080")
    narrowed = replace(settings, allow=(AllowedOverride("users", ()),))
    assert permits(narrowed, "users", "10.8.0.9:8080")
    assert not permits(narrowed, "billing", "10.8.0.9:8080")
    assert address_of("[fd00::1]:80") == ("fd00::1", 80)


def test_without_a_key_and_without_a_list_nothing_is_allowed() -> None:
    assert read_override(["users=users-dev-alice"], OverrideSettings(), NOW) == "not allowed"


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        ({}, {}),
        ({"Users": "a"}, {}),
        ({"users": "a b"}, {}),
        ({"users": "a; @exp=1"}, {}),
        ({"users": "a"}, {"key": ""}),
        ({"users": "a"}, {"expires_at": -1.0}),
        ({"users": "a"}, {"expires_at": float("nan")}),
        ({"users": "a"}, {"expires_at": float("inf")}),
        ({f"s{n}": "t" for n in range(MAX_PAIRS + 1)}, {}),
        ({f"s{n}" * 40: "t" * 200 for n in range(MAX_PAIRS)}, {}),
    ],
)
def test_nothing_is_signed_that_would_not_be_read(pairs: dict[str, str], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        sign_override(pairs, **{"key": KEY, "expires_at": NOW, **options})


def test_code_can_override_for_what_it_calls() -> None:
    text = _signed()
    with overriding(text):
        inside = current_scope().override
    assert inside == Override((("users", "users-dev-alice"),), text, NOW + 3600)
    assert current_scope().override is None

    @overriding("users=users-dev-alice")
    def call() -> Override | None:
        return current_scope().override

    assert call() == Override((("users", "users-dev-alice"),), "users=users-dev-alice")


NAMES = st.from_regex(r"\A[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?\Z")


@given(st.dictionaries(NAMES, NAMES, min_size=1, max_size=8), st.floats(1.0, 86_000.0))
def test_all_that_can_be_signed_is_read_as_it_was_meant(pairs: dict[str, str], for_s: float) -> None:
    override = read_override([_signed(pairs, for_s=for_s)], SIGNED, NOW)
    assert isinstance(override, Override)
    assert dict(override.pairs) == pairs


@given(st.text(max_size=200))
def test_any_text_is_an_answer_and_never_an_error(text: str) -> None:
    for settings in (SIGNED, BY_NAME):
        assert isinstance(read_override([text], settings, NOW), (str, Override))


@given(st.integers(0, 150), st.integers(1, 127))
def test_a_signed_one_with_a_changed_character_is_not_believed(at: int, by: int) -> None:
    text = _signed()
    at %= len(text)
    changed = text[:at] + chr(ord(text[at]) ^ by) + text[at + 1 :]
    override = read_override([changed], SIGNED, NOW)
    # A space for another kind of space is no change; nor are the bits of base64 that lie beyond the digest.
    assert isinstance(override, str) or (override.pairs == (("users", "users-dev-alice"),) and override.text == text)
