"""One Envoy with many clusters and routes, made from short descriptions, and a fast client for it.

Each `Case` is a cluster of its own and a route to it, chosen by the header ``x-case``. What comes back says which
endpoint answered: the header ``x-endpoint``, from `tests.envoy.upstream`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.envoy.upstream import Upstream
from tests.peers.process import free_port, wait_until
from tests.peers.servers import Envoy

__all__ = ["ROUNDS", "TYPES", "Answer", "Case", "Place", "ask", "bootstrap", "holding", "request_of", "start"]

ROUNDS = int(os.environ.get("MESHLIB_ENVOY_ROUNDS", "1"))
"""How many generated configurations each comparison makes; `nox -s envoy` makes more of them."""

TYPES = "type.googleapis.com/envoy.extensions"
"""What the names of Envoy's extensions begin with."""


@dataclass(frozen=True)
class Place:
    """One endpoint of a cluster.

    Attributes:
        port: on 127.0.0.1.
        weight, health, region, zone, sub_zone, priority, metadata: as Envoy is told; `health` as in its
            ``HealthStatus``, and `metadata` under ``envoy.lb``, a list where there are commas.
        hostname: its name.
    """

    port: int
    weight: int | None = None
    health: str = "HEALTHY"
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""


@dataclass(frozen=True)
class Case:
    """A cluster and the route to it.

    Attributes:
        name: what ``x-case`` selects it by.
        places: its endpoints.
        cluster, route: fields of Envoy's ``Cluster`` and ``RouteAction`` over those that the harness sets.
        locality_weights: by (region, zone, sub_zone), of Envoy's ``LocalityLbEndpoints``.
        filters: per-route filter configuration, by the filter's name.
    """

    name: str
    places: Sequence[Place]
    cluster: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    locality_weights: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    filters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back: the status, the endpoint's port (None if no endpoint answered), the headers."""

    status: int
    port: int | None
    headers: Mapping[str, str]


def bootstrap(cases: Iterable[Case], port: int, *, http_filters: Sequence[Any] = ()) -> dict[str, Any]:
    """A configuration with a listener on `port`, and all these cases behind it.

    Args:
        cases: the clusters and routes.
        port: of the listener.
        http_filters: before the router.
    """
    cases = list(cases)
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "generate_request_id": False,
        "http_filters": [*http_filters, router],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "include_request_attempt_count": True,
                    "include_attempt_count_in_response": True,
                    "routes": [_route(case) for case in cases],
                }
            ]
        },
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster(case) for case in cases]}}


def start(
    envoy_factory: Callable[[dict[str, Any]], Envoy], cases: Iterable[Case], *, http_filters: Sequence[Any] = ()
) -> tuple[Envoy, int]:
    """Start Envoy with these cases: it, and the port to ask at."""
    port = free_port()
    return envoy_factory(bootstrap(cases, port, http_filters=http_filters)), port


def ask(port: int, requests: Sequence[Mapping[str, str]], *, connections: int = 8) -> list[Answer]:
    """Send requests, each given by its headers (and ``:path``, ``:method``), and wait for all the answers.

    They are sent in order over each of `connections`; with one connection, strictly one after the other.
    """
    return asyncio.run(_ask_all(port, requests, connections))


@contextmanager
def holding(port: int, requests: Sequence[Mapping[str, str]], upstream: Upstream) -> Iterator[None]:
    """Have these requests under way, none of which gets an answer: each begun once the one before has arrived."""
    with ExitStack() as stack:
        for request in requests:
            before = len(upstream.order)
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            connection.sendall(request_of(request))
            wait_until(lambda before=before: len(upstream.order) > before, "the request arrives", poll=0.001)  # type: ignore[misc]
        yield


async def _ask_all(port: int, requests: Sequence[Mapping[str, str]], connections: int) -> list[Answer]:
    answers: list[Answer | None] = [None] * len(requests)
    queue = iter(enumerate(requests))

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at, request in queue:
            writer.write(request_of(request))
            answers[at] = answer = await asyncio.wait_for(_read(reader), 30)
            if answer.headers.get("connection") == "close":
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    return [answer for answer in answers if answer is not None]


def request_of(headers: Mapping[str, str]) -> bytes:
    """What a client sends: headers, and ``:path`` and ``:method`` among them."""
    path, method = headers.get(":path", "/"), headers.get(":method", "GET")
    lines = [f"{method} {path} HTTP/1.1", "host: orders"]
    lines += [f"{name}: {value}" for name, value in headers.items() if not name.startswith(":")]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if length := int(headers.get("content-length", 0)):
        await reader.readexactly(length)
    endpoint = headers.get("x-endpoint")
    return Answer(int(head[0].split()[1]), None if endpoint is None else int(endpoint), headers)


def _route(case: Case) -> dict[str, Any]:
    match = {"prefix": "/", "headers": [{"name": "x-case", "string_match": {"exact": case.name}}]}
    action = {"cluster": case.name, "timeout": "15s", **case.route}
    if "weighted_clusters" in action or "cluster_header" in action:
        del action["cluster"]
    return {"match": match, "route": action, "typed_per_filter_config": dict(case.filters)}


def _cluster(case: Case) -> dict[str, Any]:
    groups: dict[tuple[int, str, str, str], list[Any]] = {}
    for place in case.places:
        groups.setdefault((place.priority, place.region, place.zone, place.sub_zone), []).append(_endpoint(place))
    localities = []
    for (priority, region, zone, sub_zone), endpoints in groups.items():
        group: dict[str, Any] = {
            "priority": priority,
            "locality": {"region": region, "zone": zone, "sub_zone": sub_zone},
            "lb_endpoints": endpoints,
        }
        if (region, zone, sub_zone) in case.locality_weights:
            group["load_balancing_weight"] = case.locality_weights[region, zone, sub_zone]
        localities.append(group)
    return {
        "name": case.name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": case.name, "endpoints": localities},
        **case.cluster,
    }


def _endpoint(place: Place) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": place.port}}
    endpoint: dict[str, Any] = {
        "endpoint": {"address": address, **({"hostname": place.hostname} if place.hostname else {})},
        "health_status": place.health,
    }
    if place.weight is not None:
        endpoint["load_balancing_weight"] = place.weight
    if place.metadata:
        written = {key: value.split(",") if "," in value else value for key, value in place.metadata.items()}
        endpoint["metadata"] = {"filter_metadata": {"envoy.lb": written}}
    return endpoint
