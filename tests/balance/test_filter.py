"""Filter expressions: their grammar, and what of an endpoint they hold of."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.balance.endpoint import Endpoint
from meshlib.balance.filter import EndpointFilter, FilterError, parse_filter

ENDPOINTS = (
    Endpoint("127.0.0.1", 8000, metadata={"version": "v1", "tag.a": "true", "tag.b": "true"}),
    Endpoint("127.0.0.1", 8001, metadata={"version": "v2", "canary": "", "tag.b": "true"}),
    Endpoint("127.0.0.1", 8002),
    Endpoint("127.0.0.1", 8003, metadata={"version": "v1.5", "x": "1", "tag.a=1": "true", "tag.v2": "true"}),
)

HOLDS = [
    ("Service.Meta.version == v1", "0"),
    ("Service.Meta.version != v1", "123"),
    ('Service.Meta["version"]=="v1"', "0"),
    ("Service.Meta.version == `v1`", "0"),
    ('"a" in Service.Tags', "0"),
    ("a in Service.Tags", "0"),
    ("a not in Service.Tags", "123"),
    ('Service.Tags contains "a=1"', "3"),
    ("Service.Tags not contains b", "23"),
    ("version in Service.Meta", "013"),
    ("Service.Meta contains version", "013"),
    ('"version" not in Service.Meta', "2"),
    ("Service.Tags is empty", "2"),
    ("Service.Meta is not empty", "013"),
    ("Service.Meta.version not matches `^v1$`", "123"),
    ("Service.Meta.version matches `^v[12]$`", "01"),
    ("not Service.Meta.version == v1", "123"),
    ("not not a in Service.Tags", "0"),
    ("Service.Meta.version == v1 and a in Service.Tags or b in Service.Tags", "01"),
    ("Service.Meta.version == v1 and (a in Service.Tags or b in Service.Tags)", "0"),
    ("not (Service.Meta.version == v1 or Service.Meta.version == v2)", "23"),
    ("Service.Port == 8001", "1"),
    ('Service.Port == "8001"', "1"),
    ("Service.Port != 8001", "023"),
    ('Service.Meta.version == "v1.5"', "3"),
    ("Service.Meta.x == 1", "3"),
    ("Service.Meta.version contains v1", "03"),
    ("v1 in Service.Meta.version", "03"),
    ("Service.Meta.Version == v1", ""),
    ('Service.Meta["my-key"] == 1', ""),
    ('Service.Address == "127.0.0.1"', "0123"),
    ("", "0123"),
]
"""What Consul 1.8.7 answers to the same questions of the same four instances, by the last digit of their ports."""


@pytest.mark.parametrize(("text", "expected"), HOLDS)
def test_a_filter_holds_of_what_consul_finds_by_it(text: str, expected: str) -> None:
    holds = parse_filter(text).holds
    assert "".join(str(endpoint.port)[-1] for endpoint in ENDPOINTS if holds(endpoint)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Service.Meta.version == v1.5", "'.5' at character 27, which begins nothing"),
        ("Service.Meta.version == ", "ends where a value is expected"),
        ("Service.Meta.version == v1 and", "ends where a condition is expected"),
        ("()", r"'\)' at character 2, where a condition"),
        ("(a in Service.Tags", r"ends where '\)' is expected"),
        ("Service.Meta.version == v-1", "'-1' at character 26"),
        ("Service.Meta.version = v1", "'= v1' at character 22, which begins nothing"),
        ("a in Service.Tags AND b in Service.Tags", "'AND' at character 19, where the end, 'and' or 'or'"),
        ("Service.Tags is full", "'full' at character 17, where 'empty'"),
        ("Service.Tags not is empty", "'in', 'contains' or 'matches'"),
        ("Service.Tags", "ends where '=='"),
        ("Service.Tags == a", "has many values"),
        ("Service.Meta.version is empty", "only a list or a map"),
        ("Service.Meta.version matches `(`", "is not a regular expression"),
        ("Service.Tags matches a", "which is no text"),
        ("Service.Port contains 8", "which is a number"),
        ("Service.Port == http", "which is no port"),
        ("Meta.version == v1", "looks at 'Meta.version'; of an endpoint Service.Meta"),
        ('Node.Meta.rack == "1"', "looks at 'Node.Meta.rack'"),
        ("(" * 60 + "a in Service.Tags" + ")" * 60, "nested more than 50 levels"),
    ],
)
def test_what_is_no_filter_is_refused_with_the_place(text: str, why: str) -> None:
    with pytest.raises(FilterError, match=why):
        parse_filter(text)


def test_filters_of_one_text_are_equal_and_can_be_pickled() -> None:
    one = parse_filter("a in Service.Tags")
    again: EndpointFilter = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert again.holds(ENDPOINTS[0])
    assert one != parse_filter("b in Service.Tags")


WORDS = [
    "Service.Meta.a",
    "Service.Tags",
    "a",
    "and",
    "or",
    "not",
    "in",
    "is",
    "empty",
    "==",
    "!=",
    "(",
    ")",
    '"x"',
    "1",
]


@given(st.lists(st.sampled_from(WORDS), max_size=12) | st.text(max_size=40))
def test_any_text_is_a_filter_or_a_clear_error(words: list[str] | str) -> None:
    text = words if isinstance(words, str) else " ".join(words)
    with suppress(FilterError):
        assert parse_filter(text).holds(ENDPOINTS[0]) in (True, False)
