"""Breakers of pybreaker's: listeners, storages, thresholds and exclusions do what they say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meshlib.balance.cluster import ClusterState
from meshlib.errors import CircuitOpen, Reset
from meshlib.policy.settings import RetryPolicy
from meshlib.policy.user_breaker import REFRESH_S, ErrorStatus, UserBreakerGate
from tests.core import NOW, Bench, failure_of, start_of

pybreaker = pytest.importorskip("pybreaker")


class Listener(pybreaker.CircuitBreakerListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.errors: list[BaseException] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append("before")

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.heard.append("failure")
        self.errors.append(exc)

    def success(self, cb: Any) -> None:
        self.heard.append("success")

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.heard.append(f"{old_state.name}->{new_state.name}")


def bench_of(breaker: Any, worker: Any = None) -> Bench:
    gate = UserBreakerGate(breaker, worker)
    state = ClusterState("orders", now=NOW, breaker=None, outlier=None, before=[gate])
    return Bench(states=[state], retry=RetryPolicy(max_retries=0))


def call(bench: Bench, status: int = 200) -> Any:
    """Make one call; the error, if it was refused."""
    made = bench.another()
    actions = made.begin(NOW)
    if not made.attempts:
        return failure_of(actions)
    made.headers(NOW, 1, status)
    made.body_end(NOW, 1)
    return None


def age(breaker: Any, seconds: float) -> None:
    """Let so much time pass for an open breaker."""
    breaker._state_storage.opened_at -= timedelta(seconds=seconds)


def test_it_opens_after_fail_max_failures_in_a_row_and_says_so() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=60, name="mine")
    bench = bench_of(breaker)
    for status in (503, 503, 200, 503, 503):
        assert call(bench, status) is None
    assert breaker.fail_counter == 2, "a success begins anew"
    assert call(bench, 503) is None, "the call that opens it gets its own answer"
    assert breaker.current_state == "open"
    error = call(bench)
    assert isinstance(error, CircuitOpen)
    assert str(error).startswith("orders: the circuit breaker 'mine' is open; the next call is let through in ")
    assert error.retry_after_s == pytest.approx(60, abs=1)
    assert isinstance(error.__cause__, pybreaker.CircuitBreakerError)
    gate = (bench.states[0].gates or ())[0]
    assert (gate.rejected, gate.name) == (1, "circuit-breaker")


def test_one_call_at_a_time_is_let_through_and_success_threshold_closes_it() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60, success_threshold=2)
    bench = bench_of(breaker)
    call(bench, 503)
    age(breaker, 61)
    first, second = bench.another(), bench.another()
    start_of(first.begin(NOW))
    assert isinstance(failure_of(second.begin(NOW)), CircuitOpen)
    first.headers(NOW, 1, 200)
    assert breaker.current_state == "half-open"
    assert call(bench, 200) is None
    assert breaker.current_state == "closed"


def test_a_probe_that_fails_opens_it_again_and_one_that_is_cancelled_is_handed_on() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60)
    bench = bench_of(breaker)
    call(bench, 503)
    age(breaker, 61)
    cancelled = bench.another()
    start_of(cancelled.begin(NOW))
    cancelled.cancelled(NOW)
    assert breaker.current_state == "open"
    assert call(bench, 503) is None
    assert breaker.current_state == "open"
    assert datetime.now(UTC) - breaker._state_storage.opened_at < timedelta(seconds=5)
    assert isinstance(call(bench), CircuitOpen)


def test_listeners_hear_of_every_outcome() -> None:
    listener = Listener()
    breaker = pybreaker.CircuitBreaker(fail_max=2, listeners=[listener])
    bench = bench_of(breaker)
    call(bench, 200)
    call(bench, 503)
    lost = bench.another()
    lost.begin(NOW)
    lost.error(NOW, 1, Reset("gone", endpoint="10.0.0.1:80"), "headers")
    assert listener.heard == ["before", "success", "before", "failure", "before", "failure", "closed->open"]
    status, reset = listener.errors
    assert isinstance(status, ErrorStatus)
    assert status.status == 503
    assert isinstance(reset, Reset)


def test_excluded_errors_are_no_failures() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, exclude=[Reset, lambda error: getattr(error, "status", 0) == 504])
    bench = bench_of(breaker)
    lost = bench.another()
    lost.begin(NOW)
    lost.error(NOW, 1, Reset("gone"), "headers")
    call(bench, 504)
    assert breaker.current_state == "closed"
    call(bench, 503)
    assert breaker.current_state == "open"


@pytest.mark.parametrize("throws", [True, False])
def test_nothing_that_a_breaker_raises_reaches_the_caller(throws: bool) -> None:
    class Loud(pybreaker.CircuitBreakerListener):  # type: ignore[misc]
        def failure(self, cb: Any, exc: BaseException) -> None:
            raise RuntimeError("a listener's own")

    breaker = pybreaker.CircuitBreaker(fail_max=1, listeners=[Loud()], throw_new_error_on_trip=throws)
    bench = bench_of(breaker)
    for _ in range(3):
        assert call(bench, 503) is None


def test_outcomes_are_exact_under_sixteen_threads() -> None:
    listener = Listener()
    breaker = pybreaker.CircuitBreaker(fail_max=10_000, listeners=[listener])
    bench = bench_of(breaker)

    def work() -> None:
        for turn in range(50):
            call(bench, 503 if turn % 2 else 200)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (listener.heard.count("success"), listener.heard.count("failure")) == (400, 400)


def test_after_a_fork_its_lock_is_renewed() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1)
    bench = bench_of(breaker)
    breaker._lock.acquire()  # as another thread of the parent may have
    bench.states[0].renew_locks()
    done = threading.Thread(target=call, args=(bench, 503), daemon=True)
    done.start()
    done.join(5)
    assert breaker.current_state == "open"


# With a storage that takes time


class Errand:
    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job
        self.result: Any = None

    def on_ready(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def leave(self) -> None: ...


class Worker:
    """Does errands when told to."""

    max_wait_s = 0.02

    def __init__(self) -> None:
        self.errands: list[Errand] = []
        self.full = False

    def submit(self, job: Callable[[], Any]) -> Errand | None:
        if self.full:
            return None
        self.errands.append(Errand(job))
        return self.errands[-1]

    def work(self) -> None:
        while self.errands:
            errand = self.errands.pop(0)
            errand.result = errand.job()


def test_a_slow_storage_is_asked_elsewhere_and_believed_for_a_moment() -> None:
    worker = Worker()
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60)
    bench = bench_of(breaker, worker)
    first = bench.another()
    assert first.begin(NOW) == []
    assert first.next_wakeup == NOW + 0.02
    worker.work()
    start_of(first.woken(NOW))
    second = bench.another()
    start_of(second.begin(NOW + REFRESH_S / 2))
    second.headers(NOW + 0.06, 1, 503)
    assert breaker.current_state == "closed", "told later"
    worker.work()
    assert breaker.current_state == "open"
    third = bench.another()
    assert third.begin(NOW + 0.07) == [], "a failure makes it look again"
    worker.work()
    assert isinstance(failure_of(third.woken(NOW + 0.07)), CircuitOpen)
    assert isinstance(failure_of(bench.another().begin(NOW + 0.08)), CircuitOpen)


def test_without_an_answer_in_time_calls_go_on() -> None:
    worker = Worker()
    bench = bench_of(pybreaker.CircuitBreaker(), worker)
    late = bench.another()
    late.begin(NOW)
    start_of(late.timer(NOW + 0.02))
    worker.full = True
    start_of(bench.another().begin(NOW))
    gate: Any = (bench.states[0].gates or ())[0]
    assert gate.failed_open == 2


def test_successes_in_a_row_are_told_once() -> None:
    worker = Worker()
    listener = Listener()
    bench = bench_of(pybreaker.CircuitBreaker(listeners=[listener]), worker)
    first = bench.another()
    first.begin(NOW)
    worker.work()
    first.woken(NOW)
    first.headers(NOW, 1, 200)
    for _ in range(10):
        again = bench.another()
        start_of(again.begin(NOW))
        again.headers(NOW, 1, 200)
    assert len(worker.errands) == 1
    worker.work()
    assert listener.heard == ["before", "success"]


def test_a_success_that_could_not_be_told_does_not_keep_back_later_ones() -> None:
    worker = Worker()
    listener = Listener()
    bench = bench_of(pybreaker.CircuitBreaker(listeners=[listener]), worker)
    first = bench.another()
    first.begin(NOW)
    worker.work()
    first.woken(NOW)
    first.headers(NOW, 1, 200)
    worker.errands.pop().callback()  # the storage is unwell: what is asked of it is over, and was not done
    again = bench.another()
    start_of(again.begin(NOW))
    again.headers(NOW, 1, 200)
    worker.work()
    assert listener.heard == ["before", "success"]
