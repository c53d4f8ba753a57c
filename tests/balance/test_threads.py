"""Sixteen threads pick at once, with every balancer, while endpoints come and go: counts are exact in the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from meshlib.balance.cells import CELLS
from meshlib.balance.cluster import ClusterState
from meshlib.balance.load_report import LoadReport
from meshlib.balance.settings import (
    LeastRequestSettings,
    LoadBalancing,
    PrequalSettings,
    ServerWeightSettings,
    SlowStartSettings,
    SubsettingSettings,
)
from meshlib.balance.table import BALANCERS
from meshlib.policy.settings import OutlierSettings
from meshlib.policy.traits import Traits
from tests.core import NOW, endpoints

THREADS, PICKS = 16, 150
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"policy": name} for name in BALANCERS},
    "maglev": {"policy": "maglev", "table_size": 251},
    "prequal": {"policy": "prequal", "prequal": PrequalSettings(min_endpoints=2)},
    "weights and load": {"policy": "server_weights", "server_weights": ServerWeightSettings(0.0, load="peak_ewma")},
    "full scan": {"policy": "least_request", "least_request": LeastRequestSettings(selection="full_scan")},
    "slow start": {"policy": "round_robin", "slow_start": SlowStartSettings(1000.0)},
    "subset": {"subsetting": SubsettingSettings(size=2, seed=1)},
}


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("weights", [None, (1, 2, 3, 4, 5)], ids=["even", "by weight"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_counts_are_exact_in_the_end(settings: dict[str, Any], weights: tuple[float, ...] | None) -> None:
    state = ClusterState(
        "orders",
        now=NOW,
        load_balancing=LoadBalancing(**settings),
        outlier=OutlierSettings(consecutive_errors=3, base_ejection_s=0.01),
    )
    everything = endpoints(5, weights)
    current = [state.view(everything, NOW, Random(0))]
    problems: list[BaseException] = []
    picked = [0] * THREADS
    stop = threading.Event()

    def work(index: int) -> None:
        rng, traits = Random(index), Traits()
        try:
            for turn in range(PICKS):
                now = NOW + turn / 10
                traits.hash = rng.getrandbits(64)
                cluster = current[0]
                member = cluster.pick(now, rng, (), traits)
                assert member is not None
                member.node.enter()
                picked[index] += 1
                chance = rng.random()
                if chance < 0.7:
                    member.load.answered(now, rng.random())
                elif chance < 0.9:
                    member.load.failed(now, 0.01, 0.02)
                    if state.outlier is not None:
                        state.outlier.failed(member, now)
                else:
                    member.load.given_up(now, 0.01)
                if (reported := member.load.reported) is not None:
                    reported.report(LoadReport(cpu_utilization=0.5, rps_fractional=rng.random() * 100), now)
                member.node.exit()
        except BaseException as problem:
            problems.append(problem)

    def change() -> None:
        rng = Random(99)
        while not stop.wait(0.002):
            current[0] = state.view(rng.sample(everything, rng.randint(1, 5)), NOW + 1, rng)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    changer = threading.Thread(target=change)
    for thread in [changer, *threads]:
        thread.start()
    for thread in threads:
        thread.join(30)
    stop.set()
    changer.join(30)

    assert problems == []
    assert picked == [PICKS] * THREADS
    members = state.view(everything, NOW + 2, Random(1)).members
    assert [member.node.in_flight for member in members] == [0] * 5
    assert [CELLS[member.node.cell] for member in members] == [0.0] * 5
