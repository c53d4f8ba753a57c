"""Admission at the callee's side: who is served, who waits, who is refused, and what that comes to under overload."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable
from random import Random

import pytest

from meshlib.context import Criticality
from meshlib.dataclass import replace
from meshlib.policy.admission_settings import AimdSettings, Gradient2Settings, KeySource, VegasSettings
from meshlib.policy.serving_queue import CALM_S, ServingQueue, Shed, Waiter
from meshlib.policy.serving_settings import AdmissionSettings, SharesSettings
from meshlib.sim.clock import Timer, VirtualClock

PLUS, CRITICAL = Criticality.CRITICAL_PLUS, Criticality.CRITICAL
SHEDDABLE_PLUS, SHEDDABLE = Criticality.SHEDDABLE_PLUS, Criticality.SHEDDABLE
ALL_ALIKE = SharesSettings(100.0, 100.0, 100.0)


def _queue(limit: int = 1, pending: int = 10, **settings: object) -> ServingQueue:
    settings.setdefault("shares", ALL_ALIKE)
    made = AdmissionSettings(max_in_flight=limit, max_pending=pending, **settings)  # type: ignore[arg-type]
    return ServingQueue(made, 0.0, Random(1))


def _wait(
    queue: ServingQueue,
    now: float,
    criticality: Criticality = CRITICAL,
    caller: Hashable = None,
    deadline: float | None = None,
) -> Waiter:
    waiter = queue.enter(now, criticality, caller, deadline)
    assert isinstance(waiter, Waiter)
    return waiter


def _fill(queue: ServingQueue, now: float = 0.0, caller: Hashable = None) -> None:
    while queue.in_flight < queue.limit:
        assert queue.enter(now, CRITICAL, caller) is None


# One thing at a time


def test_so_many_are_served_and_so_many_wait_and_the_next_is_refused() -> None:
    queue = _queue(limit=2, pending=1)
    assert queue.enter(0.0, CRITICAL) is None
    assert queue.enter(0.0, CRITICAL) is None
    waiter = _wait(queue, 0.0)
    assert queue.enter(0.0, CRITICAL) == Shed("queue_full")
    assert (queue.in_flight, queue.pending, queue.admitted) == (2, 1, 2)
    queue.end(0.01, 0.01)
    assert waiter.granted
    assert (queue.in_flight, queue.pending, queue.admitted, queue.waited) == (2, 0, 3, 1)
    assert queue.waited_s == pytest.approx(0.01)
    queue.end(0.02, 0.01)
    queue.end(0.02, 0.01)
    assert queue.in_flight == 0


def test_without_a_queue_nobody_waits() -> None:
    queue = _queue(pending=0)
    _fill(queue)
    assert queue.enter(0.0, PLUS) == Shed("queue_full")


def test_who_waits_is_told_once_and_at_once_if_it_is_over_already() -> None:
    queue = _queue()
    _fill(queue)
    early, late = _wait(queue, 0.0), _wait(queue, 0.0)
    told: list[str] = []
    queue.watch(early, lambda: told.append("early"))
    queue.end(0.0, 0.1)
    queue.end(0.0, 0.1)
    queue.watch(late, lambda: told.append("late"))
    assert told == ["early", "late"]


def test_it_is_first_in_first_out_while_the_queue_does_not_stand_and_the_newest_first_while_it_does() -> None:
    queue = _queue()
    _fill(queue)
    first, second = _wait(queue, 0.0), _wait(queue, 0.05)
    queue.end(0.09, 0.09)
    assert first.granted and not second.granted
    third = _wait(queue, 0.11)  # not empty since 0.0
    assert third.leaves_at == pytest.approx(0.115)
    queue.end(0.112, 0.01)
    assert third.granted and not second.granted


@pytest.mark.parametrize(("order", "expected"), [("fifo", [0, 1, 2]), ("lifo", [2, 1, 0])])
def test_an_order_that_is_set_holds_whether_the_queue_stands_or_not(order: str, expected: list[int]) -> None:
    queue = _queue(order=order, interval_s=1.0)
    _fill(queue)
    waiters = [_wait(queue, 0.0) for _ in range(3)]
    served = []
    for _ in waiters:
        queue.end(0.5, 0.1)
        served.append(next(n for n, each in enumerate(waiters) if each.granted and n not in served))
    assert served == expected


def test_who_waited_for_as_long_as_it_may_is_refused_and_one_whose_deadline_passed_is_told_so() -> None:
    queue = _queue()
    _fill(queue)
    slow, hurried = _wait(queue, 0.0), _wait(queue, 0.0, deadline=0.02)
    assert (slow.leaves_at, hurried.leaves_at) == (0.1, 0.02)
    assert queue.give_up(0.02, hurried) == Shed("expired")
    assert queue.give_up(0.1, slow) == Shed("queue_timeout")
    assert queue.give_up(0.2, slow) == Shed("queue_timeout")  # once more does nothing
    assert queue.shed == {("expired", CRITICAL): 1, ("queue_timeout", CRITICAL): 1}
    assert queue.pending == 0


def test_a_place_goes_to_nobody_whose_deadline_passed_and_to_one_who_is_late_rather_than_to_nobody() -> None:
    queue = _queue(order="fifo")
    _fill(queue)
    expired, late = _wait(queue, 0.0, deadline=0.1), _wait(queue, 0.0)
    queue.end(0.15, 0.15)
    assert (expired.refused, late.granted) == ("expired", True)
    assert queue.give_up(0.15, late) is None


def test_who_goes_away_leaves_the_queue_or_has_a_place_to_give_back() -> None:
    queue = _queue()
    _fill(queue)
    gone, granted = _wait(queue, 0.0), _wait(queue, 0.0)
    assert queue.give_up(0.01, gone, "gone") == Shed("gone")
    queue.end(0.02, 0.02)
    assert queue.give_up(0.02, granted, "gone") is None
    queue.end(0.02, 0.0, None)
    assert (queue.in_flight, queue.pending, queue.shed_by_reason()) == (0, 0, {"gone": 1})
    assert queue.shedding_since is None  # it was not this side that refused


# Criticality


def test_a_more_critical_request_goes_first() -> None:
    queue = _queue()
    _fill(queue)
    waiters = [_wait(queue, 0.0, each) for each in (SHEDDABLE, CRITICAL, PLUS, SHEDDABLE_PLUS)]
    order = []
    for _ in waiters:
        queue.end(0.01, 0.01)
        order += [each.criticality for each in waiters if each.granted and each.criticality not in order]
    assert order == [PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE]


def test_in_a_full_queue_the_least_critical_gives_up_its_place() -> None:
    queue = _queue(pending=2)
    _fill(queue)
    plus, low = _wait(queue, 0.0, SHEDDABLE_PLUS), _wait(queue, 0.0, SHEDDABLE)
    told: list[str] = []
    queue.watch(low, lambda: told.append(low.refused))
    high = _wait(queue, 0.0, CRITICAL)
    assert told == ["outranked"]
    assert queue.enter(0.0, SHEDDABLE) == Shed("queue_full")
    assert not plus.refused and not high.refused


def test_what_waits_below_does_not_make_the_queue_stand_for_what_goes_before_it() -> None:
    queue = _queue()
    _fill(queue)
    low = _wait(queue, 0.0, SHEDDABLE, deadline=9.0)
    high = _wait(queue, 0.2, CRITICAL)
    lower = _wait(queue, 0.2, SHEDDABLE)
    assert (high.leaves_at, lower.leaves_at) == (pytest.approx(0.3), pytest.approx(0.205))
    assert low.leaves_at == 0.1


def test_the_less_critical_keep_places_free_only_while_more_critical_ones_come() -> None:
    queue = _queue(limit=10, shares=SharesSettings(sheddable_percent=80.0))
    for _ in range(10):
        assert queue.enter(0.0, SHEDDABLE) is None
    for _ in range(10):
        queue.end(0.0, 0.01)
    assert queue.enter(1.0, CRITICAL) is None
    for _ in range(7):
        assert queue.enter(1.0, SHEDDABLE) is None
    low = _wait(queue, 1.0, SHEDDABLE)
    assert queue.enter(1.0, CRITICAL) is None  # although one waits
    assert queue.in_flight == 9
    queue.end(1.01, 0.01)
    assert not low.granted
    queue.end(1.02, 0.01)
    assert low.granted
    assert queue.enter(12.0, SHEDDABLE) is None
    assert queue.enter(12.0, SHEDDABLE) is None
    assert queue.in_flight == 10


def test_of_one_place_there_is_no_part_to_keep() -> None:
    queue = _queue(limit=1, shares=SharesSettings(sheddable_percent=10.0))
    queue.enter(0.0, PLUS)
    queue.end(0.0, 0.0)
    assert queue.enter(0.1, SHEDDABLE) is None


# Callers


def test_places_go_round_among_callers() -> None:
    queue = _queue(fair_by=KeySource("peer"))
    _fill(queue, caller="a")
    waiters = [_wait(queue, 0.0, caller=caller) for caller in ("a", "a", "a", "b", "c")]
    order: list[Hashable] = []
    served: set[int] = set()
    for _ in waiters:
        queue.end(0.01, 0.01, caller=order[-1] if order else "a")
        new = next(n for n, each in enumerate(waiters) if each.granted and n not in served)
        served.add(new)
        order.append(waiters[new].caller)
    assert order == ["a", "b", "c", "a", "a"]


def test_in_a_full_queue_who_has_most_waiting_loses() -> None:
    queue = _queue(pending=3, fair_by=KeySource("peer"))
    _fill(queue, caller="a")
    heavy = [_wait(queue, 0.0, caller="a") for _ in range(3)]
    light = _wait(queue, 0.0, caller="b")
    assert [each.refused for each in heavy] == ["", "", "over_share"]
    assert not light.refused
    assert queue.enter(0.0, CRITICAL, "a") == Shed("over_share")


def test_a_caller_with_little_is_let_wait_as_if_the_queue_did_not_stand() -> None:
    queue = _queue(limit=4, fair_by=KeySource("peer"))
    _fill(queue, caller="a")
    _wait(queue, 0.0, caller="a", deadline=9.0)
    heavy, light = _wait(queue, 0.2, caller="a"), _wait(queue, 0.2, caller="b")
    assert heavy.leaves_at == pytest.approx(0.205)
    assert light.leaves_at == pytest.approx(0.3)


def test_callers_are_forgotten_when_they_have_nothing_here() -> None:
    queue = _queue(limit=2, pending=4, fair_by=KeySource("peer"))
    waiters = []
    for number in range(1000):
        answer = queue.enter(0.0, CRITICAL, number)
        if isinstance(answer, Waiter):
            waiters.append(answer)
    assert len(queue._callers) <= 6
    for waiter in waiters:
        queue.give_up(0.0, waiter, "gone")
    queue.end(0.0, 0.0, caller=0)
    queue.end(0.0, 0.0, caller=1)
    assert queue._callers == {}


# What a refusal says


def test_a_refusal_says_when_the_queue_will_have_drained() -> None:
    queue = _queue(limit=2, pending=9)
    for _ in range(50):
        queue.enter(0.0, CRITICAL)
        queue.end(0.0, 4.0)
    _fill(queue)
    for _ in range(9):
        _wait(queue, 0.0)
    shed = queue.enter(0.0, CRITICAL)
    assert isinstance(shed, Shed)
    assert shed.retry_after_s == pytest.approx(10 * 4.0 / 2)


@pytest.mark.parametrize("took_s", [float("nan"), float("inf"), -5.0])
def test_a_time_that_is_none_teaches_nothing(took_s: float) -> None:
    queue = _queue(pending=0, adaptive=VegasSettings(initial_limit=1, max_limit=1))
    queue.enter(0.0, CRITICAL)
    queue.end(0.0, took_s)
    _fill(queue)
    assert queue.enter(0.0, CRITICAL) == Shed("queue_full", 1.0)


def test_where_many_requests_are_repetitions_a_refusal_says_that_a_repeat_does_not_help() -> None:
    queue = _queue(pending=0)
    _fill(queue)
    answers = [queue.enter(0.0, CRITICAL, retry=n % 5 == 0) for n in range(300)]
    assert answers[0] == Shed("queue_full", 1.0, final=False)
    assert answers[-1] == Shed("queue_full", 1.0, final=True)
    few = _queue(pending=0)
    _fill(few)
    assert [few.enter(0.0, CRITICAL, retry=n % 25 == 0) for n in range(300)][-1] == Shed("queue_full")


def test_a_caller_over_its_share_may_find_room_elsewhere() -> None:
    queue = _queue(pending=2, fair_by=KeySource("peer"))
    _fill(queue, caller="a")
    for _ in range(300):
        queue.enter(0.0, CRITICAL, "a", retry=True)
    victim = queue._lanes[CRITICAL].lines["a"][-1]
    for caller in ("b", "c"):
        queue.enter(0.0, CRITICAL, caller, retry=True)
    assert victim.refused == "over_share"
    shed = queue.give_up(0.0, victim)
    assert shed is not None and not shed.final


# Its state over time


def test_shedding_begins_with_the_first_refusal_and_ends_when_there_was_none_for_a_while() -> None:
    queue = _queue(pending=0)
    _fill(queue)
    queue.enter(1.0, SHEDDABLE)
    assert (queue.shedding_since, queue.losing_since) == (1.0, None)
    queue.enter(2.0, CRITICAL)
    assert (queue.shedding_since, queue.losing_since) == (1.0, 2.0)
    queue.end(2.0 + CALM_S, 0.1)
    assert queue.shedding_since == 1.0
    queue.enter(2.1 + CALM_S, CRITICAL)
    assert (queue.shedding_since, queue.losing_since) == (None, None)


def test_it_is_stuck_when_all_places_are_taken_and_none_falls_free() -> None:
    queue = _queue(limit=2)
    queue.enter(0.0, CRITICAL)
    assert queue.stuck_s(50.0) == 0.0
    queue.enter(1.0, CRITICAL)
    assert queue.stuck_s(31.0) == 30.0
    _wait(queue, 31.0)
    queue.end(31.05, 31.05)
    assert queue.stuck_s(32.05) == pytest.approx(1.0)
    queue.end(33.0, 1.0)
    assert queue.stuck_s(99.0) == 0.0
    assert queue.stuck_s(-99.0) == 0.0


def test_a_change_keeps_who_is_there_and_more_places_are_given_at_once() -> None:
    queue = _queue(limit=1)
    _fill(queue)
    waiters = [_wait(queue, 0.0) for _ in range(3)]
    queue.change(replace(queue.settings, max_in_flight=3), 0.01)
    assert [each.granted for each in waiters] == [True, True, False]
    queue.change(replace(queue.settings, max_in_flight=1), 0.02)
    for _ in range(2):
        queue.end(0.03, 0.01)
        assert not waiters[2].granted
    queue.end(0.03, 0.01)
    assert waiters[2].granted


def test_a_child_begins_with_nobody() -> None:
    queue = _queue(limit=1)
    _fill(queue)
    waiter = _wait(queue, 0.0)
    queue.renew(1.0)
    assert (queue.in_flight, queue.pending) == (0, 0)
    queue.end(1.0, 1.0)  # one of the parent's, that the child inherited
    assert queue.in_flight == 0
    assert not waiter.granted
    assert queue.enter(1.0, CRITICAL) is None


def test_for_who_has_no_timers_the_late_are_refused_when_it_looks() -> None:
    queue = _queue()
    _fill(queue)
    late, waiter = _wait(queue, 0.0), _wait(queue, 0.05)
    told: list[str] = []
    queue.watch(late, lambda: told.append(late.refused))
    queue.settle(0.12)
    assert told == ["queue_timeout"]
    assert not waiter.refused
    assert queue.pending == 1


@pytest.mark.parametrize(("blocked_s", "falls"), [(0.0, True), (0.9, False), (5.0, False)])
def test_clients_that_read_slowly_do_not_lower_an_adaptive_limit(blocked_s: float, falls: bool) -> None:
    queue = ServingQueue(
        AdmissionSettings(adaptive=AimdSettings(initial_limit=20, min_limit=2, timeout_s=0.5)), 0.0, Random(1)
    )
    _fill(queue)
    queue.end(1.0, 1.0, blocked_s=blocked_s)
    assert (queue.limit < 20) is falls


def test_an_adaptive_limit_is_found_from_the_times_of_the_handlers_and_bounded() -> None:
    settings = AimdSettings(initial_limit=20, min_limit=2, max_limit=50, timeout_s=0.1)
    queue = ServingQueue(AdmissionSettings(adaptive=settings, max_in_flight=30), 0.0, Random(1))
    for turn in range(40):
        _fill(queue, float(turn))
        queue.end(float(turn), 0.05)
    assert queue.limit == 30
    for turn in range(40, 80):
        _fill(queue, float(turn))
        queue.end(float(turn), 0.5)
    assert queue.limit == 2
    before = queue.limit
    queue.end(80.0, 0.05, None)
    assert queue.limit == before


def test_a_handler_that_was_too_late_is_a_drop() -> None:
    settings = AimdSettings(initial_limit=20, min_limit=2)
    queue = ServingQueue(AdmissionSettings(adaptive=settings), 0.0, Random(1))
    queue.enter(0.0, CRITICAL)
    queue.end(0.0, 0.01, ok=False)
    assert queue.limit == 18


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_it_holds_its_bounds_and_leaks_nothing(seed: int) -> None:
    rng = Random(seed)
    queue = ServingQueue(
        AdmissionSettings(max_in_flight=5, max_pending=7, fair_by=KeySource("peer")), 0.0, Random(seed)
    )
    now = 0.0
    inside: list[Hashable] = []
    waiting: list[Waiter] = []
    for _ in range(2000):
        now += rng.choice((0.0, 0.001, 0.01, -0.005, 0.2))
        did = rng.random()
        if did < 0.5:
            caller = rng.choice("abcdef")
            answer = queue.enter(now, rng.choice(list(Criticality)), caller, rng.choice((None, now + 0.05)))
            if answer is None:
                inside.append(caller)
            elif isinstance(answer, Waiter):
                waiting.append(answer)
        elif did < 0.85 and inside:
            queue.end(now, rng.choice((0.01, 0.1, float("nan"))), True, inside.pop(rng.randrange(len(inside))))
        elif waiting:
            waiter = waiting[rng.randrange(len(waiting))]
            if now >= waiter.leaves_at or rng.random() < 0.1:
                queue.give_up(now, waiter, rng.choice(("", "gone")))
        inside += [each.caller for each in waiting if each.granted]
        waiting = [each for each in waiting if not each.granted and not each.refused]
        assert queue.in_flight == len(inside) <= 5
        assert queue.pending == len(waiting) == sum(lane.count for lane in queue._lanes) <= 7
        assert [lane.codel.count for lane in queue._lanes] == [
            sum(each.criticality >= level for each in waiting) for level in Criticality
        ]
        assert queue._callers == Counter([*inside, *(each.caller for each in waiting)])
    while inside:
        queue.end(now, 0.01, True, inside.pop())
        inside += [each.caller for each in waiting if each.granted]
        waiting = [each for each in waiting if not each.granted and not each.refused]
    assert (queue.in_flight, queue.pending, queue._callers, waiting) == (0, 0, {}, [])


def test_counts_are_exact_under_threads() -> None:
    queue = _queue(limit=4, pending=8, interval_s=30.0)
    inside, most, turns = [0], [0], 150
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(turns):
            answer = queue.enter(0.0, Criticality(turn % 4))
            if isinstance(answer, Shed):
                continue
            if isinstance(answer, Waiter):
                over = threading.Event()
                queue.watch(answer, over.set)
                if turn % 7 == number and queue.give_up(0.0, answer, "gone") is not None:
                    continue
                over.wait(20)
                if answer.refused:
                    continue
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            with lock:
                inside[0] -= 1
            queue.end(0.0, 0.001)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (queue.in_flight, queue.pending) == (0, 0)
    assert most[0] <= 4
    assert queue.admitted + sum(queue.shed.values()) == 8 * turns


def test_an_end_may_come_from_a_finalizer_in_the_middle_of_anything() -> None:
    queue = _queue(limit=2)
    _fill(queue)
    waiter = _wait(queue, 0.0)
    told: list[bool] = []
    queue.watch(waiter, lambda: told.append(waiter.granted))
    with queue._lock:  # as this thread holds it when the collector comes by
        queue.end(0.01, 0.01)
        queue.end(0.01, 0.01)
        assert (queue.in_flight, waiter.granted) == (2, False)
    next_one = queue.enter(0.02, CRITICAL)  # whoever has the lock next works it off
    assert isinstance(next_one, Waiter)
    assert (waiter.granted, next_one.granted, told) == (True, True, [True])
    assert queue.in_flight == 2


def test_so_may_the_end_of_one_that_was_not_kept_waiting() -> None:
    queue = _queue(limit=1)
    _fill(queue)
    granted, late, gone = _wait(queue, 0.0), _wait(queue, 0.0), _wait(queue, 0.05)
    assert granted.leaves_at == late.leaves_at < gone.leaves_at
    ended_at = late.leaves_at
    with queue._lock:
        queue.end(0.01, 0.01)
        for waiter in (gone, late, granted):
            queue.end(ended_at, ended_at, waiter=waiter)
        assert (queue.in_flight, queue.pending) == (1, 3)
    assert queue.shed_by_reason() == {}  # of before it came by
    assert queue.shed_by_reason() == {"queue_timeout": 1, "gone": 1}
    assert (granted.granted, late.refused, gone.refused) == (True, "queue_timeout", "gone")
    assert (queue.in_flight, queue.pending, queue._callers) == (0, 0, {})


# Under load, in virtual time


class _Station:
    """A server with Poisson arrivals and memoryless handlers behind a `ServingQueue`."""

    def __init__(self, settings: AdmissionSettings, service_s: float, seed: int = 1) -> None:
        self.clock = VirtualClock(0.0)
        self.rng = Random(seed)
        self.queue = ServingQueue(settings, 0.0, self.rng)
        self.came: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.times: list[float] = []
        self._service_s = service_s

    def stream(self, name: str, per_s: float, criticality: Criticality = CRITICAL, caller: Hashable = None) -> None:
        def arrive() -> None:
            self.came[name] += 1
            self.clock.after(self.rng.expovariate(per_s), arrive)
            came_at, answer = self.clock.now, self.queue.enter(self.clock.now, criticality, caller)
            if answer is None:
                self._serve(name, caller, came_at)
            elif isinstance(answer, Waiter):
                waiter = answer
                timer = self.clock.at(waiter.leaves_at, lambda: self.queue.give_up(self.clock.now, waiter))

                def over() -> None:
                    timer.cancel()
                    if waiter.granted:
                        self._serve(name, caller, came_at)

                self.queue.watch(waiter, over)

        self.clock.after(self.rng.expovariate(per_s), arrive)

    def _serve(self, name: str, caller: Hashable, came_at: float) -> None:
        took_s = self.rng.expovariate(1.0 / self._service_s)

        def done() -> None:
            self.done[name] += 1
            self.times.append(self.clock.now - came_at)
            self.queue.end(self.clock.now, took_s, True, caller)

        self.clock.after(took_s, done)

    def lost_percent(self, name: str, criticality: Criticality) -> float:
        return 100.0 * sum(n for (_, each), n in self.queue.shed.items() if each is criticality) / self.came[name]


@pytest.mark.parametrize("high_share", [0.3, 0.6])
def test_at_three_times_capacity_the_critical_keep_99_percent_and_the_sheddable_take_the_loss(
    high_share: float,
) -> None:
    station = _Station(AdmissionSettings(max_in_flight=20), service_s=0.05)
    capacity = 20 / 0.05
    station.stream("high", high_share * capacity, CRITICAL)
    station.stream("low", (3 - high_share) * capacity, SHEDDABLE)
    station.clock.run(10.0)
    assert station.lost_percent("high", CRITICAL) < 1.0
    assert station.lost_percent("low", SHEDDABLE) > 75.0
    assert sum(station.done.values()) > 0.8 * capacity * 10.0  # and little of the capacity is kept free for that


def test_without_criticality_all_lose_alike_at_three_times_capacity() -> None:
    station = _Station(AdmissionSettings(max_in_flight=20), service_s=0.05)
    station.stream("high", 240.0)
    station.stream("low", 960.0)
    station.clock.run(5.0)
    share = {name: 100.0 * station.done[name] / station.came[name] for name in ("high", "low")}
    assert 25.0 < share["high"] < 45.0
    assert abs(share["high"] - share["low"]) < 8.0


@pytest.mark.parametrize("load", [1.5, 3.0])
def test_under_overload_all_places_work_and_what_is_served_is_served_soon(load: float) -> None:
    station = _Station(AdmissionSettings(max_in_flight=10), service_s=0.025)
    station.stream("all", load * 400.0)
    station.clock.run(10.0)
    assert station.done["all"] > 0.95 * 400.0 * 10.0
    assert sorted(station.times)[len(station.times) // 2] < 0.06


def test_who_sends_most_loses_most_and_who_sends_little_loses_next_to_nothing() -> None:
    station = _Station(AdmissionSettings(max_in_flight=10, fair_by=KeySource("peer")), service_s=0.025)
    for name, per_s in (("heavy", 1000.0), ("light", 50.0), ("lighter", 20.0)):
        station.stream(name, per_s, caller=name)
    station.clock.run(10.0)
    served = {name: 100.0 * station.done[name] / station.came[name] for name in station.came}
    assert served["heavy"] < 40.0
    assert served["light"] > 97.0
    assert served["lighter"] > 97.0


class _SharedCores:
    """A server whose handlers share ten cores: with more of them in flight each takes longer."""

    def __init__(self, settings: AdmissionSettings, per_s: float, work_s: float = 0.02) -> None:
        self.clock = VirtualClock(0.0)
        self.queue = ServingQueue(settings, 0.0, Random(1))
        self.rng = Random(2)
        self.times: list[float] = []
        self._work_s, self._per_s = work_s, per_s
        self._left: dict[tuple[float, float, int], float] = {}
        self._worked_at = 0.0
        self._next: Timer | None = None
        self._count = 0
        self.clock.after(0.0, self._arrive)

    def _arrive(self) -> None:
        self.clock.after(self.rng.expovariate(self._per_s), self._arrive)
        came_at, answer = self.clock.now, self.queue.enter(self.clock.now, CRITICAL)
        if answer is None:
            self._begin(came_at)
        elif isinstance(answer, Waiter):
            waiter = answer
            timer = self.clock.at(waiter.leaves_at, lambda: self.queue.give_up(self.clock.now, waiter))

            def over() -> None:
                timer.cancel()
                if waiter.granted:
                    self._begin(came_at)

            self.queue.watch(waiter, over)

    def _begin(self, came_at: float) -> None:
        self._work()
        self._count += 1
        self._left[came_at, self.clock.now, self._count] = self.rng.expovariate(1.0 / self._work_s)
        self._plan()

    def _speed(self) -> float:
        return min(1.0, 10.0 / len(self._left)) if self._left else 1.0

    def _work(self) -> None:
        done_s = (self.clock.now - self._worked_at) * self._speed()
        self._worked_at = self.clock.now
        for each in self._left:
            self._left[each] -= done_s

    def _plan(self) -> None:
        if self._next is not None:
            self._next.cancel()
        if self._left:
            first = min(self._left, key=self._left.__getitem__)
            self._next = self.clock.after(max(0.0, self._left[first] / self._speed()), lambda: self._end(first))

    def _end(self, request: tuple[float, float, int]) -> None:
        self._work()
        del self._left[request]
        self._plan()
        self.times.append(self.clock.now - request[0])
        self.queue.end(self.clock.now, self.clock.now - request[1])


def test_a_limit_that_finds_itself_keeps_an_overloaded_server_quick_and_busy() -> None:
    median_s = {}
    for name, settings in (
        ("adaptive", AdmissionSettings(adaptive=Gradient2Settings())),
        ("none", AdmissionSettings(max_in_flight=400)),
    ):
        server = _SharedCores(settings, per_s=1000.0)
        server.clock.run(4.0)
        assert len(server.times) > 0.9 * 500.0 * 4.0
        median_s[name] = sorted(server.times)[len(server.times) // 2]
    assert median_s["adaptive"] < 0.1
    assert median_s["none"] > 0.3
