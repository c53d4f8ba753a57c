"""Limits overflow at the same request as in a real Envoy: requests, those that wait, connections, retries.

Requests that get no answer are sent one after the other, and after each it is counted how many attempts have arrived,
how many requests wait, and how many were answered: the same three numbers for both. Rate limits let as many through.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, TypeAlias

import httpx
import pytest

from meshlib import LimitExceeded, Mesh, RateLimited
from tests.envoy.harness import ROUNDS, TYPES, Case, Place, ask, request_of, start
from tests.envoy.test_retries import service
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

State: TypeAlias = tuple[int, int, int]
"""Attempts that have arrived, requests that wait, requests that were answered."""

OVERLOADED = "overloaded"
RETRY = {"retry_on": "5xx", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"}}
RETRY_OURS = {"on": ["5xx"], "max_retries": 3, "backoff": {"base": "1ms", "max": "1ms"}}


def of_mesh(
    mesh: Mesh, name: str, requests: Sequence[Mapping[str, str]], upstream: Upstream
) -> tuple[list[State], list[str]]:
    """The states after each request, and what those that were answered got."""

    async def one_by_one() -> tuple[list[State], list[str]]:
        states: list[State] = []
        tasks: list[asyncio.Task[httpx.Response]] = []
        async with mesh.async_client(name) as client:
            for headers in requests:
                tasks.append(asyncio.create_task(client.get("/", headers=dict(headers))))
                limit = mesh._wiring.snapshots.current.services[name].clusters[None].state.limit
                for _ in range(5_000):
                    await asyncio.sleep(0.001)
                    under_way = [one for one, task in zip(requests, tasks, strict=False) if not task.done()]
                    waiting = sum(upstream.seen[one["x-id"]] <= one["x-script"].count(",") for one in under_way)
                    if waiting == limit.pending:
                        break
                else:
                    raise TimeoutError(f"{waiting} requests are neither at an endpoint nor in line")
                states.append((len(upstream.order), waiting, len(tasks) - len(under_way)))
            ends = [_end(task) for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return states, ends

    upstream.forget()
    return asyncio.run(one_by_one())


def _end(task: asyncio.Task[httpx.Response]) -> str:
    error = task.exception()
    assert error is None or isinstance(error, LimitExceeded), error
    return OVERLOADED if error is not None else str(task.result().status_code)


def of_envoy(
    envoy: Envoy, port: int, requests: Sequence[Mapping[str, str]], upstream: Upstream, expected: Sequence[State]
) -> tuple[list[State], list[str]]:
    """The same of Envoy, whose state after each request is waited for, to be as `expected`."""
    gauge = f"/stats?filter=^cluster.{requests[0]['x-case']}.upstream_rq_pending_active$"
    states: list[State] = []
    upstream.forget()
    with ExitStack() as stack:
        connections: list[socket.socket] = []
        answers: dict[socket.socket, bytes] = {}

        def state() -> State:
            for connection in connections:
                try:
                    answers[connection] = answers.get(connection, b"") + connection.recv(65536)
                except BlockingIOError:
                    continue
            _, text = envoy.admin(gauge)
            return len(upstream.order), int(text.rpartition(":")[2]), len(answers)

        for headers, wanted in zip(requests, expected, strict=True):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            connection.sendall(request_of(headers))
            connection.setblocking(False)
            connections.append(connection)
            until = time.monotonic() + 5
            while (found := state()) != wanted and time.monotonic() < until:
                time.sleep(0.001)
            states.append(found)
            if found != wanted:
                break
        time.sleep(0.03)  # so that what is on its way to another state gets there
        assert state() == states[-1]
        heads = [answers[connection].decode() for connection in connections if connection in answers]
        return states, [OVERLOADED if "x-envoy-overloaded: true" in head else head.split(" ")[1] for head in heads]


def limited(seed: int) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], list[str]]]:
    """Limits: as Envoy's thresholds, as fields of our service, and the scripts of the requests."""
    rng = Random(seed)
    requests = rng.randint(1, 6)
    yield "requests", {"max_requests": requests}, {"limits": {"max_in_flight": requests, "max_pending": 0}}, ["hang"]
    connections, pending = rng.randint(1, 5), rng.randint(1, 4)
    # With HTTP/1.1, what holds a connection is a request in flight, and who waits for one is in line.
    theirs = {"max_connections": connections, "max_pending_requests": pending}
    yield "pending", theirs, {"limits": {"max_in_flight": connections, "max_pending": pending}}, ["hang"]
    retries = rng.randint(1, 5)
    yield (
        "retries",
        {"max_retries": retries},
        {"retry_budget": {"kind": "concurrency", "max_retries": retries}},
        ["503,hang"],
    )
    percent, least = rng.choice((20, 50)), rng.randint(0, 2)
    theirs = {"retry_budget": {"budget_percent": {"value": percent}, "min_retry_concurrency": least}}
    mine = {"kind": "concurrency", "percent": percent, "min_concurrency": least}
    yield "share", theirs, {"retry_budget": mine}, ["hang", "503,hang", "503,hang"]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_same_request_is_the_first_that_overflows(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    with Upstream(1) as upstream:
        places = [Place(port) for port in upstream.ports]
        given = list(limited(seed))
        cases = [
            Case(
                name,
                places,
                cluster={"circuit_breakers": {"thresholds": [theirs]}},
                route={"retry_policy": RETRY} if "503,hang" in scripts else {},
            )
            for name, theirs, _, scripts in given
        ]
        services = {
            name: service(upstream.ports, RETRY_OURS if "503,hang" in scripts else {"max_retries": 0}, **mine)
            for name, _, mine, scripts in given
        }
        envoy, port = start(envoy_factory, cases)
        with Mesh({"services": services}) as mesh:
            for name, theirs, _, scripts in given:
                requests = [
                    {"x-case": name, "x-id": f"{name}-{at}", "x-script": scripts[at % len(scripts)]} for at in range(12)
                ]
                expected = of_mesh(mesh, name, requests, upstream)
                assert of_envoy(envoy, port, requests, upstream, expected[0]) == expected, (theirs, scripts)
                assert expected[1], "something overflows"


def test_as_many_connections_are_opened(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    limits = (1, 2, 4, 7)
    with Upstream(3) as upstream:
        cases = [
            Case(
                f"c{limit}",
                [Place(port) for port in upstream.ports],
                cluster={"circuit_breakers": {"thresholds": [{"max_connections": limit}]}},
            )
            for limit in limits
        ]
        services = {
            case.name: service(upstream.ports, {"max_retries": 0}, limits={"max_connections": limit})
            for case, limit in zip(cases, limits, strict=True)
        }
        _, port = start(envoy_factory, cases)

        async def arrived(name: str, send: Callable[[dict[str, str]], Any], expected: int) -> int:
            """Of ten requests without an answer."""
            tasks = [
                asyncio.create_task(send({"x-case": case.name, "x-id": name, "x-script": "hang"})) for _ in range(10)
            ]
            for _ in range(5_000):
                if upstream.seen[name] >= expected:
                    break
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.03)  # for one too many
            found = upstream.seen[name]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return found

        async def through_envoy(headers: dict[str, str]) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request_of(headers))
                await reader.read()
            finally:
                writer.close()

        async def both(name: str, expected: int) -> tuple[int, int]:
            async with mesh.async_client(name) as client:
                mine = await arrived(f"mesh {name}", lambda headers: client.get("/", headers=headers), expected)
            return mine, await arrived(f"envoy {name}", through_envoy, expected)

        with Mesh({"services": services}) as mesh:
            for case, limit in zip(cases, limits, strict=True):
                # An endpoint without a connection may open one all the same.
                expected = max(limit, len(upstream.ports))
                assert asyncio.run(both(case.name, expected)) == (expected, expected)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_bucket_of_tokens_lets_as_many_through(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    rng = Random(seed)
    name = "envoy.filters.http.local_ratelimit"
    kind = f"{TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit"
    always = {"default_value": {"numerator": 100}}
    with Upstream(1) as upstream:
        cases, services = [], {}
        for at in range(8):
            bucket = {"max_tokens": rng.randint(1, 40), "tokens_per_fill": rng.randint(1, 3), "fill_interval": "1000s"}
            limit = {"token_bucket": bucket, "filter_enabled": always, "filter_enforced": always, "stat_prefix": "rate"}
            places = [Place(port) for port in upstream.ports]
            cases.append(Case(f"r{at}", places, filters={name: {"@type": kind, **limit}}))
            services[f"r{at}"] = service(upstream.ports, {"max_retries": 0}, rate_limit={"total": bucket})
        chain = {"name": name, "typed_config": {"@type": kind, "stat_prefix": "rate"}}
        _, port = start(envoy_factory, cases, http_filters=[chain])
        with Mesh({"services": services}) as mesh:
            for case in cases:
                answers = ask(port, [{"x-case": case.name}] * 42, connections=1)
                with mesh.client(case.name) as client:
                    mine = [_passes(client) for _ in range(42)]
                assert mine == [answer.status != 429 for answer in answers]
                assert mine[-1] is False


def _passes(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except RateLimited:
        return False
