"""The wire for threads: one pool per target, any number of threads."""

from __future__ import annotations

import functools
import threading
from typing import Any

from meshlib.errors import MeshClosed, Reset
from meshlib.net.body import ReadyBody, SyncBodyReader
from meshlib.net.connect import connect_steps, connect_sync
from meshlib.net.connection import ConnectSteps, SyncConnect, SyncConnection, SyncExchange, VerifyPeer, may_resend
from meshlib.net.fork import after_fork
from meshlib.net.pool import Entry, PoolStats
from meshlib.net.steps import Bell, Steps
from meshlib.net.sync_pool import SyncPool
from meshlib.net.wire import Progress, SyncWireResponse, Target, WireLimits, WireRequest

__all__ = ["SyncEngine"]


class SyncEngine:
    """Sends attempts from threads, over connections that it keeps.

    Args:
        connect: opens a connection; another implementation of the protocol comes in here.
        connect_steps: the same in steps.
        verify_peer: checks the peer's identity after the TLS handshake, before the first byte of a request.
    """

    def __init__(
        self,
        *,
        connect: SyncConnect = connect_sync,
        connect_steps: ConnectSteps = connect_steps,
        verify_peer: VerifyPeer | None = None,
    ) -> None:
        self._connect = connect
        self._connect_steps = connect_steps
        self._verify_peer = verify_peer
        self._pools: dict[tuple[Any, ...], SyncPool] = {}
        self._draining: set[SyncPool] = set()
        self._lock = threading.Lock()
        self._closed = False
        after_fork(self)

    def __repr__(self) -> str:
        return f"<SyncEngine [{', '.join(repr(pool) for pool in self._all_pools())}]>"

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there.

        Raises:
            WireError: if it failed on the way.
            RequestBodyError: if the request's own body could not be sent.
            MeshClosed: after `close`.
        """
        pool = self._pool(target)
        progress.phase = "pool"
        entry = self._kept(pool, request, limits)
        while True:
            if entry is None:
                entry = self._open(pool, target, limits, progress)
            progress.reused = entry.served > 0
            try:
                exchange = entry.connection.exchange(request, limits, progress)
            except Reset as error:
                if not may_resend(request, progress, error):
                    pool.release(entry, False)
                    raise
                progress.resent = True
                entry = None if pool.replace(entry) else self._kept(pool, request, limits)
            except BaseException:
                pool.release(entry, True)  # the connection knows whether it is of further use
                raise
            else:
                return _respond(pool, entry, exchange)

    def send_steps(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress, bell: Bell
    ) -> Steps[SyncWireResponse]:
        """`send` in steps, for a request whose body is in memory: several such can be under way in one thread.

        Raises:
            WireError, MeshClosed.
        """
        pool = self._pool(target)
        progress.phase = "pool"
        entry = yield from _kept_steps(pool, request, limits, bell)
        while True:
            if entry is None:
                try:
                    connection = yield from self._connect_steps(target, limits, progress, self._verify_peer, bell)
                except BaseException:
                    pool.connect_failed()
                    raise
                entry = pool.connected(connection)
            progress.reused = entry.served > 0
            try:
                exchange = yield from entry.connection.exchange_steps(request, limits, progress, bell)
            except Reset as error:
                if not may_resend(request, progress, error):
                    pool.release(entry, False)
                    raise
                progress.resent = True
                entry = None if pool.replace(entry) else (yield from _kept_steps(pool, request, limits, bell))
            except BaseException:
                pool.release(entry, True)  # the connection knows whether it is of further use
                raise
            else:
                return _respond(pool, entry, exchange)

    def _kept(self, pool: SyncPool, request: WireRequest, limits: WireLimits) -> Entry[SyncConnection] | None:
        while True:
            entry = pool.acquire(request.resendable, limits)
            if entry is None or entry.served == 0 or entry.connection.usable():
                return entry
            if pool.replace(entry):
                return None

    def _open(self, pool: SyncPool, target: Target, limits: WireLimits, progress: Progress) -> Entry[SyncConnection]:
        try:
            connection = self._connect(target, limits, progress, self._verify_peer)
        except BaseException:
            pool.connect_failed()
            raise
        return pool.connected(connection)

    def _pool(self, target: Target) -> SyncPool:
        key = target.key
        pool = self._pools.get(key)
        if pool is None:
            with self._lock:
                if self._closed:
                    raise MeshClosed("the mesh is closed")
                pool = self._pools.get(key)
                if pool is None:
                    pool = self._pools[key] = SyncPool(target)
        elif pool.book.settings is not target.pool:
            pool.book.settings = target.pool
        return pool

    # The control plane's side

    def drain(self, key: tuple[Any, ...]) -> None:
        """Close the idle connections of an endpoint that left, and each busy one when its response ends.

        Args:
            key: of the target or of the endpoint. A later request to it starts with a new pool.
        """
        with self._lock:
            self._forget_drained()
            leaving = [k for k, pool in self._pools.items() if key in (k, pool.target.endpoint.key)]
            pools = [self._pools.pop(k) for k in leaving]
            self._draining.update(pools)
        for pool in pools:
            pool.drain()

    def reap(self, now: float) -> None:
        """Close connections that have been idle for too long, also where no request comes by any more.

        Args:
            now: the monotonic clock, in seconds.
        """
        given_up = [pool for pool in self._all_pools() if pool.expire(now)]
        with self._lock:
            for pool in given_up:
                if self._pools.get(pool.target.key) is pool:
                    del self._pools[pool.target.key]
                    self._draining.add(pool)
            self._forget_drained()

    def stats(self) -> list[PoolStats]:
        """The numbers of each pool, drained ones included; from any thread."""
        pools = self._all_pools()
        return [pool.book.stats(pool.target.endpoint.address, pool.target.server_name) for pool in pools]

    def close(self) -> None:
        """Close what is idle, fail what waits, and close each busy connection when its response ends."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
            self._pools.clear()
            self._draining.update(pools)
        for pool in pools:
            pool.close(MeshClosed("the mesh was closed while this request waited for a connection"))

    def after_fork_in_child(self) -> None:
        """Start anew: the connections are the parent's."""
        self._lock = threading.Lock()
        pools = self._all_pools()
        self._pools = {}
        self._draining = set()
        for pool in pools:
            pool.abandon()

    def _all_pools(self) -> list[SyncPool]:
        return [*list(self._pools.values()), *list(self._draining)]

    def _forget_drained(self) -> None:
        self._draining = {pool for pool in self._draining if pool.book.open}


