"""What routes do to requests, beside a real Envoy: what the server saw, or the local reply, is the same.

Each case is one route, written by hand for both; Envoy's and ours are chosen by the header ``x-case``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from tests.envoy.rendering import BESIDE, OVER, bootstrap, header, swapped
from tests.envoy.telling import Asked, Telling, ask_envoy, ask_mesh
from tests.peers.process import free_port
from tests.peers.servers import Envoy


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


def cases() -> list[Case]:
    return [*rewrites(), *redirects(), *replies(), *edits()]


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


def test_requests_and_replies_are_those_of_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    given, port = cases(), free_port()
    asked = [
        (case, Asked("GET", "http", host, path, (("x-case", case.name), *case.headers.items())))
        for case in given
        for host, path in case.requests or tuple(("orders", path) for path in PATHS)
    ]
    with Telling(1) as upstream:
        everything = {"name": "all", "domains": ["*"], "routes": [of_envoy(case) for case in given]}
        envoy_factory(bootstrap([everything], {"all": upstream.ports[0]}, {port: {}}))
        theirs = ask_envoy(port, [request for _, request in asked])
        # What Envoy has no route for says nothing.
        met = [
            each.status != 404 or "direct_response" in case.theirs
            for (case, _), each in zip(asked, theirs, strict=True)
        ]
        asked, theirs = list(compress(asked, met)), list(compress(theirs, met))
        orders = {"hosts": ["*"], "endpoints": upstream.addresses, "routes": [of_mesh(case) for case in given]}
        ours = ask_mesh({"discovery": [], "services": {"orders": orders}}, [request for _, request in asked])
    differences = [
        (request, mine, their) for (_, request), mine, their in zip(asked, ours, theirs, strict=True) if mine != their
    ]
    assert differences == [], "\n".join(map(str, differences))
    assert len(asked) > 500
