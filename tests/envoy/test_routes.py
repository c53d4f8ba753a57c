"""Thousands of random routes, beside a real Envoy: each request takes the same of them, and the same becomes of it."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.errors import MeshError
from meshlib.routing.match import RequestView
from meshlib.routing.normalize import PathNormalization, normalize_path
from meshlib.routing.route import Route, find_route
from meshlib.routing.split import draw
from tests.envoy.harness import ROUNDS, Case
from tests.envoy.rendering import bootstrap, virtual_host
from tests.envoy.tables import CLUSTERS, Table, domains
from tests.envoy.telling import Asked, Got, Telling, ask_envoy, compared
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


def ask_mesh(config: Mapping[str, Any], requests: Sequence[Asked]) -> list[Got | str]:
    """The same through the mesh; where a call fails, the name of the route that it took."""

    async def all_of_them() -> list[Got | str]:
        answers: dict[int, Got | str] = {}
        queue = iter(enumerate(requests))

        async def worker(client: httpx.AsyncClient) -> None:
            for at, request in queue:
                answers[at] = await _one(client, request)

        with Mesh(config) as mesh:
            async with mesh.async_client() as client:
                await asyncio.gather(*(worker(client) for _ in range(4)))
        return [answers[at] for at in range(len(requests))]

    return asyncio.run(all_of_them())


async def _one(client: httpx.AsyncClient, asked: Asked) -> Got | str:
    headers = [(name.encode(), value.encode()) for name, value in (("host", asked.host), *asked.headers)]
    request = httpx.Request(asked.method, f"{asked.scheme}://{asked.host}{asked.target}", headers=headers)
    try:
        response = await client.send(request)
    except MeshError as error:
        return (error.record and error.record.route) or repr(error)
    raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
    return compared(response.status_code, raw, response.text)


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
PIECES = tuple(
    r"a B / / / // . .. /../ /./ %2e %2E %2F %2f %5C %5c \ ~ %41 %7e %20 %zz % %2 %252F %C3%BC %00 | [ ' * = & + : @ !".split()
)


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
