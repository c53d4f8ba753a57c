"""Other settings in a mesh that runs: what changes, what goes on, and what calls see that began before."""

from __future__ import annotations

import gc
import weakref
from random import Random
from typing import Any

from meshlib.balance.cluster import ClusterState, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.subsetting import Subset
from meshlib.config.choose import read_settings
from meshlib.config.settings import ClusterSettings, MeshSettings
from meshlib.config.snapshot import Snapshots
from meshlib.config.views import EndpointsWaiter
from meshlib.policy.breaker import BreakerState
from meshlib.policy.limit import LIMIT_FULL, Waiter
from meshlib.reloading import written_endpoints
from tests.clock import Clock

RNG = Random(1)
TWO = (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80))


def settings_of(services: dict[str, Any], **fields: Any) -> MeshSettings:
    return read_settings({"services": services, **fields}, {})


def target_of(cluster: ClusterSettings, endpoint: Endpoint) -> object:
    return cluster.host_header, endpoint.address


def started(services: dict[str, Any], **fields: Any) -> Snapshots:
    settings = settings_of(services, **fields)
    return Snapshots(settings, now=Clock(), rng=RNG, target_of=target_of, known=written_endpoints(settings))


def change(snapshots: Snapshots, services: dict[str, Any], **fields: Any) -> None:
    settings = settings_of(services, **fields)
    snapshots.reconfigure(settings, written_endpoints(settings))


def with_endpoints(services: dict[str, Any]) -> Snapshots:
    snapshots = started(services)
    for name in services:
        snapshots.publish(name, TWO, Known.YES)
    return snapshots


def whole(snapshots: Snapshots, name: str = "orders") -> ClusterState:
    return snapshots.service(name).clusters[None].state


def open_circuit(state: ClusterState) -> None:
    assert state.breaker is not None
    while not state.breaker.call_ended(1000.0, False):
        pass


def eject(snapshots: Snapshots, name: str = "orders") -> str:
    cluster = snapshots.service(name).clusters[None]
    member = cluster.members[0]
    for _ in range(5):
        assert cluster.state.outlier is not None
        cluster.state.outlier.failed(member, 1000.0)
    assert member.health.ejected
    return member.endpoint.address


def states(snapshots: Snapshots, name: str = "orders") -> dict[str, str]:
    members = snapshots.service(name).clusters[None].members
    return {member.endpoint.address: member.state for member in members}


def test_what_is_equal_stays_as_it_is() -> None:
    services = {"orders": {"timeout": "2s"}, "stock": {}}
    snapshots = with_endpoints(services)
    before = dict(snapshots.current.services)
    change(snapshots, {**services, "new": {}})
    assert {name: snapshots.current.services[name] for name in before} == before
    assert all(snapshots.current.services[name] is view for name, view in before.items())
    assert "new" in snapshots.current.settings.services


def test_a_change_of_routes_touches_no_cluster_and_no_budget() -> None:
    snapshots = with_endpoints({"orders": {}})
    before = snapshots.service("orders")
    before.state.kinds["kind",] = None  # type: ignore[assignment]
    change(snapshots, {"orders": {"routes": [{"name": "a", "timeout": "1s"}]}})
    after = snapshots.service("orders")
    assert [route.name for route in after.settings.routes] == ["a", "default"]
    assert after.clusters[None].state is before.clusters[None].state
    assert after.state.budget is before.state.budget
    assert after.state.kinds == {}


def test_a_service_that_leads_to_one_that_changes_reads_its_clusters_anew() -> None:
    services: dict[str, Any] = {"orders": {"routes": [{"backends": [{"service": "stock"}]}]}, "stock": {}}
    snapshots = with_endpoints(services)
    before = snapshots.service("orders").state
    change(snapshots, {**services, "stock": {"outlier_detection": False}})
    after = snapshots.service("orders").state
    assert after is not before
    assert after.clusters[None] is before.clusters[None]


