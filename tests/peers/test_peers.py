"""Each real server starts, answers, and is gone when its test is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.peers.consul import Consul
from tests.peers.process import Process, accepts, wait_until
from tests.peers.servers import Envoy, Nginx, Redis


def fetch_text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read(), "utf-8")


def test_consul_registers_and_lists_a_service(consul: Consul) -> None:
    consul.put("/v1/agent/service/register", {"Name": "orders", "ID": "orders-1", "Port": 8080})

    (entry,) = consul.get("/v1/health/service/orders")

    assert entry["Service"]["ID"] == "orders-1"
    assert consul.address == f"http://127.0.0.1:{consul.http_port}"


def test_consul_comes_back_on_the_same_port_and_has_forgotten(consul: Consul) -> None:
    consul.put("/v1/agent/service/register", {"Name": "orders", "Port": 8080})
    pid, port = consul.pid, consul.http_port

    consul.kill()
    assert not accepts(port)
    consul.restart()

    assert consul.pid != pid
    assert consul.http_port == port
    assert consul.get("/v1/health/service/orders") == []


def test_consul_with_a_token_lets_nobody_else_in(consul_factory: Callable[..., Consul]) -> None:
    consul = consul_factory(token="11111111-2222-3333-4444-555555555555")
    assert consul.request("PUT", "/v1/kv/a", 1) == (200, True)

    consul.token = None

    assert consul.request("PUT", "/v1/kv/a", 2)[0] == 403


def test_consul_tells_the_metadata_of_its_node(consul_factory: Callable[..., Consul]) -> None:
    consul = consul_factory(node_meta={"region": "eu-west", "zone": "eu-west-1a"}, node="alpha")

    (node,) = consul.get("/v1/catalog/nodes")

    assert node["Node"] == "alpha"
    assert node["Meta"].items() >= {"region": "eu-west", "zone": "eu-west-1a"}.items()


def test_two_consuls_run_side_by_side(consul_factory: Callable[..., Consul]) -> None:
    one, two = consul_factory(), consul_factory()

    one.put("/v1/kv/who", "one")

    assert two.request("GET", "/v1/kv/who")[0] == 404


def test_nginx_serves_what_the_body_says(nginx_factory: Callable[..., Nginx]) -> None:
    nginx = nginx_factory(
        """
        server { listen 127.0.0.1:@port@; location / { return 200 one; } }
        server { listen 127.0.0.1:@port2@; location / { return 200 two; } }
        """,
        ports=2,
    )

    assert fetch_text(nginx.address) == "one"
    assert fetch_text(f"http://127.0.0.1:{nginx.ports[1]}") == "two"


def test_a_killed_nginx_leaves_no_worker(nginx_factory: Callable[..., Nginx]) -> None:
    nginx = nginx_factory("server { listen 127.0.0.1:@port@; }", workers=2)
    workers = psutil.Process(nginx.pid).children()
    assert len(workers) == 2

    nginx.kill()

    wait_until(lambda: not any(alive(worker.pid) for worker in workers), "its workers are gone")


def test_a_suspended_server_accepts_and_does_not_answer(nginx_factory: Callable[..., Nginx]) -> None:
    nginx = nginx_factory("server { listen 127.0.0.1:@port@; location / { return 200 ok; } }")

    nginx.suspend()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(nginx.address, timeout=0.2)
    nginx.resume()

    assert fetch_text(nginx.address) == "ok"


def test_a_server_with_a_wrong_configuration_says_why(nginx_factory: Callable[..., Nginx]) -> None:
    with pytest.raises(RuntimeError, match="unknown directive"):
        nginx_factory("nonsense;")


def test_envoy_starts_and_proxies(
    nginx_factory: Callable[..., Nginx],
    envoy_factory: Callable[[dict[str, Any]], Envoy],
    free_port: Callable[[], int],
) -> None:
    nginx = nginx_factory("server { listen 127.0.0.1:@port@; location / { return 200 behind; } }")
    port = free_port()
    envoy = envoy_factory(tcp_proxy(port, nginx.port))

    assert envoy.admin("/ready") == (200, "LIVE\n")
    assert fetch_text(f"http://127.0.0.1:{port}") == "behind"


def test_redis_answers(redis_server: Redis) -> None:
    assert redis_server.url == f"redis://127.0.0.1:{redis_server.port}/0"
    assert accepts(redis_server.port)


def test_a_server_dies_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from tests.peers.process import Process\n"
        "log = pathlib.Path(sys.argv[1])\n"
        "command = ['sh', '-c', 'echo up; exec sleep 300']\n"
        "process = Process(command, ready=lambda: 'up' in process.output, log=log)\n"
        "process.start()\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=root
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert alive(pid)

        os.kill(run.pid, signal.SIGKILL)

    wait_until(lambda: not alive(pid), "the server is gone")


def test_a_process_that_never_answers_is_ended(tmp_path: Path) -> None:
    process = Process(["sleep", "300"], ready=lambda: False, log=tmp_path / "log", timeout=0.2)

    with pytest.raises(RuntimeError, match="does not answer"):
        process.start()

    assert not process.alive


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and is only waiting to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def tcp_proxy(port: int, upstream_port: int) -> dict[str, Any]:
    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "upstream",
        },
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(upstream_port)}}]}
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": address(port), "filter_chains": [{"filters": [proxy]}]}],
            "clusters": [
                {
                    "name": "upstream",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {"cluster_name": "upstream", "endpoints": [endpoint]},
                }
            ],
        }
    }
