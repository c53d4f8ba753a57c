"""Errors in a row eject the same endpoint at the same request as in a real Envoy, and rates the same at a sweep.

Endpoints are chosen by hash, so that both make the same choice as long as the same ones are out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.settings import HashOn, LoadBalancing
from meshlib.errors import MeshError
from meshlib.policy.settings import FailurePercentageSettings, OutlierSettings, SuccessRateSettings
from tests.core import NOW, cluster_state
from tests.envoy.harness import ROUNDS, Case, Place, ask, start
from tests.envoy.test_hashing import ours, pick
from tests.envoy.test_retries import service
from tests.envoy.upstream import Upstream
from tests.peers.process import wait_until
from tests.peers.servers import Envoy

_NEVER = {"enforcing_success_rate": 0, "interval": "1000s", "base_ejection_time": "1000s"}

RULES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "5xx": ({"consecutive_5xx": 3, "max_ejection_percent": 100}, {"consecutive_5xx": 3, "max_ejection_percent": 100}),
    "gateway": (
        {
            "consecutive_5xx": 8,
            "consecutive_gateway_failure": 2,
            "enforcing_consecutive_gateway_failure": 100,
            "max_ejection_percent": 100,
        },
        {
            "consecutive_5xx": 8,
            "consecutive_gateway_failure": 2,
            "max_ejection_percent": 100,
            "enforcing_consecutive_gateway_failure_percent": 100,
        },
    ),
    "split": (
        {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "consecutive_5xx": 4,
            "max_ejection_percent": 100,
        },
        {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "consecutive_5xx": 4,
            "max_ejection_percent": 100,
        },
    ),
    "forty percent": (
        {"consecutive_5xx": 2, "max_ejection_percent": 40},
        {"consecutive_5xx": 2, "max_ejection_percent": 40},
    ),
    "ten percent of five": (
        {"consecutive_5xx": 2, "max_ejection_percent": 10},
        {"consecutive_5xx": 2, "max_ejection_percent": 10},
    ),
    "always one": (
        {"consecutive_5xx": 2, "max_ejection_percent": 10, "always_eject_one_host": True},
        {"consecutive_5xx": 2, "max_ejection_percent": 10, "always_eject_one_of": 1},
    ),
}


def settle(mesh: Mesh) -> None:
    """Wait until the control thread has made anew what an ejection changed; it does so at intervals."""
    snapshots = mesh._wiring.snapshots
    wait_until(lambda: not snapshots._refreshing and not snapshots._making.locked(), "tables are made anew", poll=0.001)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_same_endpoint_is_ejected_at_the_same_request(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    for pause_s in (0.015, 0.06, 0.25):  # on a machine in use Envoy's workers learn later
        differ = differing(envoy_factory, seed, pause_s)
        if not differ:
            break
    assert not differ


def differing(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int, pause_s: float) -> list[str]:
    """The rules by which requests went to different endpoints.

    Args:
        envoy_factory: starts Envoy.
        seed: of the requests.
        pause_s: between two requests of a rule, for Envoy's workers to learn of an ejection.
    """
    rng = Random(seed)
    differ = []
    steps = ("200", "404", "500", "503", "503", "503", "502", "reset", "reset")
    with Upstream(5) as upstream:
        places = [Place(port) for port in upstream.ports]
        by_key = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
        cases = [
            Case(
                name,
                places,
                cluster={
                    "lb_policy": "RING_HASH",
                    "outlier_detection": {**_NEVER, **theirs},
                    # Envoy gathers changes of health for a second before it makes its tables anew.
                    "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
                },
                route=by_key,
            )
            for name, (theirs, _) in RULES.items()
        ]
        services = {
            name.replace(" ", "-"): service(
                upstream.ports,
                {"max_retries": 0},
                load_balancing={"policy": "ring_hash", "panic_percent": 0},
                hash_on=[{"header": "x-key"}],
                outlier_detection={
                    "interval": 1000,
                    "base_ejection": 1000,
                    "max_ejection": 1000,
                    "success_rate": False,
                    **mine,
                },
            )
            for name, (_, mine) in RULES.items()
        }
        _, port = start(envoy_factory, cases)
        with Mesh({"services": services}) as mesh:
            asked = {
                case.name: [
                    {
                        "x-case": case.name,
                        "x-id": f"envoy {case.name}",
                        "x-key": str(rng.randrange(40)),
                        "x-script": rng.choice(steps),
                    }
                    for _ in range(40)
                ]
                for case in cases
            }
            for requests in zip(*asked.values(), strict=True):
                ask(port, requests, connections=len(requests))
                time.sleep(pause_s)
            for case in cases:
                with mesh.client(case.name.replace(" ", "-")) as client:
                    for request in asked[case.name]:
                        with suppress(MeshError):
                            client.get("/", headers={**request, "x-id": f"mesh {case.name}"})
                        settle(mesh)
                if upstream.routes[f"mesh {case.name}"] != upstream.routes[f"envoy {case.name}"]:
                    differ.append(case.name)
    return differ


RATES = ((0, 1), (0, 1), (0, 1), (1, 12), (1, 4), (1, 3), (1, 2), (3, 4), (1, 1))
"""Of how many requests how many fail."""
INTERVAL_S = 1.0
EJECTION_S = 0.4
"""Less than half an interval: whom two rules find at one sweep, Envoy ejects twice, and so for twice as long."""
VOLUME = 12


def rated(rng: Random) -> tuple[dict[str, Any], OutlierSettings]:
    """Rules on rates: as Envoy's, and as ours."""
    factor, percent = rng.choice((1.0, 1.5, 1.9)), rng.choice((None, 30, 60))
    theirs = {
        "success_rate_minimum_hosts": 4,
        "success_rate_request_volume": VOLUME,
        "success_rate_stdev_factor": int(factor * 1000),
        "failure_percentage_minimum_hosts": 4,
        "failure_percentage_request_volume": VOLUME,
        "failure_percentage_threshold": percent or 100,
        "enforcing_failure_percentage": 0 if percent is None else 100,
        **_SWEPT,
    }
    mine = OutlierSettings(
        consecutive_errors=0,
        success_rate=SuccessRateSettings(4, VOLUME, factor),
        failure_percentage=None if percent is None else FailurePercentageSettings(percent, 4, VOLUME),
        interval_s=INTERVAL_S,
        base_ejection_s=EJECTION_S,
        max_ejection_percent=100.0,
        return_by="sweep",
    )
    return theirs, mine


