"""Snapshots: what is kept of services and endpoints that come and go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

import pytest

from meshlib.balance.cluster import REMEMBER_S, Known
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.subsetting import Subset
from meshlib.config.choose import read_settings
from meshlib.config.settings import ClusterSettings, MeshSettings
from meshlib.config.snapshot import Snapshots
from tests.clock import Clock


def nothing(cluster: ClusterSettings, endpoint: Endpoint) -> object:
    return None


def test_nothing_is_kept_of_endpoints_whose_service_was_forgotten() -> None:
    clock, left = Clock(), []
    snapshots = Snapshots(MeshSettings(), now=clock, rng=Random(1), target_of=nothing, on_left=left.append)
    for number in range(50):
        name = f"preview-{number}"
        snapshots.publish(name, [Endpoint("10.0.0.1", 1 + number)], Known.YES)
        snapshots.publish(name, None, Known.PENDING)
        clock.now += REMEMBER_S / 10
    assert len(left) == 50
    assert len(snapshots.nodes()) <= 12


def test_a_fork_in_the_middle_of_a_pick_leaves_the_child_a_whole_schedule() -> None:
    snapshots = Snapshots(MeshSettings(), now=Clock(), rng=Random(1), target_of=nothing)
    snapshots.publish("orders", [Endpoint("10.0.0.1", 80, weight=2.0), Endpoint("10.0.0.2", 80)], Known.YES)
    cluster = snapshots.service("orders").clusters[None]
    inside, go_on = threading.Event(), threading.Event()

    def forever(member: object) -> bool:
        inside.set()
        go_on.wait(10)
        return True

    balancer = cluster.balancer
    assert balancer is not None
    parent = threading.Thread(target=balancer.pick, args=(1000.0, Random(1), forever), daemon=True)
    parent.start()
    assert inside.wait(10)
    snapshots.renew_locks()
    picked: list[object] = []
    child = threading.Thread(target=lambda: picked.append(cluster.pick(1000.0, Random(1))), daemon=True)
    child.start()
    child.join(5)
    go_on.set()
    parent.join(5)
    assert picked
    assert picked[0] is not None


@pytest.mark.parametrize(("seed", "same"), [(None, False), (7, True)])
def test_a_forked_client_has_a_random_subset_of_its_own(seed: int | None, same: bool) -> None:
    part = {"load_balancing": {"subsetting": {"size": 5} if seed is None else {"size": 5, "seed": seed}}}
    settings = read_settings({"services": {"orders": part}}, {})
    snapshots = Snapshots(settings, now=Clock(), rng=Random(1), target_of=nothing)
    snapshots.publish("orders", [Endpoint(f"10.0.0.{n}", 80) for n in range(100)], Known.YES)
    cluster = snapshots.service("orders").clusters[None]

    def subset() -> set[str]:
        assert isinstance(cluster.balancer, Subset)
        return {member.endpoint.address for member in cluster.members if cluster.balancer.holds(member)}

    parent = subset()
    snapshots.renew_locks()
    assert (subset() == parent) is same
    child = subset()
    snapshots.publish("orders", [Endpoint(f"10.0.0.{n}", 80) for n in range(100)], Known.YES)
    cluster = snapshots.service("orders").clusters[None]
    assert subset() == child


def hashed(soon: Callable[[Callable[[], None]], object], pause: Callable[[], object]) -> Snapshots:
    fields = {
        "outlier_detection": {"consecutive_errors": 1},
        "load_balancing": {"policy": "maglev", "table_size": 5003},
    }
    settings = read_settings({"services": {"orders": fields}}, {})
    return Snapshots(settings, now=Clock(), rng=Random(1), target_of=nothing, soon=soon, pause=pause)


def test_a_table_is_made_before_calls_see_it_and_while_others_run() -> None:
    seen: list[int] = []
    snapshots = hashed(lambda work: work(), lambda: seen.append(len(snapshots.service("orders").endpoints)))
    snapshots.publish("orders", [Endpoint("10.0.0.1", port) for port in range(1, 20)], Known.YES)
    assert len(seen) >= 4
    assert set(seen) == {0}  # other threads can look meanwhile, and see what there was


def test_an_ejection_makes_the_table_anew_once_and_elsewhere() -> None:
    later: list[Callable[[], None]] = []
    snapshots = hashed(later.append, lambda: None)
    snapshots.publish("orders", [Endpoint("10.0.0.1", port) for port in range(1, 6)], Known.YES)
    before = snapshots.service("orders").clusters[None]
    assert before.state.outlier is not None
    for member in before.members[:2]:
        before.state.outlier.failed(member, 1000.0)
    assert len(later) == 1
    assert snapshots.service("orders").clusters[None] is before
    later[0]()
    after = snapshots.service("orders").clusters[None]
    assert after is not before
    assert set(after.healthy) == set(before.members[2:])


def test_what_takes_long_to_make_anew_is_not_made_again_and_again() -> None:
    fields = {"outlier_detection": {"consecutive_errors": 1}, "load_balancing": {"policy": "maglev"}}
    time, waits, due = [1000.0], [], []

    def pause() -> None:
        time[0] += 0.1 / 65

    def later(delay_s: float, work: Callable[[], None]) -> None:
        waits.append(delay_s)
        due.append(work)

    snapshots = Snapshots(
        read_settings({"services": {"orders": fields}}, {}),
        now=lambda: time[0],
        rng=Random(1),
        target_of=nothing,
        later=later,
        pause=pause,
    )
    snapshots.publish("orders", [Endpoint("10.0.0.1", port) for port in range(1, 9)], Known.YES)
    first = snapshots.service("orders").clusters[None]
    outlier, members = first.state.outlier, first.members
    assert outlier is not None
    outlier.failed(members[0], time[0])
    second = snapshots.service("orders").clusters[None]
    assert second is not first
    for member in members[1:4]:
        outlier.failed(member, time[0])
    assert waits == [pytest.approx(0.9, abs=0.05)], "once, and nine times as long as it took"
    assert snapshots.service("orders").clusters[None] is second
    time[0] += waits[0]
    due.pop()()
    assert set(snapshots.service("orders").clusters[None].healthy) == set(members[4:])
    time[0] -= 3600
    outlier.passed_check(members[0].health, time[0])
    assert members[0] in snapshots.service("orders").clusters[None].healthy, "a clock that goes back holds up nothing"


def test_who_publishes_does_not_wait_for_a_lock_that_a_fork_left_behind() -> None:
    snapshots = hashed(lambda work: work(), lambda: None)
    snapshots._making.acquire()
    snapshots.renew_locks()
    snapshots.publish("orders", [Endpoint("10.0.0.1", 80)], Known.YES)
    assert len(snapshots.service("orders").endpoints) == 1
