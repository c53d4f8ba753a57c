"""Settings in words: what people write, and no secret."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.words import match_words, plain, value_words
from meshlib.policy.settings import HedgeSettings, RetryPolicy


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ({"path": {"prefix": "/a", "ignore_case": True}}, "path prefix '/a', in any case"),
        ({"method": ["POST", "GET"]}, "method GET or POST"),
        ({"scheme": "https", "port": 8443}, "scheme https and port 8443"),
        ({"headers": {"n": {"range": [1, 5]}}}, "header n a whole number from 1 to below 5"),
        ({"headers": {"authorization": {"exact": "s3cr3t"}}}, "header authorization exact (not shown)"),
        ({"cookies": {"user": {"exact": "s3cr3t"}}}, "cookie user exact (not shown)"),
        ({"query": {"debug": {"present": True}}}, "query parameter debug present"),
        ({"percent": 10}, "percent 10 %"),
        ({"caller": {"namespace": "other"}}, "never ("),
    ],
)
def test_a_match_is_told_by_its_conditions(match: dict[str, Any], words: str) -> None:
    config = {"namespace": "shop", "services": {"orders": {"routes": [{"match": [match]}]}}}
    (compiled,) = compile_config(load_mapping(config, environ={})).services["orders"].routes[0].matches
    assert match_words(compiled).startswith(words)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        (1.5, "timeout_s", "1.5s"),
        (5.0, "max_extra_percent", "5 %"),
        (2.0, "weight", "2"),
        (None, "limit", "none"),
        (True, "http2", "true"),
        ("a b", "name", "'a b'"),
        ({"a": 1.0}, "percents_percent", "a 1 %"),
        (frozenset({"reset", 503}), "on", "503, reset"),
        (HedgeSettings(after=0.05), "hedge", "after 50ms"),
        (RetryPolicy(), "retry", "as by default"),
        ("x" * 300, "text", "x" * 197 + "..."),
    ],
)
def test_values_are_told_as_people_write_them(value: Any, field: str, words: str) -> None:
    assert value_words(value, field) == words


def test_what_is_secret_is_not_in_plain_values() -> None:
    config = {
        "redis": {"url": "redis://:s3cr3t@127.0.0.1/0"},
        "discovery": [{"consul": {"token": "s3cr3t"}}],
        "services": {"orders": {"routes": [{"headers": {"request": {"set": {"x": "s3cr3t"}}}}]}},
    }
    settings = compile_config(load_mapping(config, environ={}))

    told = plain(settings)

    assert "s3cr3t" not in str(told)
    assert told["services"]["orders"]["routes"][0]["policy"]["timeout_s"] == 30.0
