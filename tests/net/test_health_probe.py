"""One active check: what a real endpoint's answer, or silence, is found to be."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import TlsSettings
from meshlib.net.health_probe import MAX_ANSWER, HealthProbe
from meshlib.net.wire import Target
from meshlib.policy.health_check import Finding, HealthCheckSettings, HttpCheck, TcpCheck
from tests.net.test_http2 import H2Peer, H2Server
from tests.net.wire_servers import OK, Peer, keep_alive, serving


def probe_of(target: Target, **fields: Any) -> HealthProbe:
    check = {} if "tcp" in fields else {"http": HttpCheck("/health")}
    return HealthProbe(target, HealthCheckSettings(**{"timeout_s": 5.0, **check, **fields}), b"orders")


def checks(probe: HealthProbe, times: int = 1) -> list[tuple[Finding, str]]:
    async def run() -> list[tuple[Finding, str]]:
        try:
            return [await probe.check() for _ in range(times)]
        finally:
            probe.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def answers(status: bytes, headers: bytes = b"") -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(b"HTTP/1.1 %s\r\n%sContent-Length: 2\r\n\r\nok" % (status, headers))

    return script


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        (b"200 OK", b"", (Finding.PASSED, "")),
        (b"200 OK", b"X-Envoy-Degraded: \r\n", (Finding.DEGRADED, "")),
        (b"503 No", b"", (Finding.WRONG, "HTTP status 503")),
        (b"429 No", b"", (Finding.RETRIABLE, "HTTP status 429")),
    ],
)
def test_an_answer_is_judged_by_its_status_and_headers(
    status: bytes, headers: bytes, found: tuple[Finding, str]
) -> None:
    http = HttpCheck("/health", retriable_statuses=((429, 429),))
    with serving(answers(status, headers)) as server:
        assert checks(probe_of(server.target(), http=http)) == [found]


def test_what_is_asked_is_as_configured() -> None:
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            asked.append(request)
            peer.send(OK)

    http = HttpCheck("/health?deep=1", method="POST", host="health.local", headers={"X-Check": "1"})
    with serving(script) as server:
        checks(probe_of(server.target(), http=http, reuse_connection=False))
    head = asked[0].lower()
    assert head.startswith(b"post /health?deep=1 http/1.1\r\n")
    for line in (b"host: health.local", b"x-check: 1", b"content-length: 0", b"connection: close"):
        assert b"\r\n" + line + b"\r\n" in head + b"\r\n"


def test_the_connection_is_kept_or_not() -> None:
    with serving(keep_alive) as server:
        assert checks(probe_of(server.target()), 3) == [(Finding.PASSED, "")] * 3
        assert server.accepted == 1
        checks(probe_of(server.target(), reuse_connection=False), 3)
        assert server.accepted == 4


def test_a_server_that_closes_between_two_checks_has_failed_none() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)

    with serving(script) as server:
        assert checks(probe_of(server.target()), 4) == [(Finding.PASSED, "")] * 4


def test_one_that_is_not_there_gives_no_answer() -> None:
    with serving(keep_alive) as server:
        target = server.target()
    ((finding, wrong),) = checks(probe_of(target))
    assert finding is Finding.NO_ANSWER
    assert "refused" in wrong.lower()


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"], ids=["hung", "half"])
def test_one_that_takes_too_long_gives_no_answer(begin: bytes) -> None:
    """Also when the head was there in time: TimeoutThenSuccess of Envoy's health_checker_impl_test.cc."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(begin)
        peer.wait_until_gone()

    with serving(script) as server:
        began = time.monotonic()
        ((finding, wrong),) = checks(probe_of(server.target(), timeout_s=0.1))
        assert time.monotonic() - began < 2
    assert finding is Finding.NO_ANSWER
    assert wrong


@pytest.mark.parametrize(
    "answer", [b"", b"\x15\x03\x01 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]
)
def test_one_that_breaks_off_or_speaks_no_http_gives_no_answer(answer: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    with serving(script) as server:
        ((finding, wrong),) = checks(probe_of(server.target()))
    assert finding is Finding.NO_ANSWER
    assert wrong


def test_an_endless_answer_is_judged_by_its_head() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"%x\r\n%s\r\n" % (MAX_ANSWER, b"x" * MAX_ANSWER)
        try:
            while True:
                peer.send(piece)
        except OSError:
            pass

    with serving(script) as server:
        assert checks(probe_of(server.target())) == [(Finding.PASSED, "")]


def test_tls_is_that_of_the_cluster(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("orders.mesh").configure_cert(context)
    tls = TlsSettings(ca_file=str(tmp_path / "ca.pem"))
    with serving(keep_alive, context) as server:
        assert checks(probe_of(server.target(tls=tls, server_name="orders.mesh"))) == [(Finding.PASSED, "")]
        ((finding, wrong),) = checks(probe_of(server.target(tls=tls, server_name="other.mesh")))
    assert finding is Finding.NO_ANSWER
    assert "certificate" in wrong.lower()


def test_http2_is_spoken_where_the_cluster_speaks_it_and_its_connection_kept() -> None:
    asked: list[str] = []

    def answer(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        asked.append(path)
        peer.respond(stream_id, b"ok", 200 if len(asked) < 3 else 503)

    with H2Server(answer) as server:
        found = [finding for finding, _ in checks(probe_of(server.target()), 3)]
        assert server.raw.accepted == 1
    assert found == [Finding.PASSED, Finding.PASSED, Finding.WRONG]
    assert asked == ["/health"] * 3


def test_another_port_can_be_asked() -> None:
    with serving(keep_alive) as calls, serving(answers(b"503 No")) as health:
        http = HttpCheck("/health", port=health.port)
        assert checks(probe_of(calls.target(), http=http)) == [(Finding.WRONG, "HTTP status 503")]
        assert calls.accepted == 0


def test_a_unix_socket_is_asked_whatever_the_port(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "orders.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with serving(keep_alive, listener=listener):
        probe = probe_of(Target(Endpoint(f"unix:{path}", 0)), http=HttpCheck("/health", port=80))
        assert checks(probe) == [(Finding.PASSED, "")]


def redis(peer: Peer) -> None:
    if peer.sock.recv(100) == b"PING\r\n":
        peer.send(b"+PO")
        peer.send(b"NG\r\n")
        peer.wait_until_gone()


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (TcpCheck(), True),
        (TcpCheck(b"PING\r\n", (b"+", b"PONG")), True),
        (TcpCheck(b"QUIT\r\n", (b"PONG",)), False),
    ],
    ids=["a connection", "the right answer", "the end instead"],
)
def test_a_connection_is_checked(check: TcpCheck, passed: bool) -> None:
    with serving(redis) as server:
        ((finding, _),) = checks(probe_of(server.target(), tcp=check))
    assert finding is (Finding.PASSED if passed else Finding.NO_ANSWER)


def test_a_wrong_answer_over_tcp_is_waited_out() -> None:
    with serving(redis) as server:
        ((finding, wrong),) = checks(probe_of(server.target(), tcp=TcpCheck(b"PING\r\n", (b"PANG",)), timeout_s=0.1))
    assert (finding, wrong) == (Finding.NO_ANSWER, "no answer within 0.1 s")
