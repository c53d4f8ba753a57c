"""The workers of one port tell of their load as one; one that is gone does not count."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from meshlib.balance.reported import parse_in_flight
from meshlib.propagation import LOAD
from meshlib.server import gunicorn, workers
from meshlib.server.load import LoadReporter
from meshlib.server.workers import Board, Figures, Slot, together
from tests.peers.process import wait_until

NOTHING = Figures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Port:
    """Workers in one process: their reporters, what each is told that it serves, a clock, and which of them live."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.now = self.cpu = 100.0
        self.alive = set(range(1, count + 1))
        self.board = Board(8, lambda pid: pid in self.alive)
        self.occupancy = dict.fromkeys(self.alive, (0, 0, 0))
        self.reporters = {pid: self.start(monkeypatch, pid) for pid in sorted(self.alive)}
        self.now += 1.0  # by when each has seen the others

    def start(self, monkeypatch: pytest.MonkeyPatch, pid: int) -> LoadReporter:
        slot = self.board.join(pid, pid)
        monkeypatch.setattr(workers, "_mine", slot)
        reporter = LoadReporter(clock=lambda: self.now, cpu_clock=lambda: self.cpu, backlog=lambda: None)
        reporter.occupancy = lambda: self.occupancy[pid]
        reporter.in_flight()  # somebody asks
        assert slot is not None
        assert slot.taken
        return reporter

    def serve(self, pid: int, serving: int, waiting: int = 0, limit: int = 0) -> None:
        self.occupancy[pid] = serving, waiting, limit
        self.reporters[pid].arrived()

    def in_flight(self, pid: int) -> float:
        found = parse_in_flight(self.reporters[pid].in_flight())
        assert found is not None
        return found[0]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Port:
    return Port(monkeypatch, 3)


def test_whoever_is_asked_tells_what_all_of_them_serve(port: Port) -> None:
    port.serve(1, 4)
    port.serve(2, 1, waiting=2)
    assert [port.in_flight(pid) for pid in (1, 2, 3)] == [7.0, 7.0, 7.0]
    port.occupancy[1] = 3, 0, 0
    port.reporters[1].ended(3, 0.5, False)
    assert port.in_flight(3) == 6.0
    named = port.reporters[3].report().named_metrics
    assert (named["in_flight"], named["waiting"]) == (6.0, 2.0)


def test_rates_are_sums_and_shares_are_means(port: Port) -> None:
    port.serve(1, 8, limit=8)
    port.serve(2, 4, limit=8)
    for _ in range(100):
        port.reporters[1].arrived()
        port.reporters[1].ended(0, 0.1, True)
    port.now, port.cpu = port.now + 2.0, port.cpu + 1.5
    first = port.reporters[1].report()
    port.reporters[2]._cpu_clock = lambda: 101.0
    assert first.cpu_utilization == pytest.approx(0.5 / 3)
    found = port.reporters[2].report()
    assert found.cpu_utilization == pytest.approx((0.5 + 1 / 3) / 3)
    assert found.rps_fractional == pytest.approx(first.rps_fractional, rel=0.02)
    assert found.eps == pytest.approx(first.eps)
    assert found.application_utilization == 0.75
    port.now += 100.0  # nobody has asked the first one since
    assert port.reporters[2].report().rps_fractional < 0.01


