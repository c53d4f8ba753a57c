"""The bookkeeping of a pool, without sockets or time."""

from __future__ import annotations

import random
import signal
import sys
from contextlib import suppress
from typing import Literal

import pytest

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import PoolSettings
from meshlib.errors import MeshClosed
from meshlib.net.pool import KEEP_EMPTY_S, Entry, Pool, PoolFull, Ticket
from meshlib.net.sync_pool import SyncPool
from meshlib.net.wire import Target, WireLimits


class Conn:
    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity


class Waiter(Ticket[Conn]):
    woken = 0

    def wake(self) -> None:
        self.woken += 1


def take(pool: Pool[Conn], now: float = 0.0, *, resendable: bool = True, capacity: int = 1) -> Entry[Conn]:
    """Acquire, opening a connection where there is leave to."""
    granted = pool.acquire(now, resendable)
    assert granted is not False
    return pool.connected(Conn(capacity), now) if granted is None else granted


def settle(pool: Pool[Conn]) -> list[Ticket[Conn]]:
    woken, pool.to_wake = pool.to_wake, []
    for ticket in woken:
        ticket.wake()
    return woken


def test_the_last_one_used_is_the_first_one_taken() -> None:
    pool: Pool[Conn] = Pool("svc 10.0.0.1:80", PoolSettings())
    first, second, third = take(pool), take(pool), take(pool)
    for entry in (first, third, second):
        pool.release(entry, 1.0)
    assert repr(pool) == "<Pool svc 10.0.0.1:80 [0 busy, 3 idle]>"
    assert [take(pool, 2.0) for _ in range(3)] == [second, third, first]
    assert repr(pool) == "<Pool svc 10.0.0.1:80 [3 busy, 0 idle]>"


def test_waiters_are_served_in_order_of_arrival_and_nobody_overtakes() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1))
    entry = take(pool)
    waiters = [Waiter() for _ in range(3)]
    for waiter in waiters:
        assert pool.acquire(0.0, True) is False
        pool.enqueue(waiter)
    for waiter in waiters:
        pool.release(entry, 1.0)
        assert settle(pool) == [waiter]
        assert waiter.entry is entry
        assert pool.acquire(1.0, True) is False
    assert pool.pending == 0


def test_a_waiter_gets_leave_to_open_a_connection_where_one_was_discarded_or_could_not_be_opened() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1))
    entry = take(pool)
    first, second = Waiter(), Waiter()
    pool.enqueue(first)
    pool.enqueue(second)
    pool.discard(entry, 0.0)
    assert pool.to_close == [entry.connection]
    assert settle(pool) == [first]
    assert first.entry is None
    pool.connect_failed(0.0)
    assert settle(pool) == [second]
    pool.connect_failed(0.0)
    assert (pool.open, pool.busy, pool.idle, pool.connecting) == (0, 0, 0, 0)


def test_a_waiter_that_leaves_after_it_was_granted_passes_it_on() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1))
    entry = take(pool)
    first, second = Waiter(), Waiter()
    pool.enqueue(first)
    pool.enqueue(second)
    pool.release(entry, 0.0)
    pool.cancel(first, 0.0)
    assert settle(pool) == [first, second]
    assert second.entry is entry
    pool.cancel(second, 0.0)
    assert (pool.open, pool.busy, pool.idle, pool.pending) == (1, 0, 1, 0)


def test_the_queue_is_bounded() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1, max_pending=2))
    take(pool)
    pool.enqueue(Waiter())
    pool.enqueue(Waiter())
    with pytest.raises(PoolFull):
        pool.enqueue(Waiter())


def test_a_request_that_may_not_be_sent_twice_gets_no_old_connection_even_where_that_is_the_last_place() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1, idle_s=4.0, idle_unsafe_s=1.5))
    entry = take(pool)
    pool.release(entry, 0.0)
    assert pool.acquire(2.0, False) is None
    assert pool.to_close == [entry.connection]
    assert pool.open == 1


def test_idle_connections_are_closed_oldest_first_as_others_come_and_go() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(idle_s=4.0))
    entries = [take(pool) for _ in range(3)]
    for at, entry in enumerate(entries):
        pool.release(entry, float(at))
    assert take(pool, 5.5) is entries[2]
    assert pool.to_close == [entries[0].connection, entries[1].connection]


def test_draining_closes_the_idle_now_and_the_busy_later() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings())
    busy, idle = take(pool), take(pool)
    pool.release(idle, 0.0)
    pool.drain()
    assert pool.to_close == [idle.connection]
    pool.release(busy, 1.0)
    assert pool.to_close == [idle.connection, busy.connection]
    assert pool.open == 0


def test_draining_still_serves_who_waits() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1))
    entry, waiter = take(pool), Waiter()
    pool.enqueue(waiter)
    pool.drain()
    pool.release(entry, 0.0)
    assert waiter.entry is entry
    pool.release(entry, 0.0)
    assert (pool.open, pool.pending) == (0, 0)


def test_closing_fails_who_waits() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=1))
    take(pool)
    waiter = Waiter()
    pool.enqueue(waiter)
    pool.close(MeshClosed("bye"))
    assert settle(pool) == [waiter]
    assert isinstance(waiter.error, MeshClosed)
    pool.cancel(waiter, 0.0)
    assert pool.busy == 1


def test_a_multiplexed_connection_is_shared_and_waited_for_while_it_opens() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=5), multiplexed=True)
    assert pool.acquire(0.0, True) is None
    waiters = [Waiter() for _ in range(4)]
    for waiter in waiters:
        assert pool.acquire(0.0, True) is False
        pool.enqueue(waiter)
    entry = pool.connected(Conn(capacity=3), 0.0)
    # Two more have room on it; for the next one another connection is opened, and the last waits for that.
    assert [(w.granted, w.entry) for w in waiters] == [(True, entry), (True, entry), (True, None), (False, None)]
    assert (pool.open, pool.busy, pool.idle, pool.pending) == (2, 4, 0, 1)


