"""Side by side with a real Envoy: an endpoint is ejected at the same request, by the same rules.

Each case is a cluster of one endpoint and a sequence of answers, resets and silences drawn at random. Of Envoy the
gauge of active ejections is looked at after each request; of the mesh, the endpoint's state after each call.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from meshlib import Mesh, MeshError
from tests.net.wire_servers import Peer, RawServer
from tests.peers.process import free_port
from tests.peers.servers import Envoy

pytestmark = pytest.mark.slow

TYPES = "type.googleapis.com/envoy.extensions"
ANSWERS = ("/200", "/404", "/500", "/500", "/503", "/503", "/504", "/reset", "/hang")
TIMEOUT_S = 0.06
CALLS = 14

RULES: dict[str, dict[str, Any]] = {
    "5xx": {"consecutive_5xx": 3},
    "gateway": {"consecutive_5xx": 9, "consecutive_gateway_failure": 3},
    "both": {"consecutive_5xx": 4, "consecutive_gateway_failure": 2},
    "split": {"consecutive_5xx": 3, "consecutive_local_origin_failure": 2, "split_external_local_origin_errors": True},
    "split gateway": {
        "consecutive_5xx": 9,
        "consecutive_gateway_failure": 2,
        "consecutive_local_origin_failure": 3,
        "split_external_local_origin_errors": True,
    },
}
SEQUENCES = 5
CASES = [
    (f"case-{at}-{number}", rules, [Random(f"{at} {number} {call}").choice(ANSWERS) for call in range(CALLS)], False)
    for at, rules in enumerate(RULES.values())
    for number in range(SEQUENCES)
]
CASES += [(f"refused-{at}", rules, ["/200"] * 6, True) for at, rules in enumerate(RULES.values())]
"""The name of each case, Envoy's rules, the paths that are asked for, and whether nobody listens."""


def upstream(peer: Peer) -> None:
    while (request := peer.request()) is not None:
        what = request.split(b" ", 2)[1].decode()
        if what == "/reset":
            peer.reset()
            return
        if what == "/hang":
            peer.wait_until_gone()
            return
        peer.send(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % what[1:].encode())


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    running = RawServer(upstream)
    yield running
    running.close()


def address_of(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(port: int, ports: dict[str, int]) -> dict[str, Any]:
    routes = [
        {
            "match": {"prefix": f"/{name}/"},
            "route": {"cluster": name, "timeout": f"{TIMEOUT_S}s", "prefix_rewrite": "/"},
        }
        for name in ports
    ]
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}],
    }
    listener = {
        "name": "in",
        "address": address_of(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [
        {
            "name": name,
            "connect_timeout": "5s",
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "outlier_detection": {
                **rules,
                "max_ejection_percent": 100,
                "enforcing_success_rate": 0,
                "enforcing_consecutive_gateway_failure": 100,
                **({} if "consecutive_gateway_failure" in rules else {"enforcing_consecutive_gateway_failure": 0}),
            },
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address_of(ports[name])}}]}],
            },
        }
        for name, rules, _, _ in CASES
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def ours(ports: dict[str, int]) -> Mesh:
    services = {
        name: {
            "endpoints": [f"127.0.0.1:{ports[name]}"],
            "timeout": "2s",
            "per_try_timeout": TIMEOUT_S,
            "retry": {"max_retries": 0},
            "circuit_breaker": False,
            "load_balancing": {"panic_percent": 0},
            "outlier_detection": {
                **rules,
                "consecutive_local_origin_failure": rules.get("consecutive_local_origin_failure", 0),
                "max_ejection_percent": 100,
                "success_rate": False,
            },
        }
        for name, rules, _, _ in CASES
    }
    return Mesh({"services": services})


def at_which_the_mesh_ejects(mesh: Mesh, name: str, paths: list[str]) -> int | None:
    client = mesh.client(name)
    for number, path in enumerate(paths):
        with contextlib.suppress(MeshError):
            client.get(path)
        cluster = mesh._wiring.snapshots.current.services[name].clusters[None]
        if cluster.members[0].health.ejected:
            return number
    return None


def at_which_envoy_ejects(envoy: Envoy, port: int, name: str, paths: list[str], expected: int | None) -> int | None:
    def is_out() -> bool:
        _, text = envoy.admin(f"/stats?filter=^cluster.{name}.outlier_detection.ejections_active$")
        return text.strip().endswith(": 1")

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        for number, path in enumerate(paths):
            connection.request("GET", f"/{name}{path}")
            connection.getresponse().read()
            # The worker tells the main thread, which ejects: where that is expected it is waited for.
            until = time.monotonic() + (2.0 if number == expected else 0.004)
            while True:
                if is_out():
                    return number
                if time.monotonic() >= until:
                    break
                time.sleep(0.002)
    finally:
        connection.close()
    return None


def test_endpoints_are_ejected_at_the_same_request(
    server: RawServer, envoy_factory: Callable[[dict[str, Any]], Envoy]
) -> None:
    nobody = free_port()
    ports = {name: nobody if refused else server.port for name, _, _, refused in CASES}
    port = free_port()
    envoy = envoy_factory(bootstrap(port, ports))
    differing, ejected = {}, 0
    with ours(ports) as mesh:
        for name, rules, paths, _ in CASES:
            expected = at_which_the_mesh_ejects(mesh, name, paths)
            found = at_which_envoy_ejects(envoy, port, name, paths, expected)
            ejected += found is not None
            if found != expected:
                differing[name] = (rules, paths, {"mesh": expected, "envoy": found})
    assert differing == {}
    assert ejected >= len(CASES) // 2
