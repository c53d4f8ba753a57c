"""Matches: which requests a route is for, and why not. What Envoy does was asked of Envoy 1.40."""

from __future__ import annotations

import pytest

from meshlib.routing.fields import HeaderFields, Repeated
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


@pytest.mark.parametrize("kind", ["exact", "prefix", "path_prefix"])
def test_the_case_of_ascii_letters_can_be_ignored_in_paths(kind: PathKind) -> None:
    match = PathMatch(kind, "/Ab", ignore_case=True)
    assert [path for path in ("/ab", "/AB", "/aC") if match.matches(path)] == ["/ab", "/AB"]
    assert not PathMatch(kind, "/Ä", ignore_case=True).matches("/ä")
    assert str(match) == f"{kind} '/Ab', in any case"


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        ("exact", "a", ["a"], ["A", "ab", ""]),
        ("prefix", "a", ["a", "ab"], ["ba"]),
        ("suffix", "a", ["a", "ba"], ["ab"]),
        ("contains", "a", ["a", "bab"], ["", "b"]),
        ("regex", "a+", ["aaa"], ["b", "aab"]),
        ("present", "", ["", "x"], []),
    ],
)
def test_values(kind: StringKind, value: str, yes: list[str], no: list[str]) -> None:
    for inverted in (False, True):
        match = StringMatch(kind, value, invert=inverted)
        assert [each for each in yes + no if match.matches(each)] == (no if inverted else yes)
        assert [each for each in yes + no if match.matches_value(each)] == (no if inverted else yes)
    assert str(StringMatch("present", invert=True)) == "not present"


@pytest.mark.parametrize(
    ("match", "header", "cookie"),
    [
        (StringMatch("exact", "a"), False, False),
        (StringMatch("exact", "a", invert=True), False, True),
        (StringMatch("exact", "a", invert=True, absent_as_empty=True), True, True),
        (StringMatch("exact", "", absent_as_empty=True), True, True),
        (StringMatch("exact", ""), False, False),
        (StringMatch("present"), False, False),
        (StringMatch("present", invert=True), True, True),
        (StringMatch("present", absent_as_empty=True), True, True),
        (StringMatch("present", invert=True, absent_as_empty=True), False, False),
        (StringMatch("range", bounds=(1, 9), invert=True), False, True),
        (StringMatch("range", bounds=(0, 9), absent_as_empty=True), False, False),
    ],
    ids=str,
)
def test_what_is_not_there_meets_what_envoy_says(match: StringMatch, header: bool, cookie: bool) -> None:
    assert match.matches(None) is header
    assert match.matches_value(None) is cookie


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        *((value, True) for value in ("5", "+5", "-5", " 5\t", "05", "9", "-6")),
        *((value, False) for value in ("10", "-7", "5.0", "0x5", "5a", "", "1_0", "٥", "9" * 20, "9" * 5000)),
    ],
)
def test_a_range_is_of_whole_numbers_and_half_open(value: str, holds: bool) -> None:
    assert StringMatch("range", bounds=(-6, 10)).matches(value) is holds
    assert StringMatch("range", bounds=(-6, 10), invert=True).matches(value) is not holds


def test_numbers_of_more_than_64_bits_are_none() -> None:
    everything = StringMatch("range", bounds=(-(10**30), 10**30))
    assert [everything.matches(str(number)) for number in (2**63 - 1, 2**63, -(2**63), -(2**63) - 1)] == [
        *(True, False),
        *(True, False),
    ]


@pytest.mark.parametrize(("kind", "value"), [("exact", "abC"), ("prefix", "AB"), ("suffix", "bc"), ("contains", "B")])
def test_the_case_of_ascii_letters_can_be_ignored_in_values(kind: StringKind, value: str) -> None:
    match = StringMatch(kind, value, ignore_case=True)
    assert match.matches("aBc")
    assert not match.matches("xyz")
    assert str(match).endswith(", in any case")
    assert not StringMatch("exact", "Ü", ignore_case=True).matches("ü")


