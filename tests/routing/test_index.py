"""An index of routes finds what a scan finds."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.policy.settings import CallPolicy
from meshlib.routing.fields import HeaderFields
from meshlib.routing.index import MIN_INDEXED, RouteTable, literal_prefix
from meshlib.routing.match import PathMatch, RequestView, RouteMatch, StringMatch
from meshlib.routing.route import Backend, Route, find_route

POLICY, BACKENDS = CallPolicy(), (Backend("orders"),)
REGEXES = (
    *(".*", "/a.*", "/ab?", "/a|/b", "(?i)/a", "/(a|b)/.*", "^/a/b$", r"/x\-1", "/a[](]|/b", "/[^/]+/b", "/ab*"),
    *("/a{0}b", "(?i)/A/b*", "(?i)/ab|/b"),
)


class Maker:
    """Makes routes and requests of few letters, so that many meet."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)

    def path(self) -> str:
        return "/" + "/".join(self.rng.choices(["a", "b", "A", "ab", "", "x-1"], k=self.rng.randrange(4)))

    def path_match(self) -> PathMatch | None:
        kind = self.rng.choice((None, "exact", "prefix", "path_prefix", "regex", "template"))
        if kind is None:
            return None
        if kind == "regex":
            return PathMatch("regex", self.rng.choice(REGEXES))
        if kind == "template":
            parts = self.rng.choices(["a", "{x}", "a{y}", "ab"], k=self.rng.randrange(1, 4))
            return PathMatch("template", "/" + "/".join(parts))
        return PathMatch(kind, self.path(), self.rng.random() < 0.3)  # type: ignore[arg-type]

    def value(self) -> StringMatch:
        kind = self.rng.choice(("exact", "exact", "exact", "prefix", "suffix", "present"))
        flags = [self.rng.random() < 0.15 for _ in range(3)]
        return StringMatch(kind, self.rng.choice(("", "a", "b", "B")), *flags)

    def values(self, *names: str) -> tuple[tuple[str, StringMatch], ...]:
        return tuple((name, self.value()) for name in names if self.rng.random() < 0.3)

    def match(self, also: bool = True) -> RouteMatch:
        rng = self.rng
        return RouteMatch(
            self.path_match(),
            frozenset(rng.choices(("GET", "POST"), k=rng.choice((0, 0, 1, 2)))),
            self.values("h1", "h2"),
            self.values("q1"),
            self.values("c1"),
            rng.choice((None, None, "http", "https")),
            self.value() if rng.random() < 0.2 else None,
            rng.choice((None, None, None, 80, 81)),
            rng.choice((100.0, 100.0, 50.0)),
            rng.choice((None, None, None, None, "never")),
            self.match(also=False) if also and rng.random() < 0.2 else None,
            (self.match(also=False),) if also and rng.random() < 0.1 else (),
        )

    def request(self) -> RequestView:
        rng = self.rng
        pairs = [(rng.choice((b"h1", b"h2")), rng.choice((b"a", b"b", b""))) for _ in range(rng.randrange(4))]
        return RequestView(
            rng.choice(("GET", "POST", "PUT")),
            self.path(),
            rng.choice(("", "q1=a", "q1=b&q1=a")),
            HeaderFields([*pairs, (b"cookie", rng.choice((b"", b"c1=a", b"c1=b")))]),
            host=rng.choice("ab"),
            random=lambda: 0.5 - rng.choice((0.1, -0.1)),
        )


def table(matches: list[list[RouteMatch]]) -> list[Route]:
    return [Route(f"r{n}", BACKENDS, POLICY, tuple(each)) for n, each in enumerate(matches)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(MIN_INDEXED, 60), st.booleans())
def test_it_finds_the_first_route_that_matches(seed: int, size: int, ends: bool) -> None:
    """Of 10 000 requests, over 200 tables."""
    maker = Maker(seed)
    found = [[maker.match() for _ in range(maker.rng.choice((1, 1, 2)))] for _ in range(size)]
    routes = tuple(table([*found, []] if ends else found))
    indexed = RouteTable.of(routes)
    assert isinstance(indexed, RouteTable)
    assert indexed == routes
    for _ in range(50):
        request = maker.request()
        assert find_route(indexed, request) is find_route(routes, request)


def counted(match: RouteMatch, looked: list[int]) -> RouteMatch:
    """The same, and each look at its last condition is noted."""

    class Counting(StringMatch):
        def matches(self, value: str | None) -> bool:
            looked.append(1)
            return True

    return RouteMatch(
        match.path, match.methods, ((*match.headers, ("z", Counting("present", absent_as_empty=True)))), match.query
    )


@pytest.mark.parametrize(
    ("many", "request_"),
    [
        ([RouteMatch(PathMatch("exact", f"/s{n}/x")) for n in range(2000)], RequestView("GET", "/s1500/x")),
        ([RouteMatch(PathMatch("prefix", f"/s{n:04}/")) for n in range(2000)], RequestView("GET", "/s1500/x")),
        ([RouteMatch(PathMatch("path_prefix", f"/s{n}")) for n in range(2000)], RequestView("GET", "/s1500/x")),
        (
            [RouteMatch(PathMatch("template", f"/{{t}}/s{n}/{{id}}")) for n in range(2000)],
            RequestView("GET", "/t/s1500/7"),
        ),
        ([RouteMatch(PathMatch("regex", f"/s{n}/[^/]+")) for n in range(2000)], RequestView("GET", "/s1500/x")),
        ([RouteMatch(PathMatch("regex", f"(?i)/S{n}/[^/]+")) for n in range(2000)], RequestView("GET", "/s1500/x")),
        (
            [RouteMatch(PathMatch("prefix", "/"), headers=(("t", StringMatch("exact", str(n))),)) for n in range(2000)],
            RequestView("GET", "/", headers={"t": "1500"}),
        ),
        (
            [
                RouteMatch(
                    PathMatch("exact", "/x"),
                    frozenset({"GET" if n % 2 else "PUT"}),
                    query=(("t", StringMatch("exact", str(n // 2))),),
                )
                for n in range(2000)
            ],
            RequestView("PUT", "/x", "t=750"),
        ),
    ],
    ids=["exact", "prefix", "path_prefix", "template", "regex", "regex in any case", "header", "parameter and method"],
)
def test_of_many_routes_few_are_looked_at(many: list[RouteMatch], request_: RequestView) -> None:
    looked: list[int] = []
    routes = table([[counted(match, looked)] for match in many])
    found = find_route(RouteTable.of(routes), request_)
    assert found is routes[1500]
    assert len(looked) < 15


def test_few_routes_are_no_table() -> None:
    assert type(RouteTable.of(table([[]] * (MIN_INDEXED - 1)))) is tuple


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("/a/b", "/a/b"),
        ("^/a/b$", "/a/b"),
        ("/ab*", "/a"),
        ("/ab?", "/a"),
        ("/ab{2}", "/a"),
        ("/ab+", "/ab"),
        (r"/a\.b\d", "/a.b"),
        ("/a(b|c)d|e", ""),
        ("/a(b|c)d", "/a"),
        ("/a[|]b", "/a"),
        ("/a[](]|/b", ""),
        ("/a[^])]|/b", ""),
        (r"/a\|b", "/a|b"),
        (r"/a\Q|\E", ""),
        ("(?i)/a", ""),
        (".*", ""),
        ("", ""),
        ("*", ""),
        ("/a(", ""),
    ],
)
def test_what_a_regex_begins_with(pattern: str, text: str) -> None:
    assert literal_prefix(pattern) == text
