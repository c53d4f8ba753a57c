"""A route in the place of the one that hands over: both conditions, and what it does not say itself."""

from __future__ import annotations

from meshlib.policy.settings import CallPolicy
from meshlib.routing.actions import DirectResponse, Mirror, Rewrite, Sticky
from meshlib.routing.delegation import delegated
from meshlib.routing.match import PathMatch, RequestView, RouteMatch
from meshlib.routing.route import Backend, HeaderEdits, Route

POLICY = CallPolicy()
ONE, TWO = (Backend("orders"),), (Backend("orders", "v1"), Backend("orders", "v2"))
EDITS = HeaderEdits(set=((b"x-by", b"outer"),))
V2, GET = RouteMatch(PathMatch("prefix", "/v2")), RouteMatch(methods=frozenset({"GET"}))
OUTER = Route("team", ONE, POLICY, (V2,), EDITS, EDITS, None, Rewrite(prefix="/"), None, (Mirror("copy"),), Sticky("x"))


def test_both_conditions_hold() -> None:
    inner = delegated(OUTER, Route("reads", ONE, POLICY, (GET,)))
    asked = [RequestView(method, path) for method, path in (("GET", "/v2/x"), ("PUT", "/v2/x"), ("GET", "/v1"))]
    assert [inner.accepts(request) for request in asked] == [True, False, False]
    assert "prefix '/v2'" in (inner.why_not(asked[2]) or "")
    assert inner.name == "team/reads"


def test_each_of_several_conditions_meets_each() -> None:
    outer = Route("o", ONE, POLICY, (V2, RouteMatch(PathMatch("prefix", "/v3"))))
    inner = delegated(outer, Route("i", ONE, POLICY, (GET, RouteMatch(methods=frozenset({"PUT"})))))
    asked = [(method, path) for method in ("GET", "PUT", "DELETE") for path in ("/v2", "/v3", "/v4")]
    taken = [each for each in asked if inner.accepts(RequestView(*each))]
    assert taken == [(method, path) for method in ("GET", "PUT") for path in ("/v2", "/v3")]


def test_without_conditions_on_one_side_those_of_the_other_hold() -> None:
    assert delegated(OUTER, Route("all", ONE, POLICY)).matches == (V2,)
    assert delegated(Route("all", ONE, POLICY), Route("i", ONE, POLICY, (GET,))).matches == (GET,)


def test_what_it_does_not_say_it_takes_from_the_one_that_hands_over() -> None:
    inner = delegated(OUTER, Route("two", TWO, POLICY))
    assert (inner.request_edits, inner.rewrite, inner.mirrors) == (EDITS, Rewrite(prefix="/"), (Mirror("copy"),))
    assert (inner.sticky, inner.backends) == (Sticky("x"), TWO)
    assert delegated(OUTER, Route("one", ONE, POLICY)).sticky is None
    own = HeaderEdits(remove=frozenset({b"x"}))
    inner = delegated(OUTER, Route("own", ONE, POLICY, response_edits=own, rewrite=Rewrite(path="/own")))
    assert (inner.request_edits, inner.response_edits, inner.rewrite) == (HeaderEdits(), own, Rewrite(path="/own"))


def test_an_answer_takes_edits_alone() -> None:
    inner = delegated(OUTER, Route("no", ONE, POLICY, reply=DirectResponse(404)))
    assert (inner.rewrite, inner.mirrors, inner.sticky, inner.response_edits) == (None, (), None, EDITS)


def test_nested_conditions_all_hold() -> None:
    innermost = delegated(
        OUTER, delegated(Route("mid", ONE, POLICY, (GET,)), Route("in", ONE, POLICY, (RouteMatch(headers=()),)))
    )
    assert innermost.name == "team/mid/in"
    assert innermost.accepts(RequestView("GET", "/v2"))
    assert not innermost.accepts(RequestView("PUT", "/v2"))
    assert not innermost.accepts(RequestView("GET", "/v1"))
