"""Services behind Unix sockets: called, balanced, secured and shown like any others."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import meshlib
from meshlib import Mesh
from tests.adapters.support import Origin, ok
from tests.integration.calling import Caller
from tests.net.wire_servers import RawServer, serving


@contextlib.contextmanager
def behind(path: Path, tls: ssl.SSLContext | None = None, body: bytes = b"ok") -> Iterator[tuple[Origin, RawServer]]:
    origin = Origin(lambda seen, number: ok(body))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    with serving(origin, tls, listener) as server:
        yield origin, server


def mesh_at(*paths: Any, **service: Any) -> Mesh:
    endpoints = [path if isinstance(path, str) else f"unix:{path}" for path in paths]
    return Mesh({"discovery": [], "services": {"orders": {"endpoints": endpoints, **service}}})


def test_calls_are_balanced_over_sockets_and_ports_alike(caller: Caller, tmp_path: Path) -> None:
    first, second = tmp_path / "a.sock", tmp_path / "b.sock"
    with (
        behind(first, body=b"a") as (origin, _),
        behind(second, body=b"b"),
        serving(Origin(lambda seen, number: ok(b"c"))) as server,
        mesh_at(first, second, f"127.0.0.1:{server.port}", load_balancing={"policy": "round_robin"}) as mesh,
    ):
        call = caller.client(mesh)
        answers = [call("GET", "/orders/42") for _ in range(30)]
        assert {len(meshlib.record(answer).attempts) for answer in answers} == {1}
        shares = Counter(answer.text for answer in answers)
        assert sorted(shares) == ["a", "b", "c"]
        assert min(shares.values()) >= 9
        assert {seen.header("host") for seen in origin.seen} == {"orders"}
        addresses = {meshlib.record(answer).attempts[0].endpoint for answer in answers}
        assert addresses == {f"unix:{first}", f"unix:{second}", f"127.0.0.1:{server.port}"}
        shown = {pool.address: pool.open for pool in mesh.status().pools}
        assert shown == dict.fromkeys(addresses, 1)


def test_tls_over_a_socket_asks_for_the_service(caller: Caller, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("orders").configure_cert(context)
    path = tmp_path / "orders.sock"
    with behind(path, context), mesh_at(path, tls={"ca_file": str(tmp_path / "ca.pem")}) as mesh:
        assert caller.client(mesh)("GET", "/").text == "ok"


def test_a_socket_that_is_gone_is_retried_elsewhere_and_told_if_there_is_no_other(
    caller: Caller, tmp_path: Path
) -> None:
    with behind(tmp_path / "a.sock"), mesh_at(tmp_path / "gone.sock", tmp_path / "a.sock") as mesh:
        call = caller.client(mesh)
        for _ in range(10):
            assert call("POST", "/orders").text == "ok"
    with mesh_at(tmp_path / "gone.sock") as mesh, pytest.raises(meshlib.ConnectFailed, match=r"gone\.sock: No such"):
        caller.client(mesh)("GET", "/")


@pytest.mark.parametrize(("host_header", "expected"), [("endpoint", "localhost"), ("shop", "shop")])
def test_the_host_header_of_a_socket(caller: Caller, tmp_path: Path, host_header: str, expected: str) -> None:
    path = tmp_path / "orders.sock"
    with behind(path) as (origin, _), mesh_at(path, host_header=host_header) as mesh:
        caller.client(mesh)("GET", "/")
    assert [seen.header("host") for seen in origin.seen] == [expected]


def test_a_transport_that_cannot_be_told_of_a_socket_is_refused(tmp_path: Path) -> None:
    with mesh_at(tmp_path / "orders.sock") as mesh:
        orders = mesh.client("orders", transport=httpx.MockTransport(lambda request: httpx.Response(200)))
        with pytest.raises(meshlib.ConnectFailed, match="is told a URL"):
            orders.get("/")
