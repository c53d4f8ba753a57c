"""Generated retry policies against generated trouble: as many attempts as Envoy makes, and the same end.

The mesh makes its calls as users do, through a client, over the same endpoints. What is its own is out of the way: the
budget does not run out, nothing is ejected, no circuit opens, and a ``Retry-After`` means nothing where the policy does
not say so. Requests are GET, which may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.errors import AttemptTimeout, MeshError
from tests.envoy.harness import ROUNDS, Answer, Case, Place, ask, start
from tests.envoy.upstream import Upstream
from tests.peers.process import free_port
from tests.peers.servers import Envoy

CONDITIONS = (
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx"),
    *("retriable-status-codes", "retriable-headers", "envoy-ratelimited"),
    *("cancelled", "deadline-exceeded", "resource-exhausted", "internal", "unavailable"),
)
STEPS = (
    *("200", "404", "409", "418", "429", "500", "502", "503", "504", "reset"),
    *("503+x-envoy-ratelimited:true", "500+x-again:1", "200+x-again:1"),
    *(f"200+grpc-status:{code}" for code in (1, 4, 8, 13, 14, 5)),
)
PER_TRY_S = 0.15


def policies(seed: int, count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Retry policies: as Envoy's, and as the mesh's."""
    rng = Random(seed)
    for _ in range(count):
        on = rng.sample(CONDITIONS, rng.randint(1, 4))
        codes = rng.sample((404, 409, 418, 429, 500, 503), 2)
        retries = rng.randint(0, 3)
        theirs: dict[str, Any] = {
            "retry_on": ",".join(on),
            "num_retries": retries,
            "retriable_status_codes": codes,
            "retriable_headers": [{"name": "x-again", "present_match": True}],
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        }
        mine: dict[str, Any] = {"on": on, "max_retries": retries, "backoff": {"base": "1ms", "max": "1ms"}}
        # The mesh refuses what would do nothing.
        if "retriable-status-codes" in on:
            mine["retriable_status_codes"] = codes
        if "retriable-headers" in on:
            mine["retriable_headers"] = [{"name": "x-again", "present": True}]
        yield theirs, mine


def service(ports: tuple[int, ...], retry: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """A service of the mesh, with all that could interfere out of the way."""
    return {
        "endpoints": [f"127.0.0.1:{port}" for port in ports],
        "retry": dict(retry),
        "retry_budget": {"tokens": 1_000_000},
        "circuit_breaker": False,
        "outlier_detection": False,
        "load_balancing": {"policy": "round_robin"},
        # A kept connection that proves stale is replaced, which counts as no attempt; Envoy has no such thing.
        "pool": {"idle": 0, "idle_unsafe": 0},
        **others,
    }


def outcome(answer: Answer) -> str:
    """What Envoy gave: an endpoint's status, or what it says itself."""
    if answer.port is not None:
        return str(answer.status)
    return {504: "timeout", 503: "no response"}[answer.status]


def outcome_of_mesh(mesh: Mesh, name: str, headers: Mapping[str, str]) -> str:
    """The same of the mesh."""
    try:
        with mesh.client(name) as client:
            return str(client.get("/", headers=dict(headers)).status_code)
    except AttemptTimeout:
        return "timeout"
    except MeshError:
        return "no response"


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_generated_policies_and_scripts_end_alike(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    written = list(policies(seed, 40))
    rng = Random(seed + 100)
    with Upstream(3) as upstream:
        places = [Place(port) for port in upstream.ports]
        cases = [Case(f"p{at}", places, route={"retry_policy": theirs}) for at, (theirs, _) in enumerate(written)]
        services = {f"p{at}": service(upstream.ports, mine) for at, (_, mine) in enumerate(written)}
        _, port = start(envoy_factory, cases)
        with Mesh({"services": services}) as mesh:
            for at, (theirs, _) in enumerate(written):
                scripts = [",".join(rng.choices(STEPS, k=4)) for _ in range(8)]
                asked = [
                    {"x-case": f"p{at}", "x-id": f"e{at}-{index}", "x-script": script}
                    for index, script in enumerate(scripts)
                ]
                answers = ask(port, asked, connections=1)
                for index, (script, answer) in enumerate(zip(scripts, answers, strict=True)):
                    mine = outcome_of_mesh(mesh, f"p{at}", {"x-id": f"m{at}-{index}", "x-script": script})
                    attempts = upstream.seen[f"e{at}-{index}"], upstream.seen[f"m{at}-{index}"]
                    assert (attempts[0], outcome(answer)) == (attempts[1], mine), (theirs, script)


@pytest.mark.parametrize("on", ["5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx"])
def test_a_per_try_timeout_is_retried_as_by_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy], on: str) -> None:
    with Upstream(3) as upstream:
        theirs = {
            "retry_on": on,
            "num_retries": 2,
            "per_try_timeout": f"{PER_TRY_S}s",
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        }
        mine = {"on": [on], "max_retries": 2, "backoff": {"base": "1ms", "max": "1ms"}}
        _, port = start(
            envoy_factory, [Case("p", [Place(port) for port in upstream.ports], route={"retry_policy": theirs})]
        )
        services = {"p": service(upstream.ports, mine, per_try_timeout=PER_TRY_S)}
        with Mesh({"services": services}) as mesh:
            for index, script in enumerate(("hang,200", "hang", "hang,503,hang")):
                (answer,) = ask(port, [{"x-case": "p", "x-id": f"e{index}", "x-script": script}], connections=1)
                ended = outcome_of_mesh(mesh, "p", {"x-id": f"m{index}", "x-script": script})
                assert (upstream.seen[f"e{index}"], outcome(answer)) == (upstream.seen[f"m{index}"], ended), script


@pytest.mark.parametrize(
    "on", ["5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx"]
)
def test_a_refused_connection_is_retried_as_by_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy], on: str) -> None:
    dead = (free_port(), free_port())
    with Upstream(1) as upstream:
        ports = (*dead, *upstream.ports)
        theirs = {
            "retry_on": on,
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        }
        mine = {"on": [on], "max_retries": 2, "backoff": {"base": "1ms", "max": "1ms"}}
        cluster = {"lb_policy": "ROUND_ROBIN"}
        retried = Case("p", [Place(port) for port in ports], cluster=cluster, route={"retry_policy": theirs})
        _, port = start(envoy_factory, [retried])
        with Mesh({"services": {"p": service(ports, mine)}}) as mesh:
            # Round robin reaches the one that lives within three attempts, if there are three.
            theirs_ended = sorted(outcome(answer) for answer in ask(port, [{"x-case": "p"}] * 9, connections=1))
            assert sorted(outcome_of_mesh(mesh, "p", {}) for _ in range(9)) == theirs_ended
