"""Raw-socket servers that misbehave as told, and one way to drive both engines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import PoolSettings
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.body import ReadyBody
from meshlib.net.steps import Bell, run
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """One accepted connection, as a server's script sees it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.buffer = b""
        self.requests = 0

    def request(self) -> bytes | None:
        """The next request, body included; None if the client has gone."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if b"transfer-encoding: chunked" in head.lower():
            while b"0\r\n\r\n" not in rest:
                if not self._more():
                    return None
                rest = self.buffer.partition(b"\r\n\r\n")[2]
            body, _, self.buffer = rest.partition(b"0\r\n\r\n")
        else:
            while len(rest) < length:
                if not self._more():
                    return None
                rest = self.buffer.partition(b"\r\n\r\n")[2]
            body, self.buffer = rest[:length], rest[length:]
        self.requests += 1
        return head + b"\r\n\r\n" + body

    def head(self) -> bytes | None:
        """The next request's head alone."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_until_gone(self) -> None:
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except OSError:
            return False
        self.buffer += data
        return bool(data)


Script = Callable[[Peer], None]


class RawServer:
    """Listens on loopback, or where told, and runs `script` for each connection, in a thread of its own."""

    def __init__(
        self, script: Script, tls: ssl.SSLContext | None = None, listener: socket.socket | None = None
    ) -> None:
        self.script = script
        self.tls = tls
        self.accepted = 0
        self.failed_handshakes = 0
        self.closed = threading.Semaphore(0)
        """Released once per connection whose script has ended."""
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=512)
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def target(self, **options: Any) -> Target:
        pool = {name: options.pop(name) for name in list(options) if name in PoolSettings.__dataclass_fields__}
        return Target(Endpoint("127.0.0.1", self.port), pool=PoolSettings(**pool), **options)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.accepted), daemon=True)
            self.accepted += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                try:
                    sock = self.tls.wrap_socket(sock, server_side=True)
                    self._socks.append(sock)
                except (OSError, ValueError):
                    self.failed_handshakes += 1
                    return
            with contextlib.suppress(OSError):
                self.script(Peer(sock, number))
        finally:
            sock.close()
            self.closed.release()


@contextlib.contextmanager
def serving(
    script: Script, tls: ssl.SSLContext | None = None, listener: socket.socket | None = None
) -> Iterator[RawServer]:
    server = RawServer(script, tls, listener)
    try:
        yield server
    finally:
        server.close()


def keep_alive(peer: Peer) -> None:
    """A well-behaved server: answers each request with its body, or ``ok``."""
    while (request := peer.request()) is not None:
        body = request.partition(b"\r\n\r\n")[2] or b"ok"
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def answering(*parts: bytes, linger: bool = False) -> Script:
    """Answer one request with these bytes and close, or keep the connection open."""

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            for part in parts:
                peer.send(part)
            if linger:
                peer.wait_until_gone()

    return script


def get(
    path: bytes = b"/", *headers: tuple[bytes, bytes], method: bytes = b"GET", resendable: bool = True
) -> WireRequest:
    return WireRequest(method, path, [(b"Host", b"svc"), *headers], b"", resendable)


def post(body: Any, *, resendable: bool = False, length: int | None = None) -> WireRequest:
    if isinstance(body, bytes):
        framing = (b"Content-Length", b"%d" % len(body))
    elif length is not None:
        framing = (b"Content-Length", b"%d" % length)
    else:
        framing = (b"Transfer-Encoding", b"chunked")
    return WireRequest(b"POST", b"/", [(b"Host", b"svc"), framing], body, resendable)


@dataclass
class Reply:
    """What came of one exchange."""

    status: int
    body: bytes
    progress: Progress
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    extensions: dict[str, Any] = field(default_factory=dict)


