"""Servers with queues: order, capacity, stalls, and what they drop."""

from __future__ import annotations

from math import exp
from random import Random

import pytest

from meshlib.balance.load_report import LoadReport, parse_report
from meshlib.balance.reported import parse_in_flight
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Answer, Exchange, constant, exponential
from meshlib.sim.server import Server


class Bench:
    """One server, and the answers that it gave: when, to what, with which status."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clock = VirtualClock(0.0)
        self.rng = Random(1)
        self.answers: list[tuple[float, str, int | None]] = []

    def ask(self, name: str, timeout_ms: int | None = None) -> Exchange:
        headers = [] if timeout_ms is None else [(b"x-meshlib-deadline-ms", b"%d" % timeout_ms)]

        def answered(answer: Answer) -> None:
            self.answers.append((round(self.clock.now, 6), name, answer.status))

        exchange = Exchange(self.clock, self.rng, "/" + name, headers, answered)
        assert self.server.serve(exchange)
        return exchange

    def order(self) -> str:
        self.clock.run()
        return "".join(name for _, name, _ in self.answers)


def test_one_worker_serves_in_order_at_its_capacity() -> None:
    bench = Bench(Server.of_capacity(10.0))
    for name in "abc":
        bench.ask(name)
    assert (bench.server.queue, bench.server.in_flight) == (2, 3)
    assert bench.order() == "abc"
    assert [at for at, _, _ in bench.answers] == [0.1, 0.2, 0.3]
    assert bench.server.in_flight == 0


def test_workers_serve_side_by_side_and_speed_counts_for_what_begins() -> None:
    bench = Bench(Server(constant(0.1), workers=2))
    for name in "abcd":
        bench.ask(name)
    bench.server.speed = 0.5
    bench.clock.run()
    assert [at for at, _, _ in bench.answers] == [0.1, 0.1, 0.3, 0.3]


def test_with_a_long_line_the_last_one_is_served_first() -> None:
    bench = Bench(Server(constant(0.1), lifo_beyond=2))
    for name in "abcde":
        bench.ask(name)
    assert bench.order() == "aedbc"


def test_a_full_line_answers_503_at_once() -> None:
    bench = Bench(Server(constant(0.1), max_queue=1, overloaded=True))
    for name in "abc":
        bench.ask(name)
    assert bench.order() == "cab"
    assert bench.answers[0] == (0.0, "c", 503)
    assert (bench.server.attempts, bench.server.served, bench.server.refused) == (3, 2, 1)


def test_a_stalled_server_begins_nothing_and_goes_on_afterwards() -> None:
    bench = Bench(Server(constant(0.1)))
    bench.ask("a")
    bench.server.stall(bench.clock, 5.0)
    bench.ask("b")
    assert bench.order() == "ab"
    assert [at for at, _, _ in bench.answers] == [0.1, 5.1]


def test_what_is_expired_or_gone_is_worked_on_unless_it_is_told_to_look() -> None:
    bench = Bench(Server(constant(0.1)))
    bench.ask("a")
    bench.ask("b", timeout_ms=50)
    bench.ask("c").gone = True
    assert bench.order() == "ab"
    assert bench.server.served == 3
    assert bench.clock.now == pytest.approx(0.3)


def test_what_is_expired_is_dropped_when_its_turn_comes() -> None:
    bench = Bench(Server(constant(0.1), drop_expired=True))
    for name, timeout_ms in zip("abcd", [50, 50, 150, None], strict=True):
        bench.ask(name, timeout_ms)
    assert bench.order() == "acd"
    assert (bench.server.served, bench.server.dropped) == (3, 1)


def test_what_its_client_gave_up_is_dropped() -> None:
    bench = Bench(Server(constant(0.1), drop_gone=True))
    for name in "abc":
        exchange = bench.ask(name)
        exchange.gone = name == "b"
    assert bench.order() == "ac"
    assert bench.server.dropped == 1


def test_it_reports_how_much_it_was_used_of_late() -> None:
    bench = Bench(Server(constant(0.1), workers=2, reports=True))
    reports: list[LoadReport | None] = []

    def answered(answer: Answer) -> None:
        found = dict(answer.headers).get(b"endpoint-load-metrics")
        reports.extend([] if found is None else [parse_report(found.decode())])

    def ask() -> None:
        bench.server.serve(Exchange(bench.clock, bench.rng, "/", [], answered))

    for at in (0.0, 0.1, 0.2, 0.3, 0.4, 1.5, 4.0):
        bench.clock.at(at, ask)
    bench.clock.run()
    first, second = 0.25 * (1 - exp(-0.1)), 5.0 * (1 - exp(-0.1))
    assert reports == [
        LoadReport(pytest.approx(first, rel=1e-3), rps_fractional=pytest.approx(second, rel=1e-3)),
        LoadReport(
            pytest.approx(first + (0.1 / 6 - first) * (1 - exp(-0.3)), rel=1e-3),
            rps_fractional=pytest.approx(second + (1 / 3 - second) * (1 - exp(-0.3)), rel=1e-3),
        ),
    ]


def test_it_says_what_it_has_in_flight() -> None:
    bench = Bench(Server(constant(0.1), reports=True))
    answers: list[Answer] = []
    for _ in range(3):
        bench.server.serve(Exchange(bench.clock, bench.rng, "/", [], answers.append))
    assert bench.server.load(bench.clock.now) == (3, 0.0)
    bench.clock.run()
    said = [parse_in_flight(dict(answer.headers)[b"x-meshlib-load"]) for answer in answers]
    assert said == [(2.0, 0.1), (1.0, pytest.approx(0.2)), (0.0, pytest.approx(0.1))]


def test_a_queue_is_as_long_as_theory_says() -> None:
    """M/M/1 at a load of one half: two service times from arrival to answer, on average."""
    bench, waits = Bench(Server(exponential(0.01))), []
    at = 0.0
    for _ in range(20_000):
        at += bench.rng.expovariate(50.0)
        bench.clock.at(at, lambda: bench.ask(str(bench.clock.now)))
    bench.clock.run()
    waits = [at - float(name) for at, name, _ in bench.answers]
    assert sum(waits) / len(waits) == pytest.approx(0.02, rel=0.1)
