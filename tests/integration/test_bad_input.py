"""What a peer may do to a call: each is survived where another endpoint is good, and a typed error where none is."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import meshlib
from meshlib import Mesh
from tests.adapters.support import address, mesh_of, ok, origins
from tests.integration.calling import Caller
from tests.integration.test_sharing import held
from tests.net.wire_servers import OK, Peer, RawServer, serving, soon

pytestmark = pytest.mark.slow  # many cases, with real servers

Script = Callable[[Peer], None]


def says(answer: bytes, *, then_reset: bool = False) -> Script:
    """Takes a request, answers with these bytes, and hangs up."""

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(answer)
            if then_reset:
                time.sleep(0.01)
                peer.reset()

    return script


def hangs(peer: Peer) -> None:
    peer.request()
    peer.wait_until_gone()


def greets(peer: Peer) -> None:
    peer.request()
    peer.send(b"220 mail ESMTP")
    peer.wait_until_gone()


def says_at_once(peer: Peer) -> None:
    peer.sock.recv(65536)
    peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def resets_at_once(peer: Peer) -> None:
    """Which may still be before the caller has noticed that it is connected."""
    peer.reset()


def resets_after_the_request(peer: Peer) -> None:
    peer.request()
    peer.reset()


def hangs_up(peer: Peer) -> None:
    peer.request()


def half_the_head_and_hangs(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-")
    peer.wait_until_gone()


def half_the_body_and_hangs(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    peer.wait_until_gone()


def informs_for_ever(peer: Peer) -> None:
    peer.request()
    while True:
        peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.005)


def heads_for_ever(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.send(b"x-more: " + b"y" * 60_000 + b"\r\n")


WAYS: list[tuple[str, Script, type[meshlib.MeshError], type[Exception]]] = [
    ("accepts and never answers", hangs, meshlib.AttemptTimeout, httpx.ReadTimeout),
    ("resets at once", resets_at_once, meshlib.WireError, httpx.NetworkError),
    ("resets after the request", resets_after_the_request, meshlib.Reset, httpx.ReadError),
    ("hangs up without a word", hangs_up, meshlib.Reset, httpx.ReadError),
    ("half a head, then silence", half_the_head_and_hangs, meshlib.AttemptTimeout, httpx.ReadTimeout),
    ("half a head, then gone", says(b"HTTP/1.1 200 OK\r\nContent-"), meshlib.WireError, httpx.TransportError),
    ("half a body, then silence", half_the_body_and_hangs, meshlib.WireError, httpx.TransportError),
    (
        "half a body, then gone",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        meshlib.BodyBroken,
        httpx.RemoteProtocolError,
    ),
    (
        "half a body, then a reset",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then_reset=True),
        meshlib.BodyBroken,
        httpx.RemoteProtocolError,
    ),
    (
        "a broken chunk",
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrubbish\r\n"),
        meshlib.WireError,
        httpx.RemoteProtocolError,
    ),
    ("rubbish", says(b"\x16\x03\x01 this is no HTTP at all\r\n\r\n"), meshlib.ProtocolError, httpx.RemoteProtocolError),
    ("another protocol", says(b"SSH-2.0-OpenSSH_9.6\r\n"), meshlib.ProtocolError, httpx.RemoteProtocolError),
    ("another protocol, that waits", greets, meshlib.ProtocolError, httpx.RemoteProtocolError),
    ("an impossible status", says(b"HTTP/1.1 20 OK\r\n\r\n"), meshlib.ProtocolError, httpx.RemoteProtocolError),
    (
        "two lengths",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
        meshlib.ProtocolError,
        httpx.RemoteProtocolError,
    ),
    ("a head without end", heads_for_ever, meshlib.ProtocolError, httpx.RemoteProtocolError),
    ("provisional answers without end", informs_for_ever, meshlib.WireError, httpx.TransportError),
]


@pytest.mark.parametrize(("what", "script", "ours", "theirs"), WAYS, ids=[way[0] for way in WAYS])
def test_each_misbehaviour_is_survived_or_a_typed_error(
    caller: Caller, what: str, script: Script, ours: type[meshlib.MeshError], theirs: type[Exception]
) -> None:
    options: dict[str, Any] = {
        "per_try_timeout": "200ms",
        "body_idle_timeout": "200ms",
        "timeout": "5s",
        "load_balancing": {"policy": "round_robin"},
        "retry": {"max_retries": 1, "on": ["connect-failure", "reset", 503], "backoff": {"base": "1ms", "max": "1ms"}},
    }
    with serving(script) as bad, origins(None) as (_, [good]):
        # `reset` is what the policy calls every way in which an endpoint breaks off.
        with mesh_of(bad, good, **options) as mesh:
            call = caller.client(mesh)
            for _ in range(4):
                assert call("GET", "/x").content == b"ok"
        with mesh_of(bad, **options) as mesh:
            call = caller.client(mesh)
            for _ in range(2):
                with pytest.raises(theirs) as caught:
                    call("GET", "/x")
                error = caught.value
                assert isinstance(error, ours)
                assert isinstance(error, meshlib.MeshError)
                assert address(bad) in str(error)
                assert "orders" in str(error)
                assert error.record is not None
                assert 1 <= len(error.record.attempts) <= 2
                assert str(error.request.url) == "http://orders/x"  # type: ignore[attr-defined]
            soon(lambda: held(mesh) == [])


@contextmanager
def refusing_to_accept() -> Iterator[int]:
    """A port at which a connection is neither made nor refused: the line of those to be accepted is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_an_endpoint_that_does_not_accept_is_a_connect_timeout(caller: Caller) -> None:
    with refusing_to_accept() as port:
        orders = {"endpoints": [f"127.0.0.1:{port}"], "connect_timeout": "150ms", "retry": {"max_retries": 0}}
        with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh:
            began = time.monotonic()
            with pytest.raises(httpx.ConnectTimeout) as caught:
                caller.client(mesh)("POST", "/x")
            assert time.monotonic() - began < 1
            assert isinstance(caught.value, meshlib.ConnectTimeout)


