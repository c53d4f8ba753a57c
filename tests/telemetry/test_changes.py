"""Changes of state are noticed by the call that made them, and told once."""

from __future__ import annotations

from random import Random

import pytest

from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.errors import Reset
from meshlib.policy.admission_settings import BulkheadSettings, GcraSettings, RateLimitSettings, ThrottleSettings
from meshlib.policy.bulkhead import Bulkhead
from meshlib.policy.gates import Gates
from meshlib.policy.rate_limit_gate import RateLimitGate
from meshlib.policy.settings import BreakerSettings, LimitSettings, ShadowSettings
from meshlib.policy.shadow import Shadows
from meshlib.telemetry.bus import EventBus
from meshlib.telemetry.changes import Changes
from meshlib.telemetry.events import Ejected, Event, GateRefuses, LimitReached, ShadowDiffers
from meshlib.telemetry.observer import NullObserver
from tests.telemetry.calls import ENDPOINTS, Drive, a_call


class Told:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bus = EventBus(clock=lambda: 0.0)
        self.bus.subscribe(self.events.append)
        self.changes = Changes(self.bus, clock=lambda: 100.0)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def told() -> Told:
    return Told()


def a_view(state: ClusterState, *endpoints: Endpoint) -> Cluster:
    return state.view(endpoints or ENDPOINTS, 0.0, Random(1))


def test_a_circuit_that_opens_is_told_of_by_the_call_that_opened_it(told: Told) -> None:
    state = ClusterState(
        "orders", now=0.0, breaker=BreakerSettings(min_calls=2, open_for_s=5.0, window_s=10.0), outlier=None
    )
    cluster = a_view(state)
    observer = NullObserver(told.changes)
    for _ in range(2):
        Drive(observer, a_call(cluster), [Reset("reset")] * 3, now=100.0)
    assert told.kinds == ["breaker_opened"]

    Drive(observer, a_call(cluster), [200], now=102.0)  # refused
    assert told.kinds == ["breaker_opened"]

    Drive(observer, a_call(cluster), [200], now=110.0)  # the probe
    assert told.kinds == ["breaker_opened", "breaker_closed"]
    assert {event.service for event in told.events} == {"orders"}


def test_an_endpoint_that_is_ejected_is_told_of(told: Told) -> None:
    state = ClusterState("orders", now=0.0, on_ejection=told.changes.on_ejection("orders"), breaker=None)
    cluster = a_view(state)
    for _ in range(8):
        Drive(NullObserver(), a_call(cluster), [Reset("reset")] * 3, now=100.0)

    event = told.events[0]
    assert isinstance(event, Ejected)
    assert event.endpoint in {endpoint.address for endpoint in ENDPOINTS}
    assert 29 < event.for_s < 60
    assert event.failures == 5


def test_panic_is_told_of_when_it_begins_and_when_it_ends(told: Told) -> None:
    state = ClusterState("orders", now=0.0)
    sick = a_view(state, *(Endpoint(endpoint.host, 8080, health=Health.UNHEALTHY) for endpoint in ENDPOINTS))
    observer = NullObserver(told.changes)
    for _ in range(3):
        Drive(observer, a_call(sick), [200])
    assert told.kinds == ["panic"]

    well = a_view(state)
    for _ in range(3):
        Drive(observer, a_call(well), [200])
    assert told.kinds == ["panic", "panic_ended"]


def test_a_limit_that_is_reached_is_told_of_once_until_it_was_quiet(told: Told) -> None:
    state = ClusterState("orders", now=0.0, limits=LimitSettings(max_in_flight=1, max_pending=0))
    cluster = a_view(state)
    observer = NullObserver(told.changes)
    state.limit.enter()

    for now in (100.0, 101.0, 102.0):
        assert Drive(observer, a_call(cluster), [], now=now).error is not None
    (event,) = told.events
    assert isinstance(event, LimitReached)
    assert event.in_flight == 1

    Drive(observer, a_call(cluster), [], now=120.0)
    assert told.kinds == ["limit_reached", "limit_reached"]


def test_a_part_of_a_bulkhead_that_is_full_is_told_as_such(told: Told) -> None:
    limit = Bulkhead(LimitSettings(max_in_flight=10), BulkheadSettings(percents={"all": 10}, hard=True))
    cluster = a_view(ClusterState("orders", now=0.0, limit=limit))
    assert limit.take("all")
    Drive(NullObserver(told.changes), a_call(cluster), [])
    (event,) = told.events
    assert event.text == "calls are refused by its bulkhead: 1 in flight, 0 waiting in line"


def test_a_gate_that_refuses_is_told_of_once_until_it_was_quiet(told: Told) -> None:
    gate = RateLimitGate(RateLimitSettings(total=GcraSettings(0.001, 1)), 100.0)
    cluster = a_view(ClusterState("orders", now=0.0, after=[gate]))
    observer = NullObserver(told.changes)
    assert Drive(observer, a_call(cluster), [200], now=100.0).error is None
    for now in (101.0, 102.0, 103.0):
        assert Drive(observer, a_call(cluster), [], now=now).error is not None
    (event,) = told.events
    assert isinstance(event, GateRefuses)
    assert (event.gate, event.refused) == ("rate-limit", 1)
    assert str(event) == "orders: calls are refused by its rate-limit"
    Drive(observer, a_call(cluster), [], now=130.0)
    assert told.kinds == ["gate_refuses", "gate_refuses"]


def test_a_cluster_where_nothing_happened_costs_a_look(told: Told) -> None:
    cluster = a_view(ClusterState("orders", now=0.0))

    Drive(NullObserver(told.changes), a_call(cluster), [200])
    told.changes.look_at_all([cluster], 100.0)

    assert not told.events


def test_a_cluster_that_was_made_anew_under_the_same_name_starts_over(told: Told) -> None:
    old = a_view(ClusterState("orders", now=0.0, limits=LimitSettings(max_in_flight=1)))
    old.state.limit.rejected = 5
    told.changes.look(old, 100.0)
    new = a_view(ClusterState("orders", now=0.0, limits=LimitSettings(max_in_flight=1)))
    told.changes.look(new, 200.0)
    assert told.kinds == ["limit_reached"]

    new.state.limit.rejected = 1
    told.changes.look(new, 300.0)
    assert told.kinds == ["limit_reached", "limit_reached"]


def test_a_shadow_that_begins_to_differ_is_told_of_once_until_it_was_at_one_for_a_while(told: Told) -> None:
    state = ClusterState("orders", now=0.0)
    only = ShadowSettings(throttle=ThrottleSettings())
    shadows = Shadows(only, Gates(state.limit), LimitSettings(), None, 0.0, Random(1))
    state.shadow, state.gates = shadows, shadows.gates.all()
    cluster = a_view(state)
    for now, otherwise in ((0.0, ""), (1.0, "this"), (2.0, "that"), (5.0, ""), (11.0, "this"), (25.0, "that")):
        shadows.comparisons[0].decided(otherwise)
        told.changes.look(cluster, now)
    first, second = told.events
    assert isinstance(first, ShadowDiffers)
    assert isinstance(second, ShadowDiffers)
    assert (first.policy, first.detail, first.differed) == ("throttle", "this", 1)
    assert (second.detail, second.differed) == ("that", 4)
    assert str(first) == "orders: its shadow throttle would decide otherwise: this"
