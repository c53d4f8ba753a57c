"""The servers that the benchmarks run against: a real nginx with one small reply, and a real Envoy before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.peers import fetch
from tests.peers.process import Process, free_port
from tests.peers.servers import Envoy, Nginx

PATH = "/orders/42"
REPLY = b'{"id": 42, "state": "shipped", "items": [{"sku": "a-1", "count": 2}], "total": "19.90"}'

# Connections are never closed by the server: what is compared is the cost of a call, not of a connection.
_SERVER = "server { listen 127.0.0.1:%s; location / { return 200 '" + REPLY.decode() + "'; } }"
_NGINX = "\n".join(
    [
        "keepalive_requests 1000000000;",
        "keepalive_timeout 1h;",
        "default_type application/json;",
        *(_SERVER % port for port in ("@port@", "@port2@", "@port3@")),
    ]
)


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the servers are.

    Attributes:
        ports: of nginx; three, so that a balancer has something to choose from.
        envoy_port, envoy_pid: of the sidecar; 0 if there is none.
        versions: of the servers.
    """

    ports: tuple[int, ...]
    envoy_port: int
    envoy_pid: int
    versions: dict[str, str]

    @property
    def url(self) -> str:
        """What a bare client asks for."""
        return f"http://127.0.0.1:{self.ports[0]}{PATH}"

    def as_dict(self) -> dict[str, Any]:
        """For a worker."""
        return asdict(self)


@contextmanager
def running(names: set[str]) -> Iterator[tuple[Peers, dict[str, str]]]:
    """Start the servers and end them, whatever happens.

    Args:
        names: `nginx`, `envoy`.

    Yields:
        Where they are; and of those that cannot be had, why.
    """
    missing: dict[str, str] = {}
    programs: dict[str, Path] = {}
    for name in sorted(names):
        try:
            programs[name] = fetch.get(name)
        except fetch.PeerMissing as error:
            missing[name] = str(error)
    versions = {name: fetch.version(name, path) or "" for name, path in programs.items()}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshlib-bench-")))
        ports: tuple[int, ...] = ()
        envoy_port = envoy_pid = 0
        if "nginx" in programs:
            nginx = Nginx(programs["nginx"], _made(directory / "nginx"), _NGINX, ports=3)
            _start(stack, nginx)
            ports = nginx.ports
        if "envoy" in programs and ports:
            envoy_port = free_port()
            envoy = Envoy(programs["envoy"], _made(directory / "envoy"), _sidecar(envoy_port, ports))
            _start(stack, envoy)
            envoy_pid = envoy.pid
        yield Peers(ports, envoy_port, envoy_pid, versions), missing


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _start(stack: ExitStack, process: Process) -> None:
    stack.callback(process.kill)
    process.start()


def _sidecar(port: int, upstreams: tuple[int, ...]) -> dict[str, Any]:
    """What a mesh configures in a sidecar for one service: timeouts, retries, outlier detection, limits."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    route = {
        "cluster": "orders",
        "timeout": "30s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
            "retriable_status_codes": [502, 503, 504],
            "num_retries": 2,
            "per_try_timeout": "10s",
        },
    }
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
            "HttpConnectionManager",
            "stat_prefix": "out",
            "http_filters": [router],
            "route_config": {
                "name": "out",
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                ],
            },
        },
    }
    cluster = {
        "name": "orders",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_connections": 1024, "max_requests": 1024, "max_retries": 3}]},
        "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "30s", "max_ejection_percent": 50},
        "load_assignment": {
            "cluster_name": "orders",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(each)}} for each in upstreams]}],
        },
    }
    listener = {"name": "out", "address": address(port), "filter_chains": [{"filters": [manager]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
