"""Operations in steps: what a thread waits for, and the bell that others ring."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from meshlib.balance.endpoint import Endpoint
from meshlib.net.steps import Bell, Steps, Wait, run, wait_for
from meshlib.net.sync_engine import SyncEngine
from meshlib.net.wire import Progress, Target, WireLimits
from tests.net.wire_servers import get


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_it_waits_for_the_first_of_several(pair: tuple[socket.socket, socket.socket], bell: Bell) -> None:
    one, other = pair
    other.send(b"x")
    waits = [Wait({bell.fileno(): select.POLLIN}, None), Wait({one.fileno(): select.POLLIN}, None)]

    assert wait_for(waits) == {one.fileno()}


def test_two_may_wait_for_different_things_of_one_file(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = pair[0].fileno()

    assert wait_for([Wait({fd: select.POLLOUT}, None), Wait({fd: select.POLLIN}, None)]) == {fd}


def test_it_waits_no_longer_than_the_shortest_of_them(bell: Bell) -> None:
    now = time.monotonic()

    assert wait_for([Wait({bell.fileno(): select.POLLIN}, now + 60), Wait({}, now + 0.01)], now + 30) == set()
    assert 0.01 <= time.monotonic() - now < 10
    assert wait_for([Wait({}, now - 5)]) == set()
    assert wait_for([], float("-inf")) == set()


def test_a_bell_that_was_rung_before_is_heard(bell: Bell) -> None:
    fd = bell.fileno()
    for _ in range(3):
        bell.ring()

    assert wait_for([Wait({fd: select.POLLIN}, None)]) == {fd}
    bell.quiet()
    assert wait_for([Wait({fd: select.POLLIN}, time.monotonic())]) == set()


def test_a_bell_that_nobody_heard_is_never_full(bell: Bell) -> None:
    bell.fileno()
    for _ in range(10_000):
        bell.ring()
    bell.quiet()
    assert wait_for([Wait({bell.fileno(): select.POLLIN}, time.monotonic())]) == set()


def test_a_bell_that_is_closed_or_was_never_opened_says_nothing(bell: Bell) -> None:
    bell.ring()
    bell.quiet()
    bell.fileno()
    bell.close()
    bell.ring()
    bell.close()


def test_a_ring_waits_for_nobody(bell: Bell) -> None:
    """A finalizer may ring it in the very thread that closes it."""
    with bell._lock:
        bell.ring()


def test_run_gives_what_the_operation_gives_and_waits_where_it_does(bell: Bell) -> None:
    def operation() -> Steps[str]:
        yield Wait({bell.fileno(): select.POLLIN}, None)
        return "done"

    bell.fileno()  # before it rings: who does not wait yet is not woken
    threading.Timer(0.01, bell.ring).start()
    assert run(operation()) == "done"


def test_an_operation_that_is_interrupted_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def operation() -> Steps[None]:
        try:
            yield Wait({}, None)
        finally:
            ended.append("yes")

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("meshlib.net.steps.wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(operation())
    assert ended == ["yes"]


def test_who_waits_beside_another_on_one_http2_connection_still_hears_the_bell() -> None:
    pytest.importorskip("h2")
    from tests.net.test_http2 import H2Server, echo

    bell = Bell()
    engine = SyncEngine()
    with H2Server(echo) as server:
        target, limits = server.target(), WireLimits(deadline=time.monotonic() + 10)
        assert b"".join(engine.send(target, get(), limits, Progress()).body) == b"ok"
        one = engine.send_steps(target, get(b"/silence"), limits, Progress(), bell)
        other = engine.send_steps(target, get(b"/silence"), limits, Progress(), bell)
        next(one)
        waits = next(other)
        one.close()
        bell.quiet()
        # Another thread's answer comes, read by that thread: whoever waits is to look whether there was more.
        assert b"".join(engine.send(target, get(), limits, Progress()).body) == b"ok"
        assert bell.fileno() in wait_for([Wait({bell.fileno(): select.POLLIN}, limits.deadline)])
        assert bell.fileno() in waits.files
        other.close()
        engine.close()
    bell.close()


class Still:
    """A stream on which nothing comes."""

    def read_now(self) -> None:
        return None

    def waiting(self, events: int, until: float | None) -> Wait:
        return Wait({}, until)


def test_what_another_thread_reads_between_a_look_and_the_wait_is_heard(bell: Bell) -> None:
    pytest.importorskip("h2")
    from meshlib.net.sync_http2_shared import SharedStream

    shared = SharedStream(Still(), Target(Endpoint("10.0.0.1", 80)))  # type: ignore[arg-type]
    shared._reading = True  # the other one, for both

    def not_yet() -> bool:
        shared._ring()
        return False

    wait = next(shared._wait_steps(not_yet, None, WireLimits(), "headers", bell))
    assert wait_for([wait], time.monotonic()) == {bell.fileno()}
