"""Errors in a row eject the same endpoint at the same request as in a real Envoy.

Endpoints are chosen by hash, so that both make the same choice as long as the same ones are out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.errors import MeshError
from tests.envoy.harness import ROUNDS, Case, Place, ask, start
from tests.envoy.test_retries import service
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

_NEVER = {"enforcing_success_rate": 0, "interval": "1000s", "base_ejection_time": "1000s"}

_NEVER_OURS = {"success_rate": False, "interval": 1000, "base_ejection": 1000, "max_ejection": 1000}

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
    """Wait until the control thread has made anew what an ejection changed."""
    done = threading.Event()
    mesh._wiring.control.call_soon(done.set)
    assert done.wait(10)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_same_endpoint_is_ejected_at_the_same_request(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    rng = Random(seed)
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
            for case in cases:
                requests = [
                    {"x-case": case.name, "x-key": str(rng.randrange(40)), "x-script": rng.choice(steps)}
                    for _ in range(40)
                ]
                upstream.forget()
                for request in requests:
                    ask(port, [request], connections=1)
                    if request["x-script"] not in ("200", "404"):
                        time.sleep(0.01)  # for Envoy's workers to learn of an ejection
                theirs = list(upstream.order)
                upstream.forget()
                with mesh.client(case.name.replace(" ", "-")) as client:
                    for request in requests:
                        with suppress(MeshError):
                            client.get("/", headers=request)
                        settle(mesh)
                assert upstream.order == theirs, case.name
