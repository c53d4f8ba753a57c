"""TLS over real sockets: identity is the service's name, while the connection goes to an address."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import TlsSettings
from meshlib.errors import BodyBroken, ConnectTimeout, Reset, TLSFailed
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, Target, WireLimits
from tests.net.test_chaos import in_child
from tests.net.wire_servers import (
    OK,
    AsyncDriver,
    Peer,
    RawServer,
    Script,
    SyncDriver,
    Wire,
    get,
    keep_alive,
    open_sockets,
    post,
    serving,
)

LARGE = b"x" * 3_000_000
NOWHERE = Endpoint("127.0.0.1", 1)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def server(ca: trustme.CA) -> Iterator[RawServer]:
    with serving(keep_alive, server_context(ca)) as running:
        yield running


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("orders.mesh", "127.0.0.1"))).configure_cert(context)
    return context


def test_a_connection_to_an_address_is_verified_by_the_services_name(
    wire: Wire, server: RawServer, ca_file: str
) -> None:
    target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
    for expected in (False, True):
        reply = wire.call(target, post(b"x" * 300_000))
        assert len(reply.body) == 300_000
        assert reply.progress.reused is expected
    stream = reply.extensions["network_stream"]
    assert stream.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)


def test_the_name_is_sent_as_sni_and_a_connection_is_not_shared_between_names(
    wire: Wire, ca: trustme.CA, ca_file: str
) -> None:
    names: list[str | None] = []
    context = server_context(ca, "orders.mesh", "billing.mesh")
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    with serving(keep_alive, context) as server:
        tls = TlsSettings(ca_file=ca_file)
        for name in ("orders.mesh", "billing.mesh", "orders.mesh"):
            wire.call(server.target(tls=tls, server_name=name))
        assert names == ["orders.mesh", "billing.mesh"]
        wire.call(server.target(tls=TlsSettings(ca_file=ca_file, server_name="orders.mesh"), server_name="orders.mesh"))
        assert len(names) == 3


def test_without_a_name_the_settings_and_then_the_address_are_verified(
    wire: Wire, server: RawServer, ca_file: str
) -> None:
    assert wire.call(server.target(tls=TlsSettings(ca_file=ca_file, server_name="orders.mesh"))).status == 200
    assert wire.call(server.target(tls=TlsSettings(ca_file=ca_file))).status == 200


def test_a_wrong_name_is_refused_before_a_byte_of_the_request(wire: Wire, server: RawServer, ca_file: str) -> None:
    progress = Progress()
    with pytest.raises(TLSFailed, match=r"billing\.mesh") as caught:
        wire.send(server.target(tls=TlsSettings(ca_file=ca_file), server_name="billing.mesh"), get(), progress)
    assert progress.phase == "tls"
    assert not progress.bytes_written
    assert "127.0.0.1" in str(caught.value)


def test_an_untrusted_ca_is_refused(wire: Wire, server: RawServer) -> None:
    with pytest.raises(TLSFailed, match="ca_file"):
        wire.send(server.target(tls=TlsSettings(), server_name="orders.mesh"), get())


def test_verification_can_be_turned_off(wire: Wire, server: RawServer) -> None:
    assert wire.call(server.target(tls=TlsSettings(verify=False), server_name="anything")).status == 200


def test_a_client_certificate_is_shown_to_a_peer_that_asks(
    wire: Wire, ca: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    own = ca.issue_cert("checkout.mesh")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    seen: list[Any] = []

    def script(peer: Peer) -> None:
        seen.append(peer.sock.getpeercert())  # type: ignore[attr-defined]
        keep_alive(peer)

    context = server_context(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    with serving(script, context) as server:
        tls = TlsSettings(ca_file=ca_file, cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"))
        assert wire.call(server.target(tls=tls, server_name="orders.mesh")).status == 200
        assert ("DNS", "checkout.mesh") in seen[0]["subjectAltName"]
        with pytest.raises((TLSFailed, Reset)):
            wire.send(server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh"), get())


def test_a_plain_server_is_tls_failed(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(script) as server, pytest.raises(TLSFailed):
        wire.send(server.target(tls=TlsSettings(verify=False), server_name="x"), get())


@pytest.mark.parametrize("how", ["silence", "drip"])
def test_a_handshake_that_does_not_end_costs_the_connect_timeout(wire: Wire, how: str) -> None:
    def script(peer: Peer) -> None:
        if how == "drip":
            # The head of a handshake record of 16 KiB, and then a byte of it every now and then.
            for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 100:
                peer.send(bytes([byte]))
                time.sleep(0.05)
        peer.wait_until_gone()

    with serving(script) as server:
        began = time.monotonic()
        progress = Progress()
        with pytest.raises(ConnectTimeout):
            wire.send(server.target(tls=TlsSettings(verify=False), server_name="x"), get(), progress, connect_s=0.3)
        assert 0.25 < time.monotonic() - began < 3
        assert progress.phase == "tls"
        assert progress.connect_s > 0.25


def test_a_stale_tls_connection_is_replaced(wire: Wire, ca: trustme.CA, ca_file: str) -> None:
    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(OK)

    with serving(script, server_context(ca)) as server:
        target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
        for _ in range(3):
            reply = wire.call(target, post(b"pay", resendable=False))
            assert reply.status == 200
            assert not reply.progress.resent
            server.closed.acquire(timeout=5)


@pytest.mark.parametrize("driver", [SyncDriver, AsyncDriver])
def test_the_identity_check_sees_the_peer_and_can_refuse_it(driver: Any, server: RawServer, ca_file: str) -> None:
    seen: list[Any] = []

    def verify(target: Target, ssl_object: Any) -> None:
        seen.append(ssl_object.getpeercert()["subjectAltName"])
        if target.server_name == "127.0.0.1":
            raise ssl.CertificateError("not who it should be")

    wire = driver(verify_peer=verify)
    tls = TlsSettings(ca_file=ca_file)
    assert wire.call(server.target(tls=tls, server_name="orders.mesh")).status == 200
    progress = Progress()
    with pytest.raises(TLSFailed, match="not who it should be"):
        wire.send(server.target(tls=tls, server_name="127.0.0.1"), get(), progress)
    assert len(seen) == 2
    assert not progress.bytes_written
    wire.shut()


def test_files_that_cannot_be_used_are_errors_that_show_nothing_of_a_key(
    wire: Wire, ca: trustme.CA, tmp_path: Path
) -> None:
    own = ca.issue_cert("checkout.mesh")
    cert, key = tmp_path / "cert.pem", tmp_path / "private.pem"
    own.cert_chain_pems[0].write_to_path(cert)
    key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    target = Target(
        NOWHERE,
        tls=TlsSettings(cert_file=str(cert), key_file=str(key)),
        server_name="x",
    )
    with pytest.raises(TLSFailed) as caught:
        wire.send(target, get())
    assert caught.value.retryable is False
    assert "c2VjcmV0" not in repr(caught.value)
    assert "private.pem" not in str(caught.value)
    with pytest.raises(TLSFailed, match=r"nowhere\.pem"):
        wire.send(Target(NOWHERE, tls=TlsSettings(ca_file="/nowhere.pem"), server_name="x"), get())


def test_tls_connections_end_with_their_loop(server: RawServer, ca_file: str) -> None:
    engine = AsyncEngine()
    target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
    before = open_sockets()

    async def main() -> None:
        # One connection ends idle, one busy, and one closing.
        calls = (engine.send(target, request, WireLimits(), Progress()) for request in (get(), get(), post(LARGE)))
        done = await asyncio.gather(*calls)
        kept.append(done.pop())
        await engine.send(target, post(LARGE), WireLimits(), Progress())

    kept: list[Any] = []
    for _ in range(3):
        asyncio.run(main())
        gc.collect()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    engine.reap(0.0)
    del loop
    kept.clear()
    gc.collect()
    for _ in range(4 * 3):
        assert server.closed.acquire(timeout=5)
    assert open_sockets() <= before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_sends_no_goodbye_on_its_parents_tls_connections(server: RawServer, ca_file: str) -> None:
    sync, asynchronous = SyncEngine(), AsyncEngine()
    target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
    limits = WireLimits(deadline=time.monotonic() + 20)
    with asyncio.Runner() as runner:

        async def call() -> bool:
            progress = Progress()
            await asynchronous.send(target, get(), limits, progress)
            return progress.reused

        sync.send(target, get(), limits, Progress())
        runner.run(call())

        def child() -> None:
            gc.collect()
            assert sync.send(target, get(), limits, Progress()).status == 200
            assert asyncio.run(call()) is False
            sync.close()

        in_child(child)
        progress = Progress()
        sync.send(target, get(), limits, progress)
        assert progress.reused
        assert runner.run(call())
        sync.close()


# The end of TLS


def ending(reply: bytes, *, goodbye: bool) -> Script:
    """Answer one request, and close TCP with or without the close_notify of TLS before it."""

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(reply)
            if goodbye:
                peer.sock.unwrap()  # type: ignore[attr-defined]
            peer.sock.shutdown(socket.SHUT_WR)
            peer.wait_until_gone()

    return script


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_a_body_that_the_end_of_tls_closes_is_whole(wire: Wire, ca: trustme.CA, ca_file: str, size: int) -> None:
    script = ending(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size, goodbye=True)
    with serving(script, server_context(ca)) as server:
        target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
        assert len(wire.call(target).body) == size


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_body_that_only_the_end_of_tcp_closes_may_have_been_cut_and_is_broken(
    wire: Wire, ca: trustme.CA, ca_file: str, size: int
) -> None:
    script = ending(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size, goodbye=False)
    with serving(script, server_context(ca)) as server:
        target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
        with pytest.raises(BodyBroken, match="without the end that TLS asks for"):
            wire.call(target)


def test_a_body_with_a_length_is_whole_however_the_peer_leaves(wire: Wire, ca: trustme.CA, ca_file: str) -> None:
    with serving(ending(OK, goodbye=False), server_context(ca)) as server:
        target = server.target(tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh")
        for _ in range(3):
            assert wire.call(target).body == b"ok"
