"""HTTPRoutes as their users write them, with real servers behind: what the conformance suite asks of a mesh."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

import meshlib
from meshlib import Mesh
from tests.adapters.support import Origin, Seen, ok, origins
from tests.config.dialects.gateway_api.documents import GROUP, path, route, to
from tests.integration.calling import Caller
from tests.net.wire_servers import serving

NAMES = ("v1", "v2")


def _documents(ports: dict[str, int]) -> Iterator[dict[str, Any]]:
    for name in ("orders", *ports):
        spec = {"ports": [{"name": "http", "port": 80}]}
        metadata = {"name": name, "namespace": "shop"}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    for name, port in ports.items():
        labels = {"kubernetes.io/service-name": name}
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }


@contextmanager
def _mesh(directory: Path, ports: dict[str, int], *documents: dict[str, Any]) -> Iterator[Mesh]:
    given = [*_documents(ports), *documents]
    (directory / "documents.yaml").write_text(yaml.safe_dump_all(given))
    with Mesh({"namespace": "shop", "include": [str(directory)]}) as mesh:
        yield mesh


def _named(name: str) -> Any:
    return lambda seen, number: ok(name.encode())


def _line(origin: Origin) -> str:
    return origin.seen[-1].line.split()[1]


def test_weights_redirects_rewrites_headers_and_errors(caller: Caller, tmp_path: Path) -> None:
    swap = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    edit = {
        "set": [{"name": "X-By", "value": "route"}],
        "add": [{"name": "X-More", "value": "2"}],
        "remove": ["X-Debug"],
    }
    answer = {"set": [{"name": "X-Via", "value": "mesh"}]}
    rules = [
        {
            "matches": [path("/split")],
            "backendRefs": [{"name": "v1", "port": 80, "weight": 3}, {"name": "v2", "port": 80, "weight": 1}],
        },
        {
            "matches": [path("/old")],
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"path": swap, "hostname": "h.example"}}],
        },
        {
            "matches": [path("/api")],
            "filters": [
                {"type": "URLRewrite", "urlRewrite": {"path": swap, "hostname": "inner.example"}},
                {"type": "RequestHeaderModifier", "requestHeaderModifier": edit},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": answer},
            ],
            "backendRefs": to("v2"),
        },
        {"matches": [path("/gone")], "backendRefs": to("nobody")},
    ]
    with origins(_named("v1"), _named("v2")) as ((_, second), servers):
        ports = {name: server.port for name, server in zip(NAMES, servers, strict=True)}
        with _mesh(tmp_path, ports, route(*rules)) as mesh:
            orders = caller.client(mesh)
            found = Counter(orders("GET", "/split").text for _ in range(60))
            assert found.keys() == set(NAMES)
            assert found["v1"] > found["v2"]
            moved = orders("GET", "/old/a?b=c")
            assert (moved.status_code, moved.headers["location"]) == (302, "http://h.example/new/a?b=c")
            response = orders("GET", "/api/a?b=c", headers={"x-by": "me", "x-more": "1", "x-debug": "1"})
            assert (response.text, response.headers["x-via"], _line(second)) == ("v2", "mesh", "/new/a?b=c")
            seen = second.seen[-1]
            assert (seen.header("host"), seen.header("x-by"), seen.header("x-debug")) == (
                "inner.example",
                "route",
                None,
            )
            assert seen.count("x-more") == 2
            assert [orders("GET", each).status_code for each in ("/gone", "/other")] == [500, 404]


def test_mirrors_get_copies(caller: Caller, tmp_path: Path) -> None:
    copied = threading.Event()

    def copy(seen: Seen, number: int) -> bytes:
        copied.set()
        return ok()

    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "v2", "port": 80}}}
    with origins(_named("v1"), copy) as ((_, second), servers):
        ports = {name: server.port for name, server in zip(NAMES, servers, strict=True)}
        with _mesh(tmp_path, ports, route({"filters": [mirror], "backendRefs": to("v1")})) as mesh:
            assert caller.client(mesh)("GET", "/a?b=c").text == "v1"
            assert copied.wait(10)
            assert _line(second) == "/a?b=c"


def test_timeouts_and_retries(caller: Caller, tmp_path: Path) -> None:
    released = threading.Event()

    def answer(seen: Seen, number: int) -> bytes:
        if "slow" in seen.line:
            released.wait(10)
        return ok(status="503 Unavailable" if number < 3 and "flaky" in seen.line else "200 OK")

    rules = [
        {"matches": [path("/slow")], "backendRefs": to("v1"), "timeouts": {"request": "80ms"}},
        {
            "matches": [path("/flaky")],
            "backendRefs": to("v1"),
            "retry": {"codes": [503], "attempts": 2, "backoff": "1ms"},
        },
    ]
    with origins(answer) as ((first,), (server,)), _mesh(tmp_path, {"v1": server.port}, route(*rules)) as mesh:
        orders = caller.client(mesh)
        assert orders("GET", "/flaky").status_code == 200
        assert len(first.seen) == 3
        with pytest.raises(meshlib.DeadlineExceeded):
            orders("GET", "/slow")
        released.set()


def test_a_backend_is_encrypted_as_its_policy_says(caller: Caller, tmp_path: Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("v1.example").configure_cert(context)
    bundle = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ca", "namespace": "shop"},
        "data": {"ca.crt": ca.cert_pem.bytes().decode()},
    }

    def policy(host: str) -> dict[str, Any]:
        validation = {"hostname": host, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
        return {
            "apiVersion": f"{GROUP}/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": "v1", "namespace": "shop"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "v1"}], "validation": validation},
        }

    with serving(Origin(), context) as server:
        given = {"v1": server.port}, route({"backendRefs": to("v1")}), bundle
        with _mesh(tmp_path, *given, policy("v1.example")) as mesh:
            assert caller.client(mesh)("GET", "/").status_code == 200
        with _mesh(tmp_path, *given, policy("v2.example")) as mesh, pytest.raises(meshlib.TLSFailed):
            caller.client(mesh)("GET", "/")
