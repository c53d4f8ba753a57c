"""What may refuse a call before it is sent, as users of httpx see it: sync and async, with real servers behind."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import LimitExceeded, Mesh, RateLimited, Retry
from tests.adapters.support import mesh_of, ok, origins
from tests.integration.calling import Caller
from tests.peers.process import wait_until

ONCE = {"max_retries": 0}


def test_a_rate_limit_by_header_refuses_before_anything_is_sent(caller: Caller) -> None:
    limit = {"by": "header:x-user", "each": {"rate": 0.01, "burst": 2}}
    with origins(None) as ((origin,), servers), mesh_of(*servers, rate_limit=limit) as mesh:
        origin.answer = lambda seen, number: ok()
        orders = caller.client(mesh)
        for user in ("ada", "bob"):
            for _ in range(2):
                assert orders("GET", "/", headers={"X-User": user}).status_code == 200
            with pytest.raises(RateLimited) as caught:
                orders("GET", "/", headers={"X-User": user})
            assert isinstance(caught.value, httpx.PoolTimeout)
            assert 99 < (caught.value.retry_after_s or 0) <= 100
            record = meshlib.record(caught.value)
            assert (record.refused_by, record.attempts, record.error) == ("rate-limit", (), "RateLimited")
        assert len(origin.seen) == 4
        assert "cluster orders: its rate limit: 0.01 calls per second, 2 at once each" in (
            mesh.plan("GET", "http://orders/").notes
        )
        (service,) = mesh.status().services
        assert (service.budget_tokens, service.clusters[0].in_flight) == (20, 0)


def test_the_callers_own_key_and_the_route_tell_calls_apart(caller: Caller) -> None:
    routes = [{"name": "search", "match": [{"path": {"path_prefix": "/search"}}]}]
    for limit, one, other in (
        (
            {"by": "hash_key", "each": {"max_tokens": 1, "fill_interval": "1m"}},
            {"url": "/", "extensions": meshlib.call(hash_key="a")},
            {"url": "/", "extensions": meshlib.call(hash_key="b")},
        ),
        ({"by": "route", "overrides": {"search": {"rate": 0.01, "burst": 1}}}, {"url": "/search"}, {"url": "/"}),
    ):
        with origins(None) as ((origin,), servers), mesh_of(*servers, rate_limit=limit, routes=routes) as mesh:
            origin.answer = lambda seen, number: ok()
            orders = caller.client(mesh)
            assert orders("GET", **one).status_code == 200
            with pytest.raises(RateLimited):
                orders("GET", **one)
            assert orders("GET", **other).status_code == 200


def test_calls_wait_for_their_turn_where_they_may(caller: Caller) -> None:
    limit = {"total": {"rate": 50, "burst": 1}, "max_wait": "1s"}
    with origins(None) as ((origin,), servers), mesh_of(*servers, rate_limit=limit) as mesh:
        origin.answer = lambda seen, number: ok()
        orders = caller.client(mesh)
        began = time.monotonic()
        answers = [orders("GET", "/") for _ in range(4)]
        assert time.monotonic() - began >= 0.055
        while not (waits := meshlib.record(answers[-1]).waits):  # whoever comes late enough need not wait
            answers.append(orders("GET", "/"))
        assert [wait.reason for wait in waits] == ["rate-limit"]


def test_a_service_that_declines_is_throttled_and_the_refusal_is_not_retried(caller: Caller) -> None:
    with origins(None) as ((origin,), servers):
        origin.answer = lambda seen, number: ok(status="503 Busy")
        options: dict[str, Any] = {"throttle": {"min_calls": 0}, "circuit_breaker": False, "outlier_detection": False}
        with mesh_of(*servers, retry={"max_retries": 1, "backoff": {"base": "0s", "max": "0s"}}, **options) as mesh:
            orders = caller.client(mesh)
            refused: list[LimitExceeded] = []
            for _ in range(60):
                try:
                    orders("GET", "/")
                except LimitExceeded as error:
                    refused.append(error)
            assert len(refused) > 20
            assert {error.gate for error in refused} == {"throttle"}
            assert {(record.refused_by, record.attempts) for record in map(meshlib.record, refused)} == {
                ("throttle", ())
            }
            assert any("its throttle refuses" in note for note in mesh.plan("GET", "http://orders/").notes)


@pytest.mark.parametrize("limits", [{"max_in_flight": 1, "high": {"max_in_flight": 1}}])
def test_a_route_with_high_priority_has_places_of_its_own(limits: dict[str, Any]) -> None:
    release, routes = threading.Event(), [{"name": "pay", "match": [{"path": {"exact": "/pay"}}], "priority": "high"}]
    with origins(None) as ((origin,), servers):

        def answer(seen: Any, number: int) -> bytes:
            if "/slow" in seen.line:
                release.wait(10)
            return ok()

        origin.answer = answer
        options = {"limits": {**limits, "max_pending": 0}, "routes": routes}
        with mesh_of(*servers, **options) as mesh, mesh.client("orders") as client, ThreadPoolExecutor(1) as pool:
            slow = pool.submit(client.get, "/slow")
            wait_until(lambda: origin.seen, "it is under way")
            with pytest.raises(LimitExceeded, match=r"1 call to orders is in flight \(max_in_flight\)"):
                client.get("/other")
            assert client.get("/pay").status_code == 200
            release.set()
            assert slow.result().status_code == 200


def test_a_bulkhead_keeps_places_for_each_kind_of_call() -> None:
    release = threading.Event()
    bulkhead = {"by": "header:kind", "percents": {"live": 50, "batch": 50}, "hard": True}
    with origins(None) as ((origin,), servers):
        origin.answer = lambda seen, number: ok() if "/quick" in seen.line else (release.wait(10), ok())[1]
        with mesh_of(*servers, limits={"max_in_flight": 4}, bulkhead=bulkhead) as mesh:
            client = mesh.client("orders")

            def batch(path: str) -> int:
                return client.get(path, headers={"kind": "batch"}).status_code

            with ThreadPoolExecutor(2) as pool:
                slow = [pool.submit(batch, "/slow") for _ in range(2)]
                wait_until(lambda: len(origin.seen) == 2, "they are under way")
                with pytest.raises(LimitExceeded, match="2 of them of 'batch', whose share is 2"):
                    batch("/quick")
                assert client.get("/quick", headers={"kind": "live"}).status_code == 200
                release.set()
                assert [each.result() for each in slow] == [200, 200]


def test_a_limit_that_adapts_bounds_a_burst(caller: Caller) -> None:
    limits = {"adaptive": {"algorithm": "aimd", "initial_limit": 3, "min_limit": 1, "max_limit": 5}}
    with origins(None) as ((origin,), servers):
        origin.answer = lambda seen, number: (time.sleep(0.05), ok())[1]
        with mesh_of(*servers, limits=limits) as mesh:
            orders = caller.client(mesh)
            assert orders("GET", "/").status_code == 200
            client = mesh.client("orders")

            def one(_: int) -> str:
                try:
                    return str(client.get("/").status_code)
                except LimitExceeded as error:
                    return error.gate

            with ThreadPoolExecutor(12) as pool:
                found = list(pool.map(one, range(12)))
            assert set(found) == {"200", "limit"}
            assert found.count("limit") >= 5
            assert any("its limit adapts" in note for note in mesh.plan("GET", "http://orders/").notes)


def test_a_breaker_of_pybreakers_with_both_clients(caller: Caller) -> None:
    pybreaker = pytest.importorskip("pybreaker")
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, name="mine")
    with origins(None) as ((origin,), servers):
        origin.answer = lambda seen, number: ok(status="503 Down")
        address = f"127.0.0.1:{servers[0].port}"
        service = meshlib.Service(endpoints=[address], circuit_breaker=breaker, retry=Retry(max_retries=0))
        with Mesh(services={"orders": service}) as mesh:
            orders = caller.client(mesh)
            assert [orders("GET", "/").status_code for _ in range(2)] == [503, 503]
            with pytest.raises(meshlib.CircuitOpen, match="the circuit breaker 'mine' is open") as caught:
                orders("GET", "/")
            assert isinstance(caught.value.__cause__, pybreaker.CircuitBreakerError)
            assert isinstance(caught.value, httpx.ConnectError)
            assert meshlib.record(caught.value).refused_by == "circuit-breaker"
            assert len(origin.seen) == 2


def test_waiting_tasks_that_are_cancelled_hold_nothing() -> None:
    limit = {"total": {"rate": 1, "burst": 1}, "max_wait": "30s"}
    with origins(None) as ((origin,), servers), mesh_of(*servers, rate_limit=limit, retry=ONCE) as mesh:
        origin.answer = lambda seen, number: ok()

        async def main() -> None:
            client = mesh.async_client("orders")
            await client.get("/")
            tasks = [asyncio.create_task(client.get("/")) for _ in range(5)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            answer = await client.get("/")
            assert meshlib.record(answer).waits[0].duration_s < 1.1, "their turns are free again"

        asyncio.run(main())
        assert mesh.status().services[0].clusters[0].in_flight == 0
