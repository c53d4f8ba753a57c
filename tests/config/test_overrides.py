"""``overrides``: what compiles, what is refused with its field named, and that the key is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.choose import read_settings
from meshlib.errors import ConfigError
from meshlib.routing.override_settings import AllowedOverride, OverrideSettings

KEY = "abcdefghijklmnop-secret"


def compiled(overrides: Any) -> OverrideSettings | None:
    return read_settings({"overrides": overrides}, {}).overrides


def test_every_field_compiles() -> None:
    allow = [{"service": "users", "to": ["users-dev-*", "sandbox"]}, {"service": "*", "to": "lab"}]
    rest = {"header": "X-Dev", "addresses": ["10.8.0.0/16"], "peers": "any", "missing": "fail", "max_age": "2h"}
    settings = compiled({"key": [KEY, KEY + "2"], "allow": allow, **rest})
    assert settings == OverrideSettings(
        "x-dev",
        (KEY, KEY + "2"),
        (AllowedOverride("users", ("users-dev-*", "sandbox")), AllowedOverride("*", ("lab",))),
        ("10.8.0.0/16",),
        "any",
        "fail",
        7200.0,
    )
    assert KEY not in repr(settings)
    assert compiled({"key": KEY}) == OverrideSettings(key=(KEY,))


@pytest.mark.parametrize("nothing", [None, False])
def test_it_is_off_unless_written(nothing: Any) -> None:
    assert compiled(nothing) is None
    assert read_settings({}, {}).overrides is None


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        ({}, "overrides", "neither 'key' nor 'allow'"),
        ({"key": "", "allow": [{"service": "a", "to": "b"}]}, "overrides.key", "too short"),
        ({"key": "short-secret"}, "overrides.key", "too short"),
        ({"key": [KEY, 3]}, r"overrides.key\[1\]", "not text"),
        ({"kez": KEY}, "overrides.kez", "'key'"),
        ({"allow": [{"service": "users"}]}, "overrides", "by nothing"),
        ({"allow": [{"service": "U", "to": "b"}]}, r"overrides.allow\[0\].service", "name of a service"),
        ({"allow": [{"service": "a", "to": ["b c"]}]}, r"overrides.allow\[0\].to\[0\]", "name of a service"),
        ({"allow": [{"service": "a", "to": "b"}], "addresses": ["10.0.0.0/8"]}, "overrides", "'addresses' without"),
        ({"allow": [{"service": "a", "to": "b"}], "peers": "any"}, "overrides", "'peers: any' without"),
        ({"key": KEY, "addresses": ["10.0.0.1/8"]}, r"overrides.addresses\[0\]", "10.0.0.0/8"),
        ({"key": KEY, "header": "host"}, "overrides.header", "meaning of its own"),
        ({"key": KEY, "header": "a b"}, "overrides.header", "name of a header"),
        ({"key": KEY, "missing": "ignore"}, "overrides.missing", "fallback"),
        ({"key": KEY, "max_age": "0s"}, "overrides.max_age", "0"),
    ],
)
def test_what_is_wrong_is_refused_and_no_key_is_shown(overrides: Any, path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{path}: .*{words}") as caught:
        compiled(overrides)
    assert "secret" not in str(caught.value)
