"""The wire for event loops: one pool per target and loop.

Connections belong to the loop they were made in, and end with it. `asyncio.run` closes asynchronous generators before
it closes its loop, so each loop gets one whose end closes the pools. A loop that was closed without that is noticed
later, when another one begins or the control plane looks, and its sockets are freed without it.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

from meshlib.errors import MeshClosed, Reset
from meshlib.net.async_pool import AsyncPool
from meshlib.net.body import AsyncBodyReader, ReadyBody
from meshlib.net.connect import connect_async
from meshlib.net.connection import AsyncConnect, AsyncConnection, AsyncExchange, VerifyPeer, may_resend
from meshlib.net.fork import after_fork
from meshlib.net.pool import Entry, PoolStats
from meshlib.net.wire import AsyncWireResponse, Progress, Target, WireLimits, WireRequest

__all__ = ["AsyncEngine"]

MAX_TURNS = 5
"""How many turns of the loop a kept connection gets to take in what its peer has said meanwhile."""

MAX_KNOWN = 1024

_inherited: list[_LoopPools] = []
"""What a forked child got from its parent's loops: kept for ever, since even to forget it would touch the loop."""


class AsyncEngine:
    """Sends attempts from event loops, over connections that it keeps per loop.

    Args:
        connect: opens a connection; another implementation of the protocol comes in here.
        verify_peer: checks the peer's identity after the TLS handshake, before the first byte of a request.
    """

    def __init__(self, *, connect: AsyncConnect = connect_async, verify_peer: VerifyPeer | None = None) -> None:
        self._connect = connect
        self._verify_peer = verify_peer
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPools] = {}
        self._lock = threading.Lock()
        self._closed = False
        after_fork(self)

    def __repr__(self) -> str:
        return f"<AsyncEngine [{', '.join(repr(pool) for pool in self._all_pools())}]>"

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there; may be cancelled at any point.

        Raises:
            WireError: if it failed on the way.
            RequestBodyError: if the request's own body could not be sent.
            MeshClosed: after `close`.
        """
        pool = self._pool(target)
        progress.phase = "pool"
        entry = pool.acquire_now(time.monotonic(), request.resendable)
        # However short a time ago it was used: what has come since then was not asked for.
        if entry is False or (entry is not None and entry.served and not entry.connection.usable()):
            entry = await _kept(pool, request, limits, entry)
        while True:
            if entry is None:
                entry = await self._open(pool, target, limits, progress)
            progress.reused = entry.served > 0
            try:
                exchange = await entry.connection.exchange(request, limits, progress)
            except Reset as error:
                if not may_resend(request, progress, error):
                    pool.release(entry, False)
                    raise
                progress.resent = True
                entry = None if pool.replace(entry) else await _kept(pool, request, limits, False)
            except BaseException:
                pool.release(entry, True)  # the connection knows whether it is of further use
                raise
            else:
                return _respond(pool, entry, exchange)

    async def _open(
        self, pool: AsyncPool, target: Target, limits: WireLimits, progress: Progress
    ) -> Entry[AsyncConnection]:
        try:
            connection = await self._connect(target, limits, progress, self._verify_peer)
        except BaseException:
            pool.connect_failed()
            raise
        return pool.connected(connection)

    def _pool(self, target: Target) -> AsyncPool:
        loop = asyncio.get_running_loop()
        pools = self._loops.get(loop)
        if pools is None:
            pools = self._new_loop(loop)
        known = pools.known.get(id(target))
        if known is not None:
            return known[1]
        pool = self._find_pool(pools, target)
        if len(pools.known) >= MAX_KNOWN:
            pools.known.clear()
        pools.known[id(target)] = target, pool
        return pool

    def _find_pool(self, pools: _LoopPools, target: Target) -> AsyncPool:
        key = target.key
        pool = pools.active.get(key)
        if pool is None:
            if self._closed:
                raise MeshClosed("the mesh is closed")
            pool = pools.active[key] = AsyncPool(target, pools.loop)
        elif pool.book.settings is not target.pool:
            pool.book.settings = target.pool
        return pool

    def _new_loop(self, loop: asyncio.AbstractEventLoop) -> _LoopPools:
        self._forget_dead_loops()
        pools = _LoopPools(loop)
        with self._lock:
            if self._closed:
                raise MeshClosed("the mesh is closed")
            self._loops[loop] = pools
        pools.end_with_loop(functools.partial(self._loops.pop, loop, None))
        return pools

    def _forget_dead_loops(self) -> None:
        with self._lock:
            closed = [loop for loop in list(self._loops) if loop.is_closed()]
            dead = [self._loops.pop(loop, None) for loop in closed]
        for pools in dead:
            if pools is None:
                continue  # the loop ended just now, and has closed them itself
            for pool in pools.all():
                pool.forsake()

    # The control plane's side: all of it may be called from any thread

    def drain(self, key: tuple[Any, ...]) -> None:
        """Close the idle connections of an endpoint that left, and each busy one when its response ends.

        Args:
            key: of the target or of the endpoint. A later request to it starts with a new pool.
        """
        self._on_each_loop(lambda pools: pools.drain(key))

    def reap(self, now: float) -> None:
        """Close connections that have been idle for too long, also where no request comes by any more.

        Args:
            now: the monotonic clock, in seconds.
        """
        self._forget_dead_loops()
        self._on_each_loop(lambda pools: pools.reap(now))

    def stats(self) -> list[PoolStats]:
        """The numbers of each pool of each loop, drained ones included."""
        pools = self._all_pools()
        return [pool.book.stats(pool.target.endpoint.address, pool.target.server_name) for pool in pools]

    def close(self) -> None:
        """Close what is idle, fail what waits, and close each busy connection when its response ends."""
        with self._lock:
            self._closed = True
        self._forget_dead_loops()
        self._on_each_loop(_LoopPools.close)

    async def aclose(self) -> None:
        """`close`, and see to it that what is closed in this loop is so when it returns."""
        self.close()
        for _ in range(3):  # a transport's end takes the loop two turns, a TLS one three
            await asyncio.sleep(0)

    def after_fork_in_child(self) -> None:
        """Start anew: the connections are the parent's, and so is what their loops wait with."""
        self._lock = threading.Lock()
        _inherited.extend(self._loops.values())
        pools = self._all_pools()
        self._loops = {}
        for pool in pools:
            pool.abandon()

    def _on_each_loop(self, action: Callable[[_LoopPools], None]) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        for loop, pools in list(self._loops.items()):
            if loop is running:
                action(pools)
            else:
                try:
                    loop.call_soon_threadsafe(action, pools)
                except RuntimeError:
                    pass  # closed a moment ago; it will be noticed

    def _all_pools(self) -> list[AsyncPool]:
        return [pool for pools in list(self._loops.values()) for pool in pools.all()]


