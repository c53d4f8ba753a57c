"""Many at once, cancelled at random, forked: the counts return to zero and nothing stays open."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import trustme

from meshlib.config.settings import TlsSettings
from meshlib.errors import AttemptTimeout, ConnectFailed, ConnectTimeout, PoolTimeout, Reset
from meshlib.net.async_engine import AsyncEngine
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, Target, WireLimits, WireRequest
from tests.net.wire_servers import Peer, Wire, get, keep_alive, open_sockets, post, serving, soon

pytestmark = pytest.mark.slow  # many cases, with real servers


def moody(peer: Peer) -> None:
    """Answers after a while, in pieces, sometimes not at all; differs by what is asked for."""
    rng = random.Random(peer.number)
    while peer.request() is not None:
        mood = rng.random()
        if mood < 0.05:
            return
        if mood < 0.3:
            time.sleep(rng.random() * 0.004)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        if mood < 0.6:
            time.sleep(rng.random() * 0.002)
        peer.send(b"0123456789")


async def cancel_at_random(
    engine: AsyncEngine, target: Target, rng: random.Random, calls: int, patience_s: float
) -> tuple[int, int]:
    """`calls` calls, 50 at a time, most of them cancelled somewhere; how many were, and how many were answered."""
    cancelled = answered = 0

    async def call(request: WireRequest) -> None:
        response = await engine.send(target, request, WireLimits(connect_s=5), Progress())
        try:
            async for _ in response.body:
                pass
        finally:
            await response.aclose()

    async def one() -> None:
        nonlocal cancelled, answered
        request = post(b"x" * 1000, resendable=True) if rng.random() < 0.3 else get()
        task = asyncio.ensure_future(call(request))
        if rng.random() < 0.4:
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(rng.random() * patience_s)
        task.cancel()
        try:
            await task
            answered += 1
        except asyncio.CancelledError:
            cancelled += 1
        except ConnectionError:
            answered += 1

    for _ in range(calls // 50):
        await asyncio.gather(*(one() for _ in range(50)))
    return cancelled, answered


@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "tls"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_random_cancellations_leave_the_pool_whole(loop: str, tls: bool, tmp_path: Path) -> None:
    factory: Any = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("svc").configure_cert(context)
    settings = TlsSettings(ca_file=str(tmp_path / "ca.pem")) if tls else None
    engine = AsyncEngine()
    before = open_sockets()

    async def main(target: Target) -> None:
        rng, patience_s = random.Random(20), 0.25 if tls else 0.06
        cancelled = answered = 0
        while cancelled < (300 if tls else 1000) or answered < 50:
            cut, done = await cancel_at_random(engine, target, rng, 250, patience_s)
            cancelled, answered = cancelled + cut, answered + done
            patience_s *= 0.7 if cut < done else 1.4  # what else the machine has to do decides how much is done in it
        for _ in range(5):
            await asyncio.sleep(0)
        (stats,) = engine.stats()
        assert (stats.busy, stats.pending) == (0, 0)
        assert stats.open == stats.idle <= 10
        statuses: list[int] = []
        while len(statuses) < 20:
            try:
                response = await engine.send(target, get(), WireLimits(deadline=time.monotonic() + 5), Progress())
            except Reset:
                continue  # the server was in that mood
            statuses.append(response.status)
            await response.aclose()
        assert statuses == [200] * 20

    with serving(moody, context if tls else None) as server, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(server.target(max_connections=10, tls=settings, server_name="svc")))
    assert open_sockets() == before


def test_a_cancelled_waiter_passes_on_what_it_was_handed() -> None:
    engine = AsyncEngine()

    async def main(target: Target) -> None:
        holder = await engine.send(target, post(b"x" * 3_000_000), WireLimits(), Progress())
        first, second = (
            asyncio.ensure_future(engine.send(target, get(), WireLimits(deadline=time.monotonic() + 5), Progress()))
            for _ in range(2)
        )
        await asyncio.sleep(0)
        assert engine.stats()[0].pending == 2
        await holder.aclose()  # hands its place to the first, which cannot run before it is cancelled
        assert engine.stats()[0].pending == 1
        first.cancel()
        assert (await second).status == 200
        assert first.cancelled() or first.done()

    with serving(keep_alive) as server:
        asyncio.run(main(server.target(max_connections=1)))


def test_cancelling_from_outside_is_not_taken_for_a_timeout() -> None:
    engine = AsyncEngine()

    async def main(target: Target) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.send(target, get(), WireLimits(read_s=5, deadline=time.monotonic() + 5), Progress())
        task = asyncio.ensure_future(engine.send(target, get(), WireLimits(read_s=5), Progress()))
        await asyncio.sleep(0.02)
        task.cancel("by hand")
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(lambda peer: peer.wait_until_gone()) as server:
        asyncio.run(main(server.target()))


def test_threads_and_tasks_at_once() -> None:
    sync, asynchronous = SyncEngine(), AsyncEngine()
    before = open_sockets()
    failures: list[BaseException] = []
    allowed = (ConnectionError, AttemptTimeout, PoolTimeout, ConnectTimeout)

    def thread(target: Target, seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(40):
                limits = WireLimits(deadline=time.monotonic() + rng.choice((0.003, 5.0)))
                try:
                    response = sync.send(target, get(), limits, Progress())
                    if rng.random() < 0.8:
                        assert b"".join(response.body) == b"0123456789"
                    response.close()
                except allowed:
                    pass
        except BaseException as error:
            failures.append(error)

    async def main(target: Target) -> None:
        async def task() -> None:
            for _ in range(3):
                try:
                    response = await asynchronous.send(target, get(), WireLimits(), Progress())
                    assert b"".join([chunk async for chunk in response.body]) == b"0123456789"
                except allowed:
                    pass

        await asyncio.gather(*(task() for _ in range(200)))
        assert sum(s.busy + s.pending for s in asynchronous.stats()) == 0

    with serving(moody) as server:
        target = server.target(max_connections=8)
        threads = [threading.Thread(target=thread, args=(target, seed)) for seed in range(16)]
        for one in threads:
            one.start()
        asyncio.run(main(target))
        for one in threads:
            one.join(30)
        assert not failures
        (stats,) = sync.stats()
        assert (stats.busy, stats.pending) == (0, 0)
        assert stats.open <= 8
        sync.close()
    assert open_sockets() == before


@pytest.mark.parametrize("resendable", [True, False], ids=["again", "once"])
def test_a_peer_that_resets_after_any_byte_of_a_request_costs_no_connection(wire: Wire, resendable: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: svc\r\nContent-Length: 4\r\n\r\nbody"
    reset_after: int | None = None  # not by the number of the connection: others may knock at a port that was theirs

    def script(peer: Peer) -> None:
        if reset_after is None:
            keep_alive(peer)
        else:
            left = reset_after
            while left and (data := peer.sock.recv(left)):
                left -= len(data)
            peer.reset()

    with serving(script) as server:
        for length in range(len(head)):
            reset_after = length
            with pytest.raises((Reset, ConnectFailed)):  # the latter if it comes before the connection is noticed
                wire.send(server.target(), post(b"body", resendable=resendable))
            assert wire.counts() == (0, 0, 0, 0)
            reset_after = None
            assert wire.call(server.target(), post(b"body")).body == b"body"
            wire.engine.reap(time.monotonic() + 100)


# Forks


def in_child(action: Any) -> None:
    """Run `action` in a forked child and fail if it fails there."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + 20
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        assert time.monotonic() < end, "the child hangs"
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_anew_and_the_parents_connections_live_on() -> None:
    engine = SyncEngine()
    with serving(keep_alive) as server:
        target = server.target()
        engine.send(target, get(), WireLimits(), Progress())
        unread = engine.send(target, post(b"x" * 3_000_000), WireLimits(), Progress())
        engine.send(target, get(), WireLimits(), Progress())
        sockets = open_sockets()

        def child() -> None:
            assert engine.stats() == []
            assert open_sockets() == sockets - 2
            progress = Progress()
            assert engine.send(target, get(), WireLimits(), progress).status == 200
            assert not progress.reused
            with pytest.raises(OSError):
                for _ in unread.body:
                    pass
            unread.close()
            engine.close()

        in_child(child)
        assert sum(len(chunk) for chunk in unread.body) == 3_000_000
        progress = Progress()
        engine.send(target, get(), WireLimits(), progress)
        assert progress.reused
        assert server.accepted == 3
        engine.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_forked_child_may_run_a_loop_of_its_own_while_the_parents_goes_on(loop: str) -> None:
    factory: Any = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    engine = AsyncEngine()
    with serving(keep_alive) as server, asyncio.Runner(loop_factory=factory) as runner:
        target = server.target()

        async def call() -> bool:
            progress = Progress()
            response = await engine.send(target, get(), WireLimits(deadline=time.monotonic() + 5), progress)
            assert response.status == 200
            return progress.reused

        runner.run(call())

        def child() -> None:
            assert engine.stats() == []
            with asyncio.Runner(loop_factory=factory) as own:
                assert own.run(call()) is False
                assert own.run(call()) is True

        in_child(child)
        assert runner.run(call()) is True
        assert server.accepted == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_other_threads_work_does_not_hang() -> None:
    engine = SyncEngine()
    with serving(keep_alive) as server:
        target = server.target(max_connections=2)
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                engine.send(target, get(), WireLimits(), Progress())

        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        soon(lambda: engine.stats() and engine.stats()[0].open == 2)
        for _ in range(5):
            in_child(lambda: engine.send(target, get(), WireLimits(deadline=time.monotonic() + 5), Progress()))
        stop.set()
        for thread in threads:
            thread.join(10)
        assert engine.stats()[0].busy == 0
        engine.close()
