"""How connections are opened: Unix sockets, several addresses, slow lookups, the options of sockets; nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import KeepaliveSettings, PoolSettings, TlsSettings
from meshlib.errors import ConnectFailed, ConnectTimeout, TLSFailed
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.dial import Race
from meshlib.net.wire import Progress, Target, WireLimits
from tests.net.wire_servers import (
    AsyncDriver,
    Peer,
    RawServer,
    Resolver,
    SyncDriver,
    Wire,
    black_hole,
    get,
    keep_alive,
    open_sockets,
    post,
    serving,
    soon,
)

NAME = "orders.internal"


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = open_sockets()
    yield
    soon(lambda: open_sockets() <= before)


# Unix sockets


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


def tls_server(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


@contextlib.contextmanager
def at(
    path: str, script: Callable[[Peer], None] = keep_alive, tls: ssl.SSLContext | None = None
) -> Iterator[RawServer]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(512)
    with serving(script, tls, listener) as server:
        yield server


def test_a_unix_socket_is_called_and_kept_like_any_other(wire: Wire, tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sock")
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            seen.append(request)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with at(path, script):
        target = Target(Endpoint(f"unix:{path}", 0))
        for reused in (False, True):
            reply = wire.call(target)
            assert (reply.body, reply.progress.reused) == (b"ok", reused)
    assert b"\r\nhost: svc\r\n" in seen[0].lower()
    assert reply.extensions["network_stream"].get_extra_info("server_addr") == path


def test_a_large_body_goes_both_ways_over_a_unix_socket(wire: Wire, tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sock")
    with at(path):
        assert len(wire.call(Target(Endpoint(f"unix:{path}", 0)), post(b"x" * 3_000_000)).body) == 3_000_000


def test_a_name_that_is_in_no_file_system_is_a_unix_socket_too(wire: Wire) -> None:
    name = f"meshlib-test-{os.getpid()}"
    with at(f"\0{name}"):
        assert wire.call(Target(Endpoint(f"unix:@{name}", 0))).body == b"ok"


def test_tls_over_a_unix_socket_is_verified_by_the_services_name(
    wire: Wire, tmp_path: Path, ca: trustme.CA, ca_file: str
) -> None:
    path = str(tmp_path / "orders.sock")
    endpoint, tls = Endpoint(f"unix:{path}", 0), TlsSettings(ca_file=ca_file)
    with at(path, tls=tls_server(ca, "orders.mesh")):
        assert wire.call(Target(endpoint, tls=tls, server_name="orders.mesh")).body == b"ok"
        with pytest.raises(TLSFailed, match="'localhost'"):
            wire.call(Target(endpoint, tls=tls))


@pytest.mark.parametrize("there", [False, True])
def test_a_unix_socket_where_nobody_listens_is_connect_failed(wire: Wire, tmp_path: Path, there: bool) -> None:
    path = str(tmp_path / "orders.sock")
    if there:
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(path)
    expected = "Connection refused" if there else "No such file"
    with pytest.raises(ConnectFailed, match=f"cannot connect to unix:{path}: {expected}") as caught:
        wire.send(Target(Endpoint(f"unix:{path}", 0)), get())
    assert caught.value.retryable is not False


def test_a_unix_socket_with_a_full_backlog_is_waited_for(wire: Wire, tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sock")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        filler = stack.enter_context(socket.socket(socket.AF_UNIX))
        filler.connect(path)
        target = Target(Endpoint(f"unix:{path}", 0))
        with pytest.raises(ConnectTimeout):
            wire.send(target, get(), connect_s=0.05)

        def make_room() -> None:
            listener.accept()[0].close()
            sock, _ = listener.accept()
            keep_alive(Peer(sock, 0))
            sock.close()

        room = threading.Timer(0.05, make_room)
        room.start()
        assert wire.call(target, get(b"/", (b"Connection", b"close")), connect_s=10).status == 200
        wire.engine.drain(target.key)
        wire.settle()
        room.join(10)
        assert not room.is_alive()


# Several addresses


def test_an_ipv6_address_is_called(wire: Wire) -> None:
    with serving(keep_alive, listener=socket.create_server(("::1", 0), family=socket.AF_INET6)) as server:
        reply = wire.call(Target(Endpoint("::1", server.port)))
        assert reply.extensions["network_stream"].get_extra_info("server_addr")[:2] == ("::1", server.port)


def test_an_address_that_swallows_everything_is_overtaken_by_the_next(wire: Wire, resolver: Resolver) -> None:
    with serving(keep_alive) as server, black_hole("::1") as hole:
        resolver.names[NAME] = [f"::1#{hole}", f"127.0.0.1#{server.port}"]
        progress = Progress()
        response = wire.send(Target(Endpoint(NAME, server.port)), get(), progress, connect_s=10)
        assert wire.read(response) == b"ok"
        wire.close(response)
        assert 0.25 <= progress.connect_s < 5  # the first one's lead, and not the connect timeout


def test_an_address_that_refuses_makes_way(wire: Wire, resolver: Resolver) -> None:
    with serving(keep_alive) as server:
        resolver.names[NAME] = ["::1#1", "127.0.0.1#1", f"127.0.0.1#{server.port}"]
        assert wire.call(Target(Endpoint(NAME, server.port))).body == b"ok"


def test_where_all_addresses_fail_the_error_names_each(wire: Wire, resolver: Resolver) -> None:
    resolver.names[NAME] = ["::1#1", "127.0.0.1#1", "127.0.0.1#2", "127.0.0.1#3", "127.0.0.1#4", "127.0.0.1#5"]
    with pytest.raises(ConnectFailed) as caught:
        wire.send(Target(Endpoint(NAME, 1)), get())
    text = str(caught.value)
    assert text.startswith(f"cannot connect to {NAME}:1: [::1]: Connection refused; 127.0.0.1: Connection refused")
    assert text.endswith("and 2 more")


def test_a_race_that_nobody_wins_ends_with_the_connect_timeout(wire: Wire, resolver: Resolver) -> None:
    with black_hole() as hole, black_hole("::1") as other:
        resolver.names[NAME] = [f"127.0.0.1#{hole}", f"::1#{other}"]
        with pytest.raises(ConnectTimeout):
            wire.send(Target(Endpoint(NAME, 1)), get(), connect_s=0.3)


V4, V6 = socket.AF_INET, socket.AF_INET6


def addresses(*families: socket.AddressFamily) -> list[Any]:
    return [
        (family, socket.SOCK_STREAM, 6, "", ("::1" if family is V6 else "127.0.0.1", number))
        for number, family in enumerate(families)
    ]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that were tried; none of them ever answers, and port 0 refuses if it is of IPv4."""
    ports: list[int] = []

    class Never(socket.socket):
        def connect(self, address: Any) -> None:
            ports.append(address[1])
            raise ConnectionRefusedError if address == ("127.0.0.1", 0) else BlockingIOError

    monkeypatch.setattr(socket, "socket", Never)
    return ports


