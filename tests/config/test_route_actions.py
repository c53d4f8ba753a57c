"""What routes do, as it is written and compiled: fields, what they exclude, lists to hand over to."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.settings import ServiceSettings
from meshlib.errors import ConfigError
from meshlib.routing.actions import DirectResponse, Redirect, RegexRewrite, Rewrite, Sticky
from meshlib.routing.match import RequestView
from meshlib.routing.route import find_route

PREFIXED = [{"path": {"prefix": "/a"}}]


def compiled(routes: list[dict[str, Any]], *, service: dict[str, Any] | None = None, **top: Any) -> ServiceSettings:
    orders = {"endpoints": ["127.0.0.1:1"], "subsets": {"v1": {"v": "1"}}, "routes": routes, **(service or {})}
    return compile_config(load_mapping({"discovery": [], "services": {"orders": orders}, **top})).services["orders"]


def refused(routes: list[dict[str, Any]], **top: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        compiled(routes, **top)
    return str(caught.value)


def test_every_action_is_compiled() -> None:
    regex = {"pattern": "a(b)", "substitution": r"\1"}
    routes = [
        {"match": PREFIXED, "rewrite": {"prefix": "/n", "host": "other:81"}},
        {"match": PREFIXED, "rewrite": {"regex": regex}},
        {"match": PREFIXED, "redirect": {"path": "/n?a=b", "host": "h", "port": 81, "scheme": "https", "status": 308}},
        {"match": PREFIXED, "direct_response": {"status": 503, "body": "ä", "headers": {"X-By": "mesh"}}},
        {"match": PREFIXED, "backends": [{}, {"subset": "v1"}], "sticky": {"cookie": "user"}},
    ]
    made = compiled(routes).routes
    assert made[0].rewrite == Rewrite(prefix="/n", host="other:81")
    assert made[1].rewrite == Rewrite(regex=RegexRewrite("a(b)", r"\1"))
    assert made[2].reply == Redirect("/n?a=b", None, None, "h", 81, "https", 308)
    assert made[3].reply == DirectResponse(503, "ä".encode(), ((b"x-by", b"mesh"),))
    assert made[4].sticky == Sticky(cookie="user")
    assert [route.shapes for route in made[:5]] == [True, True, False, False, False]


def test_to_set_host_is_to_rewrite_it_and_a_written_rewrite_wins() -> None:
    edit = {"headers": {"request": {"set": {"Host": "set", "x": "1"}}}}
    routes = [edit, {**edit, "match": PREFIXED, "rewrite": {"host": "written"}}, {"backends": [edit]}]
    made = [compiled([route]).routes[0] for route in routes]
    assert [route.rewrite for route in made] == [Rewrite(host="set"), Rewrite(host="written"), None]
    assert made[0].request_edits.set == ((b"x", b"1"),)
    assert (made[2].backends[0].host, made[2].shapes) == ("set", True)


def test_null_is_no_timeout_and_what_is_not_written_is_the_services() -> None:
    service = {"timeout": "7s", "per_try_timeout": "2s", "body_idle_timeout": "3s"}
    none = {"timeout": None, "per_try_timeout": None, "body_idle_timeout": None}
    routes = compiled([{"match": PREFIXED, **none}, {"match": PREFIXED}], service=service).routes
    times = [(route.policy.timeout_s, route.policy.per_try_timeout_s, route.policy.body_idle_s) for route in routes]
    assert times == [(None, None, None), (7, 2, 3), (7, 2, 3)]


def test_lists_take_the_place_of_the_route_that_hands_over_and_its_policy_is_under_theirs() -> None:
    sets = {
        "team": [
            {"name": "slow", "match": [{"path": {"prefix": "/a/slow"}}], "timeout": "9s"},
            {"match": [{"method": "PUT"}], "delegate": "writes"},
            {"name": "rest"},
        ],
        "writes": [{"direct_response": {"status": 405}}],
    }
    routes = [
        {"name": "a", "match": PREFIXED, "delegate": "team", "timeout": "4s", "retry": {"max_retries": 1}},
        {"name": "b", "backends": [{"subset": "v1"}]},
    ]
    made = compiled(routes, route_sets=sets).routes
    assert [route.name for route in made] == ["a/slow", "a/route-2/route-1", "a/rest", "b", "default"]
    assert [(route.policy.timeout_s, route.policy.retry.max_retries) for route in made[:3]] == [(9, 1), (4, 1), (4, 1)]
    taken = {}
    for method, path in (("GET", "/a/slow"), ("PUT", "/a/x"), ("GET", "/a/x"), ("PUT", "/b")):
        route = find_route(made, RequestView(method, path))
        taken[method, path] = route.name if route else None
    assert list(taken.values()) == ["a/slow", "a/route-2/route-1", "a/rest", "b"]


def test_lists_that_nobody_uses_are_allowed_and_checked() -> None:
    compiled([{}], route_sets={"later": [{"rewrite": {"prefix": "/x"}}]})
    text = refused([{}], route_sets={"later": [{"backends": [{"weight": 0}]}]})
    assert "route_sets.later[0].backends: the weights sum to zero" in text


def test_values_of_headers_are_sent_in_utf_8_as_by_envoy() -> None:
    edits = {"request": {"set": {"x-city": "Łódź"}}, "response": {"add": {"x-by": "é"}}}
    (route, _) = compiled([{"match": PREFIXED, "headers": edits}]).routes
    assert route.request_edits.set == ((b"x-city", "Łódź".encode()),)
    assert route.response_edits.add == ((b"x-by", b"\xc3\xa9"),)


@pytest.mark.parametrize(
    ("route", "field", "text"),
    [
        ({"redirect": {"host": "h"}, "backends": [{}]}, "backends", "excludes 'redirect': nobody is called"),
        ({"redirect": {"host": "h"}, "rewrite": {"path": "/x"}}, "rewrite", "excludes 'redirect'"),
        ({"redirect": {"host": "h"}, "direct_response": {"status": 200}}, "redirect", "excludes 'direct_response'"),
        ({"direct_response": {"status": 200}, "mirror": {}}, "mirror", "excludes 'direct_response'"),
        ({"direct_response": {"status": 200}, "delegate": "team"}, "delegate", "excludes 'direct_response'"),
        ({"delegate": "team", "backends": [{}]}, "backends", "excludes 'delegate'"),
        ({"rewrite": {"prefix": "/n"}}, "rewrite.prefix", "no match has one"),
        ({"match": [{"path": {"exact": "/a"}}], "redirect": {"prefix": "/n"}}, "redirect.prefix", "no match has one"),
        ({"rewrite": {"path": "/n", "regex": {"pattern": "a", "substitution": "b"}}}, "rewrite", "has path and regex"),
        ({"rewrite": {}}, "rewrite", "rewrites nothing"),
        ({"rewrite": {"path": "/a b"}}, "rewrite.path", "percent-encoded"),
        ({"rewrite": {"path": "/a?b"}}, "rewrite.path", "is more than a path"),
        ({"rewrite": {"regex": {"pattern": "a(b)", "substitution": r"\2"}}}, "rewrite.regex", r"uses \2"),
        ({"redirect": {"path": "/a#b"}}, "redirect.path", "is not a path"),
        ({"redirect": {"status": 300}}, "redirect.status", "301, 302, 303, 307, 308"),
        ({"redirect": {"host": "a:1", "port": 2}}, "redirect.port", "is in 'host' already"),
        ({"direct_response": {"status": 199}}, "direct_response.status", "greater than or equal to 200"),
        ({"direct_response": {"status": 600}}, "direct_response.status", "less than or equal to 599"),
        ({"direct_response": {"status": 204, "body": "x"}}, "direct_response.body", "a response 204 has none"),
        ({"sticky": {"header": "x"}}, "sticky", "does nothing: there is one backend"),
        ({"sticky": {"header": "x", "cookie": "y"}, "backends": [{}, {}]}, "sticky", "has header and cookie"),
        ({"headers": {"request": {"add": {"host": "x"}}}}, "headers", "edits host"),
        ({"headers": {"request": {"set": {"no good": "x"}}}}, "headers.request.set", "is not the name of a header"),
        ({"mirror": {"subset": "v9"}}, "mirror.subset", "those of 'orders' are: v1"),
        ({"mirror": [{"subset": "v9"}]}, "mirror[0].subset", "those of 'orders' are: v1"),
        ({"delegate": "tea"}, "delegate", "did you mean 'team'?"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(route: dict[str, Any], field: str, text: str) -> None:
    told = refused([route], route_sets={"team": [{}]})
    assert f"services.orders.routes[0].{field}" in told
    assert text in told


def test_circles_and_what_grows_without_measure_are_refused() -> None:
    circle = {"a": [{"delegate": "b"}], "b": [{"match": PREFIXED}, {"delegate": "c"}], "c": [{"delegate": "b"}]}
    assert "route_sets.b[1].delegate: goes round in a circle: b to c to b" in refused([{}], route_sets=circle)
    assert "goes round in a circle: a to a" in refused([{}], route_sets={"a": [{"delegate": "a"}]})
    each = {"match": [{"method": "GET"}, {"method": "PUT"}]}
    double = {f"s{n}": [{**each, "delegate": f"s{n + 1}"}] * 2 for n in range(20)}
    named = {name: [{**route, "name": f"r{n}"} for n, route in enumerate(routes)] for name, routes in double.items()}
    assert "more than 100000 routes" in refused([{"delegate": "s0"}], route_sets={**named, "s20": [{}]})
    deep = {f"s{n}": [{"delegate": f"s{n + 1}"}] for n in range(40)}
    assert "from list to list more than 32 times" in refused([{"delegate": "s0"}], route_sets={**deep, "s40": [{}]})


def test_a_list_is_checked_with_the_policy_that_it_is_laid_over() -> None:
    sets = {"team": [{"per_try_timeout": "40s"}]}
    compiled([{"delegate": "team", "timeout": "1m"}], route_sets=sets)
    assert "route_sets.team[0].per_try_timeout: 40s is above timeout" in refused(
        [{"delegate": "team"}], route_sets=sets
    )


def test_bodies_and_header_values_are_in_no_repr() -> None:
    config = load_mapping({"services": {"orders": {"routes": [{"direct_response": {"status": 200, "body": "hush"}}]}}})
    assert "hush" not in repr(config)
    assert "hush" not in repr(compile_config(config))
