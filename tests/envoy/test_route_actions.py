"""What routes do to requests, beside a real Envoy: what the server saw, or the local reply, is the same.

Each case is one route; Envoy's and ours are chosen by the header ``x-case``. A server tells in its response what it
got.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from meshlib import Mesh
from tests.adapters.support import Origin, Seen, address, ok, origins
from tests.envoy.harness import ROUNDS, TYPES
from tests.peers.process import free_port
from tests.peers.servers import Envoy

OVER, BESIDE = "OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD"

NOT_COMPARED = frozenset(
    {"date", "server", "x-forwarded-proto", "x-request-id", "x-envoy-attempt-count", "x-envoy-upstream-service-time"}
    | {"x-envoy-expected-rq-timeout-ms", "x-meshlib-deadline-ms", "connection", "content-length", "transfer-encoding"}
)


@dataclass(frozen=True)
class Case:
    """One route, as Envoy and as we write it. `match` is what Envoy's has besides the header."""

    name: str
    match: Mapping[str, Any]
    theirs: Mapping[str, Any]
    path: Mapping[str, Any] | None
    ours: Mapping[str, Any]
    requests: tuple[tuple[str, str], ...] = field(default=())
    headers: Mapping[str, str] = field(default_factory=dict)


def header(name: str, value: str, action: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": action}


def swapped(pattern: str, substitution: str) -> dict[str, Any]:
    return {"pattern": {"regex": pattern}, "substitution": substitution}


PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/a//b", "/a/b?x=1&y=/a", "/a?x", "/a/%41%2f?q=a/b", "/A/b")
HOSTS = ("orders", "orders:80", "orders:443", "orders:8080", "[::1]:80")


def rewrites() -> Iterator[Case]:
    raw, segments, exact = {"prefix": "/a"}, {"path_separated_prefix": "/a"}, {"path": "/a/b"}
    for at, new in enumerate(("/", "/n", "/n/", "/n/m")):
        action = {"prefix_rewrite": new}
        yield Case(f"raw-{at}", raw, {"route": action}, {"prefix": "/a"}, {"rewrite": {"prefix": new}})
        yield Case(f"exact-{at}", exact, {"route": action}, {"exact": "/a/b"}, {"rewrite": {"path": new}})
        for kind, match, path in (("raw", raw, {"prefix": "/a"}), ("exact", exact, {"exact": "/a/b"})):
            to = {"redirect": {"prefix_rewrite": new}}
            given = {"prefix": new} if kind == "raw" else {"path": new}
            yield Case(f"to-{kind}-{at}", match, to, path, {"redirect": given})
    # Envoy's prefix by segments is replaced as a raw one, which is not what the Gateway API says of a "/" at the end.
    for at, new in enumerate(("/n", "/n/m")):
        ours = {"rewrite": {"prefix": new}}
        yield Case(f"segments-{at}", segments, {"route": {"prefix_rewrite": new}}, {"path_prefix": "/a"}, ours)
    for at, (pattern, substitution) in enumerate(
        (
            ("/a", "/x"),
            ("^/(.)/(.*)$", r"/\2/\1"),
            ("a|b", "c"),
            ("[a-z]+", "z"),
            ("(/a)?(/b)?", r"/\2\1"),
            ("^/", "/v1/"),
        )
    ):
        theirs, given = swapped(pattern, substitution), {"pattern": pattern, "substitution": substitution}
        any_path = {"prefix": "/"}
        yield Case(f"regex-{at}", any_path, {"route": {"regex_rewrite": theirs}}, None, {"rewrite": {"regex": given}})
        yield Case(
            f"to-regex-{at}", any_path, {"redirect": {"regex_rewrite": theirs}}, None, {"redirect": {"regex": given}}
        )
    yield Case(
        "case",
        {"prefix": "/A", "case_sensitive": False},
        {"route": {"prefix_rewrite": "/n"}},
        {"prefix": "/A", "ignore_case": True},
        {"rewrite": {"prefix": "/n"}},
    )


def redirects() -> Iterator[Case]:
    everything = {"prefix": "/"}
    for at, (theirs, ours) in enumerate(
        (
            ({"path_redirect": "/n"}, {"path": "/n"}),
            ({"path_redirect": "/n?z=1"}, {"path": "/n?z=1"}),
            ({"path_redirect": "/n?z=1", "strip_query": True}, {"path": "/n?z=1", "strip_query": True}),
            ({"path_redirect": "/n", "strip_query": True}, {"path": "/n", "strip_query": True}),
            ({"strip_query": True}, {"strip_query": True}),
            ({"host_redirect": "other"}, {"host": "other"}),
            ({"host_redirect": "other:81", "path_redirect": "/"}, {"host": "other:81", "path": "/"}),
            ({"host_redirect": "other", "port_redirect": 81}, {"host": "other", "port": 81}),
            ({"port_redirect": 81}, {"port": 81}),
            ({"https_redirect": True}, {"scheme": "https"}),
            ({"scheme_redirect": "https"}, {"scheme": "https"}),
            ({"scheme_redirect": "http"}, {"scheme": "http"}),
            ({"https_redirect": True, "port_redirect": 8443}, {"scheme": "https", "port": 8443}),
            ({"response_code": "FOUND"}, {"status": 302}),
            ({"response_code": "SEE_OTHER", "path_redirect": "/n"}, {"status": 303, "path": "/n"}),
            ({"response_code": "TEMPORARY_REDIRECT"}, {"status": 307}),
            ({"response_code": "PERMANENT_REDIRECT"}, {"status": 308}),
        )
    ):
        asked = tuple((host, path) for host in HOSTS for path in ("/", "/a?x=1"))
        yield Case(f"redirect-{at}", everything, {"redirect": theirs}, None, {"redirect": ours}, asked)


def replies() -> Iterator[Case]:
    everything = {"prefix": "/"}
    for status in (200, 201, 204, 302, 304, 404, 503):
        body = "" if status in (204, 304) else f"<{status}>"
        theirs = {"direct_response": {"status": status, **({"body": {"inline_string": body}} if body else {})}}
        ours = {"direct_response": {"status": status, "body": body}}
        yield Case(f"reply-{status}", everything, theirs, None, ours)
        grpc = {"content-type": "application/grpc"}
        yield Case(f"grpc-{status}", everything, theirs, None, ours, (("orders", "/a"),), grpc)
    edited = {"response_headers_to_add": [header("x-said", "here", OVER)]}
    ours = {"direct_response": {"status": 418}, "headers": {"response": {"set": {"x-said": "here"}}}}
    yield Case("reply-edited", everything, {"direct_response": {"status": 418}, **edited}, None, ours)
    typed = {"response_headers_to_add": [header("content-type", "text/html", OVER)]}
    body = {"direct_response": {"status": 200, "body": {"inline_string": "<b>"}}, **typed}
    ours = {"direct_response": {"status": 200, "body": "<b>", "headers": {"content-type": "text/html"}}}
    yield Case("reply-typed", everything, body, None, ours)


def edits() -> Iterator[Case]:
    everything = {"prefix": "/"}
    sent = {"x-one": "caller", "x-two": "caller", "x-three": "caller"}
    route = {
        "request_headers_to_remove": ["x-three"],
        "request_headers_to_add": [header("x-one", "route", OVER), header("x-two", "route", BESIDE)],
        "response_headers_to_remove": ["x-server"],
        "response_headers_to_add": [header("x-one", "route", OVER), header("x-two", "route", BESIDE)],
    }
    ours = {"set": {"x-one": "route"}, "add": {"x-two": "route"}}
    ours_back = {"request": {**ours, "remove": ["x-three"]}, "response": {**ours, "remove": ["x-server"]}}
    yield Case("edits", everything, {"route": {}, **route}, None, {"headers": ours_back}, headers=sent)
    backend = {
        "request_headers_to_add": [header("x-one", "backend", OVER), header("x-three", "backend", BESIDE)],
        "response_headers_to_add": [header("x-one", "backend", OVER), header("x-four", "backend", BESIDE)],
        "host_rewrite_literal": "backend",
    }
    theirs = {"clusters": [{"name": "all", "weight": 1, **backend}]}
    given = {
        "request": {"set": {"x-one": "backend", "host": "backend"}, "add": {"x-three": "backend"}},
        "response": {"set": {"x-one": "backend"}, "add": {"x-four": "backend"}},
    }
    both = {"headers": ours_back, "backends": [{"headers": given}]}
    yield Case("both", everything, {"route": {"weighted_clusters": theirs}, **route}, None, both, headers=sent)
    hosts = {"weighted_clusters": theirs, "host_rewrite_literal": "route"}
    ours_host = {"rewrite": {"host": "route"}, "backends": [{"headers": given}]}
    yield Case("hosts", everything, {"route": hosts}, None, ours_host)
    yield Case(
        "host",
        everything,
        {"route": {"host_rewrite_literal": "route"}},
        None,
        {"headers": {"request": {"set": {"host": "route"}}}},
    )
    forged = {"x-envoy-original-path": "/forged", "x-envoy-original-host": "forged"}
    yield Case(
        "forged",
        everything,
        {"route": {"host_rewrite_literal": "route", "prefix_rewrite": "/n/"}},
        None,
        {"rewrite": {"host": "route", "regex": {"pattern": "^/", "substitution": "/n/"}}},
        headers=forged,
    )


def draws(seed: int) -> Iterator[Case]:
    rng = Random(seed)
    for at in range(60):
        weights = [rng.choice((0, 1, 3, 10, 29, 57, 100, 4999)) for _ in range(rng.randrange(2, 5))] + [1]
        number = str(rng.choice((rng.randrange(sum(weights)), rng.randrange(2**64), 2**64 - 1, 0, sum(weights))))
        clusters = [
            {"name": "all", "weight": weight, "response_headers_to_add": [header("x-drawn", str(index), OVER)]}
            for index, weight in enumerate(weights)
        ]
        backends = [
            {"weight": weight, "headers": {"response": {"set": {"x-drawn": str(index)}}}}
            for index, weight in enumerate(weights)
        ]
        theirs = {"route": {"weighted_clusters": {"clusters": clusters, "header_name": "x-draw"}}}
        ours = {"backends": backends, "sticky": {"number": "x-draw"}}
        asked = (("orders", "/"),)
        yield Case(f"draw-{seed}-{at}", {"prefix": "/"}, theirs, None, ours, asked, {"x-draw": number})


def random_rewrites(seed: int) -> Iterator[Case]:
    rng = Random(seed)
    for at in range(40):
        old = "/" + "".join(rng.choice("ab/") for _ in range(rng.randrange(4)))
        new = "/" + "".join(rng.choice("xy/") for _ in range(rng.randrange(4)))
        asked = tuple(("orders", old + "".join(rng.choice("ab/") for _ in range(rng.randrange(4)))) for _ in range(6))
        field = rng.choice(("route", "redirect"))
        ours = {"rewrite" if field == "route" else "redirect": {"prefix": new}}
        theirs = {field: {"prefix_rewrite": new}}
        yield Case(f"random-{seed}-{at}", {"prefix": old}, theirs, {"prefix": old}, ours, asked)


def cases() -> list[Case]:
    generated = [case for seed in range(ROUNDS) for case in (*random_rewrites(seed), *draws(seed))]
    return [*rewrites(), *redirects(), *replies(), *edits(), *generated]


def of_envoy(case: Case) -> dict[str, Any]:
    match = {**case.match, "headers": [{"name": "x-case", "string_match": {"exact": case.name}}]}
    route = {"match": match, **case.theirs}
    if "route" in route and "weighted_clusters" not in route["route"]:
        route["route"] = {"cluster": "all", **route["route"]}
    return route


def of_mesh(case: Case) -> dict[str, Any]:
    match: dict[str, Any] = {"headers": {"x-case": {"exact": case.name}}}
    if case.path is not None:
        match["path"] = dict(case.path)
    elif case.theirs.get("route", {}).get("prefix_rewrite"):
        match["path"] = {"prefix": "/"}
    return {"name": case.name, "match": [match], **case.ours}


def bootstrap(given: list[Case], port: int, upstream: int) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "generate_request_id": False,
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [of_envoy(case) for case in given]}]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }
    at = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}}}
    cluster = {
        "name": "all",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "all", "endpoints": [{"lb_endpoints": [at]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def told(seen: Seen, number: int) -> bytes:
    """What the server got, in the body of its response."""
    got = sorted((name.lower(), value) for name, value in seen.headers if name.lower() not in NOT_COMPARED)
    return ok(json.dumps([seen.line.split()[1], got]).encode(), x_server="1", x_one="server", x_two="server")


def compared(status: int, headers: list[tuple[str, str]], body: str) -> tuple[int, list[tuple[str, str]], str]:
    return status, sorted((name.lower(), value) for name, value in headers if name.lower() not in NOT_COMPARED), body


def by_envoy(port: int, host: str, path: str, headers: Mapping[str, str]) -> tuple[int, list[tuple[str, str]], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"host": host, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    result = compared(response.status, response.getheaders(), response.read().decode())
    connection.close()
    return result


def by_mesh(client: httpx.Client, host: str, path: str, headers: Mapping[str, str]) -> Any:
    request = httpx.Request("GET", f"http://orders{path}", headers={"host": host, **headers})
    response = client.send(request)
    return compared(response.status_code, response.headers.multi_items(), response.text)


def test_requests_and_replies_are_those_of_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    given, port = cases(), free_port()
    with origins(Origin(told)) as (_, (server,)):
        envoy_factory(bootstrap(given, port, server.port))
        orders = {"endpoints": [address(server)], "routes": [of_mesh(case) for case in given]}
        differences, count = [], 0
        with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh, mesh.client("orders") as client:
            for case in given:
                for host, path in case.requests or tuple(("orders", path) for path in PATHS):
                    headers = {"x-case": case.name, **case.headers}
                    theirs = by_envoy(port, host, path, headers)
                    if theirs[0] == 404 and "direct_response" not in case.theirs:
                        continue  # it has no such route
                    count += 1
                    ours = by_mesh(client, host, path, headers)
                    if ours != theirs:
                        differences.append((case.name, host, path, ours, theirs))
    assert differences == [], "\n".join(map(str, differences))
    assert count > 700