def test_a_changed_budget_begins_anew_and_an_equal_one_goes_on() -> None:
    snapshots = with_endpoints({"orders": {}})
    budget = snapshots.service("orders").state.budget
    change(snapshots, {"orders": {"timeout": "1s"}})
    assert snapshots.service("orders").state.budget is budget
    change(snapshots, {"orders": {"timeout": "1s", "retry_budget": {"tokens": 3}}})
    assert snapshots.service("orders").state.budget.left(1000.0) == 3


def test_a_budget_that_goes_on_counts_the_calls_of_changed_clusters() -> None:
    budget = {"retry_budget": {"kind": "concurrency", "percent": 50, "min_concurrency": 0}}
    limits = {"limits": {"max_in_flight": 100}}
    snapshots = with_endpoints({"orders": budget})
    change(snapshots, {"orders": {**budget, **limits, "bulkhead": {"by": "route", "percents": {"default": 100}}}})
    state = snapshots.service("orders").state
    for _ in range(4):
        state.clusters[None].limit.take("default")  # type: ignore[attr-defined]
    assert state.budget.left(1000.0) == 2


def test_a_changed_breaker_begins_closed_and_nothing_else_begins_anew() -> None:
    snapshots = with_endpoints({"orders": {}})
    before = whole(snapshots)
    open_circuit(before)
    out = eject(snapshots)
    loads = [member.load for member in snapshots.service("orders").clusters[None].members]
    change(snapshots, {"orders": {"circuit_breaker": {"min_calls": 7}}})
    after = whole(snapshots)
    assert after.breaker is not None and before.breaker is not None
    assert after.breaker.state is BreakerState.CLOSED
    assert after.breaker.changes == before.breaker.changes + 1  # so that it is told as closed
    assert after.outlier is before.outlier
    assert states(snapshots)[out] == "ejected"
    assert [member.load for member in snapshots.service("orders").clusters[None].members] == loads


def test_an_open_circuit_whose_settings_are_the_same_stays_open() -> None:
    snapshots = with_endpoints({"orders": {}})
    open_circuit(whole(snapshots))
    change(snapshots, {"orders": {"outlier_detection": False, "pool": {"max_connections": 7}}})
    breaker = whole(snapshots).breaker
    assert breaker is not None and breaker.state is BreakerState.OPEN


def test_changed_outlier_detection_lets_all_back_and_keeps_its_counts() -> None:
    snapshots = with_endpoints({"orders": {}})
    out = eject(snapshots)
    old = snapshots.service("orders").clusters[None]
    change(snapshots, {"orders": {"outlier_detection": {"consecutive_errors": 3}}})
    assert states(snapshots)[out] == "healthy"
    detector = whole(snapshots).outlier
    assert detector is not None and detector.ejections == 1 and detector.ejected == ()
    # What a call finds that began before says nothing of the endpoints as they are judged now.
    assert old.state.outlier is not None
    for _ in range(9):
        old.state.outlier.failed(old.members[1], 1000.0)
    assert set(states(snapshots).values()) == {"healthy"}


def test_under_another_balancer_latencies_and_ejections_are_those_of_before() -> None:
    snapshots = with_endpoints({"orders": {}})
    for member in snapshots.service("orders").clusters[None].members:
        member.load.answered(1000.0, 0.25)
    out = eject(snapshots)
    change(snapshots, {"orders": {"load_balancing": {"policy": "maglev", "table_size": 5003}}})
    cluster = snapshots.service("orders").clusters[None]
    assert [round(member.load.cost(1000.0), 6) for member in cluster.members] == [0.25, 0.25]
    assert states(snapshots)[out] == "ejected"
    picked = {cluster.pick(1000.0, RNG) for _ in range(20)}
    assert {member.endpoint.address for member in picked if member} == {"10.0.0.2:80"}
    detector = cluster.state.outlier
    assert detector is not None
    probe = detector.due(1031.0, True)
    assert probe is not None
    probe.ended(1031.0, True)
    # The balancer of now is told, though that of before had no need to be.
    assert {member.endpoint.address for member in snapshots.service("orders").clusters[None].healthy} == {
        "10.0.0.1:80",
        "10.0.0.2:80",
    }


