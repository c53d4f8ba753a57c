"""The servers that the benchmarks run against: a real nginx, a real Envoy before it, and a sink for long uploads."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.loads import KIB, MIB, TASKS, Load
from tests.peers import fetch
from tests.peers.process import Process, accepts, free_port
from tests.peers.servers import Envoy, Nginx

REPLY = b'{"id": 42, "state": "shipped", "items": [{"sku": "a-1", "count": 2}], "total": "19.90"}'
STREAM_BYTES = 1024 * MIB
QUICK_STREAM_BYTES = 16 * MIB
_TLS_PORTS = 3
_BODIES = (64 * KIB, MIB, QUICK_STREAM_BYTES, STREAM_BYTES)
_ROOT = Path(__file__).resolve().parent.parent

# Connections are never closed by the server: what is compared is the cost of a call, not of a connection. What is
# uploaded is read whole before the answer; nginx by itself would answer first and throw the rest away.
_LOCATIONS = f"""\
    location / {{ return 200 '{REPLY.decode()}'; }}
    location /bytes/ {{ root @root@; default_type application/octet-stream; sendfile on; open_file_cache max=10; }}
    location /upload {{
        client_max_body_size 0; client_body_buffer_size 1m;
        proxy_pass http://inner/orders/42; proxy_pass_request_body off; proxy_set_header Content-Length "";
        proxy_http_version 1.1; proxy_set_header Connection "";
    }}
"""
_NGINX = f"""\
keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
upstream inner {{ server 127.0.0.1:@port@; keepalive 128; keepalive_requests 1000000000; keepalive_timeout 1h; }}
server {{
@plain@
{_LOCATIONS}}}
server {{
@tls@
    ssl_certificate @root@/server.pem; ssl_certificate_key @root@/server.pem;
{_LOCATIONS}}}
"""


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the servers are.

    Attributes:
        ports, tls_ports: of nginx.
        ca_file: what its certificate is verified with.
        envoy_ports: of the sidecar, a listener for each kind of load.
        envoy_pid: 0 if there is none.
        sink_port: of what swallows uploads.
        versions: of the servers.
    """

    ports: tuple[int, ...] = ()
    tls_ports: tuple[int, ...] = ()
    ca_file: str = ""
    envoy_ports: dict[str, int] = field(default_factory=dict)
    envoy_pid: int = 0
    sink_port: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    def endpoints(self, load: Load) -> list[str]:
        """What a balancer chooses from."""
        return [f"127.0.0.1:{port}" for port in (self.tls_ports if load.tls else self.ports)[: load.endpoints]]

    def urls(self, load: Load) -> Iterator[str]:
        """What a bare client asks for, call after call."""
        scheme = "https" if load.tls else "http"
        return cycle([f"{scheme}://{address}{load.path}" for address in self.endpoints(load)[: load.addresses]])

    def envoy_url(self, load: Load) -> str:
        """What a client behind the sidecar asks for."""
        return f"http://127.0.0.1:{self.envoy_ports[listener(load)]}{load.path}"

    def as_dict(self) -> dict[str, Any]:
        """For a worker."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Peers:
        """In a worker."""
        return cls(**{**told, "ports": tuple(told["ports"]), "tls_ports": tuple(told["tls_ports"])})


def checker(load: Load) -> Callable[[int, bytes], None]:
    """What looks at every reply."""
    expected = bytes(load.reply) if load.reply else REPLY

    def check(status: int, body: bytes) -> None:
        if status != 200 or body != expected:
            raise RuntimeError(f"status {status} and {body[:100]!r}: the wrong reply")

    return check


def listener(load: Load) -> str:
    """The name of the sidecar's listener for a load."""
    return f"orders-{load.endpoints}{'-tls' if load.tls else ''}"


