"""The limit on calls in flight: exact, and first in, first out."""

from __future__ import annotations

import threading

import pytest

from meshlib.policy.limit import LIMIT_FULL, InFlightLimit, Waiter
from meshlib.policy.settings import LimitSettings


def test_places_are_handed_on_in_order() -> None:
    limit = InFlightLimit(LimitSettings(max_in_flight=1, max_pending=3))
    assert limit.enter() is None
    waiters = [limit.enter() for _ in range(3)]
    assert limit.enter() is LIMIT_FULL
    assert (limit.rejected, limit.pending) == (1, 3)
    order: list[int] = []
    for index, waiter in enumerate(waiters):
        assert isinstance(waiter, Waiter)
        waiter.on_ready(lambda index=index: order.append(index))  # type: ignore[misc]
    waiters[1].leave()  # type: ignore[union-attr]
    limit.exit()
    limit.exit()
    assert order == [0, 2]
    limit.exit()
    assert (limit.in_flight, limit.pending) == (0, 0)


def test_a_granted_place_that_nobody_wants_is_passed_on_once() -> None:
    limit = InFlightLimit(LimitSettings(max_in_flight=1))
    limit.enter()
    first, second = limit.enter(), limit.enter()
    assert isinstance(first, Waiter)
    assert isinstance(second, Waiter)
    limit.exit()
    assert first.granted
    first.leave()
    first.leave()
    assert second.granted
    assert limit.in_flight == 1
    called: list[bool] = []
    second.on_ready(lambda: called.append(True))
    assert called == [True]


def test_counts_are_exact_under_sixteen_threads() -> None:
    limit = InFlightLimit(LimitSettings(max_in_flight=5, max_pending=100))
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for turn in range(200):
            answer = limit.enter()
            if isinstance(answer, Waiter):
                if turn % 7 == 0:
                    answer.leave()
                    continue
                ready = threading.Event()
                answer.on_ready(ready.set)
                assert ready.wait(20)
            assert answer is not LIMIT_FULL
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            limit.exit()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (limit.in_flight, limit.pending, inside) == (0, 0, 0)
    assert most <= 5


@pytest.mark.parametrize("max_in_flight", [None, 2])
def test_in_a_child_process_a_call_of_the_parent_gives_back_no_place_of_the_childs(max_in_flight: int | None) -> None:
    limit = InFlightLimit(LimitSettings(max_in_flight=max_in_flight))
    limit.enter()
    limit.renew_lock()
    limit.exit()
    assert limit.in_flight == 0
    limit.enter()
    assert limit.in_flight == 1