def test_what_is_in_flight_is_counted_under_both() -> None:
    snapshots = with_endpoints({"orders": {}})
    before = snapshots.service("orders").clusters[None]
    for member in before.members:
        member.node.enter()
    assert before.state.limit.enter() is None
    change(snapshots, {"orders": {"load_balancing": {"policy": "round_robin"}, "limits": {"max_in_flight": 1}}})
    after = snapshots.service("orders").clusters[None]
    assert [member.node.in_flight for member in after.members] == [1, 1]
    assert after.state.limit.in_flight == 1
    waiting = after.state.limit.enter()
    assert isinstance(waiting, Waiter)
    before.state.limit.exit()
    for member in before.members:
        member.node.exit()
    assert waiting.granted
    after.state.limit.exit()
    assert after.state.limit.in_flight == 0
    assert {node.in_flight for node in snapshots.nodes().values()} == {0}


def test_those_who_wait_in_line_go_on_when_a_limit_is_raised_or_goes() -> None:
    for raised in ({"limits": {"max_in_flight": 3}}, {}):
        snapshots = with_endpoints({"orders": {"limits": {"max_in_flight": 1, "max_pending": 2}}})
        limit = whole(snapshots).limit
        places = [limit.enter() for _ in range(4)]
        assert places[0] is None and places[3] is LIMIT_FULL
        change(snapshots, {"orders": raised})
        assert all(place.granted for place in places[1:3] if isinstance(place, Waiter))
        for _ in range(3):
            limit.exit()
        assert whole(snapshots).limit.in_flight == 0
        assert whole(snapshots).limit.rejected == 1


def test_limits_by_priority_change_while_calls_wait() -> None:
    limits = {"max_in_flight": 1, "high": {"max_in_flight": 1}}
    snapshots = with_endpoints({"orders": {"limits": limits}})
    limit: Any = whole(snapshots).limit
    places = [limit.high.enter() for _ in range(2)]
    change(snapshots, {"orders": {"limits": {**limits, "high": {"max_in_flight": 2}}}})
    assert whole(snapshots).limit is limit
    assert places[1].granted


def test_gates_whose_part_is_the_same_stay() -> None:
    parts = {"throttle": {}, "rate_limit": {"total": {"rate": 10}}}
    snapshots = with_endpoints({"orders": parts})
    before = {gate.name: gate for gate in whole(snapshots).gates or ()}
    change(snapshots, {"orders": {**parts, "rate_limit": {"total": {"rate": 20}}}})
    after = {gate.name: gate for gate in whole(snapshots).gates or ()}
    assert {name for name in after if after[name] is before.get(name)} == {"throttle", "limit"}
    assert after.keys() == before.keys()


def test_an_adaptive_limit_that_goes_leaves_the_new_one_alone() -> None:
    snapshots = with_endpoints({"orders": {"limits": {"adaptive": {"algorithm": "aimd"}}}})
    before = whole(snapshots)
    change(snapshots, {"orders": {"limits": {"max_in_flight": 5}}})
    after = whole(snapshots)
    assert after.limit is not before.limit
    assert after.limit.maximum == 5


def test_targets_follow_the_settings_of_their_cluster() -> None:
    snapshots = with_endpoints({"orders": {}})
    change(snapshots, {"orders": {"host_header": "endpoint"}})
    targets = {member.target for member in snapshots.service("orders").clusters[None].members}
    assert targets == {("endpoint", "10.0.0.1:80"), ("endpoint", "10.0.0.2:80")}


