"""Names of hosts and wildcards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshlib.routing.hosts import HostTable, hosts_meet, is_part_of

ROWS = json.loads((Path(__file__).parents[1] / "data" / "istio_names_and_paths.json").read_text())["host_match"]


@pytest.mark.parametrize(("one", "other", "expected"), ROWS["matches_intersect"])
def test_names_meet_as_in_istio(one: str, other: str, expected: bool) -> None:
    assert hosts_meet(one, other) is expected


@pytest.mark.parametrize(("one", "other", "expected"), ROWS["subset_of"])
def test_names_are_part_of_others_as_in_istio(one: str, other: str, expected: bool) -> None:
    assert is_part_of(one, other) is expected


@pytest.mark.parametrize(
    ("wide", "narrow", "is_covered", "is_met"),
    [
        ("*", "foo.com", True, True),
        ("*", "*.com", True, True),
        ("*.com", "foo.com", True, True),
        ("*.foo.com", "foo.com", False, False),
        ("foo.com", "*.com", False, True),
        ("*.foo.com", "*.com", False, True),
        ("*.com", "*.foo.com", True, True),
        ("foo.com", "bar.com", False, False),
        ("foo.com", "foo.com", True, True),
    ],
)
def test_a_wildcard_covers_names_below_it(wide: str, narrow: str, is_covered: bool, is_met: bool) -> None:
    # From the comments in Istio's pkg/config/host/name.go.
    assert is_part_of(narrow, wide) is is_covered
    assert hosts_meet(wide, narrow) is hosts_meet(narrow, wide) is is_met


HOSTS = (
    *("orders", "Orders.Internal:8080", "orders.internal", "a.example.com", "dot.example.com."),
    *("*.example.com", "*.b.example.com", "*.b.example.com:8443", "*.example.com:9000", "[::1]:80"),
)


@pytest.mark.parametrize(
    ("name", "port", "found"),
    [
        ("orders", None, "orders"),
        ("orders", 80, "orders"),
        ("orders.internal", 8080, "Orders.Internal:8080"),
        ("orders.internal", 80, "orders.internal"),
        ("a.example.com", 9000, "a.example.com"),
        ("c.example.com", 80, "*.example.com"),
        ("x.y.z.example.com", 80, "*.example.com"),
        ("c.example.com", 9000, "*.example.com:9000"),
        ("c.b.example.com", 80, "*.b.example.com"),
        ("c.b.example.com", 8443, "*.b.example.com:8443"),
        ("c.b.example.com", 9000, "*.b.example.com"),
        ("b.example.com", 80, "*.example.com"),
        ("example.com", 80, None),
        ("notexample.com", 80, None),
        ("com", None, None),
        ("", None, None),
        ("a.example.com.", 80, "a.example.com"),
        ("dot.example.com", 80, "dot.example.com."),
        ("c.example.com.", 80, "*.example.com"),
        ("..", 80, None),
    ],
)
def test_the_most_specific_is_found(name: str, port: int | None, found: str | None) -> None:
    assert HostTable((host, host) for host in HOSTS).find(name, port) == found


def test_an_asterisk_is_every_name_and_comes_last() -> None:
    table = HostTable([("*", "all"), ("*:8080", "at 8080"), ("*.com", "com"), ("b", "b")])
    assert [table.find(name, port) for name, port in (("a.com", 8080), ("a.org", 8080), ("a", None), ("b", 8080))] == [
        *("com", "at 8080"),
        *("all", "b"),
    ]
    assert HostTable[str]([]).find("a.b", 80) is None
