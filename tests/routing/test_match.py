"""Matches: which requests a route is for, and why not."""

from __future__ import annotations

import pytest

from meshlib.routing.match import PathKind, PathMatch, RequestView, RouteMatch, StringKind, StringMatch


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        ("exact", "/v2", ["/v2"], ["/v2/", "/v", "/V2"]),
        ("prefix", "/v2", ["/v2", "/v2/x", "/v20"], ["/v1", "/"]),
        ("path_prefix", "/v2", ["/v2", "/v2/", "/v2/x"], ["/v20", "/v", "/"]),
        ("path_prefix", "/v2/", ["/v2", "/v2/", "/v2/x"], ["/v20"]),
        ("path_prefix", "/", ["/", "/x"], []),
        ("regex", "/v[12]", ["/v1", "/v2"], ["/v3", "/v1/x", "x/v1"]),
        ("template", "/orders/{id}", ["/orders/42"], ["/orders/", "/orders/4/2", "/orders"]),
        ("template", "/o.{a}/{b}/z", ["/o.1/2/z"], ["/oX1/2/z", "/o.1//z"]),
    ],
)
def test_paths(kind: PathKind, value: str, yes: list[str], no: list[str]) -> None:
    match = PathMatch(kind, value)
    assert [path for path in yes + no if match.matches(path)] == yes


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        ("exact", "a", ["a"], ["A", "ab", "", None]),
        ("prefix", "a", ["a", "ab"], ["ba", None]),
        ("suffix", "a", ["a", "ba"], ["ab", None]),
        ("regex", "a+", ["aaa"], ["b", "aab", None]),
        ("present", "", ["", "x"], [None]),
    ],
)
def test_values(kind: StringKind, value: str, yes: list[str | None], no: list[str | None]) -> None:
    for inverted in (False, True):
        match = StringMatch(kind, value, invert=inverted)
        assert [each for each in yes + no if match.matches(each)] == (no if inverted else yes)
    assert str(StringMatch("present", invert=True)) == "not present"


def test_all_conditions_must_hold_and_the_first_that_does_not_is_told() -> None:
    match = RouteMatch(
        path=PathMatch("path_prefix", "/v2"),
        methods=frozenset({"GET"}),
        headers=(("end-user", StringMatch("exact", "jason")),),
        query=(("debug", StringMatch("present")),),
    )

    def request(method: str = "GET", path: str = "/v2/x", query: str = "debug=", user: str = "jason") -> RequestView:
        return RequestView(method, path, query, {"end-user": user})

    assert match.matches(request())
    assert match.why_not(request()) is None
    for other, words in [
        (request(method="POST"), "method POST is not GET"),
        (request(path="/v1"), "path '/v1' is not path_prefix '/v2'"),
        (request(user="eve"), "header end-user is 'eve', not exact 'jason'"),
        (request(query="x=1"), "query parameter debug is absent, not present"),
    ]:
        assert not match.matches(other)
        assert match.why_not(other) == words


def test_of_a_repeated_parameter_the_first_counts() -> None:
    assert RequestView("GET", "/", "a=1&a=2&b=%20&c").parameters == {"a": "1", "b": " ", "c": ""}


@pytest.mark.parametrize(
    "name", ["authorization", "Proxy-Authorization", "cookie", "x-api-key", "x-csrf-token", "sessionid"]
)
def test_why_not_shows_no_secrets(name: str) -> None:
    match = RouteMatch(headers=((name, StringMatch("exact", "Bearer expected")),))
    in_query = RouteMatch(query=((name, StringMatch("prefix", "Bearer expected")),))
    request = RequestView("GET", "/", f"{name}=given", {name: "Bearer given"})
    for words in (match.why_not(request), in_query.why_not(request)):
        assert words is not None
        assert name in words
        assert "given" not in words
        assert "expected" not in words