def test_the_random_subset_of_a_large_fleet_stays_what_it_was() -> None:
    part = {"load_balancing": {"subsetting": {"size": 5}}}
    snapshots = started({"orders": part})
    snapshots.publish("orders", [Endpoint(f"10.0.0.{n}", 80) for n in range(100)], Known.YES)

    def subset() -> set[str]:
        cluster = snapshots.service("orders").clusters[None]
        assert isinstance(cluster.balancer, Subset)
        return {member.endpoint.address for member in cluster.members if cluster.balancer.holds(member)}

    before = subset()
    change(snapshots, {"orders": {**part, "circuit_breaker": False}})
    assert subset() == before


def test_a_process_that_moves_prefers_what_is_near_now() -> None:
    part = {"orders": {"load_balancing": {"locality_weights": {"a": 1}}}}
    snapshots = started(part, locality={"zone": "a"})
    snapshots.publish("orders", TWO, Known.YES)
    before = snapshots.service("orders")
    change(snapshots, part, locality={"zone": "b"})
    after = snapshots.service("orders")
    assert after.state is before.state
    assert after is not before
    assert after.clusters[None].state.here is not None
    assert after.clusters[None].state.here.locality.zone == "b"


def test_a_service_that_vanishes_is_as_one_that_was_never_declared() -> None:
    snapshots = with_endpoints({"orders": {"timeout": "2s", "subsets": {"v2": {"version": "v2"}}}})
    change(snapshots, {}, defaults={"timeout": "7s"})
    view = snapshots.service("orders")
    assert not view.settings.declared
    assert view.settings.routes[-1].policy.timeout_s == 7.0
    assert list(view.clusters) == [None]
    assert view.endpoints == TWO  # until discovery says otherwise


def test_written_endpoints_change_at_once_and_those_that_go_stay_until_discovery_has_told() -> None:
    left: list[Endpoint] = []
    settings = settings_of({"orders": {"endpoints": ["10.0.0.1:80"]}})
    snapshots = Snapshots(
        settings, now=Clock(), rng=RNG, target_of=target_of, known=written_endpoints(settings), on_left=left.append
    )
    snapshots.service("orders")
    change(snapshots, {"orders": {"endpoints": ["10.0.0.2:80"]}})
    assert [endpoint.address for endpoint in snapshots.service("orders").endpoints] == ["10.0.0.2:80"]
    assert [endpoint.address for endpoint in left] == ["10.0.0.1:80"]
    change(snapshots, {"orders": {}})
    assert [endpoint.address for endpoint in snapshots.service("orders").endpoints] == ["10.0.0.2:80"]


def test_what_began_before_reads_the_clusters_of_before() -> None:
    snapshots = with_endpoints({"orders": {"subsets": {"v2": {"version": "v2"}}}})
    state = snapshots.service("orders").state
    change(snapshots, {"orders": {"subsets": {"v3": {"version": "v3"}}}})
    assert set(snapshots.service("orders", state.under).clusters) == {None, "v2"}
    assert set(snapshots.service("orders").clusters) == {None, "v3"}
    # A backend that was never called before begins as it was written then.
    assert snapshots.service("stock", state.under).state.under is state.under
    assert "stock" not in snapshots.current.services


def test_who_waits_for_endpoints_finds_them_under_the_settings_it_began_with() -> None:
    snapshots = started({"orders": {"subsets": {"v2": {"version": "v2"}}}})
    state = snapshots.service("orders").state
    told: list[str] = []
    early, late = (EndpointsWaiter(snapshots, ("orders",), state.under) for _ in range(2))
    early.on_ready(lambda: told.append("early"))
    change(snapshots, {"orders": {}})
    late.on_ready(lambda: told.append("late"))
    assert told == []
    snapshots.publish("orders", [Endpoint("10.0.0.1", 80, metadata={"version": "v2"})], Known.YES)
    assert sorted(told) == ["early", "late"]
    assert [member.endpoint.address for member in snapshots.service("orders", state.under).clusters["v2"].members] == [
        "10.0.0.1:80"
    ]