def test_of_a_repeated_header_one_value_is_enough_unless_it_is_one_list() -> None:
    fields = HeaderFields(
        [
            (b"X", b"a"),
            (b"x", b"b"),
            (b"Accept", b"a"),
            (b"accept", b""),
            (b"accept", b"b"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
        ]
    )
    value = fields["x"]
    assert isinstance(value, Repeated)
    assert (value, value.each) == ("a,b", ("a", "b"))
    for text, holds in (("a", True), ("b", True), ("c", False), ("a,b", False)):
        assert StringMatch("exact", text).matches(value) is holds
        assert StringMatch("exact", text, invert=True).matches(value) is not holds
    assert StringMatch("exact", "a,b").matches(fields["accept"])
    assert RequestView("GET", "/", headers=fields).cookies == {"a": "1", "b": "2"}
    spaced = RequestView("GET", "/", headers={"cookie": 'a=1 ;  b="2"; c = 3'})
    assert spaced.cookies == {"a": "1 ", "b": "2", "c ": " 3"}  # as Envoy reads them
    assert StringMatch("exact", "a,b").matches(HeaderFields([(b"x", b"a,b")])["x"])


def test_headers_are_read_when_somebody_asks() -> None:
    fields = HeaderFields([(b"X-User", "ä".encode()), (b"x-old", b"\xe4")])
    assert "x-user" in fields
    assert "x-none" not in fields
    assert (fields["x-user"], fields.get("x-old"), fields.get("x"), fields.get("x", "y")) == ("ä", "ä", None, "y")
    assert (list(fields), len(fields)) == (["x-user", "x-old"], 2)
    assert "x-user" in fields
    assert 5 not in fields
    with pytest.raises(KeyError):
        fields["x"]


def view(method: str = "GET", path: str = "/v2/x", query: str = "debug=", user: str = "jason") -> RequestView:
    return RequestView(method, path, query, {"end-user": user, "cookie": "u=x"}, host="orders", random=lambda: 0.5)


def test_all_conditions_must_hold_and_the_first_that_does_not_is_told() -> None:
    match = RouteMatch(
        path=PathMatch("path_prefix", "/v2"),
        methods=frozenset({"GET"}),
        headers=(("end-user", StringMatch("exact", "jason")),),
        query=(("debug", StringMatch("present")),),
    )
    assert match.matches(view())
    assert match.why_not(view()) is None
    for other, words in [
        (view(method="POST"), "method POST is not GET"),
        (view(path="/v1"), "path '/v1' is not path_prefix '/v2'"),
        (view(user="eve"), "header end-user is 'eve', not exact 'jason'"),
        (view(query="x=1"), "query parameter debug is absent, not present"),
    ]:
        assert not match.matches(other)
        assert match.why_not(other) == words


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (RouteMatch(scheme="http"), None),
        (RouteMatch(scheme="https"), "scheme http is not https"),
        (RouteMatch(port=80), None),
        (RouteMatch(port=81), "port 80 is not 81"),
        (RouteMatch(authority=StringMatch("exact", "orders")), None),
        (RouteMatch(authority=StringMatch("prefix", "x")), "authority is 'orders', not prefix 'x'"),
        (RouteMatch(cookies=(("u", StringMatch("exact", "x")),)), None),
        (
            RouteMatch(cookies=(("u", StringMatch("exact", "y")),)),
            "cookie u is there, and not as its exact condition says",
        ),
        (RouteMatch(percent=51.0), None),
        (RouteMatch(percent=50.0), "it takes 50 % of such requests, by chance, and not this one"),
        (RouteMatch(percent=0.0), "it takes 0 % of such requests, by chance, and not this one"),
        (RouteMatch(never="it is for others"), "it is for others"),
        (RouteMatch(also=RouteMatch(path=PathMatch("prefix", "/v2"))), None),
        (
            RouteMatch(also=RouteMatch(path=PathMatch("prefix", "/v3"))),
            "of the route that delegates to it: path '/v2/x' is not prefix '/v3'",
        ),
        (RouteMatch(also=RouteMatch(also=RouteMatch(never="no"))), "of the route that delegates to it: "),
        (RouteMatch(headers=(("n", StringMatch("range", bounds=(1, 3))),)), "header n is absent, not a whole number"),
    ],
)
def test_what_few_routes_ask_for(match: RouteMatch, words: str | None) -> None:
    assert match.matches(view()) is (words is None)
    assert (match.why_not(view()) or "").startswith(words or "")
    assert (match.why_not(view()) is None) is (words is None)


def test_one_number_is_drawn_for_a_request_and_only_if_a_route_asks() -> None:
    drawn: list[float] = []

    def random() -> float:
        drawn.append(0.3)
        return 0.3

    request = RequestView("GET", "/", random=random)
    assert RouteMatch(path=PathMatch("exact", "/")).matches(request)
    assert drawn == []
    assert not RouteMatch(percent=30.0).matches(request)
    assert RouteMatch(percent=31.0).matches(request)
    assert drawn == [0.3]
    assert RouteMatch(percent=0.1).matches(RequestView("GET", "/")), "where nothing draws, it is the first"


@pytest.mark.parametrize(
    ("port", "scheme", "headers", "authority"),
    [
        (None, "http", {}, "orders"),
        (8080, "http", {}, "orders:8080"),
        (None, "https", {"host": "Orders.Example:1"}, "Orders.Example:1"),
    ],
)
def test_the_authority_is_as_the_caller_wrote_it(
    port: int | None, scheme: str, headers: dict[str, str], authority: str
) -> None:
    request = RequestView("GET", "/", headers=headers, scheme=scheme, host="orders", port=port)
    assert request.authority == authority
    assert request.url_port == (port or {"http": 80, "https": 443}[scheme])


def test_parameters_are_as_sent_and_of_a_repeated_one_the_first_counts() -> None:
    assert RequestView("GET", "/", "a=1&a=2&b=%20&c&%20d=+&e=f=g").parameters == {
        **{"a": "1", "b": "%20", "c": ""},
        **{"%20d": "+", "e": "f=g"},
    }


def test_cookies_are_read_as_envoy_does() -> None:
    request = RequestView("GET", "/", headers={"cookie": 'u=x; u=y;q="z";n;s = t; e='})
    assert request.cookies == {"u": "x", "q": "z", "s ": " t", "e": ""}


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