def test_all_endpoints_dead_is_one_error_that_names_what_was_tried(caller: Caller) -> None:
    with serving(hangs) as one, serving(hangs) as two:
        dead = [address(one), address(two)]
    with Mesh({"discovery": [], "services": {"orders": {"endpoints": dead}}}) as mesh:
        with pytest.raises(httpx.ConnectError) as caught:
            caller.client(mesh)("POST", "/x")
        assert isinstance(caught.value, meshlib.ConnectFailed)
        record = caught.value.record
        assert record is not None
        assert {attempt.endpoint for attempt in record.attempts} == set(dead)
        assert record.retries == 2
        # In the end the circuit is open, and the answer is quick and says when to come again.
        call = caller.client(mesh)
        for _ in range(60):
            with pytest.raises(httpx.ConnectError) as caught:
                call("GET", "/x")
        assert isinstance(caught.value, meshlib.CircuitOpen)
        assert caught.value.retry_after_s > 0


def test_a_name_that_does_not_resolve_is_a_failed_connection(caller: Caller) -> None:
    orders = {"endpoints": ["no-such-host.invalid:80"], "retry": {"max_retries": 0}}
    with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh:
        with pytest.raises(httpx.ConnectError, match=r"no-such-host\.invalid") as caught:
            caller.client(mesh)("GET", "/x")
        assert isinstance(caught.value, meshlib.ConnectFailed)


@contextmanager
def tls_server(name: str, tmp_path: Path) -> Iterator[RawServer]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    with serving(says(OK), context) as server:
        yield server


@pytest.mark.parametrize("what", ["plain at TLS", "TLS at plain", "another name", "an unknown CA"])
def test_encryption_that_does_not_match_is_a_typed_error(caller: Caller, what: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        tls: dict[str, Any] = {"ca_file": str(tmp_path / "ca.pem")}
        server = stack.enter_context(tls_server("stock" if what == "another name" else "orders", tmp_path))
        expected: type[meshlib.MeshError] = meshlib.TLSFailed
        match what:
            case "plain at TLS":
                tls, expected = {"mode": "off"}, meshlib.WireError
            case "TLS at plain":
                server = stack.enter_context(serving(says_at_once))
            case "an unknown CA":
                tls = {}
        mesh = stack.enter_context(mesh_of(server, tls=tls, retry={"max_retries": 0}, per_try_timeout="2s"))
        with pytest.raises(httpx.TransportError) as caught:
            caller.client(mesh)("GET", "/x")
        assert isinstance(caught.value, expected), repr(caught.value)


def test_bodies_that_cannot_be_read_blame_nobody_but_the_caller(caller: Caller) -> None:
    def sync_body() -> Iterator[bytes]:
        yield b"one"
        raise LookupError("the caller's own")

    async def async_body() -> Any:
        yield b"one"
        raise LookupError("the caller's own")

    with origins(None) as ([_origin], [server]), mesh_of(server) as mesh:
        call = caller.client(mesh)
        with pytest.raises(LookupError, match="the caller's own"):
            call("PUT", "/x", content=sync_body() if caller.name == "sync" else async_body())
        assert call("GET", "/x").status_code == 200
        (endpoint,) = mesh.status().services[0].clusters[0].endpoints
        assert (endpoint.state, endpoint.in_flight) == ("healthy", 0)


def test_more_than_was_announced_does_not_reach_the_next_call(caller: Caller) -> None:
    """Bytes behind the end of a response must never become the beginning of the next one."""

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            peer.wait_until_gone()

    with serving(script) as server, mesh_of(server) as mesh:
        call = caller.client(mesh)
        for _ in range(3):
            assert call("GET", "/x").content == b"ok"


# The configuration file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "(?i)no such file"),
        ("services: [", r"mesh\.yaml"),
        ("\x00\x01", r"mesh\.yaml"),
        ("- a list", "map"),
        ("services: {orders: {timout: 2s}}", r"timeout"),
        ("services: {orders: {timeout: soon}}", r"services\.orders\.timeout"),
        ("mode: sideways", "observe"),
        ("services: {orders: {endpoints: ['10.0.0.1']}}", "port"),
        ("services: {orders: {routes: [{backends: [{subset: v9}]}]}}", "v9"),
    ],
)
def test_a_missing_or_malformed_configuration_names_file_and_fault(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "mesh.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(meshlib.ConfigError, match=says) as caught:
        Mesh.from_file(path)
    assert "mesh.yaml" in str(caught.value)


def test_a_status_that_nobody_retries_is_delivered(caller: Caller) -> None:
    with origins(lambda seen, n: ok(b"{}", "500 Oops")) as ([origin], [server]), mesh_of(server) as mesh:
        assert caller.client(mesh)("GET", "/x").status_code == 500
        assert len(origin.seen) == 1