def test_families_take_turns_and_the_systems_first_choice_begins(tried: list[int]) -> None:
    race = Race(addresses(V6, V6, V6, V4, V4), PoolSettings(), 100.0, None)
    assert race.step((), 100.0) is None
    assert (tried, race.next_at) == ([0], 100.25)
    race.step((), 100.2)
    assert tried == [0]
    for turn in range(1, 5):
        race.step((), 100.0 + turn * 0.26)
    assert tried == [0, 3, 1, 4, 2]
    assert race.next_at is None
    assert len(race.under_way) == 5
    race.close()
    assert not race.under_way


def test_the_next_address_does_not_wait_where_one_has_failed(tried: list[int]) -> None:
    race = Race(addresses(V4, V6, V4), PoolSettings(), 100.0, None)
    race.step((), 100.0)
    assert (tried, race.next_at) == ([0, 1], 100.25)
    race.close()


def test_many_addresses_share_a_short_time(tried: list[int]) -> None:
    race = Race(addresses(*[V6] * 10), PoolSettings(), 100.0, 101.0)
    race.step((), 100.0)
    assert race.next_at == pytest.approx(100.1)
    race.close()


def test_only_addresses_of_the_local_ones_kind_are_tried(tried: list[int]) -> None:
    race = Race(addresses(V6, V4, V6), PoolSettings(local_address="0.0.0.0"), 100.0, None)
    race.step((), 100.0)
    assert (tried, race.next_at) == ([1], None)
    race.close()
    with pytest.raises(OSError, match="no address of the kind of local_address ::1"):
        Race(addresses(V4), PoolSettings(local_address="::1"), 100.0, None)


# Options


def option(reply_socket: Any, name: str, level: int = socket.IPPROTO_TCP) -> int:
    return int(reply_socket.getsockopt(level, getattr(socket, name)))