def test_one_that_is_gone_does_not_count_and_its_slot_is_free(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    port.serve(1, 4)
    port.serve(2, 5)
    assert port.in_flight(3) == 9.0
    port.alive.remove(1)
    assert port.in_flight(3) == 9.0  # not looked at so soon
    port.now += 1.0
    assert port.in_flight(3) == 5.0
    port.board.left(2)
    port.now += 1.0
    assert port.in_flight(3) == 0.0
    port.alive |= {9, 10}  # where the first two were
    for pid in (9, 10):
        port.occupancy[pid] = 1, 0, 0
        port.reporters[pid] = port.start(monkeypatch, pid)
    port.now += 1.0
    assert [port.in_flight(pid) for pid in (3, 9, 10)] == [2.0] * 3


def test_workers_beyond_the_slots_tell_of_themselves() -> None:
    board = Board(2, lambda pid: True)
    assert board.join(1, 7) is not None
    assert board.join(2, 7) is not None
    assert board.join(3, 7) is None
    assert board.join(2, 1) is not None, "the same process once more"


def test_a_child_of_a_worker_writes_and_sees_nothing(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = port.reporters[1]._slot
    assert slot is not None
    monkeypatch.setattr(workers, "_mine", slot)
    port.serve(1, 4)
    port.serve(2, 1)
    workers._let_go()
    assert workers.mine() is None
    port.serve(1, 100)
    assert port.in_flight(1) == 100.0
    assert port.in_flight(2) == 5.0


def test_of_two_reporters_in_a_process_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(8, lambda pid: True)
    monkeypatch.setattr(workers, "_mine", board.join(1))
    first, second = LoadReporter(), LoadReporter()
    first.in_flight()
    second.in_flight()
    assert (first._slot is not None, second._slot) == (True, None)


def test_threads_that_count_at_once_leave_what_is_there(port: Port) -> None:
    lock, there = threading.Lock(), [0]
    reporter = port.reporters[1]
    reporter.occupancy = lambda: (there[0], 0, 0)

    def serve() -> None:
        for _ in range(300):
            for change in (1, -1):
                with lock:
                    there[0] += change
                reporter.arrived()

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert port.in_flight(2) == 0.0


def test_what_all_have_together() -> None:
    one = Figures(1.0, 2.0, 4.0, 10.0, 1.0, 0.5, 0.25, 0.1, 3.0)
    assert together([one]) == one
    assert together([one, NOTHING]) == Figures(1.0, 2.0, 4.0, 10.0, 1.0, 0.25, 0.125, 0.1, 3.0)


def test_the_hooks_join_and_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_mine", None)
    workers.join(5)
    slot = workers.mine()
    assert isinstance(slot, Slot)
    assert slot.others(0.0, 10.0) == []
    workers.leave()
    assert workers.mine() is None
    gunicorn.child_exit(None, SimpleNamespace(pid=os.getpid()))


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "held"
    monkeypatch.setenv("HELD_FILE", str(path))
    yield path
    path.unlink(missing_ok=True)


def test_workers_of_gunicorn_tell_of_each_other_and_not_of_one_that_was_killed(
    serve_gunicorn: Callable[..., str], held: Path
) -> None:
    options = ("-c", "python:meshlib.server.gunicorn", "--workers=2", "--worker-class=sync")
    url = serve_gunicorn("tests.server.gunicorn_load_app:application", *options)
    asks = {LOAD: "in-flight"}

    def asked() -> tuple[float, str]:
        answer = httpx.get(url, headers=asks, timeout=20)
        found = parse_in_flight(answer.headers[LOAD].encode())
        assert found is not None
        return found[0], answer.text

    def hold() -> None:
        try:
            pids.append(httpx.get(f"{url}/held", headers=asks, timeout=20).text)
        except httpx.TransportError:
            pids.append("killed")

    both: set[str] = set()

    def asked_both() -> bool:
        with ThreadPoolExecutor(4) as at_once:
            both.update(pid for _, pid in at_once.map(lambda _: asked(), range(4)))
        return len(both) == 2

    wait_until(asked_both, "both have been asked")
    pids: list[str] = []
    holding = threading.Thread(target=hold)
    holding.start()
    wait_until(held.exists, "a request is held")
    wait_until(lambda: asked()[0] == 2.0, "the free one has seen the other")
    _, free = asked()
    held.unlink()
    holding.join()
    assert pids[0] != free

    pids.clear()
    holding = threading.Thread(target=hold)
    holding.start()
    wait_until(held.exists, "a request is held")
    wait_until(lambda: asked()[0] == 2.0, "the free one has seen the other")
    _, free = asked()
    (busy,) = both - {free}
    os.kill(int(busy), signal.SIGKILL)
    holding.join()
    assert pids == ["killed"]
    wait_until(lambda: asked()[0] == 1.0, "the one that was killed does not count")