def test_who_begins_to_wait_after_discovery_has_told_others_is_told_at_once() -> None:
    snapshots = started({"orders": {"timeout": "1s"}})
    state = snapshots.service("orders").state
    change(snapshots, {"orders": {"timeout": "2s"}})
    snapshots.publish("orders", TWO, Known.YES)
    told: list[str] = []
    EndpointsWaiter(snapshots, ("orders",), state.under).on_ready(lambda: told.append("now"))
    assert told == ["now"]
    assert snapshots.service("orders", state.under).endpoints == TWO


def test_who_leaves_is_told_nothing() -> None:
    snapshots = started({"orders": {"timeout": "1s"}})
    state = snapshots.service("orders").state
    waiter, told = EndpointsWaiter(snapshots, ("orders",), state.under), []
    waiter.on_ready(lambda: told.append("now"))
    change(snapshots, {"orders": {"timeout": "2s"}})
    waiter.leave()
    snapshots.publish("orders", TWO, Known.YES)
    assert told == []
    assert state.waiting == []


def test_a_configuration_that_nobody_reads_any_more_is_no_longer_kept() -> None:
    snapshots = with_endpoints({"orders": {"timeout": "1s"}, "stock": {}})
    past = []
    for number in range(2, 6):
        past.append(weakref.ref(snapshots.service("orders").state))
        change(snapshots, {"orders": {"timeout": f"{number}s"}, "stock": {}})
    gc.collect()
    assert [each() for each in past] == [None] * 4


def test_an_endpoint_that_nobody_checks_any_more_is_not_held_to_what_was_found() -> None:
    snapshots = with_endpoints({"orders": {"health_check": {"tcp": {}}}})
    member = snapshots.service("orders").clusters[None].members[0]
    member.health.active_failed = True
    change(snapshots, {"orders": {}})
    assert set(states(snapshots).values()) == {"healthy"}
    change(snapshots, {"orders": {"health_check": {"tcp": {}}, "timeout": "3s"}})
    assert whole(snapshots).active is not None


def test_sessions_outlast_a_change_of_anything_but_themselves() -> None:
    affinity = {"session_affinity": {"cookie": "at"}}
    snapshots = with_endpoints({"orders": {"load_balancing": affinity}})
    before = whole(snapshots).sessions
    assert before is not None
    change(snapshots, {"orders": {"load_balancing": {**affinity, "policy": "random"}}})
    assert whole(snapshots).sessions is before


def test_a_shadow_begins_anew_and_what_is_live_goes_on() -> None:
    snapshots = with_endpoints({"orders": {"shadow": {"circuit_breaker": {"min_calls": 3}}}})
    open_circuit(whole(snapshots))
    before = whole(snapshots)
    change(snapshots, {"orders": {"shadow": {"circuit_breaker": {"min_calls": 4}}}})
    after = whole(snapshots)
    assert after.breaker is before.breaker
    assert after.shadow is not None and after.shadow is not before.shadow
    change(snapshots, {"orders": {}})
    assert whole(snapshots).breaker is before.breaker
    assert whole(snapshots).shadow is None


def test_what_a_fleet_shares_elsewhere_from_now_on_begins_anew_where_a_cluster_shares_anything() -> None:
    class Shared:
        def gates(self, settings: ClusterSettings) -> tuple[list[Any], list[Any]]:
            return [], []

        def worker_for(self, breaker: object) -> None:
            return None

    services: dict[str, Any] = {"orders": {"fleet": {"rate_limit": {"rate": 5}}}, "stock": {}}
    redis = {"redis": {"url": "redis://127.0.0.1/0"}}
    settings = settings_of(services, **redis)
    snapshots = Snapshots(settings, now=Clock(), rng=RNG, target_of=target_of, fleet=Shared())
    before = {name: whole(snapshots, name) for name in services}
    snapshots.reconfigure(settings, fleet=Shared())
    assert {name: whole(snapshots, name) is before[name] for name in services} == {"orders": False, "stock": True}