class _LoopPools:
    """The pools of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.active: dict[tuple[Any, ...], AsyncPool] = {}
        self.known: dict[int, tuple[Target, AsyncPool]] = {}
        """The active pool of each target that was used, by the target's id, since to hash a target takes long. Each is
        held, so that no other has its id; forgotten whenever one is no longer active, and when they are many."""
        self.draining: list[AsyncPool] = []
        self._end: AsyncGenerator[None, None] | None = None

    def all(self) -> list[AsyncPool]:
        return [*list(self.active.values()), *list(self.draining)]

    def end_with_loop(self, forget: Callable[[], object]) -> None:
        if getattr(self.loop, "_asyncgens_shutdown_called", False):
            return  # the loop is about to end and would complain
        self._end = self._until_loop_ends(forget)
        try:
            self._end.__anext__().send(None)  # up to its yield, which makes the loop know of it
        except StopIteration:
            pass

    async def _until_loop_ends(self, forget: Callable[[], object]) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            forget()
            for pool in self.all():
                pool.abort(MeshClosed("the event loop ended while this request waited for a connection"))
            for _ in range(3):
                await asyncio.sleep(0)

    def drain(self, key: tuple[Any, ...]) -> None:
        self.known.clear()
        self.draining = [pool for pool in self.draining if pool.book.open]
        for k in [k for k, pool in self.active.items() if key in (k, pool.target.endpoint.key)]:
            pool = self.active.pop(k)
            self.draining.append(pool)
            pool.drain()

    def reap(self, now: float) -> None:
        self.known.clear()
        self.draining = [pool for pool in self.draining if pool.book.open]
        for pool in self.all():
            if pool.expire(now) and self.active.get(pool.target.key) is pool:
                del self.active[pool.target.key]

    def close(self) -> None:
        self.known.clear()
        self.draining = self.all()
        self.active.clear()
        for pool in self.draining:
            pool.close(MeshClosed("the mesh was closed while this request waited for a connection"))


async def _kept(
    pool: AsyncPool, request: WireRequest, limits: WireLimits, entry: Entry[AsyncConnection] | Literal[False] | None
) -> Entry[AsyncConnection] | None:
    """Go on from what the pool gave first: wait, and look at a kept connection before it is used."""
    while True:
        if entry is False:
            entry = await pool.wait(limits)
        if entry is None or entry.served == 0:
            return entry
        usable = entry.connection.usable()
        for _ in range(MAX_TURNS):
            if usable is not None:
                break
            try:
                await asyncio.sleep(0)
            except BaseException:
                pool.release(entry, True)
                raise
            usable = entry.connection.usable()
        if usable is not False:  # one that has been talking all the time is alive
            return entry
        if pool.replace(entry):
            return None
        entry = pool.acquire_now(time.monotonic(), request.resendable)


def _respond(pool: AsyncPool, entry: Entry[AsyncConnection], exchange: AsyncExchange) -> AsyncWireResponse:
    head, content, extensions = exchange.head, exchange.content, exchange.extensions
    body: ReadyBody | AsyncBodyReader
    if content is not None:
        # The whole response came with its head, as small ones do: the connection is free already.
        body = ReadyBody([content] if content else [])
        pool.release(entry, exchange.finish())
    else:
        fetched = exchange.prefetch()
        if fetched.error is not None:
            body = ReadyBody(fetched.chunks, fetched.error)
            pool.release(entry, exchange.finish())
        else:
            body = AsyncBodyReader(
                exchange, fetched, functools.partial(pool.release, entry), functools.partial(pool.drop, entry)
            )
    return AsyncWireResponse(
        head.status, head.headers, body, body.aclose, head.http_version, head.reason, extensions, content
    )
