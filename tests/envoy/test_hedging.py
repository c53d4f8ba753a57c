"""Hedging on the per-try timeout, beside Envoy's: as many attempts, and the same end, from threads and event loops.

Attempts are late by amounts that keep all events of a call well apart, whichever attempts are made: the order in which
they come is the same for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from tests.envoy.harness import ROUNDS, Case, Place, ask, start
from tests.envoy.test_retries import outcome, service
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

PER_TRY_MS = 150
TIMEOUT_MS = 800
STEPS = ("200", "404", "503", "hang", "hang", "200@60", "503@60", "200@250", "503@250", "reset@60", "reset@250")
ON = ["5xx"]


def end_of(call: Callable[[], Any]) -> str:
    try:
        return str(call().status_code)
    except meshlib.DeadlineExceeded:
        return "timeout"
    except meshlib.MeshError:
        return "no response"


def ends_of(mesh: Mesh, requests: Sequence[dict[str, str]], kind: str) -> list[str]:
    if kind == "threads":
        with mesh.client("p") as client, ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(lambda headers: end_of(lambda: client.get("/", headers=headers)), requests))

    async def all_at_once() -> list[str]:
        async with mesh.async_client("p") as client:
            found = await asyncio.gather(
                *(client.get("/", headers=headers) for headers in requests), return_exceptions=True
            )

        def given(one: Any) -> Any:
            if isinstance(one, BaseException):
                raise one
            return one

        return [end_of(lambda one=one: given(one)) for one in found]  # type: ignore[misc]

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_generated_delays_and_errors_end_alike(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    rng, retries = Random(seed), 2 - seed % 2
    scripts = sorted({",".join(rng.choices(STEPS, k=retries + 1)) for _ in range(24)})
    theirs = {
        "timeout": f"{TIMEOUT_MS / 1000}s",
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "retry_policy": {
            "retry_on": ",".join(ON),
            "num_retries": retries,
            "per_try_timeout": f"{PER_TRY_MS / 1000}s",
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        },
    }
    mine = {"on": ON, "max_retries": retries, "backoff": {"base": "1ms", "max": "1ms"}}
    hedged = {"hedge": {"on_per_try_timeout": True}, "per_try_timeout": PER_TRY_MS / 1000, "timeout": TIMEOUT_MS / 1000}
    with Upstream(3) as upstream:
        # Envoy's own budget, three retries at once, is out of the way as the mesh's is.
        cluster = {"circuit_breakers": {"thresholds": [{"max_retries": 1000}]}}
        case = Case("p", [Place(each) for each in upstream.ports], route=theirs, cluster=cluster)
        _, port = start(envoy_factory, [case])

        def requests(prefix: str, scripts: Sequence[str]) -> list[dict[str, str]]:
            return [{"x-case": "p", "x-id": f"{prefix} {each}", "x-script": each} for each in scripts]

        def told(prefix: str, ends: Sequence[str], scripts: Sequence[str]) -> dict[str, tuple[int, str]]:
            found = {each: (upstream.seen[f"{prefix} {each}"], end) for each, end in zip(scripts, ends, strict=True)}
            upstream.forget()
            return found

        answers = ask(port, requests("e", scripts), connections=len(scripts))
        expected = told("e", [outcome(answer) for answer in answers], scripts)
        with Mesh({"services": {"p": service(upstream.ports, mine, **hedged)}}) as mesh:
            for kind in ("threads", "tasks"):
                ends_of(mesh, [{"x-script": "200"}], kind)
                left = scripts
                for _ in range(3):  # a machine with much to do may be late; what really differs does so each time
                    found = told(kind, ends_of(mesh, requests(kind, left), kind), left)
                    left = [each for each in left if found[each] != expected[each]]
                    if not left:
                        break
                assert {each: found[each] for each in left} == {each: expected[each] for each in left}
