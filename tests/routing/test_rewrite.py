"""Rewriting paths: the Gateway API's table, Envoy's raw prefixes, and results that can always be sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.routing.actions import RegexRewrite, Rewrite
from meshlib.routing.match import PathKind, PathMatch, RequestView, RouteMatch
from meshlib.routing.rewrite import matched_path, rewrite_path

TABLE = json.loads((Path(__file__).parents[1] / "data" / "replace_prefix_match.json").read_text())["rows"]


@pytest.mark.parametrize(("path", "prefix", "new", "expected"), TABLE)
def test_prefixes_by_segment_as_the_gateway_api_says(path: str, prefix: str, new: str, expected: str) -> None:
    assert rewrite_path(Rewrite(prefix=new), path, PathMatch("path_prefix", prefix)) == expected


@pytest.mark.parametrize(
    ("kind", "value", "new", "path", "expected"),
    [
        ("prefix", "/foo", "/", "/foo/bar", "//bar"),
        ("prefix", "/foo/", "/", "/foo/bar", "/bar"),
        ("prefix", "/foo", "/x", "/foobar", "/xbar"),
        ("prefix", "/", "/x", "/foo", "/xfoo"),
        ("exact", "/foo", "/x", "/foo", "/x"),
        ("regex", "/f.*", "/x", "/foo", "/x"),
        ("template", "/f/{id}", "/x", "/f/1", "/x"),
    ],
)
def test_raw_prefixes_and_what_matched_as_a_whole_as_envoy_does(
    kind: PathKind, value: str, new: str, path: str, expected: str
) -> None:
    assert rewrite_path(Rewrite(prefix=new), path, PathMatch(kind, value)) == expected


def test_without_a_condition_on_the_path_the_prefix_is_the_first_slash() -> None:
    assert rewrite_path(Rewrite(prefix="/x/"), "/foo", None) == "/x/foo"


def test_whole_paths_and_expressions() -> None:
    assert rewrite_path(Rewrite(path="/one"), "/full/one/two", None) == "/one"
    swapped = Rewrite(regex=RegexRewrite("^/service/([^/]+)(/.*)$", r"\2/instance/\1"))
    # The example in the documentation of Envoy's regex_rewrite.
    assert rewrite_path(swapped, "/service/foo/v1/api", None) == "/v1/api/instance/foo"
    assert (
        rewrite_path(Rewrite(regex=RegexRewrite("one", "two")), "/xxx/one/yyy/one/zzz", None) == "/xxx/two/yyy/two/zzz"
    )
    assert rewrite_path(Rewrite(host="other"), "/same", None) == "/same"


@given(st.text(max_size=20), st.sampled_from(["prefix", "path_prefix", "exact"]), st.text(max_size=8))
def test_what_comes_of_it_is_a_path_in_ascii(new: str, kind: PathKind, text: str) -> None:
    substituted = RegexRewrite("/a", text.replace("\\", ""))
    for change in (Rewrite(path=new), Rewrite(prefix=new), Rewrite(regex=substituted)):
        path = rewrite_path(change, "/ab", PathMatch(kind, "/a"))
        assert path.isascii()
        assert path.startswith("/")


def test_the_prefix_is_that_of_the_match_that_held() -> None:
    a, b = RouteMatch(PathMatch("prefix", "/a"), methods=frozenset({"GET"})), RouteMatch(PathMatch("prefix", "/a/b"))
    assert matched_path((a, b), RequestView("GET", "/a/b")) is a.path
    assert matched_path((a, b), RequestView("PUT", "/a/b")) is b.path
    assert matched_path((a, b), RequestView("PUT", "/a")) is None
    assert matched_path((), RequestView("PUT", "/a")) is None
    handed_over = RouteMatch(methods=frozenset({"GET"}), also=a)
    assert matched_path((handed_over,), RequestView("GET", "/a/x")) is a.path
