"""Limits and breakers of a whole fleet, over a real Redis: shared, bounded in time, never what takes a call down."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from meshlib.telemetry import events
from tests.adapters.support import address, ok
from tests.integration.test_fork import in_a_child
from tests.net.wire_servers import Peer, serving
from tests.peers.process import wait_until
from tests.peers.servers import Redis

pytest.importorskip("redis")
pytest.importorskip("pybreaker")


@contextmanager
def process(redis: Redis, at: str, *, max_wait: str = "200ms", **fleet: Any) -> Iterator[tuple[Mesh, list[Any]]]:
    """One process of the fleet: a mesh of its own."""
    service = {"endpoints": [at], "fleet": fleet, "retry": {"max_retries": 0}, "circuit_breaker": False}
    config = {"redis": {"url": redis.url, "max_wait": max_wait}, "services": {"orders": service}}
    told: list[Any] = []
    with Mesh.from_dict(config) as mesh:
        mesh.on_event(told.append)
        yield mesh, told


def script_of(statuses: list[str]) -> Any:
    """A server that answers with these, the last one for ever."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            status = statuses[0] if len(statuses) == 1 else statuses.pop(0)
            peer.send(ok(status=status))

    return script


def calls(mesh: Mesh, times: int, **options: Any) -> list[str]:
    """What became of so many calls, one after the other."""
    client, found = mesh.client("orders"), []
    for _ in range(times):
        try:
            found.append(str(client.get("/", **options).status_code))
        except meshlib.MeshError as error:
            found.append(type(error).__name__)
    return found


def test_all_processes_together_keep_to_one_rate(redis_server: Redis) -> None:
    with serving(script_of(["200 OK"])) as server:
        rate = {"rate": 0.01, "burst": 5}
        with process(redis_server, address(server), rate_limit=rate) as (one, _):
            with process(redis_server, address(server), rate_limit=rate) as (two, _):
                assert calls(one, 3) == ["200"] * 3
                assert calls(two, 4) == ["200", "200", "RateLimited", "RateLimited"]
                with pytest.raises(meshlib.RateLimited, match="fleet") as caught:
                    one.client("orders").get("/")
                assert caught.value.gate == "fleet-rate-limit"
                assert caught.value.retry_after_s == pytest.approx(100, abs=1)
                assert caught.value.record is not None
                assert caught.value.record.refused_by == "fleet-rate-limit"
                assert caught.value.record.attempts == ()


def test_callers_are_told_apart_and_the_rate_is_refilled(redis_server: Redis) -> None:
    with serving(script_of(["200 OK"])) as server:
        rate = {"rate": 10, "burst": 1, "by": "header:x-user"}
        with process(redis_server, address(server), rate_limit=rate) as (mesh, _):
            assert calls(mesh, 1, headers={"x-user": "a"}) == ["200"]
            assert calls(mesh, 1, headers={"x-user": "a"}) == ["RateLimited"]
            assert calls(mesh, 1, headers={"x-user": "b" * 500}) == ["200"]
            wait_until(lambda: calls(mesh, 1, headers={"x-user": "a"}) == ["200"], "its next turn")


def test_no_more_calls_pass_than_the_burst_however_many_ask_at_once(redis_server: Redis) -> None:
    with serving(script_of(["200 OK"])) as server:
        with process(redis_server, address(server), max_wait="2s", rate_limit={"rate": 0.001, "burst": 20}) as (
            mesh,
            _,
        ):
            with ThreadPoolExecutor(8) as pool:
                found = [each for part in pool.map(lambda _: calls(mesh, 10), range(8)) for each in part]
            assert (found.count("200"), found.count("RateLimited")) == (20, 60)


def test_an_event_loop_is_never_blocked_by_a_redis_that_hangs(redis_server: Redis) -> None:
    async def main(mesh: Mesh) -> tuple[list[int], float]:
        client = mesh.async_client("orders")
        assert (await client.get("/")).status_code == 200
        longest = 0.0
        redis_server.suspend()

        async def tick() -> None:
            nonlocal longest
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - began)

        ticking = asyncio.create_task(tick())
        answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
        await asyncio.sleep(0.3)
        answers += [await client.get("/")]
        ticking.cancel()
        return [answer.status_code for answer in answers], longest

    with serving(script_of(["200 OK"])) as server:
        with process(redis_server, address(server), max_wait="50ms", rate_limit={"rate": 0.01, "burst": 1}) as (
            mesh,
            told,
        ):
            try:
                statuses, longest = asyncio.run(main(mesh))
            finally:
                redis_server.resume()
            assert statuses == [200] * 21
            assert longest < 0.25, "socket timeouts are at least as long"
            wait_until(lambda: any(isinstance(each, events.FleetUnwell) for each in told), "an event")
            wait_until(lambda: any(isinstance(each, events.FleetWell) for each in told), "its recovery")
            wait_until(lambda: calls(mesh, 1) == ["RateLimited"], "the limit is back")


