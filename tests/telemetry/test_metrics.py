"""Durations, and the numbers that readers read."""

from __future__ import annotations

import asyncio
import gc
from random import Random
from typing import Any

import pytest
from pybreaker import CircuitBreaker

from meshlib.balance.affinity import Sessions
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.health import ActiveHealth
from meshlib.balance.load_report import LoadReport
from meshlib.balance.priority_set import PrioritySet
from meshlib.balance.random import random_choice
from meshlib.balance.reported import Reported
from meshlib.balance.server_weights import ReportedWeight
from meshlib.balance.settings import (
    ApertureSettings,
    LoadBalancing,
    ServerWeightSettings,
    SessionAffinity,
    SlowStartSettings,
    SubsetSelector,
    SubsetSettings,
    SubsettingSettings,
)
from meshlib.balance.subset import chosen
from meshlib.balance.tiers import Here
from meshlib.context import Criticality
from meshlib.errors import ConnectFailed
from meshlib.net.pool import PoolStats
from meshlib.policy.admission_settings import ThrottleSettings
from meshlib.policy.fault import ActiveFaults, Injected
from meshlib.policy.gates import Gates
from meshlib.policy.hedge import Hedging
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.policy.settings import HedgeSettings, LimitSettings, ShadowSettings
from meshlib.policy.shadow import Shadows
from meshlib.policy.user_breaker import UserBreakerGate
from meshlib.propagation import Ignored
from meshlib.server.backlog import Backlog
from meshlib.server.serving import Serving
from meshlib.telemetry.gauges import GAUGES, MAX_ENDPOINTS
from meshlib.telemetry.semconv import zone_of
from tests.server.standin import StandInMesh
from tests.telemetry.calls import ENDPOINTS, Drive, Seen, a_call, a_cluster
from tests.telemetry.conftest import Sdk

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def test_each_attempt_is_measured_by_the_conventions(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(), [503, ConnectFailed("refused"), 200], seconds=0.2)

    metric = sdk.metrics()["http.client.request.duration"]
    assert metric.unit == "s"
    assert {point.explicit_bounds for point in metric.data.data_points} == {BUCKETS}
    assert all(abs(point.sum - 0.2) < 1e-9 for point in metric.data.data_points)
    common: dict[str, Any] = {"http.request.method": "GET", "server.address": "orders", "server.port": 80}
    assert sdk.points("http.client.request.duration") == {
        frozenset(
            {
                **common,
                "http.response.status_code": 503,
                "error.type": "503",
                "network.protocol.version": "1.1",
            }.items()
        ): 1,
        frozenset({**common, "error.type": "ConnectFailed"}.items()): 1,
        frozenset({**common, "http.response.status_code": 200, "network.protocol.version": "1.1"}.items()): 1,
    }


def test_each_call_is_measured_once_over_all_its_attempts(sdk: Sdk) -> None:
    Drive(sdk.observer(), a_call(), [503, 503, 200], seconds=0.2)

    metric = sdk.metrics()["meshlib.client.call.duration"]
    (point,) = metric.data.data_points
    assert metric.unit == "s"
    assert point.explicit_bounds == BUCKETS
    assert abs(point.sum - 0.6) < 1e-9
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "server.address": "orders",
        "meshlib.route": "all",
        "http.response.status_code": 200,
    }


def test_how_a_call_failed_is_told(sdk: Sdk) -> None:
    refused = [ConnectFailed("refused")] * 3
    Drive(sdk.observer(), a_call(), refused)
    Drive(sdk.observer(), a_call(), [404])
    Drive(sdk.observer(), a_call(), [asyncio.CancelledError])
    Drive(sdk.observer(), a_call(deadline=50.0), [])

    assert sorted(dict(key)["error.type"] for key in sdk.points("meshlib.client.call.duration")) == [
        "404",
        "ConnectFailed",
        "DeadlineExceeded",
        "cancelled",
    ]