_SWEPT = {
    "enforcing_consecutive_5xx": 0,
    "max_ejection_percent": 100,
    "interval": f"{INTERVAL_S}s",
    "base_ejection_time": f"{EJECTION_S}s",
}


def ejected_of_mesh(ports: Sequence[int], failing: Sequence[tuple[int, int]], settings: OutlierSettings) -> set[int]:
    """Those that the first sweep ejects; the next takes them back."""
    state = cluster_state(outlier=settings)
    cluster = state.view([Endpoint("127.0.0.1", port) for port in ports], NOW, Random(1))
    assert state.outlier is not None
    for member, rate in zip(cluster.members, failing, strict=True):
        for at in range(VOLUME):
            if fails(rate, at):
                state.outlier.failed(member, NOW, status=503, connected=True)
            else:
                state.outlier.succeeded(member, NOW, 200)
    state.outlier.sweep(NOW + INTERVAL_S)
    found = {member.endpoint.port for member in cluster.members if member.health.ejected}
    state.outlier.sweep(NOW + 2 * INTERVAL_S)
    assert not any(member.health.ejected for member in cluster.members)
    return found


def fails(rate: tuple[int, int], at: int) -> bool:
    return at % rate[1] < rate[0]


def test_rates_eject_the_same_endpoints_and_the_next_sweep_takes_them_back(
    envoy_factory: Callable[[dict[str, Any]], Envoy],
) -> None:
    rng = Random(4)
    with Upstream(6) as upstream:
        places = [Place(port) for port in upstream.ports]
        balancing = {"lb_policy": "RING_HASH", "common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
        route = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
        given = [(rng.choices(RATES, k=len(places)), *rated(rng)) for _ in range(8)]
        cases = [
            Case(f"rates-{at}", places, cluster={**balancing, "outlier_detection": theirs}, route=route)
            for at, (_, theirs, _) in enumerate(given)
        ]
        # Clusters begin together, so one endpoint that always fails shows when the sweeps of all are.
        always = {"failure_percentage_minimum_hosts": 1, "failure_percentage_request_volume": 1, **_SWEPT}
        clock = Case(
            "clock",
            places[:1],
            cluster={"outlier_detection": {**always, "enforcing_failure_percentage": 100}},
        )
        envoy, port = start(envoy_factory, [*cases, clock])
        key_of: dict[int, str] = {}
        cluster = ours(cases[0], LoadBalancing(policy="ring_hash"))
        for key in map(str, range(60)):
            key_of.setdefault(pick(cluster, [HashOn(header="x-key")], {"x-key": key}).endpoint.port, key)
        requests = [
            {"x-case": case.name, "x-key": key_of[each], "x-script": "503" if fails(rate, at) else "200"}
            for case, (failing, _, _) in zip(cases, given, strict=True)
            for each, rate in zip(upstream.ports, failing, strict=True)
            for at in range(VOLUME)
        ]

        def out() -> dict[str, set[int]]:
            _, text = envoy.admin("/clusters?format=json")
            return {
                one["name"]: {
                    host["address"]["socket_address"]["port_value"]
                    for host in one["host_statuses"]
                    if host["health_status"].get("failed_outlier_check")
                }
                for one in json.loads(text)["cluster_statuses"]
            }

        for _ in range(3):
            ask(port, [{"x-case": "clock", "x-script": "503"}])
            wait_until(lambda: bool(out()["clock"]), "a sweep", poll=0.01)
            began = time.monotonic()
            time.sleep(0.02)
            ask(port, requests)
            if time.monotonic() < began + 0.8 * INTERVAL_S:
                break  # all within one interval
        else:
            pytest.skip("this machine has too much to do for intervals of a second")
        wait_until(lambda: not out()["clock"], "the next sweep", poll=0.01)
        time.sleep(0.02)
        theirs_out = out()
        for case, (failing, _, mine) in zip(cases, given, strict=True):
            assert theirs_out[case.name] == ejected_of_mesh(upstream.ports, failing, mine), (failing, mine)
        assert any(theirs_out.values())
        wait_until(lambda: not any(out().values()), "all are back", timeout=1.5 * INTERVAL_S, poll=0.01)