def _kept_steps(
    pool: SyncPool, request: WireRequest, limits: WireLimits, bell: Bell
) -> Steps[Entry[SyncConnection] | None]:
    while True:
        entry = yield from pool.acquire_steps(request.resendable, limits, bell)
        if entry is None or entry.served == 0 or entry.connection.usable():
            return entry
        if pool.replace(entry):
            return None


def _respond(pool: SyncPool, entry: Entry[SyncConnection], exchange: SyncExchange) -> SyncWireResponse:
    # Read before the connection is given back: it may be its own exchange, and another thread's then.
    head, extensions = exchange.head, exchange.extensions
    content: bytes | None = None
    try:
        fetched = exchange.prefetch()
        body: ReadyBody | SyncBodyReader
        if fetched.complete or fetched.error is not None:
            # The whole response came with its head, as small ones do: the connection is free already.
            body = ReadyBody(fetched.chunks, fetched.error)
            if fetched.error is None:
                content = b"".join(fetched.chunks)
            pool.release(entry, exchange.finish())
        else:
            body = SyncBodyReader(
                exchange, fetched, functools.partial(pool.release, entry), functools.partial(pool.drop, entry)
            )
    except BaseException:
        pool.release(entry, False)
        raise
    return SyncWireResponse(
        head.status, head.headers, body, body.close, head.http_version, head.reason, extensions, content
    )
