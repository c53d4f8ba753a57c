"""``meshlib init``: a first file from what is there, and never over one that is."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from click.testing import Result

from meshlib.cli.first_file import Found, FoundService, first_file, name_for
from meshlib.cli.init_env import found_in_environment
from meshlib.cli.init_kubernetes import cluster_here, found_in_kubernetes
from meshlib.config.compile import compile_config
from meshlib.config.load import load_file
from meshlib.config.settings import ConsulSettings, MeshSettings, StaticSettings
from meshlib.errors import DiscoveryUnavailable
from tests.peers.consul import Consul

Run = Callable[..., Result]


def loaded(path: Path, **environ: str) -> MeshSettings:
    return compile_config(load_file(path, environ=environ))


def addresses(settings: MeshSettings) -> dict[str, list[str]]:
    static = next(each for each in settings.discovery if isinstance(each, StaticSettings))
    return {name: [each.address for each in found] for name, found in static.services.items()}


# The environment

ENVIRON = {
    "ORDERS_URL": "http://orders:8080",
    "PAYMENTS_SERVICE_URL": "https://user:s3cr3t@payments.internal/v1",
    "STOCK_BASE_URL": "http://127.0.0.1:9000/",
    "USERS_SERVICE_HOST": "10.0.0.7",
    "USERS_SERVICE_PORT": "8081",
    "USERS_URL": "http://10.0.0.7:8081",
    "ZAGAIN_URL": "http://payments.internal:443",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "DATABASE_URL": "postgres://u:s3cr3t@db/x",
    "HTTP_PROXY": "http://proxy:3128",
    "EMPTY_URL": "",
    "BAD_URL": "http://[::1",
    "ODD_URL": "http://a b/",
    "SIX_URL": "http://[::1]:80",
    "LOST_SERVICE_HOST": "10.0.0.8",
}


def test_variables_make_services() -> None:
    found = {each.name: each for each in found_in_environment(ENVIRON).services}

    assert sorted(found) == ["orders", "payments", "six", "stock", "users"]
    assert found["orders"].endpoints == ("orders:8080",) and found["orders"].hosts == ()
    assert found["payments"].endpoints == ("payments.internal:443",)
    assert found["payments"].server_name == "payments.internal"
    assert found["users"].endpoints == ("${USERS_SERVICE_HOST}:${USERS_SERVICE_PORT}",)
    assert found["six"].endpoints == ("[::1]:80",)


def test_a_file_of_the_environment_loads_and_holds_no_secret(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)

    result = run("init", "--env", "--service", "checkout")

    text = (tmp_path / "mesh.yaml").read_text()
    settings = loaded(tmp_path / "mesh.yaml", **ENVIRON)
    assert result.exit_code == 0, result.output
    assert "s3cr3t" not in text
    assert (settings.service, settings.mode) == ("checkout", "observe")
    assert addresses(settings)["users"] == ["10.0.0.7:8081"]
    assert settings.services["payments"].clusters[None].tls is not None


def test_a_file_that_is_there_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("mode: off\n")

    refused = run("init", "--env")

    assert (refused.exit_code, (tmp_path / "mesh.yaml").read_text()) == (2, "mode: off\n")
    assert "mesh.yaml is there already; --force replaces it" in refused.output
    assert run("init", "--env", "-o", "other.yaml").exit_code == 0
    assert run("init", "--env", "--force").exit_code == 0
    assert loaded(tmp_path / "mesh.yaml").mode == "observe"


def test_it_may_go_to_standard_output_and_is_valid_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "printed.yaml").write_text(run("init", "--env", "-o", "-").stdout)

    assert loaded(tmp_path / "printed.yaml").services == {}
    assert not (tmp_path / "mesh.yaml").exists()


@pytest.mark.parametrize("arguments", [[], ["--env", "--service", "Check Out"]])
def test_a_wrong_call_exits_with_2(arguments: list[str], run: Run) -> None:
    assert run("init", *arguments).exit_code == 2


def test_whatever_a_registry_says_the_file_loads_and_a_comment_stays_one(tmp_path: Path) -> None:
    evil = "x\n  evil: {timeout: 1s}\n\u2028services:\x00"
    services = [
        FoundService("on", (evil,), ("a.b:1",), ("a.b:1",), "on", ("1", "2", evil)),
        FoundService("1.0", (), (), ("${A_SERVICE_HOST}:${A_SERVICE_PORT}",)),
    ]
    file = tmp_path / "mesh.yaml"
    file.write_text(first_file(Found(evil, services, ("consul", {"datacenter": "dc"}), (evil,)), "null"))

    settings = loaded(file, A_SERVICE_HOST="h", A_SERVICE_PORT="1")

    assert (settings.service, list(settings.services)) == ("null", ["on", "1.0"])
    assert name_for("Ünder_Score..") == "nder_score"


# Consul


def test_a_file_of_consuls_catalog_loads_and_names_its_services(
    consul_factory: Callable[..., Consul], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consul = consul_factory(token="11111111-2222-3333-4444-555555555555")
    for name, version in (("orders-1", "v1"), ("orders-2", "v2")):
        entry = {"ID": name, "Name": "orders", "Port": 80, "Tags": ["blue\nx"], "Meta": {"version": version}}
        assert consul.request("PUT", "/v1/agent/service/register", entry)[0] == 200
    proxy = {"Name": "orders-proxy", "Kind": "connect-proxy", "Port": 81, "Proxy": {"DestinationServiceName": "orders"}}
    assert consul.request("PUT", "/v1/agent/service/register", proxy)[0] == 200
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", str(consul.token))

    result = run("init", "--consul", "--address", consul.address)

    text = (tmp_path / "mesh.yaml").read_text()
    settings = loaded(tmp_path / "mesh.yaml", CONSUL_HTTP_TOKEN="x")
    assert result.exit_code == 0, result.output
    assert list(settings.services) == ["orders"]
    assert settings.discovery == (ConsulSettings(consul.address, "x"),)
    assert "# 2 instances, 2 healthy; tags: blue x" in text
    assert "# subsets: {v1: {version: v1}, v2: {version: v2}}" in text
    assert str(consul.token) not in text + result.output


def test_a_consul_that_does_not_answer_is_said_to_be_so(run: Run, tmp_path: Path) -> None:
    result = run("init", "--consul", "--address", "http://127.0.0.1:1")

    assert result.exit_code == 2
    assert "Consul at http://127.0.0.1:1" in result.output
    assert not (tmp_path / "mesh.yaml").exists()


# Kubernetes


def service(name: str, ports: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": ports, **spec}}


SERVICES = [
    service("kubernetes", [{"port": 443}]),
    service("orders", [{"name": "http", "port": 80}, {"name": "admin", "port": 9000}], clusterIP="10.0.0.5"),
    service("users", [{"port": 8080, "protocol": "TCP"}, {"name": "admin", "port": 9000}], clusterIP="None"),
    service("orders-admin", [{"port": 81}, {"port": None}]),
    service("dns", [{"port": 53, "protocol": "UDP"}]),
    service("pay", [{"port": 443}], type="ExternalName", externalName="pay.example.com"),
]
SLICES = [
    {
        "metadata": {"labels": {"kubernetes.io/service-name": "orders"}},
        "endpoints": [{"conditions": {"ready": True}}, {"conditions": {"ready": False}}, {}],
    }
]


class Api:
    """A small Kubernetes API: services in pages of two, EndpointSlices only to who may see them."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, token: str = "", slices: bool = True) -> None:
        api = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                status, body = api.answer(self.path, self.headers.get("authorization", ""))
                payload = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._token, self._slices = token, slices
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, target: str, authorization: str) -> tuple[int, Any]:
        parts = urlsplit(target)
        if self._token and authorization != f"Bearer {self._token}":
            return 401, {}
        if parts.path == "/api/v1/namespaces/shop/services":
            start = int(parse_qs(parts.query).get("continue", ["0"])[0])
            more = {"continue": str(start + 2)} if start + 2 < len(SERVICES) else {}
            return 200, {"items": SERVICES[start : start + 2], "metadata": more}
        if parts.path == "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices":
            return (200, {"items": SLICES}) if self._slices else (403, {})
        return 404, {}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Callable[..., Api]]:
    opened: list[Api] = []

    def make(*arguments: Any, **options: Any) -> Api:
        opened.append(Api(*arguments, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_a_file_of_a_namespace_loads_and_names_its_services(api: Callable[..., Api], run: Run, tmp_path: Path) -> None:
    result = run("init", "--kubernetes", "--api", f"http://127.0.0.1:{api().port}/", "--namespace", "shop")

    settings = loaded(tmp_path / "mesh.yaml")
    assert result.exit_code == 0, result.output
    assert addresses(settings) == {
        "orders": ["orders.shop.svc.cluster.local:80"],
        "orders-admin": ["orders-admin.shop.svc.cluster.local:81"],
        "pay": ["pay.example.com:443"],
        "users": ["users.shop.svc.cluster.local:8080"],
        "users-admin": ["users.shop.svc.cluster.local:9000"],
    }
    assert settings.services["orders"].hosts == ("orders.shop", "orders.shop.svc", "orders.shop.svc.cluster.local")
    assert settings.services["users-admin"].hosts == (
        "users:9000",
        "users.shop:9000",
        "users.shop.svc:9000",
        "users.shop.svc.cluster.local:9000",
    )
    text = (tmp_path / "mesh.yaml").read_text()
    assert "# 2 endpoints ready; port http" in text
    assert "# headless: its name stands for all its pods" in text


def test_in_a_pod_its_service_account_speaks_for_it(api: Callable[..., Api], tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = api(context, token="t0ken", slices=False)
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "namespace").write_text("shop")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}

    cluster = cluster_here(None, None, environ, tmp_path)
    found = found_in_kubernetes(cluster)

    assert "t0ken" not in repr(cluster)
    assert [each.name for each in found.services] == ["orders", "orders-admin", "pay", "users", "users-admin"]
    assert found.services[0].comments == ("port http",)


def test_a_role_that_may_not_list_is_told_what_it_lacks(api: Callable[..., Api]) -> None:
    server = api(token="t0ken")
    cluster = cluster_here(f"http://127.0.0.1:{server.port}", "shop", {})

    with pytest.raises(DiscoveryUnavailable, match="answered 401; its role needs `list` on services in shop"):
        found_in_kubernetes(cluster)


def test_outside_of_a_cluster_it_says_what_to_do(run: Run, tmp_path: Path) -> None:
    outside = run("init", "--kubernetes")
    silent = run("init", "--kubernetes", "--api", "http://127.0.0.1:1")

    assert (outside.exit_code, silent.exit_code) == (2, 2)
    assert "kubectl proxy" in outside.output
    assert "Kubernetes at http://127.0.0.1:1" in silent.output
    with pytest.raises(DiscoveryUnavailable, match="service account"):
        cluster_here(None, None, {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}, tmp_path)
