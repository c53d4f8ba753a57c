"""A Consul that misbehaves, over a real socket: every answer is survived, and says what is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest

from meshlib.config.settings import ConsulSettings
from meshlib.discovery import consul, consul_http
from meshlib.discovery.consul import ConsulSource
from meshlib.discovery.consul_blocking import BlockingQuery
from meshlib.discovery.consul_http import Reply
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.source import UNKNOWN
from meshlib.discovery.watch import Directory
from tests.discovery.support import Published, until

TOKEN = "11111111-2222-3333-4444-555555555555"


def instances(*ports: int) -> bytes:
    return json.dumps(
        [
            {
                "Node": {"Node": "n1", "Address": "127.0.0.1"},
                "Service": {"ID": f"orders-{port}", "Service": "orders", "Port": port},
                "Checks": [],
            }
            for port in ports
        ]
    ).encode()


def answer(body: bytes, index: object = 1, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    if index is not None:
        lines.append(f"X-Consul-Index: {index}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


Script = Callable[["Fake", str], bytes | None]


class Fake(socketserver.ThreadingTCPServer):
    """Answers each request with the bytes that the script gives; None is never to answer."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.script = script
        self.requests: list[str] = []
        self.heads: list[str] = []
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Fake)
        while line := self.rfile.readline().decode():
            head = ""
            while (header := self.rfile.readline().decode().strip()) != "":
                head += header.lower() + "\n"
            target = line.split()[1]
            server.requests.append(target)
            server.heads.append(head)
            reply = server.script(server, target)
            if reply is None:
                server.over.wait(30)
                return
            try:
                self.wfile.write(reply)
                if b"connection: close" in reply:
                    return
            except OSError:
                return