def test_random_changes_keep_every_count_exact_and_every_endpoint_in_reach() -> None:
    """Calls begin, fail and end under whatever is in force; at the end nothing is in flight, and nobody is lost."""
    rng, clock = Random(3), Clock()
    parts: list[dict[str, Any]] = [
        {},
        {"outlier_detection": {"consecutive_errors": 2}},
        {"outlier_detection": False},
        {"load_balancing": {"policy": "maglev", "table_size": 5003}},
        {"load_balancing": {"policy": "round_robin"}, "limits": {"max_in_flight": 3}},
        {"limits": {"max_in_flight": 3, "high": {"max_in_flight": 2}}},
        {"circuit_breaker": {"min_calls": 3}, "subsets": {"a": {"x": "y"}}},
        {"shadow": {"outlier_detection": {"consecutive_errors": 1}}},
    ]
    settings = settings_of({"orders": {}})
    snapshots = Snapshots(settings, now=clock, rng=rng, target_of=target_of)
    snapshots.publish("orders", [Endpoint("10.0.0.1", port) for port in range(1, 7)], Known.YES)
    under_way: list[tuple[Any, Any]] = []
    for _ in range(2000):
        clock.now += rng.random()
        draw = rng.random()
        if draw < 0.1:
            change(snapshots, {"orders": rng.choice(parts)})
        elif draw < 0.2:
            ports = rng.sample(range(1, 7), rng.randrange(1, 7))
            snapshots.publish("orders", [Endpoint("10.0.0.1", port) for port in ports], Known.YES)
        elif draw < 0.6:
            cluster = snapshots.service("orders").clusters[None]
            place = cluster.state.limit.enter()
            if isinstance(place, Waiter):
                place.leave()
            elif place is None:
                member = cluster.pick(clock.now, rng)
                assert member is not None
                member.node.enter()
                under_way.append((cluster.state, member))
        elif under_way:
            state, member = under_way.pop(rng.randrange(len(under_way)))
            if state.outlier is not None and rng.random() < 0.6:
                state.outlier.failed(member, clock.now)
            elif state.outlier is not None and member.health.heeds_success:
                state.outlier.succeeded(member, clock.now)
            member.node.exit()
            state.limit.exit()
    for state, member in under_way:
        member.node.exit()
        state.limit.exit()
    change(snapshots, {"orders": {}})
    assert {node.in_flight for node in snapshots.nodes().values()} == {0}
    assert whole(snapshots).limit.in_flight == 0
    detector, cluster = whole(snapshots).outlier, snapshots.service("orders").clusters[None]
    assert detector is not None
    assert {member for member in cluster.members if member.health.ejected} == set(detector.ejected)


def test_who_fails_over_to_another_service_sees_its_new_endpoints_and_subsets_at_once() -> None:
    def services(port: int, subset: str) -> dict[str, Any]:
        failover = {"failover_to": [{"service": "stock", "subset": subset}]}
        endpoint = {"address": f"10.0.0.9:{port}", "metadata": {"is": subset}}
        return {"orders": failover, "stock": {"endpoints": [endpoint], "subsets": {subset: {"is": subset}}}}

    snapshots = started(services(1, "a"))
    snapshots.service("stock")
    snapshots.publish("orders", (), Known.YES)
    seen: list[set[str]] = []

    def look() -> None:
        members = snapshots.current.services["orders"].clusters[None].members
        seen.append({member.endpoint.address for member in members})

    look()
    refresh, snapshots._refresh = snapshots._refresh, lambda name: None  # type: ignore[method-assign]
    change(snapshots, services(1, "b"))
    look()
    change(snapshots, services(2, "b"))
    look()
    snapshots._refresh = refresh  # type: ignore[method-assign]
    assert seen == [{"10.0.0.9:1"}, {"10.0.0.9:1"}, {"10.0.0.9:2"}]
