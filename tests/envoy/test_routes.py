"""Thousands of random routes, beside a real Envoy: each request takes the same of them, and the same becomes of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.routing.match import RequestView
from meshlib.routing.normalize import PathNormalization, normalize_path
from meshlib.routing.route import Route, find_route
from meshlib.routing.split import draw
from tests.envoy.harness import ROUNDS, Case
from tests.envoy.rendering import bootstrap, virtual_host
from tests.envoy.tables import CLUSTERS, Table, domains
from tests.envoy.telling import Asked, Got, Telling, ask_envoy, ask_mesh
from tests.envoy.test_shares import agree
from tests.peers.process import free_port
from tests.peers.servers import Envoy

ROUTES = int(os.environ.get("MESHLIB_ENVOY_ROUTES", "2400"))
REQUESTS = 5500

PLAIN = {"retry": {"max_retries": 0}, "circuit_breaker": False, "outlier_detection": False, "hedge": False}


def settings(table: Table, ports: Sequence[int]) -> dict[str, Any]:
    """The native configuration."""
    services: dict[str, Any] = {
        name: {
            "hosts": [host for host in hosts if host != name],
            "endpoints": [f"127.0.0.1:{ports[0]}"],
            "routes": table.routes[name],
        }
        for name, hosts in table.hosts.items()
    }
    split: list[Any] = []
    for cluster, port in zip(CLUSTERS, ports, strict=True):
        name, _, subset = cluster.partition("/")
        if subset:
            split.append({"address": f"127.0.0.1:{port}", "metadata": {"version": subset}})
        else:
            services[name] = {"endpoints": [f"127.0.0.1:{port}"]}
    subsets = {each["metadata"]["version"]: each["metadata"] for each in split}
    services["split"] = {"endpoints": split, "subsets": subsets}
    return {"discovery": [], "defaults": PLAIN, "services": services}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_requests_take_the_routes_that_they_take_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    table = Table(seed, ROUTES)
    requests = list(table.requests(REQUESTS))
    with Telling(len(CLUSTERS)) as upstream:
        port, names = free_port(), domains(table.hosts)
        hosts = [virtual_host(name, names[name], routes) for name, routes in table.routes.items()]
        envoy_factory(bootstrap(hosts, dict(zip(CLUSTERS, upstream.ports, strict=True)), {port: {}}))
        theirs = ask_envoy(port, requests)
        ours = ask_mesh(settings(table, upstream.ports), requests)
    differences = [
        (asked, mine, their)
        for asked, mine, their in zip(requests, ours, theirs, strict=True)
        # No server here speaks TLS: of requests that would get as far as that, the route is compared.
        if mine != (their.route if their.port is not None and asked.scheme == "https" else their)
    ]
    shown = "\n\n".join("\n".join(map(str, difference)) for difference in differences[:10])
    assert not differences, f"{len(differences)} differ: what was asked, what the mesh did, and Envoy:\n{shown}"
    assert len({got.route for got in theirs}) > min(ROUTES, REQUESTS) / 4


PERCENTAGES = (0.5, 10, 33.3, 90)
WEIGHTS = ((1, 3), (0, 5, 5), (90, 10), (29, 57, 4999, 1))


def chances() -> list[dict[str, Any]]:
    """Routes that chance has a part in; each tells what was drawn."""
    routes: list[dict[str, Any]] = []
    for percent in PERCENTAGES:
        path = {"exact": f"/{percent}"}
        drawn = [{"path": path, "percent": percent}], [{"path": path}]
        for name, match in zip(("1", "0"), drawn, strict=True):
            told = {"headers": {"response": {"set": {"x-drawn": name}}}}
            routes.append({"name": f"{percent}-{name}", "match": match, "backends": [{"service": "all"}], **told})
    for weights in WEIGHTS:
        backends = [
            {"service": "all", "weight": weight, "headers": {"response": {"set": {"x-drawn": str(at)}}}}
            for at, weight in enumerate(weights)
        ]
        name = "-".join(map(str, weights))
        routes.append({"name": name, "match": [{"path": {"exact": f"/{name}"}}], "backends": backends})
    return routes


def drawn_by_the_mesh(routes: Sequence[Route], path: str, rng: Random) -> int:
    route = find_route(routes, RequestView("GET", path, random=rng.random))
    assert route is not None
    backend = route.backends[draw(route.backends, rng.random()) or 0]
    ((_, value),) = (route.response_edits or backend.response_edits).set
    return int(value)


def test_what_is_left_to_chance_comes_out_as_often_as_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy],
) -> None:
    services = {"all": {"endpoints": ["127.0.0.1:1"]}, "chance": {"endpoints": ["127.0.0.1:1"], "routes": chances()}}
    routes = compile_config(load_mapping({"discovery": [], "services": services})).services["chance"].routes
    rng, port = Random(1), free_port()
    with Telling(1) as upstream:
        hosts = [virtual_host("chance", ["*"], chances())]
        envoy_factory(bootstrap(hosts, {"all": upstream.ports[0]}, {port: {}}))
        for name in (*map(str, PERCENTAGES), *("-".join(map(str, weights)) for weights in WEIGHTS)):
            got = ask_envoy(port, [Asked("GET", "http", "chance", f"/{name}", ())] * 500)
            theirs = Counter(int(each.headers["x-drawn"]) for each in got)
            mine = Counter(drawn_by_the_mesh(routes, f"/{name}", rng) for _ in range(5000))
            agree(theirs, mine, Case(name, ()))


NORMAL: dict[PathNormalization, dict[str, Any]] = {
    "none": {},
    "base": {"normalize_path": True},
    "merge_slashes": {"normalize_path": True, "merge_slashes": True},
    "decode_and_merge_slashes": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}
PIECES = (*"aB///.~%|['*=&+:@!\\", "//", "..", "/../", "/./", "%2e", "%2E", "%2F", "%2f", "%5C", "%5c", "%41", "%7e")
PIECES += ("%20", "%zz", "%2", "%252F", "%C3%BC", "%00")


def test_paths_have_the_normal_form_that_they_have_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy],
) -> None:
    rng = Random(1)
    paths = ["/" + "".join(rng.choices(PIECES, k=rng.randrange(9))) for _ in range(400 * ROUNDS)]
    ports = {how: free_port() for how in NORMAL}
    everything = virtual_host("all", ["*"], [{"backends": [{"service": "all"}]}])
    with Telling(1) as upstream:
        listeners = {ports[how]: fields for how, fields in NORMAL.items()}
        envoy_factory(bootstrap([everything], {"all": upstream.ports[0]}, listeners))
        for how, port in ports.items():
            got = ask_envoy(port, [Asked("GET", "http", "all", path, ()) for path in paths])
            assert [(path, normalize_path(path, how)) for path in paths] == [
                (path, each.target) for path, each in zip(paths, got, strict=True)
            ]


SET, TEXT = {"x-set": "%PROTOCOL%"}, {"content-type": "text/x"}
DIFFERENT: tuple[tuple[str, dict[str, Any], str, Callable[[Got], Any], Any, Any], ...] = (
    (
        "a path from a `regex` without a slash",
        {"rewrite": {"regex": {"pattern": "^/a/", "substitution": "n/"}}},
        *("/a/b", lambda got: got.target, "n/b", "/n/b"),
    ),
    (
        "`path_prefix: /a` with `prefix: /` or",
        {"match": [{"path": {"path_prefix": "/a"}}], "rewrite": {"prefix": "/n/"}},
        *("/a/b", lambda got: got.target, "/n//b", "/n/b"),
    ),
    (
        "the scheme's own port in a redirect",
        {"redirect": {"port": 80}},
        *("/a", lambda got: got.headers["location"], "http://HOST:80/a", "http://HOST/a"),
    ),
    (
        "an added header with an empty value",
        {"headers": {"request": {"add": {"x-set": ""}}}},
        *("/", lambda got: got.seen and got.seen.get("x-set"), None, ""),
    ),
    (
        "`%PROTOCOL%` and its like",
        {"headers": {"request": {"set": SET}}},
        *("/", lambda got: got.seen and got.seen["x-set"], "HTTP/1.1", "%PROTOCOL%"),
    ),
    (
        "`content-type`, set by `headers.response`",
        {"direct_response": {"status": 404}, "headers": {"response": {"set": TEXT}}},
        *("/", lambda got: got.headers.get("content-type"), None, "text/x"),
    ),
    ("a `?` with nothing behind it", {"rewrite": {"path": "/n"}}, *("/a?", lambda got: got.target, "/n?", "/n")),
)


def test_what_differs_is_on_the_page(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "routing" / "envoy.md").read_text()
    table = page.partition("## What differs")[2]
    port = free_port()
    with Telling(1) as upstream:
        services: dict[str, Any] = {"all": {"endpoints": upstream.addresses}}
        for at, (_, route, *_) in enumerate(DIFFERENT):
            if not {"redirect", "direct_response"} & route.keys():
                route["backends"] = [{"service": "all"}]
            services[f"d{at}"] = {"endpoints": upstream.addresses, "routes": [route]}
        hosts = [virtual_host(name, [name], each["routes"]) for name, each in services.items() if "routes" in each]
        envoy_factory(bootstrap(hosts, {"all": upstream.ports[0]}, {port: {}}))
        asked = [Asked("GET", "http", f"d{at}", target, ()) for at, (_, _, target, *_) in enumerate(DIFFERENT)]
        asked += [Asked("GET", "http", "d1", "/elsewhere", ()), Asked("GET", "http", "d2.", "/", ())]
        asked.append(Asked("GET", "http", "d4", "/", (("referer", "\u00fc"),)))
        both = ask_envoy(port, asked), ask_mesh({"discovery": [], "services": services}, asked)
    for at, (what, _, _, read, their, our) in enumerate(DIFFERENT):
        assert f"| {what}" in table
        expected = [each.replace("HOST", f"d{at}") if isinstance(each, str) else each for each in (their, our)]
        assert [read(answers[at]) for answers in both] == expected, what
    assert "| a request that no route takes | 404 | goes to the service itself |" in table
    assert "| a dot at the end of a host | makes it another | says nothing |" in table
    assert "| a `referer` that Envoy takes for no URL | removed | sent |" in table
    elsewhere, dotted, referring = ([answers[at] for answers in both] for at in (-3, -2, -1))
    assert [got.status for got in elsewhere] == [404, 200]
    assert [got.status for got in dotted] == [404, 301]
    assert ["referer" in got.seen for got in referring] == [False, True]


def test_a_percentage_and_weights_are_drawn_by_one_number_in_envoy_and_by_two_here(
    envoy_factory: Callable[[dict[str, Any]], Envoy],
) -> None:
    backends = [
        {"service": "all", "weight": 500_000, "headers": {"response": {"set": {"x-drawn": str(at)}}}} for at in range(2)
    ]
    first = {"match": [{"path": {"exact": "/"}, "percent": 30}], "backends": backends}
    rest = {"headers": {"response": {"set": {"x-drawn": "rest"}}}, "backends": [{"service": "all"}]}
    port = free_port()
    with Telling(1) as upstream:
        envoy_factory(bootstrap([virtual_host("all", ["*"], [first, rest])], {"all": upstream.ports[0]}, {port: {}}))
        services = {"all": {"endpoints": upstream.addresses}, "orders": {"endpoints": [], "routes": [first, rest]}}
        asked = [Asked("GET", "http", "orders", "/", ())] * 200
        theirs, ours = ask_envoy(port, asked), ask_mesh({"discovery": [], "services": services}, asked)
    drawn = [{got.headers["x-drawn"] for got in answers} for answers in (theirs, ours)]
    assert drawn == [{"0", "rest"}, {"0", "1", "rest"}]
