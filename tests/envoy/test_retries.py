"""Generated retry policies against generated trouble: as many attempts as Envoy makes, and the same end.

The mesh makes its calls as users do, through a client, over the same endpoints. What is its own is out of the way: the
budget does not run out, nothing is ejected, no circuit opens, and a ``Retry-After`` means nothing where the policy does
not say so. Requests are GET, which may be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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


def test_per_try_timeouts_are_retried_as_by_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    conditions = ("5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx")
    scripts = ("hang,200", "hang", "hang,503,hang")
    with Upstream(3) as upstream:
        places = [Place(port) for port in upstream.ports]
        cases = [
            Case(on, places, route={"retry_policy": {**simple(on)[0], "per_try_timeout": f"{PER_TRY_S}s"}})
            for on in conditions
        ]  # three requests each, so no more retries at once than Envoy allows
        services = {on: service(upstream.ports, simple(on)[1], per_try_timeout=PER_TRY_S) for on in conditions}
        _, port = start(envoy_factory, cases)
        pairs = [(on, script) for on in conditions for script in scripts]
        asked = [{"x-case": on, "x-id": f"envoy {on} {script}", "x-script": script} for on, script in pairs]
        answers = ask(port, asked, connections=len(asked))
        with Mesh({"services": services}) as mesh, ThreadPoolExecutor(len(pairs)) as threads:

            def ended(pair: tuple[str, str]) -> str:
                on, script = pair
                return outcome_of_mesh(mesh, on, {"x-id": f"mesh {on} {script}", "x-script": script})

            for (on, script), answer, end in zip(pairs, answers, threads.map(ended, pairs), strict=True):
                theirs = upstream.seen[f"envoy {on} {script}"], outcome(answer)
                assert (upstream.seen[f"mesh {on} {script}"], end) == theirs, (on, script)


def test_refused_connections_are_retried_as_by_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    conditions = ("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx")
    with Upstream(1) as upstream:
        ports = (free_port(), free_port(), *upstream.ports)
        cluster = {"lb_policy": "ROUND_ROBIN"}
        places = [Place(port) for port in ports]
        cases = [Case(on, places, cluster=cluster, route={"retry_policy": simple(on)[0]}) for on in conditions]
        _, port = start(envoy_factory, cases)
        with Mesh({"services": {on: service(ports, simple(on)[1]) for on in conditions}}) as mesh:
            for on in conditions:
                # Round robin reaches the one that lives within three attempts, if there are three.
                theirs = sorted(outcome(answer) for answer in ask(port, [{"x-case": on}] * 9, connections=1))
                assert sorted(outcome_of_mesh(mesh, on, {}) for _ in range(9)) == theirs, on


def simple(on: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two retries on one condition, at once: as Envoy's policy, and as the mesh's."""
    theirs = {
        "retry_on": on,
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
    }
    return theirs, {"on": [on], "max_retries": 2, "backoff": {"base": "1ms", "max": "1ms"}}


def test_retries_wait_for_as_long_as_servers_ask(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    seconds, epoch = {"name": "retry-after", "format": "SECONDS"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}
    theirs = {"rate_limited_retry_back_off": {"reset_headers": [seconds, epoch], "max_interval": "5s"}}
    reset_headers = [{"name": "retry-after"}, {"name": "x-reset", "format": "unix_timestamp"}]
    mine = {"rate_limited_backoff": {"reset_headers": reset_headers, "max_interval": "5s"}}
    soon = int(time.time()) + 2  # some time in the second after the next
    scripts = {
        "503+retry-after:1,200": (1.0, 1.5),
        "503+retry-after:junk+x-reset:junk,200": (0.0, 0.5),
        "503+retry-after:6,200": (0.0, 0.5),
        "503+retry-after:0,200": (0.0, 0.5),
        "503+retry-after:-1,200": (0.0, 0.5),
        "503+x-reset:1000,200": (0.0, 0.5),
        f"503+retry-after:junk+x-reset:{soon},200": (0.5, 3.0),
        "503+retry-after:1+x-reset:junk,418": (1.0, 1.5),
        "503+retry-after:6,503+retry-after:1,200": (1.0, 1.5),
        "503,503+retry-after:1,200": (1.0, 1.5),
    }
    late_s = 0.4  # a machine with much to do
    with Upstream(3) as upstream:
        policy, ours = simple("5xx")
        # Envoy's own budget, three retries at once, is out of the way as the mesh's is.
        many = {"circuit_breakers": {"thresholds": [{"max_retries": 100}]}}
        places = [Place(port) for port in upstream.ports]
        _, port = start(envoy_factory, [Case("p", places, cluster=many, route={"retry_policy": {**policy, **theirs}})])
        with Mesh({"services": {"p": service(upstream.ports, {**ours, **mine})}}) as mesh:

            def through_envoy(script: str) -> str:
                request = {"x-case": "p", "x-id": f"envoy {script}", "x-script": script}
                return outcome(ask(port, [request], connections=1)[0])

            def through_mesh(script: str) -> str:
                return outcome_of_mesh(mesh, "p", {"x-id": f"mesh {script}", "x-script": script})

            def timed(one: tuple[Callable[[str], str], str]) -> tuple[str, float]:
                way, script = one
                began = time.monotonic()
                return way(script), time.monotonic() - began

            both = [(way, script) for script in scripts for way in (through_envoy, through_mesh)]
            outcome_of_mesh(mesh, "p", {})  # the first call brings the modules
            with ThreadPoolExecutor(len(both)) as threads:
                found = list(threads.map(timed, both))
        for at, (script, (least, most)) in enumerate(scripts.items()):
            (end, took_s), (end_ours, took_ours_s) = found[2 * at : 2 * at + 2]
            assert (end_ours, upstream.seen[f"mesh {script}"]) == (end, upstream.seen[f"envoy {script}"]), script
            assert least <= took_s < most + late_s, script
            assert least <= took_ours_s < most + late_s, script


def test_what_envoy_repeats_and_the_mesh_does_not(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    theirs, mine = simple("5xx")
    requests = [
        {"x-script": "503+x-envoy-overloaded:true,200"},
        {"x-script": "503,200", ":method": "POST", "content-length": "0"},
    ]
    with Upstream(2) as upstream:
        places = [Place(port) for port in upstream.ports]
        _, port = start(envoy_factory, [Case("p", places, route={"retry_policy": theirs})])
        answers = ask(port, [{"x-case": "p", **request} for request in requests], connections=1)
        assert [answer.status for answer in answers] == [200, 200]
        with Mesh({"services": {"p": service(upstream.ports, mine)}}) as mesh, mesh.client("p") as client:
            for request in requests:
                headers = {"x-script": request["x-script"]}
                assert client.request(request.get(":method", "GET"), "/", headers=headers).status_code == 503