def test_a_redis_that_was_killed_and_comes_back(redis_server: Redis) -> None:
    with serving(script_of(["200 OK"])) as server:
        with process(redis_server, address(server), rate_limit={"rate": 0.01, "burst": 1}) as (mesh, told):
            assert calls(mesh, 2) == ["200", "RateLimited"]
            redis_server.kill()
            assert calls(mesh, 3) == ["200"] * 3
            wait_until(lambda: any(isinstance(each, events.FleetUnwell) for each in told), "an event")
            assert meshlib.record(mesh.client("orders").get("/")).waits == (), (
                "nobody waits for what is known to be down"
            )
            redis_server.start()
            wait_until(lambda: any(isinstance(each, events.FleetWell) for each in told), "its recovery")
            assert calls(mesh, 2) == ["200", "RateLimited"], "it has forgotten, and its script is loaded anew"


def test_a_redis_that_was_never_there(free_port: Any) -> None:
    with serving(script_of(["200 OK"])) as server:
        service = {"endpoints": [address(server)], "fleet": {"rate_limit": {"rate": 1}, "circuit_breaker": {}}}
        url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
        with Mesh.from_dict({"redis": {"url": url}, "services": {"orders": service}}) as mesh:
            told: list[Any] = []
            mesh.on_event(told.append)
            assert calls(mesh, 5) == ["200"] * 5
            wait_until(lambda: told, "an event")
            assert "hunter2" not in repr(told) + str(told[0]) + repr(mesh) + repr(mesh.status())


def test_a_breaker_that_one_process_opens_is_open_for_all(redis_server: Redis) -> None:
    broken = ["503 Down"] * 3 + ["200 OK"]
    breaker = {"fail_max": 3, "reset_timeout": "4s", "success_threshold": 1}
    with serving(script_of(broken)) as server:
        with process(redis_server, address(server), circuit_breaker=breaker) as (one, _):
            with process(redis_server, address(server), circuit_breaker=breaker) as (two, _):
                assert calls(one, 3) == ["503"] * 3
                wait_until(lambda: calls(two, 1) == ["CircuitOpen"], "the other one to see it", timeout=3.0)
                with pytest.raises(meshlib.CircuitOpen, match="circuit breaker 'orders' is open") as caught:
                    one.client("orders").get("/")
                assert 0 < caught.value.retry_after_s <= 4
                assert type(caught.value.__cause__).__name__ == "CircuitBreakerError"
                wait_until(lambda: calls(two, 1) == ["200"], "a call is let through")
                wait_until(lambda: calls(one, 1) == ["200"], "it is closed for all")


def test_the_thread_ends_with_the_mesh(redis_server: Redis) -> None:

    def running() -> bool:
        return any(thread.name == "meshlib-fleet" for thread in threading.enumerate())

    with serving(script_of(["200 OK"])) as server:
        with process(redis_server, address(server), rate_limit={"rate": 100}) as (mesh, _):
            assert not running(), "not before it is needed"
            calls(mesh, 1)
            assert running()
        wait_until(lambda: not running(), "its end")


