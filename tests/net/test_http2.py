"""HTTP/2 against a peer made of h2 by hand, and against Hypercorn."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

pytest.importorskip("h2")

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from meshlib.config.settings import TlsSettings
from meshlib.errors import AttemptTimeout, BodyBroken, ConnectFailed, RequestBodyError, Reset
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest
from tests.net.wire_servers import Peer, RawServer, Wire, get, keep_alive, open_sockets, post, serving, soon


class H2Peer:
    """The server's side of one HTTP/2 connection: calls `on_request(peer, stream id, path, body)`."""

    def __init__(self, sock: socket.socket, on_request: Callable[..., None], max_streams: int) -> None:
        self.sock = sock
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.on_request = on_request
        self.reset_by_client: list[int] = []
        self.heads: dict[int, dict[str, str]] = {}
        self.open_now = self.most_open = 0
        self.served = 0
        self.lock = threading.RLock()
        limit = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_streams}
        self.conn.local_settings = h2.settings.Settings(client=False, initial_values=limit)
        self.conn.initiate_connection()
        self.flush()

    def flush(self) -> None:
        with self.lock:
            self.sock.sendall(self.conn.data_to_send())

    def respond(self, stream_id: int, body: bytes = b"ok", status: int = 200) -> None:
        with self.lock:
            try:
                self.conn.send_headers(stream_id, [(":status", str(status)), ("x-path", "1")])
                while body:
                    room = min(self.conn.local_flow_control_window(stream_id), self.conn.max_outbound_frame_size)
                    self.conn.send_data(stream_id, body[:room])
                    body = body[room:]
                    self.flush()
                    if body and not room and not self.step():
                        return
                self.conn.end_stream(stream_id)
            except (h2.exceptions.ProtocolError, KeyError):
                return  # the client has reset it meanwhile
            self.open_now -= 1
            self.served += 1
            self.flush()

    def goaway(self, last_id: int) -> None:
        """h2 would refuse to go on after its own, so the frame is made by hand."""
        self.flush()
        self.sock.sendall(struct.pack(">I", 8)[1:] + b"\x07\x00" + struct.pack(">III", 0, last_id, 0))

    def run(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        data = self.sock.recv(65536)
        if not data:
            return False
        with self.lock:
            events = self.conn.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                self.paths = getattr(self, "paths", {})
                self.bodies = getattr(self, "bodies", {})
                self.heads[event.stream_id] = {str(name): str(value) for name, value in event.headers}
                self.paths[event.stream_id] = next(str(value) for name, value in event.headers if str(name) == ":path")
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                if self.paths[event.stream_id] != "/stall":
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.reset_by_client.append(event.stream_id)
                self.open_now -= 1
            elif isinstance(event, h2.events.StreamEnded):
                self.on_request(self, event.stream_id, self.paths[event.stream_id], self.bodies.pop(event.stream_id))
        self.flush()
        return True


class H2Server:
    """What a test needs to know of all connections of an HTTP/2 server."""

    def __init__(self, on_request: Callable[..., None], max_streams: int = 100, tls: ssl.SSLContext | None = None):
        self.peers: list[H2Peer] = []

        def script(peer: Peer) -> None:
            h2_peer = H2Peer(peer.sock, on_request, max_streams)
            self.peers.append(h2_peer)
            h2_peer.run()

        self.raw = RawServer(script, tls)

    def target(self, **options: Any) -> Target:
        return self.raw.target(http2=True, **options)

    def __enter__(self) -> H2Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()


def echo(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
    if path != "/silence":
        peer.respond(stream_id, body or b"ok")


EVIL = b"x\r\nevil: 1"


@pytest.mark.parametrize(
    "request_",
    [
        get(b"/", (b"x", EVIL)),
        get(b"/", (b"x", b"a\0b")),
        get(b"/", (b"x", b" a")),
        get(b"/", (b"x y", b"1")),
        get(b"/", (b"x\r\ny", b"1")),
        get(b"/", (b"host", EVIL)),
        get(b"/ HTTP/1.1\r\nevil: 1"),
        get(b"/", method=b"GET / HTTP/1.1\r\nevil: 1\r\n\r\nGET"),
        get(b"/", (b"content-length", b"5")),
        WireRequest(b"POST", b"/", [(b"host", b"svc"), (b"content-length", b"1")], b"hello"),
        WireRequest(b"POST", b"/", [(b"content-length", b"5"), (b"content-length", b"1")], b"hello"),
    ],
)
def test_what_a_gateway_could_take_for_another_request_is_not_sent(wire: Wire, request_: WireRequest) -> None:
    with H2Server(echo) as server:
        with pytest.raises(RequestBodyError, match="not valid HTTP/2") as caught:
            wire.call(server.target(), request_)
        assert "evil" not in str(caught.value)
        assert wire.call(server.target()).body == b"ok"
        assert sum(peer.served for peer in server.peers) == 1


@pytest.mark.parametrize("length", [5, 15])
def test_a_body_of_another_length_than_announced_is_not_completed(wire: Wire, length: int) -> None:
    with H2Server(echo) as server:
        with pytest.raises(RequestBodyError, match="Content-Length"):
            wire.call(server.target(), post(wire.body([b"hello", b"world"]), length=length))
        assert wire.call(server.target()).body == b"ok"
        assert sum(peer.served for peer in server.peers) == 1


def test_calls_share_one_connection(wire: Wire) -> None:
    with H2Server(echo) as server:
        first = wire.call(server.target())
        second = wire.call(server.target(), post(b"hello"))
        assert (first.status, first.body, second.body) == (200, b"ok", b"hello")
        assert first.extensions["http_version"] == b"HTTP/2"
        assert first.extensions["network_stream"].get_extra_info("server_addr") == ("127.0.0.1", server.raw.port)
        assert second.progress.reused
        assert server.raw.accepted == 1
        assert wire.counts() == (1, 1, 0, 0)


def test_a_body_larger_than_all_windows_goes_both_ways(wire: Wire) -> None:
    body = random.Random(1).randbytes(3_000_000)
    with H2Server(echo) as server:
        assert wire.call(server.target(), post(body)).body == body
        pieces = [body[i : i + 70_000] for i in range(0, len(body), 70_000)]
        assert wire.call(server.target(), post(wire.body(pieces))).body == body
        assert server.raw.accepted == 1


def test_what_is_not_allowed_in_http2_is_left_out(wire: Wire) -> None:
    with H2Server(echo) as server:
        headers = [(b"Connection", b"keep-alive"), (b"Keep-Alive", b"5"), (b"TE", b"gzip"), (b"X-Name", b"v")]
        assert wire.call(server.target(), get(b"/", *headers)).status == 200


def test_alpn_decides_with_tls(wire: Wire, tmp_path: Any) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = TlsSettings(ca_file=str(tmp_path / "ca.pem"))

    def context(*protocols: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("orders.mesh").configure_cert(made)
        if protocols:
            made.set_alpn_protocols(list(protocols))
        return made

    with H2Server(echo, tls=context("h2")) as server:
        for _ in range(3):
            reply = wire.call(server.target(tls=tls, server_name="orders.mesh"), post(b"x" * 400_000))
            assert reply.extensions["http_version"] == b"HTTP/2"
            assert len(reply.body) == 400_000
    for protocols in ((), ("http/1.1",)):
        with serving(keep_alive, context(*protocols)) as plain:
            reply = wire.call(plain.target(tls=tls, server_name="orders.mesh", http2=True))
            assert reply.extensions["http_version"] == b"HTTP/1.1"


def test_a_peer_that_speaks_http1_to_prior_knowledge_is_connect_failed(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with serving(script) as server:
        progress = Progress()
        with pytest.raises(ConnectFailed, match="HTTP/2"):
            wire.send(server.target(http2=True), get(), progress)
        assert not progress.bytes_written


def test_many_tasks_share_one_connection_up_to_the_peers_limit() -> None:
    engine = AsyncEngine()

    async def main(target: Target) -> None:
        async def call(index: int) -> None:
            body = b"%d" % index * 3000
            response = await engine.send(target, post(body), WireLimits(), Progress())
            assert b"".join([chunk async for chunk in response.body]) == body

        await asyncio.gather(*(call(index) for index in range(200)))
        assert sum(s.busy + s.pending for s in engine.stats()) == 0

    with H2Server(echo, max_streams=7) as server:
        asyncio.run(main(server.target(max_connections=2)))
        assert server.raw.accepted <= 2
        assert all(peer.most_open <= 7 for peer in server.peers)
        assert sum(peer.served for peer in server.peers) == 200


def test_many_threads_share_one_connection() -> None:
    engine = SyncEngine()
    failures: list[BaseException] = []

    def run(target: Target, seed: int) -> None:
        try:
            for index in range(25):
                body = b"%d-%d " % (seed, index) * 3000
                response = engine.send(target, post(body), WireLimits(deadline=time.monotonic() + 20), Progress())
                assert b"".join(response.body) == body
        except BaseException as error:
            failures.append(error)

    with H2Server(echo) as server:
        target = server.target(max_connections=1)
        threads = [threading.Thread(target=run, args=(target, seed)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
        assert not failures
        (stats,) = engine.stats()
        assert (stats.open, stats.idle, stats.busy, stats.pending) == (1, 1, 0, 0)
        engine.close()


def test_one_calls_deadline_does_not_harm_the_others() -> None:
    engine = SyncEngine()
    with H2Server(echo) as server:
        target = server.target(max_connections=1)
        engine.send(target, get(), WireLimits(), Progress())
        cut: list[BaseException] = []

        def silent() -> None:
            try:
                engine.send(target, get(b"/silence"), WireLimits(deadline=time.monotonic() + 0.2), Progress())
            except AttemptTimeout as error:
                cut.append(error)

        threads = [threading.Thread(target=silent) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            response = engine.send(target, get(), WireLimits(deadline=time.monotonic() + 5), Progress())
            assert b"".join(response.body) == b"ok"
        assert len(cut) == 4
        soon(lambda: len(server.peers[0].reset_by_client) == 4)
        assert server.raw.accepted == 1
        engine.close()


def test_a_given_up_stream_is_reset_and_its_bytes_are_acknowledged(wire: Wire) -> None:
    with H2Server(echo) as server:
        for _ in range(12):  # more in all than the connection's window, were it not given back
            response = wire.send(server.target(), post(b"x" * 1_500_000))
            assert wire.next_chunk(response)
            wire.close(response)
        assert wire.call(server.target()).body == b"ok"
        assert server.raw.accepted == 1


def test_a_refused_stream_goes_once_more_whatever_the_request(wire: Wire) -> None:
    refused: list[int] = []

    def refuse_first(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        if not refused:
            refused.append(stream_id)
            peer.conn.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            peer.respond(stream_id, body)

    with H2Server(refuse_first) as server:
        reply = wire.call(server.target(), post(b"pay", resendable=False))
        assert reply.body == b"pay"
        assert reply.progress.resent


def test_a_refused_iterator_is_a_reset_that_says_nothing_was_looked_at(wire: Wire) -> None:
    def refuse(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        peer.conn.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)

    with H2Server(refuse) as server:
        progress = Progress()
        with pytest.raises(Reset, match="refused") as caught:
            wire.send(server.target(), post(wire.body([b"pay"])), progress)
        assert caught.value.refused
        assert not progress.bytes_written
        assert not progress.resent


def test_a_reset_stream_is_a_reset_that_may_have_been_looked_at(wire: Wire) -> None:
    def fail(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        peer.conn.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)

    with H2Server(fail) as server:
        progress = Progress()
        with pytest.raises(Reset) as caught:
            wire.send(server.target(), post(b"pay"), progress)
        assert not caught.value.refused
        assert progress.bytes_written
        assert not progress.answered


def test_a_stream_that_is_reset_in_its_body_is_a_broken_body(wire: Wire) -> None:
    def half(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        peer.conn.send_headers(stream_id, [(":status", "200")])
        peer.conn.send_data(stream_id, b"half")
        peer.conn.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)

    with H2Server(half) as server:
        response = wire.send(server.target(), get())
        assert wire.next_chunk(response) == b"half"
        with pytest.raises(BodyBroken):
            wire.next_chunk(response)


def test_after_a_goodbye_what_was_accepted_ends_well_and_the_rest_goes_elsewhere() -> None:
    engine = AsyncEngine()
    waiting: list[int] = []

    def goodbye_at_third(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        if peer is not server.peers[0]:
            peer.respond(stream_id, b"second connection")
            return
        waiting.append(stream_id)
        if len(waiting) == 3:
            peer.goaway(last_id=waiting[1])
            for accepted in waiting[:2]:
                peer.respond(accepted, b"first connection")

    async def main(target: Target) -> None:
        async def call(progress: Progress) -> bytes:
            response = await engine.send(target, post(b"pay"), WireLimits(), progress)
            return b"".join([chunk async for chunk in response.body])

        progresses = [Progress() for _ in range(3)]
        bodies = await asyncio.gather(*(call(progress) for progress in progresses))
        assert sorted(bodies) == [b"first connection"] * 2 + [b"second connection"]
        assert sorted(progress.resent for progress in progresses) == [False, False, True]
        (stats,) = engine.stats()
        assert (stats.open, stats.busy) == (1, 0)

    with H2Server(goodbye_at_third) as server:
        asyncio.run(main(server.target()))
        assert server.raw.accepted == 2


def test_deadlines_and_limits_hold(wire: Wire) -> None:
    def head_only(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        if path == "/body":
            peer.conn.send_headers(stream_id, [(":status", "200")])

    with H2Server(head_only) as server:
        began = time.monotonic()
        with pytest.raises(AttemptTimeout) as caught:
            wire.send(server.target(), get(), deadline=began + 0.2)
        assert 0.15 < time.monotonic() - began < 3
        assert caught.value.phase == "headers"
        response = wire.send(server.target(), get(b"/body"), body_idle_s=0.2)
        with pytest.raises(AttemptTimeout) as caught:
            wire.next_chunk(response)
        assert caught.value.phase == "body"
        stalled = WireRequest(b"POST", b"/stall", [(b"Host", b"svc")], b"x" * 200_000)
        with pytest.raises(AttemptTimeout) as caught:
            wire.send(server.target(), stalled, write_s=0.2)
        assert caught.value.phase == "write"
        assert server.raw.accepted == 1


def test_the_deadline_holds_for_a_body_whose_pieces_take_long_to_make(wire: Wire) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"in time"
        while time.monotonic() < deadline:
            time.sleep(0.01)
        yield b"too late"
        pytest.fail("another piece was asked for")

    with H2Server(echo) as server:
        deadline = time.monotonic() + 0.1
        with pytest.raises(AttemptTimeout) as caught:
            wire.send(server.target(), post(wire.body(pieces())), deadline=deadline)
        assert caught.value.phase == "write"


def test_an_error_of_the_bodys_own_iterator_surfaces_and_resets_only_its_stream(wire: Wire) -> None:
    def chunks() -> Any:
        yield b"abc"
        raise LookupError("my own")

    with H2Server(echo) as server:
        wire.call(server.target())
        with pytest.raises(LookupError, match="my own"):
            wire.send(server.target(), post(wire.body(chunks())))
        with pytest.raises(RequestBodyError):
            wire.send(server.target(), post(wire.body(["text"])))
        assert wire.call(server.target()).progress.reused
        assert server.raw.accepted == 1


def test_an_idle_connection_that_was_closed_is_replaced(wire: Wire) -> None:
    def once(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        peer.respond(stream_id, body or b"ok")
        peer.flush()
        peer.sock.shutdown(socket.SHUT_RDWR)

    with H2Server(once) as server:
        wire.call(server.target())
        server.raw.closed.acquire(timeout=5)
        reply = wire.call(server.target(), post(b"pay"))
        assert reply.body == b"pay"
        assert not reply.progress.resent
        assert server.raw.accepted == 2


def test_random_cancellations_leave_one_whole_connection() -> None:
    engine = AsyncEngine()
    before = open_sockets()
    rng = random.Random(7)

    async def call(target: Target) -> None:
        response = await engine.send(target, post(b"x" * rng.choice((0, 10, 100_000))), WireLimits(), Progress())
        try:
            async for _ in response.body:
                pass
        finally:
            await response.aclose()

    async def main(target: Target) -> None:
        for _ in range(20):
            tasks = [asyncio.ensure_future(call(target)) for _ in range(50)]
            for task in tasks:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                if rng.random() < 0.9:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        (stats,) = engine.stats()
        assert (stats.busy, stats.pending) == (0, 0)
        await call(target)

    with H2Server(echo, max_streams=20) as server:
        asyncio.run(main(server.target(max_connections=2)))
        assert sum(len(peer.reset_by_client) for peer in server.peers) > 20
    assert open_sockets() == before


def test_without_h2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(ConnectFailed, match=r'pip install "meshlib-http\[http2\]"') as caught:
        SyncEngine().send(Target(_nowhere(), http2=True), get(), WireLimits(), Progress())
    assert caught.value.retryable is False


def _nowhere() -> Any:
    from meshlib.balance.endpoint import Endpoint

    return Endpoint("127.0.0.1", 1)


def test_hypercorn_is_understood(wire: Wire) -> None:
    hypercorn = pytest.importorskip("hypercorn.asyncio")
    from hypercorn.config import Config

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body or b"ok"})

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        loop.call_soon(started.set)
        await hypercorn.serve(app, config, shutdown_trigger=stop.wait)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        started.wait(5)

        def listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        soon(listens)
        from meshlib.balance.endpoint import Endpoint

        target = Target(Endpoint("127.0.0.1", port), http2=True)
        for size in (0, 10, 1_000_000):
            reply = wire.call(target, post(b"x" * size), deadline=time.monotonic() + 10)
            assert reply.body == (b"x" * size or b"ok")
            assert reply.extensions["http_version"] == b"HTTP/2"
        assert wire.counts()[0] == 1
        wire.engine.drain(target.key)
        wire.settle()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_the_body_deadline_holds_against_a_body_that_comes_faster_than_it_is_read(wire: Wire) -> None:
    def endless(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        peer.respond(stream_id, b"x" * 64_000_000)

    with H2Server(endless) as server:
        began = time.monotonic()
        response = wire.send(server.target(), get(), body_deadline=began + 0.2)
        with pytest.raises(AttemptTimeout):
            while wire.next_chunk(response):
                time.sleep(0.005)
        assert time.monotonic() - began < 5
        wire.close(response)