def test_sockets_send_at_once_and_are_probed_as_configured(wire: Wire) -> None:
    with serving(keep_alive) as server:
        for keepalive in (KeepaliveSettings(), KeepaliveSettings(2.5, 3, 4), None):
            target = server.target(tcp_keepalive=keepalive, server_name=repr(keepalive))
            sock = wire.call(target).extensions["network_stream"].get_extra_info("socket")
            assert option(sock, "TCP_NODELAY")
            assert bool(option(sock, "SO_KEEPALIVE", socket.SOL_SOCKET)) is (keepalive is not None)
            if keepalive is not None:
                options = [option(sock, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")]
                assert options == [math.ceil(keepalive.time_s), keepalive.interval_s, keepalive.probes]


def test_connections_begin_at_the_local_address(wire: Wire) -> None:
    seen: list[str] = []

    def script(peer: Peer) -> None:
        seen.append(peer.sock.getpeername()[0])
        keep_alive(peer)

    with serving(script) as server:
        wire.call(server.target(local_address="127.0.0.3"))
    assert seen == ["127.0.0.3"]


def test_a_local_address_that_is_not_this_machines_is_told(wire: Wire) -> None:
    with serving(keep_alive) as server, pytest.raises(ConnectFailed, match=r"begin at local_address 192\.0\.2\.1"):
        wire.send(server.target(local_address="192.0.2.1"), get())


# The identity of the peer


@pytest.mark.parametrize("driver", ["sync", "async", "uvloop"])
@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("http2", [False, True])
def test_no_byte_of_a_request_reaches_a_peer_that_the_identity_check_refuses(
    driver: str, unix: bool, http2: bool, tmp_path: Path, ca: trustme.CA, ca_file: str
) -> None:
    got: list[bytes] = []

    def script(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            got.append(peer.sock.recv(1000))

    def verify(target: Target, ssl_object: Any) -> None:
        assert ("DNS", "orders.mesh") in ssl_object.getpeercert()["subjectAltName"]
        raise ssl.CertificateError("not who it should be")

    context = tls_server(ca, "orders.mesh")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if driver == "sync":
        wire: Wire = SyncDriver(verify_peer=verify)
    else:
        uvloop = pytest.importorskip("uvloop") if driver == "uvloop" else None
        wire = AsyncDriver(uvloop and uvloop.new_event_loop, verify_peer=verify)
    path = str(tmp_path / "orders.sock")
    with at(path, script, context) if unix else serving(script, context) as server:
        endpoint = Endpoint(f"unix:{path}", 0) if unix else Endpoint("127.0.0.1", server.port)
        target = Target(endpoint, tls=TlsSettings(ca_file=ca_file), server_name="orders.mesh", http2=http2)
        progress = Progress()
        with pytest.raises(TLSFailed, match="not who it should be"):
            wire.send(target, get(), progress)
        assert not progress.bytes_written
        wire.settle()
        assert server.closed.acquire(timeout=5)
    assert b"".join(got) == b""
    wire.shut()


# Cancellation


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["plain", "tls", "unix", "two addresses"])
def test_a_cancellation_at_any_turn_of_the_loop_leaves_nothing_open(
    loops: str, kind: str, tmp_path: Path, ca: trustme.CA, ca_file: str, resolver: Resolver
) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if loops == "uvloop" else None
    tls = TlsSettings(ca_file=ca_file) if kind == "tls" else None
    path = str(tmp_path / "orders.sock")
    context = tls_server(ca, "orders.mesh") if tls else None
    with at(path) if kind == "unix" else serving(keep_alive, context) as server, black_hole("::1") as hole:
        endpoint = Endpoint(f"unix:{path}", 0) if kind == "unix" else Endpoint("127.0.0.1", server.port)
        if kind == "two addresses":
            resolver.names[NAME] = [f"::1#{hole}", f"127.0.0.1#{server.port}"]
            endpoint = Endpoint(NAME, server.port)
        engine = AsyncEngine()
        target = Target(endpoint, tls=tls, server_name="orders.mesh")

        async def cut_after(turns: int) -> bool:
            call = asyncio.ensure_future(engine.send(target, get(), WireLimits(connect_s=10), Progress()))
            for _ in range(turns):
                await asyncio.sleep(0)
            cut = call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            engine.drain(target.key)
            for _ in range(5):
                await asyncio.sleep(0)
            assert sum(s.open for s in engine.stats()) == 0
            return cut

        with asyncio.Runner(loop_factory=factory) as runner:
            for turns in range(25):
                runner.run(cut_after(turns))
            runner.run(engine.aclose())
        gc.collect()


def test_who_is_cancelled_during_a_race_closes_all_who_ran(resolver: Resolver) -> None:
    with black_hole() as hole, black_hole("::1") as other:
        resolver.names[NAME] = [f"127.0.0.1#{hole}", f"::1#{other}"]
        engine = AsyncEngine()

        async def main() -> None:
            before = open_sockets()
            limits = WireLimits(connect_s=30)
            call = asyncio.ensure_future(engine.send(Target(Endpoint(NAME, 1)), get(), limits, Progress()))
            while open_sockets() < before + 2:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert open_sockets() == before

        asyncio.run(main())