@contextmanager
def running(names: set[str], loads: Sequence[Load] = (TASKS,)) -> Iterator[tuple[Peers, dict[str, str]]]:
    """Start the servers and end them, whatever happens.

    Args:
        names: `nginx`, `envoy`, `sink`.
        loads: that will be asked for.

    Yields:
        Where they are; and of those that cannot be had, why.
    """
    missing: dict[str, str] = {}
    programs: dict[str, Path] = {}
    for name in sorted(names - {"sink"}):
        try:
            programs[name] = fetch.get(name)
        except fetch.PeerMissing as error:
            missing[name] = str(error)
    versions = {name: fetch.version(name, path) or "" for name, path in programs.items()}
    _allow_many_files()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshlib-bench-")))
        ports: tuple[int, ...] = ()
        tls_ports: tuple[int, ...] = ()
        envoy_ports: dict[str, int] = {}
        envoy_pid = sink_port = 0
        ca_file = ""
        if "nginx" in programs:
            root = _made(directory / "nginx")
            ca_file = _write_content(root)
            plain = max(load.endpoints for load in loads)
            nginx = Nginx(programs["nginx"], root, _config(root, plain), ports=plain + _TLS_PORTS, connections=16384)
            _start(stack, nginx)
            ports, tls_ports = nginx.ports[:plain], nginx.ports[plain:]
        found = Peers(ports, tls_ports, ca_file)
        if "envoy" in programs and ports:
            kinds = {listener(load): load for load in loads}
            envoy_ports = {name: free_port() for name in kinds}
            parts = [_sidecar(name, envoy_ports[name], load, found) for name, load in kinds.items()]
            bootstrap = {"listeners": [one for one, _ in parts], "clusters": [one for _, one in parts]}
            envoy = Envoy(programs["envoy"], _made(directory / "envoy"), {"static_resources": bootstrap})
            _start(stack, envoy)
            envoy_pid = envoy.pid
        if "sink" in names:
            sink_port = free_port()
            argv = [sys.executable, str(_ROOT / "benchmarks" / "sink.py"), str(sink_port)]
            _start(stack, Process(argv, ready=lambda: accepts(sink_port), log=directory / "sink.log"))
        yield Peers(ports, tls_ports, ca_file, envoy_ports, envoy_pid, sink_port, versions), missing


def _allow_many_files() -> None:
    """A thousand connections of each contender, here and in the servers, who inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_content(root: Path) -> str:
    """A certificate, and bodies of each size; the largest is a file without blocks on the disk."""
    import trustme

    (root / "bytes").mkdir()
    for size in _BODIES:
        file = root / "bytes" / str(size)
        file.touch()
        os.truncate(file, size)
        with file.open("rb") as whole:  # into memory, or the first client would pay for that
            while whole.read(1 << 20):
                pass
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(root / "server.pem")
    )
    authority.cert_pem.write_to_path(str(root / "ca.pem"))
    return str(root / "ca.pem")


def _config(root: Path, plain: int) -> str:
    numbers = ["", *range(2, plain + _TLS_PORTS + 1)]
    listens = [f"    listen 127.0.0.1:@port{number}@" for number in numbers]
    return (
        _NGINX.replace("@plain@", "\n".join(f"{each};" for each in listens[:plain]))
        .replace("@tls@", "\n".join(f"{each} ssl;" for each in listens[plain:]))
        .replace("@root@", str(root))
    )


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _start(stack: ExitStack, process: Process) -> None:
    stack.callback(process.kill)
    process.start()


def _sidecar(name: str, port: int, load: Load, peers: Peers) -> tuple[dict[str, Any], dict[str, Any]]:
    """The listener and the cluster that a mesh configures for one service: timeouts, retries, outliers, limits."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    route = {
        "cluster": name,
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
            "stat_prefix": name,
            "http_filters": [router],
            "route_config": {
                "name": name,
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                ],
            },
        },
    }
    upstreams = (peers.tls_ports if load.tls else peers.ports)[: load.endpoints]
    cluster = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_requests": 4096, "max_retries": 3}]},
        "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "30s", "max_ejection_percent": 50},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(each)}} for each in upstreams]}],
        },
    }
    if load.tls:
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": peers.ca_file}}},
            },
        }
    return {"name": name, "address": address(port), "filter_chains": [{"filters": [manager]}]}, cluster