def test_every_number_is_read_when_a_reader_asks(sdk: Sdk) -> None:
    endpoints = [
        Endpoint("10.0.0.1", 8080),
        Endpoint("10.0.0.2", 8080),
        Endpoint("10.0.0.3", 8080, health=Health.UNHEALTHY),
    ]
    cluster = a_cluster(endpoints=endpoints)
    cluster.members[0].health.ejected = True
    cluster.members[1].node.enter()
    cluster.state.limit.enter()
    cluster.state.limit.rejected = 3
    cluster.state.panics = 4
    assert cluster.state.breaker is not None
    assert cluster.state.outlier is not None
    cluster.state.breaker.rejected = 5
    cluster.state.outlier.ejections = 6
    seen = Seen(cluster)
    seen.of_budgets = {"orders": (12.0, 8)}
    seen.of_faults = {"orders": ActiveFaults()}
    seen.of_faults["orders"].enter(Injected(1.0, True, 503), None)
    hedging = Hedging(HedgeSettings())
    hedging.count_sent()
    hedging.count_refused()
    seen.of_hedgings = {("orders", "all"): (hedging, 0.25)}
    seen.of_mirrors = {("orders/v2", "answered"): 4}
    seen.of_overrides = {("users", "missing"): 2}
    seen.of_pools = [PoolStats("10.0.0.1:8080", "", 5, 2, 3, 1), PoolStats("10.0.0.2:8080", "", 1, 1, 0, 0)]
    seen.of_ages = {"orders": 2.5}
    seen.of_ignored = Ignored()
    seen.of_ignored.add("deadline", 7)
    observer = sdk.observer(seen)
    Drive(observer, a_call(a_cluster()), [503, 200])

    orders = {"server.address": "orders", "meshlib.cluster": "orders"}

    def points(name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        return {frozenset(key - orders.items()): value for key, value in sdk.points(name).items()}

    assert points("meshlib.endpoints") == {
        frozenset({("meshlib.endpoint.state", "healthy")}): 1,
        frozenset({("meshlib.endpoint.state", "ejected")}): 1,
        frozenset({("meshlib.endpoint.state", "unhealthy")}): 1,
        frozenset({("meshlib.endpoint.state", "degraded")}): 0,
        frozenset({("meshlib.endpoint.state", "failed")}): 0,
    }
    assert points("meshlib.endpoint.in_flight") == {
        frozenset({("network.peer.address", f"10.0.0.{n}"), ("network.peer.port", 8080)}): int(n == 2)
        for n in (1, 2, 3)
    }
    assert points("meshlib.breaker") == {
        frozenset({("meshlib.breaker.state", "closed")}): 1,
        frozenset({("meshlib.breaker.state", "open")}): 0,
        frozenset({("meshlib.breaker.state", "half_open")}): 0,
    }
    assert points("meshlib.connections") == {
        frozenset({("http.connection.state", "active")}): 3,
        frozenset({("http.connection.state", "idle")}): 3,
    }
    assert {
        name: list(points(name).values())
        for name in (
            "meshlib.cluster.in_flight",
            "meshlib.cluster.pending",
            "meshlib.limit.rejected",
            "meshlib.breaker.rejected",
            "meshlib.ejections",
            "meshlib.panics",
            "meshlib.retries",
            "meshlib.retry.budget",
            "meshlib.retry.refused",
            "meshlib.connections.pending",
            "meshlib.discovery.age",
        )
    } == {
        "meshlib.cluster.in_flight": [1],
        "meshlib.cluster.pending": [0],
        "meshlib.limit.rejected": [3],
        "meshlib.breaker.rejected": [5],
        "meshlib.ejections": [6],
        "meshlib.panics": [4],
        "meshlib.retries": [1],
        "meshlib.retry.budget": [12],
        "meshlib.retry.refused": [8],
        "meshlib.connections.pending": [1],
        "meshlib.discovery.age": [2.5],
    }
    assert points("meshlib.faults") == {
        frozenset({("meshlib.fault", "delay")}): 1,
        frozenset({("meshlib.fault", "abort")}): 1,
        frozenset({("meshlib.fault", "overflow")}): 0,
    }
    route = {("server.address", "orders"), ("meshlib.route", "all")}
    assert sdk.points("meshlib.hedges") == {
        frozenset({*route, ("meshlib.hedge", "sent")}): 1,
        frozenset({*route, ("meshlib.hedge", "won")}): 0,
        frozenset({*route, ("meshlib.hedge", "refused")}): 1,
    }
    of_mirror = (("server.address", "orders"), ("meshlib.cluster", "orders/v2"), ("meshlib.mirror.outcome", "answered"))
    assert sdk.points("meshlib.mirrors") == {frozenset(of_mirror): 4}
    of_override = (("server.address", "users"), ("meshlib.override.outcome", "missing"))
    assert sdk.points("meshlib.overrides") == {frozenset(of_override): 2}
    assert sdk.points("meshlib.hedge.delay") == {frozenset(route): 0.25}
    assert sdk.points("meshlib.headers.ignored")[frozenset({("meshlib.header", "deadline")})] == 7


def test_each_gauge_is_exported_with_its_unit_and_kind(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = a_cluster()
    cluster.members[0].load.reported = Reported()
    cluster.members[0].load.reported.weigh(ReportedWeight(ServerWeightSettings()))
    cluster.members[0].load.reported.report(LoadReport(cpu_utilization=0.5, rps_fractional=100.0), 0.0)
    cluster.state.active = ActiveHealth()
    cluster.state.sessions = Sessions(SessionAffinity())
    rng, balancing = Random(1), LoadBalancing()
    cluster.priorities = PrioritySet(
        cluster.members, balancing, None, lambda members: random_choice(members, balancing, 0.0, rng), rng
    )
    cluster.state.limit.maximum = 10
    only = ShadowSettings(throttle=ThrottleSettings())
    shadows = Shadows(only, Gates(cluster.state.limit), LimitSettings(), None, 0.0, Random(1))
    cluster.state.shadow = shadows
    shadows.comparisons[0].decided("a call would have been refused", "refused")
    shared = UserBreakerGate(CircuitBreaker())
    shared.rejected, shared.failed_open = 2, 3
    cluster.state.gates = (shared, cluster.state.limit)
    assert cluster.state.outlier is not None
    for _ in range(5):
        cluster.state.outlier.failed(cluster.members[0], 0.0)
    balanced = LoadBalancing(
        subsetting=SubsettingSettings(size=1), slow_start=SlowStartSettings(), subset=SubsetSettings()
    )
    other = ClusterState("other", now=0.0, load_balancing=balanced).view(ENDPOINTS, 0.0, Random(1))
    chosen(other, ())
    seen = Seen(cluster)
    seen.of_budgets = {"orders": (20.0, 0)}
    seen.of_faults = {"orders": ActiveFaults()}
    seen.of_hedgings = {("orders", "all"): (Hedging(HedgeSettings()), 0.05)}
    seen.of_mirrors, seen.of_overrides = {("orders", "answered"): 1}, {("orders", "replaced"): 1}
    seen.of_pools = [PoolStats("10.0.0.1:8080", "", 0, 0, 0, 0)]
    seen.of_ages = {"orders": 0.0}
    seen.of_ignored = Ignored()
    seen.of_serving = Serving(StandInMesh(admission=AdmissionSettings(max_in_flight=10)))
    seen.of_serving.refuse("expired")
    monkeypatch.setattr(Serving, "backlog", Backlog(2, 128))
    assert seen.of_serving.admission is not None
    seen.of_serving.admission.queue.shed["full", Criticality.SHEDDABLE] = 1
    observer = sdk.observer(seen)
    Drive(observer, a_call(), [503, 200])

    seen.of_clusters = (cluster, other)
    seen.of_locality = Locality("eu", "a")
    metrics = sdk.metrics()
    seen.of_clusters = (cluster,)

    for gauge in GAUGES:
        metric = metrics[gauge.name]
        assert metric.unit == gauge.unit
        kind = type(metric.data).__name__
        assert kind == ("Gauge" if gauge.kind == "gauge" else "Sum")
        if kind == "Sum":
            assert metric.data.is_monotonic == (gauge.kind == "counter")
    assert list(sdk.points("meshlib.endpoint.weight").values()) == [200.0]
    assert {dict(key)["meshlib.gate"]: value for key, value in sdk.points("meshlib.gate.rejected").items()} == {
        "circuit-breaker": 2,
        "limit": 0,
    }
    assert list(sdk.points("meshlib.gate.failed_open").values()) == [3]
    assert list(sdk.points("meshlib.limit").values()) == [10]
    decisions = sdk.points("meshlib.shadow.decisions").items()
    assert {dict(key)["meshlib.shadow.outcome"]: count for key, count in decisions} == {"same": 0, "differed": 1}
    assert {dict(key)["meshlib.priority"]: value for key, value in sdk.points("meshlib.priority.load").items()} == {
        0: 100
    }


def test_ejections_are_counted_by_rule_and_checks_by_result(sdk: Sdk) -> None:
    cluster = a_cluster(endpoints=ENDPOINTS[:2])
    outlier, active = cluster.state.outlier, ActiveHealth()
    assert outlier is not None
    cluster.state.active = active
    for member in cluster.members:
        for _ in range(5):
            outlier.failed(member, 0.0)
    for passed in (True, True, False):
        active.checked(passed)
    observer = sdk.observer(Seen(cluster))
    Drive(observer, a_call(), [200])

    rule = frozenset({"server.address": "orders", "meshlib.cluster": "orders"}.items())
    errors = rule | {("meshlib.outlier.rule", "consecutive_errors")}
    assert sdk.points("meshlib.outlier.detected") == {errors: 2}
    assert sdk.points("meshlib.outlier.enforced") == {errors: 1}
    assert sdk.points("meshlib.outlier.overflow") == {rule: 1}
    assert sdk.points("meshlib.health_check.checks") == {
        rule | {("meshlib.health_check.result", "passed")}: 2,
        rule | {("meshlib.health_check.result", "failed")}: 1,
    }


def test_clusters_of_one_service_do_not_count_an_endpoint_twice(sdk: Sdk) -> None:
    one = a_cluster("orders")
    shared = {member.endpoint.key: member.node for member in one.members}
    state = ClusterState("orders/v2", now=0.0, node_of=lambda endpoint: shared[endpoint.key])
    other = state.view(ENDPOINTS, 0.0, Random(1))
    observer = sdk.observer(Seen(one, other))
    Drive(observer, a_call(), [200])
    one.members[0].node.enter()

    assert sum(sdk.points("meshlib.endpoint.in_flight").values()) == 1


def test_a_large_cluster_is_not_told_endpoint_by_endpoint(sdk: Sdk) -> None:
    endpoints = [Endpoint(f"10.0.{n // 250}.{n % 250}", 80) for n in range(MAX_ENDPOINTS + 1)]
    cluster = a_cluster(endpoints=endpoints)
    observer = sdk.observer(Seen(cluster))
    Drive(observer, a_call(cluster), [200])

    assert not sdk.points("meshlib.endpoint.in_flight")
    assert sum(sdk.points("meshlib.endpoints").values()) == MAX_ENDPOINTS + 1


def test_two_meshes_with_the_same_service_add_up(sdk: Sdk) -> None:
    observers = [sdk.observer(Seen(a_cluster())) for _ in range(2)]
    for observer in observers:
        Drive(observer, a_call(), [200])

    assert sum(sdk.points("meshlib.endpoints").values()) == 4

    observers[0].close()
    assert sum(sdk.points("meshlib.endpoints").values()) == 2

    del observer, observers
    gc.collect()
    assert not sdk.points("meshlib.endpoints")


def test_a_source_that_fails_spoils_nothing_else(sdk: Sdk) -> None:
    class Broken(Seen):
        def ages(self) -> dict[str, float]:
            raise RuntimeError("not now")

    observer = sdk.observer(Broken(a_cluster()))
    Drive(observer, a_call(), [200])

    assert not sdk.points("meshlib.discovery.age")
    assert sdk.points("meshlib.endpoints")


def test_calls_of_sessions_are_counted_by_what_became_of_their_bond(sdk: Sdk) -> None:
    cluster = a_cluster(endpoints=ENDPOINTS[:1])
    sessions = cluster.state.sessions = Sessions(SessionAffinity())
    sessions.rebind(cluster.members)
    for address in (ENDPOINTS[0].address, ENDPOINTS[0].address, "10.9.9.9:80", None):
        sessions.member_at(address)
    observer = sdk.observer(Seen(cluster))
    Drive(observer, a_call(), [200])
    assert sorted(sdk.points("meshlib.sessions").values()) == [1, 2]


def _balanced(sdk: Sdk, settings: LoadBalancing, *, zones: str = "aaabb", now: float = 100.0) -> Seen:
    """What a mesh shows whose client in zone a calls endpoints in these zones; its attempts are measured."""
    endpoints = [
        Endpoint(f"10.0.0.{n}", 80, locality=Locality("eu", "" if zone == "-" else zone))
        for n, zone in enumerate(zones)
    ]
    state = ClusterState("orders", now=0.0, load_balancing=settings)
    state.here = Here(Locality("eu", "a"))
    seen = Seen(state.view(endpoints, now, Random(1)))
    seen.of_locality = Locality("eu", "a")
    return seen


def test_how_many_endpoints_a_client_uses_is_told(sdk: Sdk) -> None:
    aperture = LoadBalancing(policy="aperture", aperture=ApertureSettings(size=2, instance=0, of=5))
    for settings, used in (
        (aperture, [2]),
        (LoadBalancing(subsetting=SubsettingSettings(size=3)), [3]),
        (LoadBalancing(subsetting=SubsettingSettings(size=9)), [5]),
        # A priority for each zone, of which the second stands by.
        (LoadBalancing(failover=True, subsetting=SubsettingSettings(size=2)), [2]),
        (LoadBalancing(locality_weights={"eu": 1.0}, subsetting=SubsettingSettings(size=2)), [4]),
        (LoadBalancing(), []),
    ):
        seen = _balanced(sdk, settings)
        observer = sdk.observer(seen)
        Drive(observer, a_call(), [200])
        assert list(sdk.points("meshlib.cluster.used").values()) == used, settings
        observer.close()


def test_endpoints_in_slow_start_are_counted(sdk: Sdk) -> None:
    seen = _balanced(sdk, LoadBalancing(policy="round_robin", slow_start=SlowStartSettings(window_s=60.0)))
    seen.of_clusters[0].members[0].health.joined_at = 90.0
    seen.of_clusters[0].members[1].health.joined_at = 30.0
    for member in seen.of_clusters[0].members[2:]:
        member.health.joined_at = None
    observer = sdk.observer(seen)
    Drive(observer, a_call(), [200])
    assert list(sdk.points("meshlib.cluster.warming").values()) == [1]
    seen.of_now = 150.0
    assert list(sdk.points("meshlib.cluster.warming").values()) == [0]


def test_endpoints_are_told_by_zone_and_state(sdk: Sdk) -> None:
    seen = _balanced(sdk, LoadBalancing(), zones="aaab-")
    seen.of_clusters[0].members[0].health.ejected = True
    observer = sdk.observer(seen)
    Drive(observer, a_call(), [200])
    orders = {"server.address": "orders", "meshlib.cluster": "orders"}
    assert {frozenset(key - orders.items()): value for key, value in sdk.points("meshlib.cluster.places").items()} == {
        frozenset({("meshlib.endpoint.zone", zone), ("meshlib.endpoint.state", state)}): count
        for zone, state, count in (
            ("local", "ejected", 1),
            ("local", "healthy", 2),
            ("remote", "healthy", 1),
            ("unknown", "healthy", 1),
        )
    }
    seen.of_locality = None
    assert not sdk.points("meshlib.cluster.places")


def test_subsets_by_metadata_are_counted_once_calls_have_any(sdk: Sdk) -> None:
    subset = SubsetSettings(selectors=(SubsetSelector(keys=("version",)),))
    state = ClusterState("orders", now=0.0, load_balancing=LoadBalancing(subset=subset))
    endpoints = [Endpoint(f"10.0.0.{n}", 80, metadata={"version": f"v{n % 2}"}) for n in range(5)]
    seen = Seen(state.view(endpoints, 0.0, Random(1)))
    observer = sdk.observer(seen)
    Drive(observer, a_call(), [200])
    assert not sdk.points("meshlib.cluster.subsets")
    chosen(seen.of_clusters[0], (("version", "v1"),))
    assert list(sdk.points("meshlib.cluster.subsets").values()) == [2]


def test_attempts_are_told_by_zone_where_the_mesh_knows_its_own(sdk: Sdk) -> None:
    seen = _balanced(sdk, LoadBalancing(), zones="b")
    observer = sdk.observer(seen)
    Drive(observer, a_call(seen.of_clusters[0]), [200])
    (point,) = sdk.points("http.client.request.duration")
    assert dict(point)["meshlib.endpoint.zone"] == "remote"
    assert [dict(span.attributes or {})["meshlib.endpoint.zone"] for span in sdk.spans()] == ["remote"]
    (point,) = sdk.points("meshlib.client.call.duration")
    assert "meshlib.endpoint.zone" not in dict(point)


@pytest.mark.parametrize(
    ("here", "there", "zone"),
    [
        (("eu", "a"), ("eu", "a"), "local"),
        (("eu", "a"), ("eu", "b"), "remote"),
        (("eu", "a"), ("us", "a"), "remote"),
        (("eu", "a"), ("us", ""), "remote"),
        (("eu", "a"), ("eu", ""), "unknown"),
        (("eu", ""), ("eu", "a"), "unknown"),
        (("", "a"), ("eu", "a"), "local"),
        (("eu", "a"), ("", ""), "unknown"),
    ],
)
def test_a_zone_is_local_remote_or_unknown(here: tuple[str, str], there: tuple[str, str], zone: str) -> None:
    assert zone_of(Locality(*here), Locality(*there)) == zone
