"""Connections that break at the worst moment, seen from a call: what can be saved is, and nothing is sent twice.

A peer that resets or closes after every single byte of its response, half-closes, drips, truncates TLS, or closes just
when the next request is on its way; and a caller who gives up at every single await.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import meshlib
from meshlib import Mesh
from tests.adapters.support import mesh_of
from tests.integration.calling import Caller
from tests.integration.test_sharing import nothing_is_held
from tests.net.wire_servers import Peer, open_sockets, serving, soon
from tests.server.conftest import serve_gunicorn  # noqa: F401

PATIENT = {
    "retry_budget": {"tokens": 100_000},
    "retry": {"backoff": {"base": "0s", "max": "0s"}},
    "circuit_breaker": {"min_calls": 1_000_000},
}
"""Half of the attempts fail here on purpose; what limits retries over many calls is tested elsewhere."""

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Kind: sized\r\n\r\nhello, world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nX-Trailer: there\r\n\r\n"
)
RESPONSES = {"sized": SIZED, "chunked": CHUNKED}


class Cutting:
    """A server that cuts the first response to each path at the offset that the path names; the next one is whole."""

    def __init__(self, response: bytes, how: Callable[[Peer], None]) -> None:
        self.response = response
        self.how = how
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while (request := peer.request()) is not None:
            path = request.split(b" ", 2)[1].decode()
            with self._lock:
                self.seen[path] += 1
                first = self.seen[path] == 1
            if not first:
                peer.send(self.response)
                continue
            peer.send(self.response[: int(path.removeprefix("/"))])
            self.how(peer)
            return


def resets(peer: Peer) -> None:
    peer.reset()


def closes(peer: Peer) -> None:
    peer.sock.shutdown(socket.SHUT_RDWR)


def half_closes(peer: Peer) -> None:
    peer.sock.shutdown(socket.SHUT_WR)
    peer.wait_until_gone()


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESPONSES)
@pytest.mark.parametrize("how", [resets, closes, half_closes])
def test_a_response_cut_at_every_byte_is_had_from_the_next_attempt(
    caller: Caller, how: Callable[[Peer], None], kind: str
) -> None:
    response = RESPONSES[kind]
    cutting = Cutting(response, how)
    caller.run(asyncio.sleep(0))  # a loop has sockets of its own
    before = open_sockets()
    with serving(cutting) as server, mesh_of(server, **PATIENT) as mesh:
        call = caller.client(mesh)
        for offset in range(len(response)):
            answer = call("GET", f"/{offset}")
            assert (answer.status_code, answer.text) == (200, "hello, world"), offset
        nothing_is_held(mesh)
    assert set(cutting.seen.values()) == {2}, "each was cut once and whole the second time"
    for _ in range(3):
        caller.run(asyncio.sleep(0))  # what was closed in a loop is so a few turns later
    soon(lambda: open_sockets() <= before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESPONSES)
@pytest.mark.parametrize("how", [resets, closes])
def test_a_request_that_may_not_be_repeated_is_not_whatever_byte_breaks(
    caller: Caller, how: Callable[[Peer], None], kind: str
) -> None:
    response = RESPONSES[kind]
    cutting = Cutting(response, how)
    with serving(cutting) as server, mesh_of(server, **PATIENT) as mesh:
        call = caller.client(mesh)
        for offset in range(len(response)):
            with pytest.raises((meshlib.Reset, meshlib.BodyBroken)) as caught:
                call("POST", f"/{offset}", content=b"pay")
            assert caught.value.record is not None
            assert len(caught.value.record.attempts) == 1
        nothing_is_held(mesh)
    assert set(cutting.seen.values()) == {1}


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_streamed_body_that_breaks_is_an_error_and_never_a_shorter_body(caller: Caller, kind: str) -> None:
    response = RESPONSES[kind]
    start = response.index(b"\r\n\r\n") + 4
    with serving(Cutting(response, closes)) as server, mesh_of(server, **PATIENT) as mesh:
        call = caller.client(mesh)
        for offset in range(start, len(response)):
            with pytest.raises(meshlib.BodyBroken):
                call.stream("GET", f"/{offset}")
        nothing_is_held(mesh)


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_response_that_drips_in_byte_by_byte_arrives_whole(caller: Caller, kind: str) -> None:
    def drips(peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while peer.request() is not None:
            for n in range(len(RESPONSES[kind])):
                peer.send(RESPONSES[kind][n : n + 1])
                time.sleep(0.0005)

    with serving(drips) as server, mesh_of(server) as mesh:
        call = caller.client(mesh)
        for _ in range(3):
            assert call("GET", "/x").text == "hello, world"
        assert server.accepted == 1, "and the connection is kept"


def test_a_response_that_drips_for_too_long_is_cut_by_the_deadline(caller: Caller) -> None:
    def drips(peer: Peer) -> None:
        peer.request()
        while True:
            peer.send(b"x" if peer.requests > 1 else b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            peer.requests += 1
            time.sleep(0.01)

    with serving(drips) as server, mesh_of(server, timeout="300ms") as mesh:
        began = time.monotonic()
        with pytest.raises(meshlib.DeadlineExceeded):
            caller.client(mesh)("GET", "/x")
        assert time.monotonic() - began < 5
        nothing_is_held(mesh)


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, dict[str, Any]]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("orders").configure_cert(context)
    return context, {"tls": {"ca_file": str(tmp_path / "ca.pem")}}


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "to the end"])
def test_a_body_over_tls_that_ends_without_a_goodbye_is_broken(
    caller: Caller, certified: tuple[ssl.SSLContext, dict[str, Any]], framed: bool
) -> None:
    """Anybody on the way can close a TCP connection; only the peer can say that its body is over."""
    context, tls = certified
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" if framed else b"HTTP/1.1 200 OK\r\n\r\n"

    def truncates(peer: Peer) -> None:
        peer.request()
        peer.send(head + b"half of it")
        # Without `unwrap`, which would say goodbye.
        peer.sock.shutdown(socket.SHUT_RDWR)

    with serving(truncates, context) as server, mesh_of(server, **tls, retry={"max_retries": 0}) as mesh:
        with pytest.raises(meshlib.BodyBroken):
            caller.client(mesh)("GET", "/x")


def test_a_body_over_tls_that_ends_with_a_goodbye_is_whole(
    caller: Caller, certified: tuple[ssl.SSLContext, dict[str, Any]]
) -> None:
    context, tls = certified

    def ends(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.sock.unwrap()

    with serving(ends, context) as server, mesh_of(server, **tls, retry={"max_retries": 0}) as mesh:
        assert caller.client(mesh)("GET", "/x").text == "all of it"


def _steps(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Turns of a loop, one at a time, with the time in between that a peer needs."""
    while True:
        time.sleep(0.0003)
        loop.call_soon(loop.stop)
        loop.run_forever()
        yield


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new connection"])
@pytest.mark.parametrize("method", ["GET", "POST", "stream", "aiohttp"])
def test_a_call_cancelled_at_every_turn_of_its_loop_holds_nothing(method: str, kept: bool) -> None:
    """And the next call on the same mesh is answered with its own answer."""

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            body = request.split(b" ", 2)[1] * 3
            # In two pieces, so that there is an await in the body too.
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[:2]))
            time.sleep(0.002)
            peer.send(body[2:])
            if not kept:
                return

    async def session(mesh: Mesh) -> Any:
        from meshlib.adapters.aiohttp import session

        return session(mesh, "orders")

    async def call(client: Any, path: str) -> str:
        if method == "aiohttp":
            async with client.get(path) as response:
                return str(await response.text())
        if method != "stream":
            return str((await client.request(method, path, content=b"x" if method == "POST" else None)).text)
        async with client.stream("GET", path) as response:
            return "".join([text async for text in response.aiter_text()])

    before = open_sockets()
    with serving(script) as server, mesh_of(server, **PATIENT) as mesh:
        loop = asyncio.new_event_loop()
        client: Any = loop.run_until_complete(session(mesh)) if method == "aiohttp" else mesh.async_client("orders")
        reached = 0
        for turns in range(200):
            task = loop.create_task(call(client, f"/{turns}"))
            for turn, _ in zip(range(turns), _steps(loop), strict=False):
                if task.done():
                    break
                reached = max(reached, turn)
            done = task.done()
            task.cancel()
            try:
                assert loop.run_until_complete(task) == f"/{turns}" * 3
            except asyncio.CancelledError:
                pass
            assert loop.run_until_complete(call(client, "/next")) == "/next" * 3
            if done:
                break
        assert done, "some call was let through to its end"
        assert reached > 3, "and others were cut on their way"
        nothing_is_held(mesh)
        loop.run_until_complete(client.close() if method == "aiohttp" else client.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    soon(lambda: open_sockets() <= before)


def test_a_server_that_closes_after_each_response_costs_no_call(caller: Caller) -> None:
    """It does not say so before: the caller finds out when it uses the connection, or just too late."""
    delays = random.Random(7)

    def closes_soon(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(SIZED)
            time.sleep(delays.choice((0, 0, 0.0005, 0.001)))

    with serving(closes_soon) as server, mesh_of(server, **PATIENT) as mesh:
        call = caller.client(mesh)
        for n in range(300):
            if n % 3:
                time.sleep(delays.random() * 0.002)
            assert call("GET", f"/{n}").text == "hello, world"
        nothing_is_held(mesh)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_the_keep_alive_of_gunicorn_costs_no_call_and_doubles_none(
    serve_gunicorn: Callable[..., str],  # noqa: F811
    kind: str,
) -> None:
    """gunicorn closes connections that were idle for 2 s, and may do so while a request is on its way to it."""
    url = serve_gunicorn(
        "tests.integration.counting_app:app", "--worker-class=gthread", "--threads=8", "--keep-alive=2"
    )
    host = url.removeprefix("http://").rstrip("/")
    names = [f"{method} {n}" for n in range(72) for method in ("GET", "POST")]
    rng = random.Random(11)
    waits = {name: [rng.uniform(1.7, 3.2)] for name in names}
    with Mesh({"discovery": [], "services": {"orders": {"endpoints": [host]}}}) as mesh:
        if kind == "threads":
            _from_threads(mesh, names, waits)
        else:
            asyncio.run(_from_tasks(mesh, names, waits))
        with mesh.client("orders") as client:
            assert client.get("/most").text == "1", "no request was processed twice"


def _from_threads(mesh: Mesh, names: list[str], waits: dict[str, list[float]]) -> None:
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for turn, wait in enumerate([0.0, *waits[name]]):
                time.sleep(wait)
                method, said = name.split()[0], f"{name} {turn}".replace(" ", "-")
                if method == "GET":
                    assert client.get(f"/{said}").text == f"/{said}"
                else:
                    assert client.post("/", content=said).text == said
        except BaseException as error:
            failed.append(error)

    with mesh.client("orders") as client:
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


async def _from_tasks(mesh: Mesh, names: list[str], waits: dict[str, list[float]]) -> None:
    async def work(name: str) -> None:
        for turn, wait in enumerate([0.0, *waits[name]]):
            await asyncio.sleep(wait)
            method, said = name.split()[0], f"{name} {turn}".replace(" ", "-")
            if method == "GET":
                assert (await client.get(f"/{said}")).text == f"/{said}"
            else:
                assert (await client.post("/", content=said)).text == said

    async with mesh.async_client("orders") as client:
        await asyncio.gather(*(work(name) for name in names))


def test_the_helper_cuts_where_it_says() -> None:
    cutting = Cutting(SIZED, closes)
    with serving(cutting) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /9 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100) == SIZED[:9]
        assert sock.recv(100) == b""
