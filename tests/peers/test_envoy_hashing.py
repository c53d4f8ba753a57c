"""Side by side with a real Envoy: hash balancers choose the same endpoint for every key.

Envoy tells by a response header where it sent a request; of the mesh, balancers and hash policies are asked directly,
for the same endpoints in the same order.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import pytest

from meshlib.balance.balancer import Balancer, Member
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.hash_policy import hash_of_call, hash_of_key
from meshlib.balance.health import EndpointHealth
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.settings import HashCookie, HashOn, LoadBalancing, RingSettings
from meshlib.balance.table import find_balancer
from meshlib.policy.traits import Traits
from tests.peers.process import free_port
from tests.peers.servers import Envoy

pytestmark = pytest.mark.slow

TYPES = "type.googleapis.com/envoy.extensions"
KEYS = [f"user-{number}" for number in range(300)]
WEIGHTS = (1, 2, 3, 5, 8)

CLUSTERS: dict[str, tuple[LoadBalancing, tuple[int, ...]]] = {
    "ring": (LoadBalancing(policy="ring_hash"), (1,) * 5),
    "small-ring": (LoadBalancing(policy="ring_hash", ring=RingSettings(min_size=12, max_size=40)), (1,) * 5),
    "murmur": (LoadBalancing(policy="ring_hash", ring=RingSettings(hash="murmur2")), (1,) * 5),
    "weighted-ring": (LoadBalancing(policy="ring_hash"), WEIGHTS),
    "maglev": (LoadBalancing(policy="maglev"), (1,) * 5),
    "small-maglev": (LoadBalancing(policy="maglev", table_size=251), (1,) * 5),
    "weighted-maglev": (LoadBalancing(policy="maglev"), WEIGHTS),
    "bounded-ring": (LoadBalancing(policy="ring_hash", hash_balance_percent=150), (1,) * 5),
    "bounded-maglev": (LoadBalancing(policy="maglev", hash_balance_percent=125), WEIGHTS),
}
POLICIES: dict[str, tuple[HashOn, ...]] = {
    "fold": (HashOn(header="x-key"), HashOn(query="user"), HashOn(cookie=HashCookie("session"))),
    "terminal": (HashOn(header="x-none", terminal=True), HashOn(header="x-key", terminal=True), HashOn(query="user")),
    "source": (HashOn(source=True), HashOn(header="x-key")),
}


class Upstream(ThreadingHTTPServer):
    """Answers, or for ``/.../hold`` answers in part, or for ``/.../fail`` with 503; and notes who asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.release = threading.Event()
        self.keys: list[str] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self) -> None:
                upstream.keys.append(self.headers.get("x-key", ""))
                kind = self.path.partition("?")[0].rpartition("/")[2]
                self.send_response(503 if kind == "fail" else 200)
                self.send_header("content-length", "4")
                self.end_headers()
                if kind == "hold":
                    self.wfile.flush()
                    upstream.release.wait(20)
                self.wfile.write(b"done")

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[Upstream]]:
    servers = [Upstream() for _ in WEIGHTS]
    yield servers
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def port(upstreams: list[Upstream], envoy_factory: Callable[[dict[str, Any]], Envoy]) -> int:
    number = free_port()
    envoy_factory(bootstrap(number, [server.server_port for server in upstreams]))
    return number


def bootstrap(port: int, upstreams: Sequence[int]) -> dict[str, Any]:
    by_key = [{"header": {"header_name": "x-key"}}]
    routes = [route(name, f"/{name}/", by_key) for name in CLUSTERS]
    routes += [route("ring", f"/{name}/", [written(each) for each in on]) for name, on in POLICIES.items()]
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "use_remote_address": True,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            "response_headers_to_add": [{"header": {"key": "x-at", "value": "%UPSTREAM_REMOTE_ADDRESS%"}}],
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": socket_address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                cluster(name, balancing, list(zip(upstreams, weights, strict=True)))
                for name, (balancing, weights) in CLUSTERS.items()
            ],
        }
    }


def socket_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def route(cluster: str, prefix: str, hash_on: list[dict[str, Any]]) -> dict[str, Any]:
    previous = {"@type": f"{TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"}
    return {
        "match": {"prefix": prefix},
        "route": {
            "cluster": cluster,
            "timeout": "30s",
            "hash_policy": hash_on,
            "retry_policy": {
                "retry_on": "5xx",
                "num_retries": 2,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
                "retry_host_predicate": [{"name": "previous", "typed_config": previous}],
                "host_selection_retry_max_attempts": 31,
            },
        },
    }


def written(policy: HashOn) -> dict[str, Any]:
    """The same in Envoy's words."""
    if policy.header is not None:
        kind: dict[str, Any] = {"header": {"header_name": policy.header}}
    elif policy.query is not None:
        kind = {"query_parameter": {"name": policy.query}}
    elif policy.cookie is not None:
        kind = {"cookie": {"name": policy.cookie.name}}
    else:
        kind = {"connection_properties": {"source_ip": True}}
    return {**kind, "terminal": policy.terminal}


