"""Endpoints that do as each request asks, so that Envoy and the mesh can be sent through the same trouble.

The header ``x-script`` says what becomes of each attempt, in order: ``200``, ``503+retry-after:1``, ``reset`` (before
any response), ``hang``, ``200@150`` (after 150 ms). Which attempt it is, both callers say themselves, in
``x-envoy-attempt-count``; beyond the script its last step holds. Without one the answer is 200. A script may be set for
an endpoint as a whole, too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Self

__all__ = ["Endpoint", "Upstream"]


class Upstream:
    """Endpoints on 127.0.0.1, in a thread of their own. Use it as a context manager.

    Attributes:
        ports: of the endpoints.
        attempts: how many requests came to each port.
        seen: how many requests came with each value of ``x-id``.
        order: the ports, in the order in which requests came.
        routes: the same for each value of ``x-id``.
        scripts: by port, what holds for all its requests without a script of their own.
    """

    endpoint: type[Endpoint]
    """What answers at each port."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(count)]
        self.ports: tuple[int, ...] = tuple(each.getsockname()[1] for each in self._sockets)
        self.attempts: Counter[int] = Counter()
        self.seen: Counter[str] = Counter()
        self.order: list[int] = []
        self.routes: defaultdict[str, list[int]] = defaultdict(list)
        self.scripts: dict[int, str] = {}
        self._open: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def addresses(self) -> list[str]:
        """Of the endpoints."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    def forget(self) -> None:
        """Begin to count anew."""
        self.attempts.clear()
        self.seen.clear()
        self.order.clear()
        self.routes.clear()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        servers = []
        for one, port in zip(self._sockets, self.ports, strict=True):
            made = loop.create_server(lambda port=port: self.endpoint(self, port), sock=one)  # type: ignore[misc]
            servers.append(loop.run_until_complete(made))
        try:
            loop.run_forever()
        finally:
            for one in self._sockets:
                loop.remove_reader(one)
            loop.run_until_complete(asyncio.sleep(0.01))  # whoever is just being let in is in `_open` then
            for server in servers:
                server.close()
            for transport in list(self._open):
                transport.abort()
            loop.run_until_complete(asyncio.sleep(0))


class Endpoint(asyncio.Protocol):
    """One connection to a port."""

    def __init__(self, upstream: Upstream, port: int) -> None:
        self._upstream = upstream
        self._port = port
        self._left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._left += data
        while b"\r\n\r\n" in self._left:
            head, _, rest = self._left.partition(b"\r\n\r\n")
            headers = dict(_header(line) for line in head.split(b"\r\n")[1:])
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self._left = rest[length:]
            self._answer(head, headers)

    def _answer(self, head: bytes, headers: dict[str, str]) -> None:
        upstream, port = self._upstream, self._port
        upstream.attempts[port] += 1
        upstream.seen[headers.get("x-id", "")] += 1
        upstream.order.append(port)
        upstream.routes[headers.get("x-id", "")].append(port)
        script = (headers.get("x-script") or upstream.scripts.get(port) or "200").split(",")
        at = int(headers.get("x-envoy-attempt-count", "1")) - 1
        step, _, delay_ms = script[min(at, len(script) - 1)].partition("@")
        if delay_ms:
            upstream._loop.call_later(float(delay_ms) / 1000, self._do, step)
        else:
            self._do(step)

    def _do(self, step: str) -> None:
        if step == "hang":
            return
        if step == "reset":
            one = self._transport.get_extra_info("socket")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self._transport.abort()
            return
        self._transport.write(_response(step, self._port))


Upstream.endpoint = Endpoint


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.partition(b":")
    return name.decode("latin-1").lower(), value.strip().decode("latin-1")


def _response(step: str, port: int) -> bytes:
    status, *extra = step.split("+")
    lines: Sequence[str] = [f"HTTP/1.1 {status} Status", f"x-endpoint: {port}", "content-length: 0", *extra]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
