"""Admission before a simulated server: who has a place, who waits, who is refused, and what they are told."""

from __future__ import annotations

from random import Random

from meshlib.context import Criticality
from meshlib.policy.admission_settings import Gradient2Settings
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.sim.admission import Gate
from meshlib.sim.clock import VirtualClock
from meshlib.sim.fleet import Fleet
from meshlib.sim.network import Answer, Exchange
from meshlib.sim.server import Server


class Bench:
    """One server that does ten a second, and what it answered: when, to what, with which status."""

    def __init__(self, admission: AdmissionSettings, *, drop_expired: bool = False) -> None:
        self.server = Server.of_capacity(10.0, admission=admission, drop_expired=drop_expired)
        self.clock = VirtualClock(0.0)
        self.rng = Random(1)
        self.answers: dict[str, tuple[float, Answer]] = {}

    def ask(self, name: str, timeout_ms: int | None = None, criticality: str = "", attempt: int = 1) -> Exchange:
        headers = [(b"x-envoy-attempt-count", b"%d" % attempt)]
        if timeout_ms is not None:
            headers.append((b"x-meshlib-deadline-ms", b"%d" % timeout_ms))
        if criticality:
            headers.append((b"x-meshlib-criticality", criticality.encode()))

        def answered(answer: Answer) -> None:
            assert name not in self.answers
            self.answers[name] = round(self.clock.now, 6), answer

        exchange = Exchange(self.clock, self.rng, "/", headers, answered)
        assert self.server.serve(exchange)
        return exchange

    def statuses(self) -> dict[str, tuple[float, int | None]]:
        self.clock.run()
        return {name: (at, answer.status) for name, (at, answer) in self.answers.items()}

    @property
    def gate(self) -> Gate:
        assert self.server.gate is not None
        return self.server.gate


def test_so_many_are_let_in_others_wait_and_who_waits_for_too_long_is_refused() -> None:
    bench = Bench(AdmissionSettings(max_in_flight=2, interval_s=0.25, order="fifo"))
    for name in "abcde":
        bench.ask(name)
    assert (bench.gate.queue.in_flight, bench.server.queue, bench.server.in_flight) == (2, 4, 5)
    assert bench.statuses() == {"a": (0.1, 200), "b": (0.2, 200), "e": (0.25, 503), "c": (0.3, 200), "d": (0.4, 200)}
    assert bench.answers["e"][1].retry_after_s == 1.0
    assert dict(bench.answers["e"][1].headers)[b"x-meshlib-refused"] == b"overload"
    assert bench.gate.queue.shed_by_reason() == {"queue_timeout": 1}
    assert (bench.server.served, bench.server.in_flight, bench.gate.queue.in_flight) == (4, 0, 0)


def test_a_full_queue_refuses_and_the_more_critical_take_the_places_of_others() -> None:
    bench = Bench(AdmissionSettings(max_in_flight=1, max_pending=1, interval_s=1.0))
    bench.ask("a")
    bench.ask("b", criticality="sheddable")
    bench.ask("c", criticality="sheddable")
    bench.ask("d", criticality="critical_plus")
    assert bench.statuses() == {"a": (0.1, 200), "b": (0.0, 503), "c": (0.0, 503), "d": (0.2, 200)}
    assert bench.gate.queue.shed_by_reason() == {"queue_full": 1, "outranked": 1}


def test_where_many_are_repetitions_who_is_refused_is_told_not_to_repeat() -> None:
    bench = Bench(AdmissionSettings(max_in_flight=1, max_pending=0))
    bench.ask("a")
    for n in range(30):
        bench.ask(str(n), attempt=2)
    bench.clock.run()
    assert [bench.answers[str(n)][1].overloaded for n in (0, 29)] == [False, True]


def test_a_place_is_held_by_work_that_nobody_waits_for_unless_that_is_dropped() -> None:
    settings = AdmissionSettings(max_in_flight=2, interval_s=5.0)
    for drops, done in ((False, {"a": (2.1, 200), "b": (2.2, 200), "c": (2.3, 200)}), (True, {"c": (2.1, 200)})):
        bench = Bench(settings, drop_expired=drops)
        bench.server.stall(bench.clock, 2.0)
        bench.ask("a", timeout_ms=1000)
        bench.ask("b", timeout_ms=1000)
        bench.ask("c")
        bench.clock.run(1.5)
        assert bench.gate.queue.in_flight == (1 if drops else 2)
        assert bench.statuses() == done


def test_one_who_went_away_while_it_waited_passes_its_place_on() -> None:
    bench = Bench(AdmissionSettings(max_in_flight=1, interval_s=1.0, order="fifo"))
    for name in "abc":
        exchange = bench.ask(name)
        exchange.gone = name == "b"
    assert bench.statuses() == {"a": (0.1, 200), "c": (0.2, 200)}
    assert bench.gate.queue.in_flight == 0


def test_a_limit_that_finds_itself_learns_in_virtual_time() -> None:
    settings = AdmissionSettings(max_in_flight=4, adaptive=Gradient2Settings())
    server = Server.of_capacity(100.0, admission=settings)
    fleet = Fleet([server])
    client = fleet.plain_client(timeout="1s")
    fleet.load(200.0, 6.0, lambda: client.call(criticality=Criticality.SHEDDABLE))
    fleet.run()
    assert server.gate is not None
    assert 1 <= server.gate.queue.limit <= 4
    assert fleet.tally.rate(fleet.tally.good, 2, 6) > 90.0
    assert {level for _, level in server.gate.queue.shed} == {Criticality.SHEDDABLE}
    assert server.in_flight == server.gate.queue.in_flight == fleet.in_flight == 0
