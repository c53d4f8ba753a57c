"""The limit on the connections of a service, over the pools of its endpoints."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from meshlib import Mesh
from meshlib.config.settings import PoolSettings
from meshlib.net.connection_cap import ConnectionCap
from meshlib.net.pool import Entry, Pool
from tests.adapters.support import address, ok
from tests.net.wire_servers import Peer, serving
from tests.peers.process import wait_until


class Connection:
    capacity = 1


def pool_of(cap: ConnectionCap, name: str = "a") -> Pool[Any]:
    return Pool(name, PoolSettings(max_connections=100), cap=cap)


def opened(pool: Pool[Any], now: float = 0.0) -> Entry[Any]:
    assert pool.acquire(now, True) is None
    return pool.connected(Connection(), now)


def test_each_endpoint_may_have_one_connection_and_all_together_no_more_than_the_limit() -> None:
    cap = ConnectionCap(3)
    one, two, three = (pool_of(cap, name) for name in "abc")
    first, second = opened(one), opened(one)
    opened(two)
    assert cap.open == 3
    assert one.acquire(0.0, True) is False
    assert two.acquire(0.0, True) is False
    opened(three)
    assert cap.open == 4, "the first of an endpoint is always allowed"
    one.discard(first, 0.0)
    one.discard(second, 0.0)
    assert cap.open == 2
    opened(two)
    assert two.acquire(0.0, True) is False


def test_a_connection_that_fails_to_open_and_a_pool_that_is_gone_count_no_more() -> None:
    cap = ConnectionCap(1)
    one = pool_of(cap)
    assert one.acquire(0.0, True) is None
    one.connect_failed(0.0)
    assert cap.open == 0
    opened(one)
    del one
    gc.collect()
    assert cap.open == 0


def test_an_idle_connection_that_is_too_old_makes_room_for_another() -> None:
    cap = ConnectionCap(1)
    pool = pool_of(cap)
    entry = opened(pool)
    pool.release(entry, 0.0)
    assert pool.acquire(2.0, False) is None
    assert cap.open == 1


def test_the_count_is_exact_under_sixteen_threads() -> None:
    cap = ConnectionCap(20)
    pools = [pool_of(cap, str(index)) for index in range(4)]
    over: list[int] = []

    def work(index: int) -> None:
        pool, lock = pools[index % 4], locks[index % 4]
        for _ in range(300):
            with lock:
                entry = pool.connected(Connection(), 0.0) if pool.acquire(0.0, True) is None else None
            if cap.open > 20:
                over.append(cap.open)
            if entry is not None:
                with lock:
                    pool.discard(entry, 0.0)

    locks = [threading.Lock() for _ in pools]
    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (cap.open, over) == (0, [])


def test_the_connections_of_a_service_stay_within_its_limit() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            release.wait(10)
            peer.send(ok())

    def numbers(mesh: Mesh) -> tuple[int, int]:
        pools = mesh.status().pools
        return sum(pool.open for pool in pools), sum(pool.pending for pool in pools)

    with serving(script) as one, serving(script) as two:
        service = {"endpoints": [address(one), address(two)], "limits": {"max_connections": 2}}
        with Mesh({"discovery": [], "services": {"orders": service}}) as mesh, ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(mesh.client("orders").get, "/") for _ in range(8)]
            wait_until(lambda: sum(numbers(mesh)) == 8, "all calls are in a pool")
            assert numbers(mesh)[0] in (2, 3), "two, and one more if it is the first of its endpoint"
            release.set()
            assert [call.result().status_code for call in calls] == [200] * 8
            assert numbers(mesh)[0] in (2, 3)