def test_a_service_that_shares_needs_a_redis() -> None:
    with pytest.raises(meshlib.ConfigError, match=r"services.orders.fleet: needs a Redis"):
        Mesh.from_dict({"services": {"orders": {"fleet": {"rate_limit": {"rate": 1}}}}})
    with pytest.raises(meshlib.ConfigError, match=r"services.orders.fleet: shares nothing"):
        Mesh.from_dict({"redis": {"url": "redis://x"}, "services": {"orders": {"fleet": {}}}})
    with pytest.raises(meshlib.ConfigError, match=r"redis.url: .* is not the URL") as caught:
        Mesh.from_dict({"redis": {"url": "http://:hunter2@x"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_asks_over_a_connection_of_its_own(redis_server: Redis) -> None:
    with serving(script_of(["200 OK"])) as server:
        shared = {"rate_limit": {"rate": 0.001, "burst": 5}, "circuit_breaker": {"fail_max": 2}}
        with process(redis_server, address(server), **shared) as (mesh, _):
            assert calls(mesh, 2) == ["200"] * 2
            assert in_a_child(lambda: calls(mesh, 2)) == ["200"] * 2
            assert calls(mesh, 2) == ["200", "RateLimited"]
            assert in_a_child(lambda: calls(mesh, 1)) == ["RateLimited"]


def test_a_breaker_of_the_users_own_in_redis_is_asked_elsewhere(redis_server: Redis) -> None:
    import pybreaker
    import redis

    heard: list[str] = []

    class Listener(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            heard.append(f"{new_state.name} on {threading.current_thread().name}")

    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, redis.Redis.from_url(redis_server.url))
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, state_storage=storage, listeners=[Listener()])
    with serving(script_of(["503 Down"])) as server:
        orders = meshlib.Service(
            endpoints=[address(server)], circuit_breaker=breaker, retry=meshlib.Retry(max_retries=0)
        )
        with Mesh(services={"orders": orders}) as mesh:
            wait_until(lambda: calls(mesh, 1) == ["CircuitOpen"], "it is open")
        assert heard == ["open on meshlib-breakers"]


@contextmanager
def far_away(redis: Redis, delay: list[float]) -> Iterator[int]:
    """The port of a proxy before it, whose answers take so long."""

    def pass_on(near: socket.socket, far: socket.socket, slowly: bool) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if slowly:
                    time.sleep(delay[0])
                far.sendall(data)
        for each in (near, far):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", redis.port))
                threads.extend(
                    threading.Thread(target=pass_on, args=each) for each in ((near, far, False), (far, near, True))
                )
                sockets.extend((near, far))
                for thread in threads[-2:]:
                    thread.start()

    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for each in sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            for thread in threads:
                thread.join(5)


def test_a_redis_that_is_too_slow_is_waited_for_a_few_times_and_then_no_more(redis_server: Redis) -> None:
    delay = [0.04]
    with serving(script_of(["200 OK"])) as server, far_away(redis_server, delay) as port:
        service = {"endpoints": [address(server)], "fleet": {"rate_limit": {"rate": 0.001, "burst": 1}}}
        config = {"redis": {"url": f"redis://127.0.0.1:{port}/0", "max_wait": "10ms"}, "services": {"orders": service}}
        told: list[Any] = []
        with Mesh.from_dict(config) as mesh:
            mesh.on_event(told.append)
            record = meshlib.record(mesh.client("orders").get("/"))
            assert [wait.reason for wait in record.waits] == ["fleet-rate-limit"]

            def unwell() -> bool:
                calls(mesh, 1)
                return any(isinstance(each, events.FleetUnwell) and "answers in" in each.detail for each in told)

            wait_until(unwell, "an event")
            assert meshlib.record(mesh.client("orders").get("/")).waits == (), "nobody waits any more"
            delay[0] = 0.0
            wait_until(lambda: any(isinstance(each, events.FleetWell) for each in told), "its recovery")
            wait_until(lambda: calls(mesh, 1) == ["RateLimited"], "the limit is back")


def test_who_answers_byte_by_byte_is_not_waited_for_again_and_again() -> None:
    over = threading.Event()

    def drip(peer: Peer) -> None:
        with suppress(OSError):
            while not over.wait(0.05):
                peer.send(b"$")

    with serving(drip) as redis, serving(script_of(["200 OK"])) as server:
        service = {"endpoints": [address(server)], "fleet": {"rate_limit": {"rate": 1000}}}
        url = f"redis://127.0.0.1:{redis.port}/0"
        with Mesh({"redis": {"url": url, "max_wait": "20ms"}, "services": {"orders": service}}) as mesh:
            client = mesh.client("orders")

            def waits() -> bool:
                return meshlib.record(client.get("/").raise_for_status()).waits != ()

            for _ in range(3):
                began = time.monotonic()
                assert waits()
                assert time.monotonic() - began >= 0.02
            wait_until(lambda: not waits(), "nobody waits any more", poll=0.0)
            over.set()
