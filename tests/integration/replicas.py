"""Replicas of a service that break and mend as told, a listing of them, and callers that count what they see."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Literal

import httpx

from meshlib import MeshError
from meshlib.balance.endpoint import Endpoint
from meshlib.discovery.source import Answer

Mode = Literal["ok", "bad", "hung", "slow"]
SLOW_S = 0.6

_HEAD: Final = b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nok"


class Replica:
    """A server on loopback.

    Attributes:
        mode: how it answers: well, with 503, never, or after `SLOW_S`.
        broken: the path that it answers with 503, whatever its mode.
        answered: requests that it has answered well.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.mode: Mode = "ok"
        self.broken: bytes | None = None
        self.answered = 0
        self._loop = loop
        self._port = 0
        self._listener: socket.socket | None = None
        self._accepted: set[asyncio.Task[Any]] = set()
        self._connections: set[asyncio.Transport] = set()
        self.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self._port)

    def start(self) -> None:
        """Listen; again at the same port, if it did before."""
        self._run(self._start())

    def stop(self) -> None:
        """Refuse connections, and break those that there are."""
        self._run(self._stop())

    def _run(self, work: Awaitable[None]) -> None:
        async def done() -> None:
            await work

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    async def _start(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._listener.setblocking(False)
            self._port = self._listener.getsockname()[1]
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        # By hand: of what asyncio.Server has just accepted when it is closed it leaves the transport open.
        with contextlib.suppress(BlockingIOError):
            peer, _ = listener.accept()
            task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: _Connection(self), peer))
            self._accepted.add(task)
            task.add_done_callback(self._accepted.discard)

    async def _stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()
        if self._accepted:
            await asyncio.wait(self._accepted)
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # they close in the next turn


class _Connection(asyncio.Protocol):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._replica._connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._replica._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._answer(head.split(b" ", 2)[1])

    def _answer(self, path: bytes) -> None:
        replica = self._replica
        if replica.mode == "bad" or path == replica.broken:
            self._transport.write(_HEAD % b"503 Service Unavailable")
        elif replica.mode != "hung":
            delay_s = SLOW_S if replica.mode == "slow" else 0.0
            replica._loop.call_later(delay_s, self._well)

    def _well(self) -> None:
        self._replica.answered += 1
        self._transport.write(_HEAD % b"200 OK")


@contextlib.contextmanager
def replicas() -> Iterator[Callable[[], Replica]]:
    """What makes replicas, all of them in one thread, which ends with them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made: list[Replica] = []

    def make() -> Replica:
        made.append(Replica(loop))
        return made[-1]

    try:
        yield make
    finally:
        for replica in made:
            replica.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Listing:
    """A discovery source that says what it is told to say, at once."""

    name = "listing"

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        self._watches: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def say(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        for loop, changed in self._watches:
            loop.call_soon_threadsafe(changed.set)

    async def watch(self, service: str) -> AsyncGenerator[Answer, None]:
        changed = asyncio.Event()
        watch = asyncio.get_running_loop(), changed
        self._watches.append(watch)
        try:
            while True:
                changed.clear()
                yield self._endpoints
                await changed.wait()
        finally:
            self._watches.remove(watch)

    async def aclose(self) -> None:
        """Nothing is held."""


class Traffic:
    """Calls by number, from threads and from an event loop at once; at some numbers something happens first.

    Attributes:
        outcomes: of the calls, those to the other route left out: number, kind of caller, whether its status was below
            500.
        errors: what was raised.
    """

    def __init__(self, calls: int, script: Mapping[int, Callable[[], object]], other: Callable[[int], bool]) -> None:
        self.outcomes: list[tuple[int, str, bool]] = []
        self.errors: list[str] = []
        self._calls = calls
        self._script = script
        self._other = other
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def success_percent(self, kind: str, since: int = 0) -> float:
        """Of the calls of one kind of caller, from number `since` on."""
        good = [good for number, caller, good in self.outcomes if caller == kind and number >= since]
        return 100.0 * sum(good) / len(good)

    def _take(self) -> int | None:
        with self._lock:
            number = next(self._numbers)
            if number >= self._calls:
                return None
            if (happens := self._script.get(number)) is not None:
                happens()
            return number

    def _note(self, kind: str, number: int, outcome: httpx.Response | MeshError) -> None:
        with self._lock:
            if self._other(number):
                return
            if isinstance(outcome, MeshError):
                self.errors.append(repr(outcome))
            good = not isinstance(outcome, MeshError) and outcome.status_code < 500
            self.outcomes.append((number, kind, good))

    def _path(self, number: int) -> str:
        return "/other" if self._other(number) else "/"

    def _in_thread(self, client: httpx.Client) -> None:
        while (number := self._take()) is not None:
            try:
                self._note("threads", number, client.get(self._path(number)))
            except MeshError as error:
                self._note("threads", number, error)

    async def _in_task(self, client: httpx.AsyncClient) -> None:
        while (number := self._take()) is not None:
            try:
                self._note("loop", number, await client.get(self._path(number)))
            except MeshError as error:
                self._note("loop", number, error)

    def run(self, client: httpx.Client, async_client: Callable[[], Any], side_by_side: int = 4) -> None:
        """Make the calls, so many at a time by each kind of caller."""

        async def tasks() -> None:
            async with async_client() as client, asyncio.TaskGroup() as group:
                for _ in range(side_by_side):
                    group.create_task(self._in_task(client))

        threads = [threading.Thread(target=self._in_thread, args=(client,)) for _ in range(side_by_side)]
        threads.append(threading.Thread(target=asyncio.run, args=(tasks(),)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