def cluster(name: str, balancing: LoadBalancing, upstreams: Sequence[tuple[int, int]]) -> dict[str, Any]:
    common: dict[str, Any] = {}
    if balancing.hash_balance_percent is not None:
        common["consistent_hashing_lb_config"] = {"hash_balance_factor": balancing.hash_balance_percent}
    ring = balancing.ring
    if balancing.policy == "maglev":
        kind = {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": balancing.table_size}}
    else:
        function = "MURMUR_HASH_2" if ring.hash == "murmur2" else "XX_HASH"
        sizes = {"minimum_ring_size": ring.min_size, "maximum_ring_size": ring.max_size}
        kind = {"lb_policy": "RING_HASH", "ring_hash_lb_config": {**sizes, "hash_function": function}}
    endpoints = [
        {"endpoint": {"address": socket_address(port)}, "load_balancing_weight": weight} for port, weight in upstreams
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        **kind,
        "common_lb_config": common,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


class Ours:
    """The mesh's balancer over the same endpoints."""

    def __init__(self, name: str, upstreams: Sequence[Upstream]) -> None:
        balancing, weights = CLUSTERS[name]
        self.members = [
            Member(
                Endpoint("127.0.0.1", server.server_port, weight),
                EndpointNode(),
                Load(0.0, 0.03, 10.0),
                EndpointHealth(),
            )
            for server, weight in zip(upstreams, weights, strict=True)
        ]
        self.balancer: Balancer = find_balancer(balancing.policy)(self.members, balancing, 0.0, Random(1))

    def pick(self, hash: int | None, tried: Sequence[Member] = ()) -> Member:
        traits = Traits()
        traits.hash = hash
        usable = (lambda member: member not in tried) if tried else None
        picked = self.balancer.pick(0.0, Random(1), usable, traits)
        assert picked is not None
        return picked


@contextmanager
def asking(port: int) -> Iterator[Callable[..., str]]:
    """Asks Envoy over one connection; the answer is the address of the endpoint that it chose."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(path: str, key: str, cookie: str = "") -> str:
        headers = {"x-key": key, **({"cookie": cookie} if cookie else {})}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.headers["x-at"]

    try:
        yield ask
    finally:
        connection.close()


def test_every_key_goes_to_the_same_endpoint(port: int, upstreams: list[Upstream]) -> None:
    differing: dict[str, int] = {}
    with asking(port) as ask:
        for name in CLUSTERS:
            ours = Ours(name, upstreams)
            differing[name] = sum(ask(f"/{name}/", key) != ours.pick(hash_of_key(key)).endpoint.address for key in KEYS)
    assert differing == dict.fromkeys(CLUSTERS, 0)


def test_hash_policies_make_the_same_hash(port: int, upstreams: list[Upstream]) -> None:
    ours = Ours("ring", upstreams)
    with asking(port) as ask:
        for name, policies in POLICIES.items():
            for number, key in enumerate(KEYS[:150]):
                query, cookie = f"a=1&user=u%20{number}", f'other=x; session="s-{number % 7}"'
                headers = {"x-key": key, "cookie": cookie}
                hash, _ = hash_of_call(policies, headers, query, "127.0.0.1", Random(1))
                assert ask(f"/{name}/?{query}", key, cookie) == ours.pick(hash).endpoint.address, (name, key)


@pytest.mark.parametrize("name", ["ring", "weighted-ring", "maglev", "weighted-maglev"])
def test_retries_go_to_the_same_endpoints_in_the_same_order(port: int, upstreams: list[Upstream], name: str) -> None:
    ours = Ours(name, upstreams)
    with asking(port) as ask:
        for key in KEYS[:60]:
            tried: list[Member] = []
            for _ in range(3):
                tried.append(ours.pick(hash_of_key(key), tried))
            for server in upstreams:
                server.keys.clear()
            assert ask(f"/{name}/fail", key) == tried[-1].endpoint.address
            asked = {server.server_port for server in upstreams if key in server.keys}
            assert asked == {member.endpoint.port for member in tried}


@pytest.mark.parametrize("name", ["bounded-ring", "bounded-maglev"])
def test_what_is_over_the_bound_goes_to_the_same_endpoints(port: int, upstreams: list[Upstream], name: str) -> None:
    ours, rng = Ours(name, upstreams), Random(7)
    theirs, mine = [], []
    for server in upstreams:
        server.release.clear()
    with ExitStack() as stack:
        for _ in range(60):
            key = KEYS[min(int(rng.expovariate(1.0)), 9)]  # few keys, and some of them hot
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            stack.callback(connection.close)
            connection.request("GET", f"/{name}/hold", headers={"x-key": key})
            theirs.append(connection.getresponse().headers["x-at"])
            member = ours.pick(hash_of_key(key))
            member.node.enter()
            mine.append(member.endpoint.address)
        for server in upstreams:
            server.release.set()
    assert mine == theirs
    assert len(set(theirs)) > 3