def test_a_peer_that_speaks_http1_after_all_gets_one_connection_per_request() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(max_connections=3), multiplexed=True)
    assert pool.acquire(0.0, True) is None
    waiters = [Waiter() for _ in range(4)]
    for waiter in waiters:
        pool.enqueue(waiter)
    pool.connected(Conn(capacity=1), 0.0)
    assert [w.granted for w in waiters] == [True, True, False, False]
    assert pool.open == 3


def test_a_multiplexed_connection_that_said_goodbye_is_closed_when_its_last_request_ends() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings(), multiplexed=True)
    entry = take(pool, capacity=10)
    assert take(pool) is entry
    entry.connection.capacity = 0
    assert pool.acquire(0.0, True) is None
    pool.connect_failed(0.0)
    pool.release(entry, 0.0)
    assert pool.to_close == []
    pool.release(entry, 0.0)
    assert pool.to_close == [entry.connection]
    assert (pool.open, pool.busy, pool.idle) == (0, 0, 0)


@pytest.mark.parametrize("multiplexed", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_the_numbers_hold_whatever_happens(seed: int, multiplexed: bool) -> None:
    rng = random.Random(seed)
    settings = PoolSettings(max_connections=rng.randint(1, 5), max_pending=rng.randint(0, 5), idle_s=3.0)
    pool: Pool[Conn] = Pool("x", settings, multiplexed=multiplexed)
    held: list[Entry[Conn]] = []
    connecting = 0
    waiting: list[Waiter] = []
    closed: list[Conn] = []
    now = 0.0
    for _ in range(3000):
        now += rng.random() * 0.2
        step = rng.randrange(8)
        if step <= 1:
            granted: Entry[Conn] | Literal[False] | None = pool.acquire(now, rng.random() < 0.7)
            if granted is False:
                try:
                    pool.enqueue(waiter := Waiter())
                    waiting.append(waiter)
                except PoolFull:
                    assert len(waiting) >= settings.max_pending
            elif granted is None:
                connecting += 1
            else:
                held.append(granted)
        elif step == 2 and connecting:
            connecting -= 1
            if rng.random() < 0.3:
                pool.connect_failed(now)
            else:
                held.append(pool.connected(Conn(rng.randint(1, 4) if multiplexed else 1), now))
        elif step in (3, 4) and held:
            entry = held.pop(rng.randrange(len(held)))
            rng.choice((pool.release, pool.release, pool.discard))(entry, now)
        elif step == 5 and waiting:
            pool.cancel(waiting.pop(rng.randrange(len(waiting))), now)
        elif step == 6 and held:
            entry = held.pop(rng.randrange(len(held)))
            connecting += pool.replace(entry)
        elif step == 7 and rng.random() < 0.1:
            pool.expire(now)
        # A cancelled ticket may have been woken too; what counts is that each grant is held by one alone.
        settle(pool)
        for waiter in [w for w in waiting if w.granted]:
            waiting.remove(waiter)
            if waiter.entry is None:
                connecting += 1
            else:
                held.append(waiter.entry)
        closed += pool.to_close
        pool.to_close = []
        assert pool.pending == len(waiting)
        assert pool.connecting == connecting
        assert pool.busy == len(held) + connecting
        assert pool.open == len(pool.entries) + connecting
        assert pool.open <= settings.max_connections + (len(pool.entries) if multiplexed else 0)
        assert pool.idle == sum(entry.uses == 0 for entry in pool.entries)
        assert not {id(conn) for conn in closed} & {id(entry.connection) for entry in held}
        assert all(entry.uses == held.count(entry) for entry in pool.entries)
        assert not (waiting and pool.idle), "someone waits beside an idle connection"
    for entry in held:
        pool.release(entry, now)
    for waiter in waiting:
        pool.cancel(waiter, now)


def test_a_pool_is_given_up_only_after_it_was_empty_all_the_time() -> None:
    pool: Pool[Conn] = Pool("x", PoolSettings())
    assert not pool.give_up(0.0)
    entry = take(pool, KEEP_EMPTY_S)
    assert not pool.give_up(KEEP_EMPTY_S)
    pool.discard(entry, KEEP_EMPTY_S)
    assert not pool.give_up(KEEP_EMPTY_S + 1)
    assert pool.give_up(2 * KEEP_EMPTY_S + 1)
    # Who had it in hand at that moment leaves nothing behind in it.
    pool.release(take(pool, 2 * KEEP_EMPTY_S + 2), 2 * KEEP_EMPTY_S + 3)
    assert (pool.open, len(pool.to_close)) == (0, 2)


class _Alarm(BaseException):
    pass


@pytest.mark.xfail(
    sys.version_info[:2] == (3, 14),
    strict=False,
    reason="`with lock` of Python 3.14 can be left so: CPython's issue 148874",
)
def test_what_a_signals_handler_raises_leaves_no_lock_held() -> None:
    """As Ctrl-C does, or a time limit by a signal: every further call to the target would wait for ever."""
    endpoint = Endpoint("127.0.0.1", 80)
    pool = SyncPool(Target(endpoint, None, "svc", PoolSettings(max_connections=1_000_000), False))
    limits, rng = WireLimits(None, 1.0, None, None, None, None, None), random.Random(1)

    def handler(*_: object) -> None:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(100):
            with suppress(_Alarm):
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + rng.random() * 1e-3)
                for _ in range(1_000_000):
                    if pool.acquire(True, limits) is None:
                        pool.connect_failed()
            assert not pool._lock.locked()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