@contextmanager
def faking(script: Script) -> Iterator[Fake]:
    server = Fake(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Watching:
    def __init__(self, control: ControlPlane, address: str, **settings: Any) -> None:
        self.source = ConsulSource(ConsulSettings(address=address, **settings))
        self.published = Published()
        self.directory = Directory(
            [self.source], control, self.published, on_event=self.published.event, empty_hold_s=0.2
        )
        self.directory.use("orders")

    def error(self) -> str:
        until(lambda: self.published.state("orders") in ("unwell", "stale"))
        resolution = self.published.now["orders"]
        assert resolution is not None
        return resolution.error or ""


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (answer(b"boom", status="500 Internal Server Error"), r"it answered 500 \(boom\)"),
        (answer(b"No cluster leader", status="500 Oops"), "No cluster leader"),
        (answer(b"slow down", status="429 Too Many Requests"), "it answered 429"),
        (answer(b"", status="301 Moved", index=None), "it answered 301"),
        (answer(b"", status="404 Not Found", index=None), "is this Consul"),
        (answer(b"Permission denied", status="403 Forbidden"), r"`service:read` for 'orders'"),
        (answer(b"<html>hello</html>"), "malformed"),
        (answer(b'{"a": 1}'), "a list of instances is expected"),
        (answer(b'[{"Node": 7}]'), "an instance has no Node"),
        (answer(b"[", index=5), "malformed"),
        (answer(b"[]", index="soon"), "X-Consul-Index"),
        (answer(b"[]", index=None), "X-Consul-Index"),
        (b"SSH-2.0-OpenSSH\r\n\r\nconnection: close", "Consul at"),
        (answer(b"[]" + b" " * 50, length=500) + b"connection: close", "Consul at"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[", "Consul at"),
        (answer(b"[]", 1, "200 OK", "X-Consul-KnownLeader: false"), "has no leader"),
        (answer(b"[]", 1, "200 OK", "Age: 90"), "cut off from its servers for 90 s"),
        (answer(b"[]", 1, "200 OK", "X-Consul-Results-Filtered-By-ACLs: true"), "hides the instances"),
    ],
)
def test_every_wrong_answer_is_unwell_with_the_reason_and_never_the_token(
    control: ControlPlane, caplog: pytest.LogCaptureFixture, reply: bytes, says: str
) -> None:
    import re

    with caplog.at_level(logging.DEBUG, "meshlib"), faking(lambda fake, target: reply) as fake:
        watching = Watching(control, fake.address, token=TOKEN)
        error = watching.error()
        assert re.search(says, error), error
        assert fake.address in error
        assert f"x-consul-token: {TOKEN}" in fake.heads[0]
        assert all(TOKEN not in target for target in fake.requests)
        assert TOKEN not in error + repr(watching.source) + caplog.text


def test_a_token_that_the_server_repeats_is_not_shown(control: ControlPlane) -> None:
    with faking(lambda fake, target: answer(f"token {TOKEN} is bad".encode(), status="500 Oops")) as fake:
        assert "token [token] is bad" in Watching(control, fake.address, token=TOKEN).error()


def test_nobody_there_is_unwell_with_the_address(control: ControlPlane) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert address in Watching(control, address).error()


def test_a_server_that_never_answers_is_given_up(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockingQuery, "next", _short(BlockingQuery.next))
    with faking(lambda fake, target: None) as fake:
        assert "no answer within 0.1 s" in Watching(control, fake.address).error()


def _short(real: Any) -> Any:
    from dataclasses import replace

    return lambda self, now, blocking=True: replace(real(self, now, blocking=blocking), timeout_s=0.1)


def test_an_answer_without_end_is_given_up(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_http, "MAX_BODY_BYTES", 1 << 20)
    with faking(lambda fake, target: answer(b" " * (2 << 20))) as fake:
        assert "its answer is longer than 1 MiB" in Watching(control, fake.address).error()


def test_a_lower_index_starts_over_without_one(control: ControlPlane) -> None:
    def script(fake: Fake, target: str) -> bytes | None:
        match len(fake.requests):
            case 1:
                return answer(instances(1), 100)
            case 2:
                return answer(instances(2), 3)
            case 3:
                return answer(instances(3), 3)
            case _:
                return None

    with faking(script) as fake:
        watching = Watching(control, fake.address)
        until(lambda: watching.published.ports("orders") == [3])
        until(lambda: len(fake.requests) == 4)
        assert ["index" in target for target in fake.requests] == [False, True, False, True]
        assert "index=3&wait=60000ms" in fake.requests[3]


def test_an_index_of_zero_does_not_make_a_hot_loop(control: ControlPlane) -> None:
    with faking(lambda fake, target: answer(instances(len(fake.requests)), 0)) as fake:
        watching = Watching(control, fake.address)
        until(lambda: watching.published.ports("orders") == [3])
        assert len(fake.requests) <= 4
        assert "index=1&" in fake.requests[1]


def test_an_answer_that_says_the_same_is_not_published_again(control: ControlPlane) -> None:
    def script(fake: Fake, target: str) -> bytes | None:
        number = len(fake.requests)
        # Other bytes, same endpoints; then another endpoint.
        body = instances(1) + b" " * number if number < 4 else instances(2)
        return answer(body, number) if number < 5 else None

    with faking(script) as fake:
        watching = Watching(control, fake.address)
        until(lambda: watching.published.ports("orders") == [2])
        assert len(watching.published.all) == 2


def test_trouble_after_a_good_answer_keeps_it(control: ControlPlane) -> None:
    sick = threading.Event()
    calls = iter(range(10_000))

    def script(fake: Fake, target: str) -> bytes | None:
        if sick.is_set():
            return answer(b"rpc error", status="500 Oops")
        return answer(instances(1), next(calls) + 1)

    with faking(script) as fake:
        watching = Watching(control, fake.address)
        until(lambda: watching.published.state("orders") == "ok")
        sick.set()
        until(lambda: watching.published.state("orders") == "stale")
        assert watching.published.ports("orders") == [1]
        sick.clear()
        until(lambda: watching.published.state("orders") == "ok", 2.0)


def test_beyond_its_share_of_connections_a_process_polls_the_agents_cache(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "BLOCKING_WATCHES", 1)
    monkeypatch.setattr(consul, "_POLL_S", 0.05)
    port = iter(range(1, 10_000))

    def script(fake: Fake, target: str) -> bytes | None:
        if "/other" in target:
            return answer(instances(next(port)), 1)
        return answer(instances(1), 1) if "index" not in target else None

    with faking(script) as fake:
        watching = Watching(control, fake.address)
        until(lambda: watching.published.state("orders") == "ok")
        watching.directory.use("other")
        until(lambda: watching.published.ports("other") > [3])
        polls = [index for index, target in enumerate(fake.requests) if "/other" in target]
        assert all("cached" in fake.requests[index] and "index" not in fake.requests[index] for index in polls)
        assert all("connection: close" in fake.heads[index] for index in polls)
        assert "[1 blocking queries]" in repr(watching.source)
        watching.directory.close()
        assert "[0 blocking queries]" in repr(watching.source)


def test_what_is_asked_for(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", TOKEN)
    with faking(lambda fake, target: answer(instances(1)) if "index" not in target else None) as fake:
        address = fake.address.removeprefix("http://")
        watching = Watching(control, f"{address}/prefix/", datacenter="dc2", tag="blue")
        watching.directory.use("a/../b?c")
        until(lambda: len(fake.requests) >= 4)
        first = sorted(target for target in fake.requests if "index" not in target)
        assert first == [
            "/prefix/v1/health/service/a%2F..%2Fb%3Fc?dc=dc2&tag=blue",
            "/prefix/v1/health/service/orders?dc=dc2&tag=blue",
        ]
        assert all("x-consul-token" not in head for head in fake.heads)


def test_nothing_is_kept_of_names_that_nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ConsulSource(ConsulSettings())

    async def ask(*_: object) -> Reply:
        return Reply(200, {"x-consul-index": "7"}, b"[]")

    async def may(*_: object) -> None:
        pass

    async def look(name: str) -> object:
        async with aclosing(source.watch(name)) as answers:
            return await anext(answers)

    monkeypatch.setattr(source, "_ask", ask)
    monkeypatch.setattr(source, "_verify_permissions", may)
    for number in range(3):
        assert asyncio.run(look(f"typo-{number}")) is UNKNOWN
    assert source._incarnations == {}
