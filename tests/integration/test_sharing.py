"""One mesh used by many threads, tasks and loops at once: nothing is lost, and in the end nothing is held."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import Seen, address, mesh_of, ok, origins
from tests.integration.calling import Caller
from tests.net.wire_servers import Peer, open_sockets, serving, soon


def held(mesh: Mesh) -> list[str]:
    """Everything of this mesh that is still counted as going on."""
    status = mesh.status()
    found = [f"pool {pool}" for pool in status.pools if pool.busy or pool.pending]
    for service in status.services:
        for cluster in service.clusters:
            if cluster.in_flight or cluster.pending:
                found.append(f"{cluster.name}: {cluster.in_flight} in flight, {cluster.pending} pending")
            found += [f"{each.address}: {each.in_flight}" for each in cluster.endpoints if each.in_flight]
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another thread brings about and that tells nobody."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.001)


def nothing_is_held(mesh: Mesh, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while left := held(mesh):
        assert time.monotonic() < deadline, left
        gc.collect()
        time.sleep(0.01)


def unreliable(seen: Seen, number: int) -> bytes | None:
    """Resets, refuses and breaks off now and then."""
    match number % 7:
        case 0:
            return None
        case 3:
            return ok(status="503 Busy")
        case 5:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf"
    return ok(b"x" * 2_000)


QUICK: dict[str, Any] = {
    "retry": {"max_retries": 6, "backoff": {"base": "1ms", "max": "4ms"}},
    "retry_budget": {"tokens": 1_000_000},
    "circuit_breaker": False,
    "outlier_detection": False,
}


def test_16_threads_and_200_tasks_share_one_mesh() -> None:
    with origins(None, None, unreliable) as (_, servers):
        before = open_sockets()
        mesh = mesh_of(*servers, **QUICK)
        statuses: list[int] = []

        def in_a_thread(seed: int) -> None:
            rng = random.Random(seed)
            with mesh.client("orders") as client:
                for _ in range(15):
                    if rng.random() < 0.2:
                        # A stream is not retried once it began, so a broken one is the caller's to see.
                        with suppress(meshlib.BodyBroken), client.stream("GET", "/s") as response:
                            for _ in response.iter_bytes():
                                break
                        continue
                    statuses.append(client.get("/x").status_code)

        async def in_tasks() -> None:
            async with mesh.async_client("orders") as client:

                async def one(seed: int) -> None:
                    rng = random.Random(seed)
                    for _ in range(3):
                        if rng.random() < 0.2:
                            with suppress(meshlib.BodyBroken):
                                async with client.stream("GET", "/s") as response:
                                    async for _ in response.aiter_bytes():
                                        break
                            continue
                        statuses.append((await client.get("/x")).status_code)

                await asyncio.gather(*(one(seed) for seed in range(200)))

        with ThreadPoolExecutor(18) as pool:
            loops = [pool.submit(asyncio.run, in_tasks())]
            threads = [pool.submit(in_a_thread, seed) for seed in range(16)]
            for future in [*threads, *loops]:
                future.result(40)
        assert set(statuses) == {200}
        assert len(statuses) > 500
        nothing_is_held(mesh)
        mesh.close()
        soon(lambda: open_sockets() <= before)


def blocking() -> tuple[Callable[[Peer], None], threading.Semaphore, threading.Event]:
    """A server that answers only when it is told; and how many requests have come."""
    came, go = threading.Semaphore(0), threading.Event()

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            came.release()
            go.wait(20)
            peer.send(ok())

    return script, came, go


def test_beyond_the_limits_calls_wait_in_line_and_the_rest_are_refused_across_threads_and_tasks() -> None:
    script, came, go = blocking()
    with serving(script) as server, mesh_of(server, limits={"max_in_flight": 3, "max_pending": 4}) as mesh:

        def cluster() -> Any:
            return mesh.status().services[0].clusters[0]

        with ThreadPoolExecutor(8) as pool, mesh.client("orders") as client:
            running = [pool.submit(client.get, f"/{n}") for n in range(3)]
            for _ in range(3):
                assert came.acquire(timeout=5)
            waiting = [pool.submit(client.get, f"/waits-{n}") for n in range(2)]
            soon(lambda: cluster().pending == 2)

            async def more() -> list[Any]:
                async with mesh.async_client("orders") as async_client:
                    tasks = [asyncio.ensure_future(async_client.get(f"/waits-{n}")) for n in range(2, 4)]
                    await until(lambda: cluster().pending == 4)
                    refused = await asyncio.gather(async_client.get("/refused"), return_exceptions=True)
                    with pytest.raises(meshlib.LimitExceeded, match="orders"):
                        await asyncio.to_thread(client.get, "/refused-too")
                    go.set()
                    return [*refused, *(await asyncio.gather(*tasks))]

            error, *answers = asyncio.run(more())
            assert isinstance(error, meshlib.LimitExceeded)
            assert isinstance(error, httpx.PoolTimeout)
            assert all(each.status_code == 200 for each in answers)
            assert all(future.result(10).status_code == 200 for future in [*running, *waiting])
        nothing_is_held(mesh)


def test_a_place_is_handed_on_first_in_first_out() -> None:
    order: list[str] = []
    go = threading.Event()

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            order.append(request.split()[1].decode())
            if order == ["/first"]:
                go.wait(20)
            peer.send(ok())

    with serving(script) as server, mesh_of(server, limits={"max_in_flight": 1, "max_pending": 50}) as mesh:

        async def calls() -> None:
            async with mesh.async_client("orders") as client:
                tasks = [asyncio.ensure_future(client.get("/first"))]
                await until(lambda: order)
                for n in range(20):
                    tasks.append(asyncio.ensure_future(client.get(f"/{n}")))
                    await until(lambda n=n: mesh.status().services[0].clusters[0].pending > n)
                go.set()
                await asyncio.gather(*tasks)

        asyncio.run(calls())
        assert order == ["/first", *(f"/{n}" for n in range(20))]
        nothing_is_held(mesh)


def test_a_caller_whose_time_is_up_leaves_the_line(caller: Caller) -> None:
    script, came, go = blocking()
    with serving(script) as server, mesh_of(server, limits={"max_in_flight": 1, "max_pending": 5}) as mesh:
        with ThreadPoolExecutor(1) as pool, mesh.client("orders") as client:
            first = pool.submit(client.get, "/x")
            assert came.acquire(timeout=5)
            with pytest.raises(meshlib.DeadlineExceeded) as caught:
                caller.client(mesh)("GET", "/x", timeout=0.1)
            assert caught.value.record is not None
            assert [wait.reason for wait in caught.value.record.waits] == ["limit"]
            go.set()
            assert first.result(10).status_code == 200
        nothing_is_held(mesh)


@pytest.mark.slow
def test_1000_random_cancellations_leave_everything_whole() -> None:
    rng = random.Random(4)
    limits = {"max_in_flight": 12, "max_pending": 1_000}
    with origins(None, unreliable, unreliable) as (_, servers):
        before = open_sockets()
        mesh = mesh_of(*servers, **QUICK, limits=limits, pool={"max_connections": 4})

        async def one(client: httpx.AsyncClient) -> None:
            match rng.randrange(3):
                case 0:
                    await client.get("/x")
                case 1:
                    await client.put("/x", content=_body())
                case _:
                    async with client.stream("GET", "/s") as response:
                        async for _ in response.aiter_bytes(100):
                            await asyncio.sleep(0)

        async def _body() -> Any:
            for _ in range(3):
                await asyncio.sleep(0)
                yield b"chunk"

        async def main() -> tuple[int, int]:
            cancelled = finished = 0
            async with mesh.async_client("orders") as client:
                while cancelled < 1_000:
                    tasks = [asyncio.ensure_future(one(client)) for _ in range(40)]
                    for task in tasks:
                        # Delays of the order of a call, so that every stage of one is hit.
                        asyncio.get_running_loop().call_later(rng.expovariate(1 / 0.02), task.cancel)
                    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                        if isinstance(outcome, asyncio.CancelledError):
                            cancelled += 1
                        else:
                            finished += 1
                            assert outcome is None or isinstance(outcome, meshlib.MeshError), outcome
                assert (await client.get("/x")).status_code == 200
                await asyncio.sleep(0)
                assert held(mesh) == []
            return cancelled, finished

        cancelled, finished = asyncio.run(main())
        assert cancelled >= 1_000
        assert finished > 50, "some are to end by themselves, or nothing but the beginning was tested"
        nothing_is_held(mesh)
        mesh.close()
        soon(lambda: open_sockets() <= before)


def test_a_call_cancelled_while_it_waits_for_endpoints_or_backs_off_holds_nothing() -> None:
    async def cancel_in(mesh: Mesh, reason: str) -> None:
        async with mesh.async_client("orders") as client:
            task = asyncio.ensure_future(client.get("/x"))
            while not task.done():
                await asyncio.sleep(0.02)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            assert task.cancelled(), reason

    with Mesh({"discovery": [{"consul": {"address": "http://127.0.0.1:1"}}], "services": {"orders": {}}}) as mesh:
        asyncio.run(cancel_in(mesh, "endpoints"))
        nothing_is_held(mesh)
        assert mesh._wiring.snapshots.service("orders").state.waiting == []
    slow = {"max_retries": 1, "backoff": {"base": "30s", "max": "30s"}}
    with origins(lambda seen, n: ok(status="503 No")) as (_, [server]), mesh_of(server, retry=slow) as mesh:
        asyncio.run(cancel_in(mesh, "backoff"))
        nothing_is_held(mesh)


def test_streams_that_nobody_reads_or_closes_give_everything_back(caller: Caller) -> None:
    limits = {"max_in_flight": 50}
    with origins(lambda seen, n: ok(b"x" * 300_000)) as (_, [server]), mesh_of(server, limits=limits) as mesh:
        if caller.name == "sync":
            client = mesh.client("orders")
            for _ in range(5):
                request = client.build_request("GET", "/x")
                client.send(request, stream=True)
            gc.collect()
            nothing_is_held(mesh)
            assert client.get("/x").status_code == 200
            client.close()
            return

        async def leave() -> None:
            async with mesh.async_client("orders") as client:
                for _ in range(5):
                    await client.send(client.build_request("GET", "/x"), stream=True)
                gc.collect()
                await until(lambda: not held(mesh))
                assert (await client.get("/x")).status_code == 200

        asyncio.run(leave())


def test_one_loop_after_another_and_two_side_by_side() -> None:
    with origins(None) as (_, [server]), mesh_of(server) as mesh:
        client = mesh.async_client("orders")

        async def calls(count: int) -> list[int]:
            return [(await client.get("/x")).status_code for _ in range(count)]

        for _ in range(3):
            assert asyncio.run(calls(3)) == [200] * 3
        with ThreadPoolExecutor(2) as pool:
            both = threading.Barrier(2)

            async def together() -> list[int]:
                await asyncio.to_thread(both.wait, 10)
                return await calls(50)

            results = list(pool.map(lambda _: asyncio.run(together()), range(2)))
        assert results == [[200] * 50] * 2
        nothing_is_held(mesh)


class Interrupt(BaseException):
    """Like KeyboardInterrupt: it is no Exception, and may come anywhere."""


@pytest.mark.parametrize("where", ["hook", "body", "reading", "waiting"])
def test_an_interrupt_leaves_nothing_behind(caller: Caller, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise Interrupt

    def body() -> Iterator[bytes]:
        yield b"some"
        raise Interrupt

    async def async_body() -> Any:
        yield b"some"
        raise Interrupt

    async def async_interrupt(*_: Any) -> Any:
        raise Interrupt

    status = "503 No" if where == "waiting" else "200 OK"
    with origins(lambda seen, n: ok(b"x" * 1000, status)) as (_, [server]), mesh_of(server) as mesh:
        sync = caller.name == "sync"
        hooks = {"response": [interrupt if sync else async_interrupt]} if where == "hook" else {}
        call = caller.client(mesh, event_hooks=hooks)
        if where == "waiting":
            clock = mesh._wiring.clock
            monkeypatch.setattr(clock, "sleep", interrupt, raising=False)
            monkeypatch.setattr(clock, "asleep", async_interrupt, raising=False)
        with pytest.raises(Interrupt):
            if where == "body":
                call("PUT", "/x", content=body() if sync else async_body())
            elif where == "reading" and sync:
                with call.client.stream("GET", "/x") as response:
                    for _ in response.iter_bytes():
                        raise Interrupt
            elif where == "reading":

                async def read() -> None:
                    async with call.client.stream("GET", "/x") as response:
                        async for _ in response.aiter_bytes():
                            raise Interrupt

                caller.run(read())
            else:
                call("GET", "/x")
        nothing_is_held(mesh)


def test_calls_and_a_changing_set_of_endpoints() -> None:
    """Endpoints come and go while threads call; every call is answered, and the counts end at zero."""
    from meshlib.balance.cluster import Known
    from meshlib.balance.endpoint import Endpoint

    with origins(None, None, None) as (_, servers), mesh_of(*servers) as mesh:
        mesh.wait_ready("orders")
        endpoints = [Endpoint("127.0.0.1", server.port) for server in servers]
        over = threading.Event()

        def churn() -> None:
            rng = random.Random(1)
            while not over.is_set():
                some = rng.sample(endpoints, rng.randint(1, 3))
                mesh._wiring.snapshots.publish("orders", some, Known.YES)
                time.sleep(0.001)

        def calls() -> list[int]:
            with mesh.client("orders") as client:
                return [client.get("/x").status_code for _ in range(80)]

        with ThreadPoolExecutor(5) as pool:
            churning = pool.submit(churn)
            try:
                answers = [future.result(30) for future in [pool.submit(calls) for _ in range(4)]]
            finally:
                over.set()
            churning.result(5)
        assert answers == [[200] * 80] * 4
        nothing_is_held(mesh)


def test_the_helper_sees_what_is_held() -> None:
    script, came, go = blocking()
    with serving(script) as server, mesh_of(server) as mesh, ThreadPoolExecutor(1) as pool:
        future = pool.submit(mesh.client("orders").get, "/x")
        assert came.acquire(timeout=5)
        assert any(address(server) in each for each in held(mesh))
        go.set()
        assert future.result(5).status_code == 200