class Wire:
    """One engine, driven step by step by a test that does not care which one it is."""

    name = ""
    engine: Any

    def send(self, target: Target, request: WireRequest, progress: Progress | None = None, **limits: Any) -> Any:
        raise NotImplementedError

    def next_chunk(self, response: Any) -> bytes:
        """The next bytes of the body; b"" at its end."""
        raise NotImplementedError

    def close(self, response: Any) -> None:
        raise NotImplementedError

    def body(self, chunks: Any) -> Any:
        """An iterator of the kind that this engine takes."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let what was set off happen."""

    def shut(self) -> None:
        raise NotImplementedError

    def read(self, response: Any) -> bytes:
        return b"".join(iter(lambda: self.next_chunk(response), b""))

    def call(self, target: Target, request: WireRequest | None = None, **limits: Any) -> Reply:
        progress = Progress()
        response = self.send(target, request or get(), progress, **limits)
        try:
            body = self.read(response)
        finally:
            self.close(response)
        return Reply(response.status, body, progress, response.headers, response.extensions)

    def counts(self) -> tuple[int, int, int, int]:
        """(open, idle, busy, pending) over all pools."""
        self.settle()
        stats = self.engine.stats()
        return (
            sum(s.open for s in stats),
            sum(s.idle for s in stats),
            sum(s.busy for s in stats),
            sum(s.pending for s in stats),
        )


class SyncDriver(Wire):
    name = "sync"

    def __init__(self, **options: Any) -> None:
        self.engine = SyncEngine(**options)

    def send(self, target: Target, request: WireRequest, progress: Progress | None = None, **limits: Any) -> Any:
        return self.engine.send(target, request, WireLimits(**limits), progress or Progress())

    def next_chunk(self, response: Any) -> bytes:
        return next(response.body, b"")

    def close(self, response: Any) -> None:
        response.close()

    def body(self, chunks: Any) -> Any:
        return iter(chunks)

    def shut(self) -> None:
        self.engine.close()


class SyncStepsDriver(SyncDriver):
    """The engine for threads, each request carried out in steps."""

    def send(self, target: Target, request: WireRequest, progress: Progress | None = None, **limits: Any) -> Any:
        if not isinstance(request.body, bytes):
            return super().send(target, request, progress, **limits)
        self.bell = Bell()
        try:
            steps = self.engine.send_steps(target, request, WireLimits(**limits), progress or Progress(), self.bell)
            return run(steps)
        finally:
            self.bell.close()

    def next_chunk(self, response: Any) -> bytes:
        body = response.body
        if isinstance(body, ReadyBody) or body._ready or body._exchange is None:
            return next(body, b"")
        bell, chunk = Bell(), b""
        try:
            chunk = run(body._exchange.read_steps(bell))
            return chunk
        finally:
            bell.close()
            if not chunk:
                body.close()


class AsyncDriver(Wire):
    name = "async"

    def __init__(self, loop_factory: Any = None, **options: Any) -> None:
        self.name = "uvloop" if loop_factory else "async"
        self.engine = AsyncEngine(**options)
        self.runner = asyncio.Runner(loop_factory=loop_factory)

    def send(self, target: Target, request: WireRequest, progress: Progress | None = None, **limits: Any) -> Any:
        return self.runner.run(self.engine.send(target, request, WireLimits(**limits), progress or Progress()))

    def next_chunk(self, response: Any) -> bytes:
        async def step() -> bytes:
            return await anext(response.body, b"")

        return self.runner.run(step())

    def close(self, response: Any) -> None:
        self.runner.run(response.aclose())

    def body(self, chunks: Any) -> Any:
        async def generate() -> Any:
            for chunk in chunks:
                yield chunk

        return generate()

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.runner.run(turns())

    def shut(self) -> None:
        self.runner.run(self.engine.aclose())
        self.runner.close()


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that answers nothing: a listener whose backlog is full drops what else comes, as a firewall does."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        stack.enter_context(socket.create_connection((host, port)))
        for _ in range(2):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield port


class Resolver:
    """Stands in for ``getaddrinfo``: names that a test knows, and how long one takes."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.hold: threading.Event | None = None
        self.asked = 0
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in self.names:
            return self._real(host, port, *args, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.asked += 1
        if self.hold is not None:
            assert self.hold.wait(10)
        found = []
        for address in self.names[host]:
            ip, _, other_port = address.partition("#")
            found += self._real(ip, int(other_port or port), type=socket.SOCK_STREAM)
        return found


def open_sockets() -> int:
    """How many sockets this process has open."""
    gc.collect()
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return count


def soon(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait for something that another thread brings about and that tells nobody."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
