"""What would behave differently between two configurations."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.difference import Difference, differences
from meshlib.config.load import load_mapping
from meshlib.config.settings import MeshSettings


def settings(config: dict[str, Any]) -> MeshSettings:
    return compile_config(load_mapping(config, environ={}))


def said(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [str(each) for each in differences(settings(before), settings(after))]


def orders(**fields: Any) -> dict[str, Any]:
    return {"services": {"orders": fields}}


BETA: dict[str, Any] = {"name": "beta", "match": [{"path": {"prefix": "/beta"}}]}
SLOW: dict[str, Any] = {"name": "slow", "match": [{"path": {"prefix": "/slow"}}]}
SUBSETS = {"subsets": {"v1": {"version": "1"}, "v2": {"version": "2"}}}


def split(*weights: float) -> list[dict[str, Any]]:
    return [{"subset": f"v{index}", "weight": weight} for index, weight in enumerate(weights, 1)]


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "the same": (orders(timeout="2s"), orders(timeout=2), []),
    "another way to write the same": (
        {"defaults": {"timeout": "2s"}, "services": {"orders": {}}},
        {"defaults": {"timeout": "2s"}, "services": {"orders": {"timeout": "2s"}}},
        [],
    ),
    "a timeout": (orders(timeout="2s"), orders(timeout="1s"), ["orders: timeout 2s -> 1s"]),
    "no timeout": (orders(), orders(timeout=None), ["orders: timeout 30s -> none"]),
    "a timeout of all, told once": (
        orders(routes=[BETA, SLOW], timeout="2s"),
        orders(routes=[BETA, SLOW], timeout="1s"),
        ["orders: timeout 2s -> 1s"],
    ),
    "a timeout of one route": (
        orders(routes=[{**BETA, "timeout": "2s"}]),
        orders(routes=[{**BETA, "timeout": "1s"}]),
        ["orders / route beta: timeout 2s -> 1s"],
    ),
    "a field of a part": (
        orders(retry={"backoff": {"base": "10ms"}}),
        orders(retry={"backoff": {"base": "20ms"}, "on": [503]}),
        [
            "orders: retry.on 502, 503, 504, connect-failure, reset, retry-after -> 503",
            "orders: retry.backoff.base 10ms -> 20ms",
        ],
    ),
    "a part switched off": (orders(), orders(circuit_breaker=False), ["orders: circuit_breaker on -> off"]),
    "a part switched on": (
        orders(),
        orders(hedge={"after": "p99", "max_extra_percent": 2}),
        ["orders: hedge off -> on (after p99, max_extra_percent 2 %)"],
    ),
    "another kind of a part": (
        orders(throttle={"algorithm": "sre"}),
        orders(throttle={"algorithm": "nack", "threshold_percent": 20}),
        ["orders: throttle on (throttle) -> on (nack, threshold_percent 20 %)"],
    ),
    "a share": (
        orders(**SUBSETS, routes=[{**BETA, "backends": split(95, 5)}]),
        orders(**SUBSETS, routes=[{**BETA, "backends": split(90, 10)}]),
        [
            "orders / route beta: 90 % of calls go to orders/v1 instead of 95 %",
            "orders / route beta: 10 % of calls go to orders/v2 instead of 5 %",
        ],
    ),
    "the host of a backend": (
        orders(**SUBSETS, routes=[{**BETA, "backends": [{"subset": "v1"}]}]),
        orders(
            **SUBSETS,
            routes=[{**BETA, "backends": [{"subset": "v1", "headers": {"request": {"set": {"host": "v1.example"}}}}]}],
        ),
        ["orders / route beta: the host for orders/v1 as it is -> v1.example"],
    ),
    "weights in other numbers": (
        orders(**SUBSETS, routes=[{**BETA, "backends": split(9, 1)}]),
        orders(**SUBSETS, routes=[{**BETA, "backends": split(90, 10)}]),
        [],
    ),
    "a new route": (
        orders(routes=[BETA]),
        orders(routes=[BETA, SLOW]),
        ["orders / route slow: the route for path prefix '/slow' is new"],
    ),
    "a new route without a name moves nobody": (
        orders(routes=[{"match": BETA["match"]}]),
        orders(routes=[{"match": SLOW["match"]}, {"match": BETA["match"]}]),
        ["orders / route route-1: the route for path prefix '/slow' is new"],
    ),
    "a route that is gone": (
        orders(routes=[BETA, SLOW]),
        orders(routes=[SLOW]),
        ["orders / route beta: the route for path prefix '/beta' is gone"],
    ),
    "the order of routes": (
        orders(routes=[BETA, SLOW]),
        orders(routes=[SLOW, BETA]),
        ["orders: order of routes beta, slow, default -> slow, beta, default"],
    ),
    "a condition": (
        orders(routes=[BETA]),
        orders(routes=[{**BETA, "match": SLOW["match"]}]),
        ["orders / route beta: match path prefix '/beta' -> path prefix '/slow'"],
    ),
    "another name": (
        orders(routes=[BETA]),
        orders(routes=[{**BETA, "name": "b"}]),
        ["orders / route beta: name beta -> b"],
    ),
    "a mirror": (
        orders(routes=[BETA]),
        orders(routes=[{**BETA, "mirror": {"service": "shadow", "percent": 5}}]),
        ["orders / route beta: mirror none -> service shadow, percent 5 %"],
    ),
    "an answer": (
        orders(routes=[{**BETA, "direct_response": {"status": 503}}]),
        orders(routes=[{**BETA, "direct_response": {"status": 404}}]),
        ["orders / route beta: answer.status 503 -> 404"],
    ),
    "a service": (
        {"services": {"a": {}, "b": {}}},
        {"services": {"b": {}, "c": {}}},
        ["a: the service is gone", "c: the service is new"],
    ),
    "defaults": (
        {"services": {"orders": {"timeout": "1s"}}},
        {"defaults": {"timeout": "5s"}, "services": {"orders": {"timeout": "1s"}}},
        ["services not declared: timeout 30s -> 5s"],
    ),
    "the mesh": (
        {"mode": "observe", "domains": ["*.mesh"]},
        {"mode": "on", "domains": ["*.mesh", "*.shop"]},
        ["mesh: mode observe -> on", "mesh: domains *.mesh -> *.mesh, *.shop"],
    ),
    "discovery": (
        {},
        {"discovery": [{"consul": {"datacenter": "dc2"}}, {"local": {}}]},
        ["mesh: discovery local -> consul (datacenter dc2); local"],
    ),
    "endpoints": (
        orders(endpoints=["a:1", "b:1"]),
        orders(endpoints=[{"address": "b:1", "weight": 2}, "c:1"]),
        [
            "orders: the endpoint a:1 is gone",
            "orders: endpoints.b:1.weight 1 -> 2",
            "orders: the endpoint c:1 is new",
        ],
    ),
    "where endpoints come from": (
        orders(endpoints=["a:1"]),
        orders(),
        ["orders: endpoints 1 written -> discovery"],
    ),
    "a subset": (
        orders(subsets={"v1": {"version": "1"}}),
        orders(subsets={"v1": {"version": "1.1"}, "v2": {"version": "2"}}),
        ["orders: subsets.v1.metadata version 1 -> version 1.1", "orders: the subset v2 is new"],
    ),
    "a policy of a service is not told for each subset": (
        orders(**SUBSETS, circuit_breaker={"min_calls": 5}),
        orders(**SUBSETS, circuit_breaker={"min_calls": 6}),
        ["orders: circuit_breaker.min_calls 5 -> 6"],
    ),
    "hosts": (orders(hosts=["a:1"]), orders(hosts=["b:1"]), ["orders: hosts a:1 -> b:1"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_different_is_said_in_words(name: str) -> None:
    before, after, expected = CASES[name]
    assert said(before, after) == expected


@pytest.mark.parametrize("name", CASES)
def test_nothing_differs_from_itself_and_what_came_one_way_goes_the_other(name: str) -> None:
    before, after, _ = CASES[name]
    assert said(before, before) == said(after, after) == []
    back = differences(settings(after), settings(before))
    there = differences(settings(before), settings(after))
    assert len(back) == len(there)
    swapped = {"added": "removed", "removed": "added", "changed": "changed"}
    assert sorted((each.field, swapped[each.change]) for each in back if each.field != "name" and not each.route) == (
        sorted((each.field, each.change) for each in there if each.field != "name" and not each.route)
    )


def test_no_secret_is_shown() -> None:
    def with_secret(text: str) -> dict[str, Any]:
        match = {"headers": {"authorization": {"exact": text}}, "cookies": {"id": {"exact": text}}}
        return {
            "redis": {"url": f"redis://:{text}@127.0.0.1/0"},
            "discovery": [{"consul": {"token": text}}],
            "services": {
                "orders": {
                    "tls": {"cert_file": "a.pem", "key_file": f"{text}.pem"},
                    "health_check": {"http": {}},
                    "routes": [
                        {
                            "name": "a",
                            "match": [match],
                            "headers": {"request": {"set": {"x-a": text}}},
                            "backends": [{"headers": {"response": {"add": {"x-b": text}}}}],
                        },
                        {"name": "b", "direct_response": {"status": 200, "body": text, "headers": {"x-c": text}}},
                    ],
                }
            },
        }

    found = differences(settings(with_secret("first-secret")), settings(with_secret("second-secret")))

    fields = {each.field for each in found}
    assert {"redis.url", "tls.key_file", "match", "headers.request.set.x-a"} <= fields
    assert {"backends.orders.headers.response.add.x-b", "answer.body", "answer.headers"} <= fields
    assert "secret" not in "".join(map(str, found)) + "".join(str(each.to_dict()) for each in found)
    assert "request header x-a is set to another value" in [each.text for each in found]


def test_as_json_it_has_what_is_said_in_parts() -> None:
    (found,) = differences(settings(orders(timeout="2s")), settings(orders(timeout="1s")))
    assert found.to_dict() == {
        "service": "orders",
        "route": "",
        "field": "timeout",
        "change": "changed",
        "before": "2s",
        "after": "1s",
        "text": "timeout 2s -> 1s",
    }
    assert isinstance(found, Difference)
