"""How late an event loop is, and what waits for its threads: measured while requests come, and only then."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from meshlib.server.loop_lag import INTERVAL_S, LoopLag


def test_a_loop_that_is_held_up_is_late_and_an_idle_one_has_no_timer() -> None:
    lag = LoopLag()

    async def serve() -> float:
        lag.seen()
        lag.seen()
        time.sleep(INTERVAL_S + 0.15)  # a handler that computes
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = lag.lag_s
        assert not asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        lag.seen()
        return found

    assert 0.1 < asyncio.run(serve()) < 5.0
    assert asyncio.run(serve()) > 0.1  # in another loop of the same thread


def test_what_waits_for_a_thread_is_counted() -> None:
    async def serve() -> int:
        lag, taken, go = LoopLag(), threading.Event(), threading.Event()
        lag.seen()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        waiting = [loop.run_in_executor(None, lambda: (taken.set(), go.wait(10))) for _ in range(4)]
        assert taken.wait(10)
        found = lag.threads_wanted
        go.set()
        await asyncio.gather(*waiting)
        return found

    assert asyncio.run(serve()) == 3


def test_another_kind_of_loop_is_let_be() -> None:
    lag = LoopLag()
    lag.seen()  # as under trio, where asyncio has none
    assert (lag.lag_s, lag.threads_wanted) == (0.0, 0)
