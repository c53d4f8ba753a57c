"""Hedges: when one starts, what it costs, who wins, and Envoy's hedging on the per-try timeout."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from meshlib.balance.cluster import Cluster
from meshlib.errors import AttemptTimeout, ConnectFailed, Reset
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Start
from meshlib.policy.call import Call, CallState
from meshlib.policy.hedge import Hedging
from meshlib.policy.settings import BreakerSettings, HedgeSettings, RetryPolicy
from tests.core import NOW, Bench, cluster_state, failure_of, start_of

AFTER = 0.05
NO_BACKOFF = RetryPolicy(backoff_base_s=0.0)


def bench_of(count: int = 3, *, hedge: dict[str, Any] | None = None, **options: Any) -> Bench:
    settings = HedgeSettings(**{"after": AFTER, "max_extra_percent": 100.0, **(hedge or {})})
    bench = Bench(count, hedging=Hedging(settings), **options)
    bench.call.may_hedge()
    return bench


def kinds(actions: list[Action]) -> list[tuple[str, int]]:
    return [(type(action).__name__, getattr(action, "n", 0)) for action in actions]


def hedging_of(call: Call) -> Hedging:
    assert call.facts.hedging is not None
    return call.facts.hedging


def test_a_hedge_starts_after_the_delay_and_elsewhere() -> None:
    bench = bench_of()
    first = start_of(bench.call.begin(NOW))
    assert bench.call.next_wakeup == NOW + AFTER
    assert bench.call.timer(NOW + AFTER - 0.001) == []
    second = start_of(bench.call.timer(NOW + AFTER))
    assert second.member is not first.member
    assert bench.call.next_wakeup == NOW + 10, "one is enough; now the per-try timeouts come"
    assert (b"x-meshlib-hedge", b"1") in second.headers
    assert (b"x-envoy-attempt-count", b"2") in second.headers
    assert not any(name == b"x-meshlib-hedge" for name, _ in first.headers)


def test_the_first_good_answer_of_two_wins_and_the_other_is_cancelled() -> None:
    bench = bench_of()
    bench.call.begin(NOW)
    start_of(bench.call.timer(NOW + AFTER))
    assert bench.budget.tokens == 19
    assert kinds(bench.call.headers(NOW + 0.1, 2, 200)) == [("Cancel", 1), ("Deliver", 2)]
    assert bench.in_flight == 1
    record = bench.call.record(NOW + 0.1)
    assert [(attempt.hedge, attempt.outcome) for attempt in record.attempts] == [
        (False, "cancelled"),
        (True, "success"),
    ]
    assert record.retries == 0
    assert record.hedges == 1
    hedging = hedging_of(bench.call)
    assert (hedging.sent, hedging.won, hedging.refused) == (1, 1, 0)


def test_attempts_whose_time_ends_a_moment_before_the_calls_are_each_cancelled_once() -> None:
    bench = bench_of(timeout_s=1.0, per_try_timeout_s=0.9995, hedge={"after": 0.0})
    bench.call.begin(NOW)
    start_of(bench.call.timer(NOW))
    assert kinds(bench.call.timer(NOW + 0.9998)) == [("Cancel", 1), ("Cancel", 2), ("Fail", 0)]


def test_a_failure_beside_an_open_attempt_waits_for_that() -> None:
    bench = bench_of(retry=RetryPolicy(max_retries=1))
    bench.call.begin(NOW)
    bench.call.timer(NOW + AFTER)
    assert kinds(bench.call.headers(NOW + 0.1, 1, 503)) == [("Cancel", 1)]
    assert kinds(bench.call.headers(NOW + 0.2, 2, 200)) == [("Deliver", 2)]


def test_when_all_have_failed_it_is_retried_as_ever_and_hedges_are_no_retries() -> None:
    bench = bench_of(retry=RetryPolicy(max_retries=1, backoff_base_s=0.0))
    bench.call.begin(NOW)
    bench.call.timer(NOW + AFTER)
    assert bench.call.error(NOW + 0.1, 1, Reset("x"), "headers") == []
    assert start_of(bench.call.error(NOW + 0.2, 2, Reset("x"), "headers")).n == 3
    assert bench.call.record(NOW).attempts[2].hedge is False
    assert isinstance(failure_of(bench.call.error(NOW + 0.3, 3, Reset("x"), "headers")), Reset)


def test_a_call_without_retries_is_hedged_too() -> None:
    bench = bench_of(retry=RetryPolicy(max_retries=0))
    bench.call.begin(NOW)
    start_of(bench.call.timer(NOW + AFTER))


def test_an_answer_that_no_retry_condition_names_is_good_enough() -> None:
    bench = bench_of()
    bench.call.begin(NOW)
    bench.call.timer(NOW + AFTER)
    assert kinds(bench.call.headers(NOW + 0.1, 1, 404)) == [("Cancel", 2), ("Deliver", 1)]
    assert hedging_of(bench.call).won == 0


@pytest.mark.parametrize(
    ("facts", "hedged"),
    [({}, True), ({"safe": False}, False), ({"replayable": False}, False), ({"observe": True}, False)],
)
def test_only_what_may_be_repeated_is_hedged(facts: dict[str, Any], hedged: bool) -> None:
    bench = bench_of(**facts)
    bench.call.begin(NOW)
    assert bool(bench.call.timer(NOW + AFTER)) is hedged


def test_a_driver_that_cannot_hedge_is_asked_for_nothing() -> None:
    bench = Bench(hedging=Hedging(HedgeSettings(after=AFTER)))
    bench.call.begin(NOW)
    assert bench.call.next_wakeup == NOW + 10
    assert bench.call.timer(NOW + AFTER) == []


def test_a_single_endpoint_is_hedged_at_itself() -> None:
    bench = bench_of(1)
    first = start_of(bench.call.begin(NOW))
    assert start_of(bench.call.timer(NOW + AFTER)).member is first.member


def test_several_hedges_follow_one_another_as_far_as_they_may() -> None:
    bench = bench_of(4, hedge={"max_hedges": 2, "max_extra_percent": 100.0})
    for _ in range(5):
        hedging_of(bench.call).call_began(NOW)
    bench.call.begin(NOW)
    members = {start_of(bench.call.timer(NOW + AFTER * k)).member for k in (1, 2)}
    assert len(members) == 2
    assert bench.call.timer(NOW + AFTER * 3) == []


def test_no_hedge_while_a_body_comes() -> None:
    bench = bench_of(complete_body=True)
    bench.call.begin(NOW)
    bench.call.headers(NOW + 0.01, 1, 200)
    assert bench.call.timer(NOW + AFTER) == []
    assert kinds(bench.call.body_end(NOW + 1, 1)) == [("Deliver", 1)]


def test_no_hedge_while_the_circuit_is_not_closed() -> None:
    state = cluster_state(breaker=BreakerSettings(min_calls=1, open_for_s=1.0))
    bench = bench_of(states=[state], retry=RetryPolicy(max_retries=0))
    bench.call.begin(NOW)
    bench.call.error(NOW, 1, Reset("x"), "headers")
    probe = bench.another()
    probe.may_hedge()
    hedging_of(probe).call_began(NOW)
    start_of(probe.begin(NOW + 2))
    assert probe.attempts[0].probe
    assert probe.timer(NOW + 2 + AFTER) == []


def test_a_hedge_is_no_probe_of_an_ejected_endpoint() -> None:
    bench = bench_of(2)
    bench.call.begin(NOW)
    bench.call.timer(NOW + AFTER)
    assert not bench.call.attempts[1].probe


def test_a_hedge_that_finds_no_endpoint_is_not_sent_and_gives_no_retry_away(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(retry=RetryPolicy(max_retries=1, backoff_base_s=0.0))
    bench.call.begin(NOW)
    with monkeypatch.context() as nowhere:
        nowhere.setattr(Cluster, "pick", lambda *_: None)
        assert bench.call.timer(NOW + AFTER) == []
    assert (hedging_of(bench.call).sent, hedging_of(bench.call).refused) == (0, 0)
    assert start_of(bench.call.error(NOW + 0.1, 1, Reset("x"), "headers")).n == 2
    assert isinstance(failure_of(bench.call.error(NOW + 0.2, 2, Reset("x"), "headers")), Reset)


# What it costs


def test_the_budget_of_hedges_is_a_share_of_the_calls() -> None:
    hedging = Hedging(HedgeSettings(after=AFTER, max_extra_percent=5.0))
    bench = Bench(hedging=hedging)
    bench.budget.success_gain = 20.0
    sent = 0
    for k in range(200):
        now, call = NOW + k * 0.1, bench.another()
        call.may_hedge()
        call.begin(now)
        sent += bool(call.timer(now + AFTER))
        call.headers(now + AFTER, 1, 200)
        call.body_end(now + AFTER, 1)
    assert sent == hedging.sent == 10
    assert hedging.refused == 190


def test_the_budget_of_retries_pays_too_and_refuses_when_it_is_closed() -> None:
    bench = bench_of()
    bench.budget.failed(NOW, 10)
    bench.call.begin(NOW)
    assert bench.call.timer(NOW + AFTER) == []
    hedging = hedging_of(bench.call)
    assert (hedging.sent, hedging.refused) == (0, 1)
    assert bench.budget.tokens == 10


def test_threads_share_it_exactly() -> None:
    hedging = Hedging(HedgeSettings(after="p50", max_extra_percent=10.0))

    def work() -> None:
        for _ in range(500):
            hedging.call_began(NOW)
            hedging.took(NOW, 0.01)
            if hedging.take(NOW):
                hedging.count_sent()
            else:
                hedging.count_refused()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (hedging.sent, hedging.sent + hedging.refused) == (400, 4000)
    assert hedging.delay_s(NOW) == pytest.approx(0.01, rel=1 / 60)


# After a percentile


def test_without_samples_there_is_no_percentile_and_no_hedge() -> None:
    bench = bench_of(hedge={"after": "p95"})
    bench.call.begin(NOW)
    assert bench.call.next_wakeup == NOW + 10


def test_the_percentile_is_that_of_the_attempts_times_to_their_headers() -> None:
    bench = bench_of(hedge={"after": "p95"}, complete_body=True)
    for k in range(100):
        call = bench.another()
        call.may_hedge()
        call.begin(NOW)
        call.headers(NOW + 0.001 * (k + 1), 1, 200)
        call.body_end(NOW + 5, 1)
    assert hedging_of(bench.call).delay_s(NOW + 3) == pytest.approx(0.095, rel=1 / 60)


def test_fast_failures_and_hedges_are_no_samples_but_timeouts_and_those_overtaken_are() -> None:
    noted: list[float] = []

    class Noting(Hedging):
        def took(self, now: float, duration_s: float) -> None:
            noted.append(round(duration_s, 3))

    bench = Bench(hedging=Noting(HedgeSettings(after=AFTER, max_extra_percent=100.0)))

    def call_of() -> Call:
        call = bench.another()
        call.may_hedge()
        call.begin(NOW)
        return call

    call_of().headers(NOW + 0.001, 1, 503)
    call_of().error(NOW + 0.001, 1, ConnectFailed("x"), "connect")
    assert noted == []
    call = call_of()
    call._hedge(NOW + AFTER)
    call.headers(NOW + 0.06, 2, 200)  # the hedge won: the first took longer than this
    assert noted == [0.06]
    call = call_of()
    call._hedge(NOW + AFTER)
    call.headers(NOW + 0.07, 1, 200)
    assert noted == [0.06, 0.07]
    call_of().error(NOW + 10, 1, AttemptTimeout("x"), "headers")
    assert noted == [0.06, 0.07, 10.0]
    call_of().timer(NOW + 30)  # the call's own time is up
    assert noted == [0.06, 0.07, 10.0, 30.0]


def test_the_delay_is_never_below_the_least() -> None:
    hedging = Hedging(HedgeSettings(after="p50", min_delay_s=0.02))
    for _ in range(20):
        hedging.took(NOW, 1e-5)
    assert hedging.delay_s(NOW) == 0.02


# On the per-try timeout, as Envoy has it

ON_TIMEOUT = {"after": None, "on_per_try_timeout": True}


def overdue_bench(**options: Any) -> Bench:
    options = {"retry": NO_BACKOFF, "per_try_timeout_s": 1.0, **options}
    return bench_of(hedge=ON_TIMEOUT, **options)


def test_on_the_per_try_timeout_the_next_attempt_starts_beside_the_first() -> None:
    bench = overdue_bench()
    first = start_of(bench.call.begin(NOW))
    assert (first.deadline, first.timeout_s) == (NOW + 30, 30), "the wire goes on, and so does the endpoint"
    assert bench.call.next_wakeup == NOW + 1
    second = start_of(bench.call.timer(NOW + 1))
    assert second.member is not first.member
    assert bench.in_flight == 2
    assert first.member.health.consecutive == 1, "the endpoint is told of the timeout"
    assert bench.budget.tokens == 19
    assert kinds(bench.call.headers(NOW + 1.5, 1, 200)) == [("Cancel", 2), ("Deliver", 1)]


def test_before_the_per_try_timeout_an_error_is_retried_as_ever() -> None:
    bench = overdue_bench()
    bench.call.begin(NOW)
    assert kinds(bench.call.headers(NOW + 0.5, 1, 503)) == [("Cancel", 1), ("Start", 2)]


def test_after_it_an_error_is_discarded_since_another_is_under_way() -> None:
    bench = overdue_bench()
    bench.call.begin(NOW)
    bench.call.timer(NOW + 1)
    assert kinds(bench.call.headers(NOW + 1.5, 1, 503)) == [("Cancel", 1)]
    assert kinds(bench.call.headers(NOW + 1.6, 2, 200)) == [("Deliver", 2)]


def test_the_second_is_retried_within_its_own_time_beside_the_first() -> None:
    bench = overdue_bench()
    bench.call.begin(NOW)
    bench.call.timer(NOW + 1)
    assert kinds(bench.call.headers(NOW + 1.2, 2, 503)) == [("Cancel", 2), ("Start", 3)]
    assert kinds(bench.call.headers(NOW + 1.3, 3, 503)) == [("Cancel", 3)], "two retries are all"
    assert kinds(bench.call.headers(NOW + 1.4, 1, 200)) == [("Deliver", 1)]


def test_an_attempt_whose_retry_was_made_is_not_retried_again() -> None:
    bench = overdue_bench(retry=RetryPolicy(max_retries=1, backoff_base_s=0.0))
    bench.call.begin(NOW)
    bench.call.timer(NOW + 1)
    assert kinds(bench.call.headers(NOW + 1.2, 2, 503)) == [("Cancel", 2)]
    assert kinds(bench.call.headers(NOW + 1.3, 1, 503)) == [("Deliver", 1)]
    assert "its retry was made" in (bench.call.record(NOW).no_retry or "")


def test_without_a_retry_left_the_first_goes_on_until_the_calls_own_timeout() -> None:
    bench = overdue_bench(retry=RetryPolicy(max_retries=0))
    bench.call.begin(NOW)
    assert bench.call.timer(NOW + 1) == []
    assert bench.call.next_wakeup == NOW + 30
    assert kinds(bench.call.timer(NOW + 30)) == [("Cancel", 1), ("Fail", 0)]


def test_a_failure_while_the_retry_waits_for_its_back_off_waits_for_it_too() -> None:
    bench = overdue_bench(retry=RetryPolicy(backoff_base_s=0.2))
    bench.call.begin(NOW)
    bench.call.timer(NOW + 1)
    due = bench.call.next_wakeup
    assert due is not None
    assert NOW + 1 < due < NOW + 1.2
    assert kinds(bench.call.headers(NOW + 1, 1, 503)) == [("Cancel", 1)]
    assert bench.call.state is CallState.WAITING
    assert bench.call.next_wakeup == due
    assert start_of(bench.call.timer(due)).n == 2


@pytest.mark.parametrize("kind", [Deliver, Fail])
def test_whatever_the_end_nothing_stays_held(kind: type[Action]) -> None:
    bench = overdue_bench()
    bench.call.begin(NOW)
    bench.call.timer(NOW + 1)
    bench.call.timer(NOW + 2)
    assert bench.in_flight == 3
    actions = bench.call.headers(NOW + 2, 2, 200) if kind is Deliver else bench.call.timer(NOW + 30)
    assert sum(isinstance(action, Cancel) for action in actions) == (2 if kind is Deliver else 3)
    assert isinstance(actions[-1], kind)
    bench.call.body_end(NOW + 30, 2)
    assert (bench.in_flight, bench.states[0].limit.in_flight) == (0, 0)
    assert not any(isinstance(action, Start) for action in bench.call.timer(NOW + 40))
