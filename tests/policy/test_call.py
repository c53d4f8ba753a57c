"""A call's single decisions, driven by hand."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.load import EndpointNode
from meshlib.errors import (
    AttemptTimeout,
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    DiscoveryUnavailable,
    LimitExceeded,
    NoEndpoint,
    PoolTimeout,
    RequestBodyError,
    Reset,
    TLSFailed,
    UnknownService,
)
from meshlib.policy.actions import Cancel, Deliver, Start
from meshlib.policy.call import CallState
from meshlib.policy.settings import BreakerSettings, LimitSettings, OutlierSettings, RetryPolicy
from meshlib.propagation import MAX_TIMEOUT_S
from meshlib.routing.route import Backend
from tests.core import NOW, Bench, cluster_state, failure_of, start_of

NO_BACKOFF = RetryPolicy(backoff_base_s=0.0)


def test_a_good_answer_is_delivered_and_all_is_given_back() -> None:
    bench = Bench()
    call = bench.call
    start = start_of(call.begin(NOW))
    assert bench.in_flight == 1
    assert call.next_wakeup == NOW + 10
    states = []
    call.headers(NOW + 0.1, 1, 200)
    states.append(call.state)
    call.body_end(NOW + 0.2, 1)
    states.append(call.state)
    assert states == [CallState.DELIVERED, CallState.DONE]
    assert (bench.in_flight, bench.states[0].limit.in_flight) == (0, 0)
    record = call.record(NOW + 9)
    assert (record.outcome, record.status, record.retries) == ("success", 200, 0)
    assert record.duration_s == pytest.approx(0.1)
    assert record.attempts[0].endpoint == start.member.endpoint.address
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_retry_goes_to_an_endpoint_not_yet_tried() -> None:
    bench = Bench(3, retry=NO_BACKOFF)
    tried = [start_of(bench.call.begin(NOW)).member]
    tried.append(start_of(bench.call.error(NOW, 1, Reset("x"), "headers")).member)
    tried.append(start_of(bench.call.headers(NOW, 2, 503)).member)
    assert len(set(map(id, tried))) == 3


def test_with_all_tried_a_retry_goes_to_one_of_them() -> None:
    bench = Bench(1, retry=NO_BACKOFF)
    first = start_of(bench.call.begin(NOW)).member
    assert start_of(bench.call.error(NOW, 1, Reset("x"), "headers")).member is first


@pytest.mark.parametrize(
    ("safe", "replayable", "sent", "retried"),
    [
        (True, True, True, True),
        (False, True, True, False),
        (True, False, True, False),
        (False, True, False, True),
        (False, False, False, True),
    ],
)
def test_only_what_is_safe_is_repeated(safe: bool, replayable: bool, sent: bool, retried: bool) -> None:
    bench = Bench(safe=safe, replayable=replayable, retry=NO_BACKOFF)
    bench.call.begin(NOW)
    if sent:
        bench.call.bytes_written(NOW, 1)
    actions = bench.call.error(NOW, 1, ConnectFailed("x"), "connect")
    assert any(isinstance(action, Start) for action in actions) is retried


def test_a_local_overload_is_not_retried_and_blames_nobody() -> None:
    bench = Bench(retry=NO_BACKOFF)
    member = start_of(bench.call.begin(NOW)).member
    error = failure_of(bench.call.error(NOW, 1, PoolTimeout("full"), "pool"))
    assert isinstance(error, PoolTimeout)
    assert member.health.consecutive == 0
    assert bench.budget.tokens == 20
    assert "in this process" in (bench.call.record(NOW).no_retry or "")


def test_an_unreadable_request_body_blames_nobody() -> None:
    bench = Bench(retry=NO_BACKOFF)
    member = start_of(bench.call.begin(NOW)).member
    failure_of(bench.call.error(NOW, 1, RequestBodyError("x"), "write"))
    assert member.health.consecutive == 0
    assert member.load.penalty_s == 0


def test_who_asks_not_to_be_retried_is_not() -> None:
    bench = Bench(retry=NO_BACKOFF)
    bench.call.begin(NOW)
    actions = bench.call.headers(NOW, 1, 503, overloaded=True)
    assert [type(action) for action in actions] == [Deliver]
    assert "overloaded" in (bench.call.record(NOW).no_retry or "")


def test_retry_after_is_obeyed_at_once_elsewhere() -> None:
    bench = Bench(2)
    first = start_of(bench.call.begin(NOW)).member
    actions = bench.call.headers(NOW, 1, 429, retry_after_s=30.0)
    assert isinstance(actions[0], Cancel)
    assert start_of(actions).member is not first


def test_a_short_retry_after_is_waited_for_where_there_is_no_other() -> None:
    bench = Bench(1)
    bench.call.begin(NOW)
    bench.call.headers(NOW, 1, 503, retry_after_s=1.0)
    assert bench.call.state is CallState.WAITING
    assert bench.call.next_wakeup is not None
    assert 1.0 <= bench.call.next_wakeup - NOW <= 1.5
    start_of(bench.call.timer(bench.call.next_wakeup))
    assert [wait.reason for wait in bench.call.record(NOW + 2).waits] == ["retry-after"]


def test_a_long_retry_after_with_no_other_endpoint_is_delivered() -> None:
    bench = Bench(1)
    bench.call.begin(NOW)
    actions = bench.call.headers(NOW, 1, 429, retry_after_s=1.1)
    assert actions == [actions[0]]
    assert isinstance(actions[0], Deliver)
    assert bench.budget.tokens == 19, "a delivered failure is no success for the budget"


def test_retry_after_with_other_statuses_means_nothing() -> None:
    bench = Bench(1)
    bench.call.begin(NOW)
    bench.call.headers(NOW, 1, 502, retry_after_s=1000.0)
    assert bench.call.next_wakeup is not None
    assert bench.call.next_wakeup - NOW <= 0.025


def test_a_429_without_retry_after_is_an_answer() -> None:
    bench = Bench()
    bench.call.begin(NOW)
    assert [type(action) for action in bench.call.headers(NOW, 1, 429)] == [Deliver]


def test_no_retry_begins_after_the_deadline() -> None:
    bench = Bench(deadline=NOW + 1.0)
    bench.call.begin(NOW)
    error = failure_of(bench.call.error(NOW + 1.0, 1, Reset("x"), "headers"))
    assert isinstance(error, Reset)


def test_a_deadline_that_has_passed_starts_nothing() -> None:
    bench = Bench(deadline=NOW)
    error = failure_of(bench.call.begin(NOW))
    assert isinstance(error, DeadlineExceeded)
    assert error.limit == "deadline"
    assert bench.call.attempts == []


@pytest.mark.parametrize(
    ("facts", "limit", "blamed"),
    [
        ({"deadline": NOW + 2.0}, "deadline", False),
        ({"timeout_s": 2.0}, "timeout", True),
        ({"timeout_s": 2.0, "timeout_name": "client"}, "client", False),
    ],
)
def test_what_cut_a_call_is_named_and_only_its_own_timeout_blames(
    facts: dict[str, float], limit: str, blamed: bool
) -> None:
    bench = Bench(**facts)  # type: ignore[arg-type]
    member = start_of(bench.call.begin(NOW)).member
    assert bench.call.next_wakeup == NOW + 2.0
    actions = bench.call.timer(NOW + 2.0)
    assert isinstance(actions[0], Cancel)
    error = failure_of(actions)
    assert isinstance(error, DeadlineExceeded)
    assert error.limit == limit == bench.call.record(NOW + 2).limit
    assert member.health.consecutive == int(blamed)
    breaker = bench.states[0].breaker
    assert breaker is not None
    assert sum(breaker._failures) == int(blamed)
    # Either way the time counts as a lower bound of its latency.
    assert member.load.latency(NOW + 2) >= 2.0
    assert bench.in_flight == 0


def test_a_driver_whose_wait_ends_a_moment_early_meets_the_deadline_all_the_same() -> None:
    bench = Bench(deadline=NOW + 2.0)
    member = start_of(bench.call.begin(NOW)).member
    error = failure_of(bench.call.error(NOW + 1.9995, 1, AttemptTimeout("x"), "headers"))
    assert isinstance(error, DeadlineExceeded)
    assert member.health.consecutive == 0


def test_a_per_try_timeout_is_a_failure_and_is_retried() -> None:
    bench = Bench(per_try_timeout_s=0.5, retry=NO_BACKOFF)
    member = start_of(bench.call.begin(NOW)).member
    actions = bench.call.timer(NOW + 0.5)
    assert [type(action) for action in actions] == [Cancel, Start]
    assert member.health.consecutive == 1
    assert bench.call.record(NOW + 1).attempts[0].error == "AttemptTimeout"
    assert bench.call.headers(NOW + 0.6, 1, 200) == [], "an answer that comes too late"
    bench.call.headers(NOW + 0.6, 2, 200)
    assert bench.call.record(NOW + 1).limit is None


def test_an_attempt_is_told_its_own_deadline_in_milliseconds() -> None:
    start = start_of(Bench(per_try_timeout_s=0.5, complete_body=True).call.begin(NOW))
    assert dict(start.headers) == {
        b"x-envoy-attempt-count": b"1",
        b"x-meshlib-deadline-ms": b"500",
        b"x-envoy-expected-rq-timeout-ms": b"500",
    }
    assert start_of(Bench(deadline=NOW + 0.0001).call.begin(NOW)).headers[1][1] == b"1"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"per_try_timeout_s": 0.5}, b"none"),
        ({"per_try_timeout_s": 0.5, "deadline": NOW + 0.7}, b"700"),
        ({"per_try_timeout_s": 0.5, "deadline": NOW + 2 * MAX_TIMEOUT_S}, b"none"),
        ({"timeout_s": 0.5, "deadline": NOW + 0.7}, b"700"),
        ({"per_try_timeout_s": 0.5, "deadline": NOW + 0.5}, None),
        ({"per_try_timeout_s": 0.5, "deadline": NOW + 0.2}, None),
        ({"per_try_timeout_s": None, "timeout_s": None}, None),
    ],
)
def test_an_attempt_of_a_stream_tells_how_long_its_body_may_take_if_that_is_longer(
    limits: dict[str, Any], told: bytes | None
) -> None:
    start = start_of(Bench(**limits).call.begin(NOW))
    assert dict(start.headers).get(b"x-meshlib-body-deadline-ms") == told
    assert start.body_deadline == limits.get("deadline")


def test_a_call_that_wants_the_body_is_retried_when_it_breaks() -> None:
    bench = Bench(complete_body=True, retry=NO_BACKOFF)
    bench.call.begin(NOW)
    assert bench.call.headers(NOW, 1, 200) == []
    assert bench.call.record(NOW).attempts[0].outcome == "pending"
    start_of(bench.call.error(NOW, 1, Reset("x"), "body"))
    bench.call.headers(NOW, 2, 200)
    assert isinstance(bench.call.body_end(NOW, 2)[0], Deliver)
    assert bench.call.state is CallState.DONE
    assert [attempt.outcome for attempt in bench.call.record(NOW).attempts] == ["failure", "success"]


def test_headers_reported_twice_count_once() -> None:
    bench = Bench(complete_body=True)
    bench.call.begin(NOW)
    bench.call.headers(NOW, 1, 200)
    assert bench.call.headers(NOW, 1, 503) == []
    assert bench.call.attempts[0].status == 200


def test_a_body_that_breaks_after_delivery_is_the_endpoints_failure() -> None:
    bench = Bench()
    member = start_of(bench.call.begin(NOW)).member
    bench.call.headers(NOW, 1, 200)
    assert bench.call.error(NOW + 1, 1, Reset("x"), "body") == []
    assert bench.call.record(NOW + 1).error == "Reset"
    assert member.health.consecutive == 1
    assert bench.in_flight == 0


def test_a_failure_that_the_policy_does_not_name_is_delivered() -> None:
    bench = Bench(retry=RetryPolicy(on=frozenset({"connect-failure"})))
    bench.call.begin(NOW)
    assert [type(action) for action in bench.call.headers(NOW, 1, 503)] == [Deliver]
    assert bench.call.record(NOW).no_retry is not None


def test_a_certificate_that_is_not_the_services_is_a_connect_failure() -> None:
    bench = Bench(retry=NO_BACKOFF)
    bench.call.begin(NOW)
    start_of(bench.call.error(NOW, 1, TLSFailed("x"), "tls"))


# Backends


def test_a_backend_is_drawn_by_weight() -> None:
    backends = (Backend("orders", "v1", 90.0), Backend("orders", "v2", 10.0))
    bench = Bench(1, backends=backends)
    drawn = [start_of(bench.another().begin(NOW)).cluster for _ in range(2000)]
    assert 140 <= drawn.count("orders/v2") <= 260


def test_it_is_drawn_again_when_no_endpoint_is_left_to_try() -> None:
    bench = Bench(1, backends=(Backend("orders", "v1"), Backend("orders", "v2")), retry=NO_BACKOFF)
    first = start_of(bench.call.begin(NOW)).cluster
    second = start_of(bench.call.error(NOW, 1, Reset("x"), "headers")).cluster
    assert {first, second} == {"orders/v1", "orders/v2"}
    assert {state.name: state.limit.in_flight for state in bench.states} == {first: 0, second: 1}
    start_of(bench.call.error(NOW, 2, Reset("x"), "headers"))


def test_what_another_cluster_makes_good_costs_no_budget() -> None:
    bench = Bench(1, backends=(Backend("orders", "v1"), Backend("orders", "v2")), retry=NO_BACKOFF)
    for _ in range(50):
        call = bench.another()
        call.begin(NOW)
        start_of(call.headers(NOW, 1, 503))
        call.headers(NOW, 2, 200)
        call.body_end(NOW, 2)
    assert bench.budget.tokens == bench.budget.size


def test_where_the_other_cluster_fails_too_both_failures_are_charged() -> None:
    bench = Bench(1, backends=(Backend("orders", "v1"), Backend("orders", "v2")), retry=RetryPolicy(max_retries=1))
    bench.call.begin(NOW)
    bench.call.error(NOW, 1, Reset("x"), "headers")
    assert bench.budget.tokens == 20
    bench.call.timer(NOW + 1)
    failure_of(bench.call.error(NOW + 1, 2, Reset("x"), "headers"))
    assert bench.budget.tokens == 18


def test_who_has_tried_one_cluster_does_not_wait_for_another_to_become_known() -> None:
    backends = (Backend("orders", "v1", 1e9), Backend("orders", "v2", 1e-9), Backend("orders", "v3", 1e9))
    bench = Bench(1, backends=backends, retry=NO_BACKOFF, endpoints_ready=Token)
    bench.clusters[2] = bench.states[2].view([], NOW, bench.rng, known=Known.PENDING)
    call = next(call for call in iter(bench.another, None) if call.begin(NOW) and call.attempts)
    assert start_of(call.error(NOW, 1, Reset("x"), "headers")).cluster == "orders/v2"


def test_the_same_endpoint_in_another_cluster_has_been_tried() -> None:
    nodes: dict[str, EndpointNode] = {}

    def node_of(endpoint: Endpoint) -> EndpointNode:
        return nodes.setdefault(endpoint.address, EndpointNode())

    states = [cluster_state(name, node_of=node_of) for name in ("orders/v1", "orders")]
    backends = (Backend("orders", "v1", 1e9), Backend("orders", None, 1e-9))
    bench = Bench(1, backends=backends, states=states, retry=NO_BACKOFF)
    shared, other = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)
    bench.clusters = [states[0].view([shared], NOW, bench.rng), states[1].view([shared, other], NOW, bench.rng)]
    assert start_of(bench.call.begin(NOW)).member.endpoint == shared
    assert start_of(bench.call.error(NOW, 1, Reset("x"), "headers")).member.endpoint == other


def test_an_open_circuit_sends_the_call_to_the_other_backend() -> None:
    bench = Bench(1, backends=(Backend("orders", "v1"), Backend("orders", "v2")))
    breaker = bench.states[0].breaker
    assert breaker is not None
    breaker._open(NOW)
    assert {start_of(bench.another().begin(NOW)).cluster for _ in range(20)} == {"orders/v2"}
    other = bench.states[1].breaker
    assert other is not None
    other._open(NOW)
    error = failure_of(bench.another().begin(NOW + 1))
    assert isinstance(error, CircuitOpen)
    assert error.retry_after_s == pytest.approx(4.0)


def test_a_circuit_probe_is_judged_at_the_headers() -> None:
    bench = Bench(complete_body=True)
    breaker = bench.states[0].breaker
    assert breaker is not None
    breaker._open(NOW)
    start_of(bench.call.begin(NOW + 5))
    assert isinstance(failure_of(bench.another().begin(NOW + 5)), CircuitOpen)
    bench.call.headers(NOW + 5.1, 1, 200)
    assert breaker.closed
    assert bench.call.record(NOW + 6).attempts[0].probe
    start_of(bench.another().begin(NOW + 5.1))


def test_a_cancelled_circuit_probe_is_handed_on() -> None:
    bench = Bench()
    breaker = bench.states[0].breaker
    assert breaker is not None
    breaker._open(NOW)
    start_of(bench.call.begin(NOW + 5))
    bench.call.cancelled(NOW + 6)
    start_of(bench.another().begin(NOW + 6))


def test_an_ejection_probe_ends_with_its_own_attempt_only() -> None:
    state = cluster_state(outlier=OutlierSettings(consecutive_errors=1, base_ejection_s=1.0))
    bench = Bench(2, states=[state], retry=RetryPolicy(max_retries=0))
    outlier = state.outlier
    assert outlier is not None
    broken = start_of(bench.call.begin(NOW)).member
    bench.call.headers(NOW, 1, 503)
    bench.call.body_end(NOW, 1)
    assert [*outlier.ejected] == [broken]
    probe = bench.another()
    assert start_of(probe.begin(NOW + 1)).member is broken
    probe.headers(NOW + 1, 1, 200)
    assert [*outlier.ejected] == []
    outlier.failed(broken, NOW + 1.5)
    second = outlier.due(NOW + 60, True)
    assert second is not None
    probe.body_end(NOW + 61, 1)
    assert broken.health.probe is second, "the first probe's end gave the second one's lease away"


# Waiting


class Token:
    def __init__(self) -> None:
        self.left = 0

    def on_ready(self, callback: object) -> None: ...

    def leave(self) -> None:
        self.left += 1


def test_a_first_call_waits_for_endpoints() -> None:
    token = Token()
    bench = Bench(endpoints_ready=lambda: token)
    full = bench.clusters
    bench.clusters = [bench.states[0].view([], NOW, bench.rng, known=Known.PENDING)]
    assert bench.call.begin(NOW) == []
    assert bench.call.wait_on is token
    assert bench.call.next_wakeup == NOW + 5
    bench.clusters = full
    start_of(bench.call.woken(NOW + 1))
    assert token.left == 1


@pytest.mark.parametrize(
    ("known", "error"),
    [
        (Known.PENDING, DiscoveryUnavailable),
        (Known.UNWELL, DiscoveryUnavailable),
        (Known.NO, UnknownService),
        (Known.YES, NoEndpoint),
    ],
)
def test_without_endpoints_the_error_says_what_discovery_knows(known: Known, error: type[Exception]) -> None:
    bench = Bench(endpoints_ready=Token)
    bench.clusters = [bench.states[0].view([], NOW, bench.rng, known=known)]
    actions = bench.call.begin(NOW)
    if bench.call.state is CallState.WAITING:
        actions = bench.call.timer(NOW + 5)
    assert type(failure_of(actions)) is error


def test_endpoints_that_came_unannounced_are_seen_at_the_end_of_the_wait() -> None:
    bench = Bench(endpoints_ready=Token)
    full = bench.clusters
    bench.clusters = [bench.states[0].view([], NOW, bench.rng, known=Known.PENDING)]
    bench.call.begin(NOW)
    bench.clusters = full
    start_of(bench.call.timer(NOW + 5))


def test_calls_wait_in_line_and_are_refused_beyond_it() -> None:
    bench = Bench(states=[cluster_state(limits=LimitSettings(max_in_flight=1, max_pending=1))])
    second, third = bench.another(), bench.another()
    bench.call.begin(NOW)
    assert second.begin(NOW) == []
    assert second.wait_on is not None
    assert second.woken(NOW) == [], "not its turn"
    assert isinstance(failure_of(third.begin(NOW)), LimitExceeded)
    bench.call.headers(NOW, 1, 200)
    bench.call.body_end(NOW, 1)
    start_of(second.woken(NOW))
    second.cancelled(NOW)
    assert bench.states[0].limit.in_flight == 0


def test_a_place_granted_too_late_is_passed_on() -> None:
    bench = Bench(timeout_s=1.0, states=[cluster_state(limits=LimitSettings(max_in_flight=1))])
    second, third = bench.another(), bench.another(deadline=None)
    bench.call.begin(NOW)
    second.begin(NOW)
    third.begin(NOW + 0.9)
    bench.call.headers(NOW + 0.9, 1, 200)
    bench.call.body_end(NOW + 0.95, 1)
    breaker = bench.states[0].breaker
    assert breaker is not None
    assert isinstance(failure_of(second.woken(NOW + 1.0)), DeadlineExceeded)
    assert sum(breaker._failures) == 0, "a wait in our own line is no failure of the service"
    start_of(third.woken(NOW + 1.0))


def test_cancelling_before_the_beginning_is_an_end_too() -> None:
    bench = Bench()
    assert bench.call.cancelled(NOW) == []
    assert bench.call.begin(NOW) == []
    assert (bench.call.record(NOW + 5).outcome, bench.call.record(NOW + 5).duration_s) == ("cancelled", 0.0)


def test_observing_believes_nothing_of_endpoints() -> None:
    bench = Bench(observe=True, retry=RetryPolicy(max_retries=0), states=[cluster_state(breaker=BreakerSettings())])
    member = start_of(bench.call.begin(NOW)).member
    bench.call.headers(NOW + 1, 1, 503)
    assert member.health.consecutive == 0
    assert member.load.cost(NOW) == pytest.approx(0.03)
