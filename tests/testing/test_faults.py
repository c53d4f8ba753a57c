"""Faults on demand, and that the mesh meets them as it meets real ones."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import MeshFixture
from tests.testing.support import Sync


def statuses(mesh: MeshFixture, caller: Sync, calls: int) -> list[int]:
    return [caller.get(mesh, "http://orders/").status_code for _ in range(calls)]


def test_the_next_attempts_fail_and_are_retried(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200, instances=3)
    mesh.fail_next("orders", times=2)
    assert statuses(mesh, caller, 2) == [200, 200]
    assert [call.headers["x-envoy-attempt-count"] for call in mesh.calls("orders")] == ["1", "2", "3", "1"]
    assert len({call.instance for call in mesh.calls("orders")[:3]}) == 3


def test_what_must_not_be_repeated_is_not(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 201)
    mesh.fail_next("orders", status=502, body={"why": "test"})
    response = caller.request(mesh, "POST", "http://orders/")
    assert (response.status_code, response.json()) == (502, {"why": "test"})
    assert len(mesh.calls("orders")) == 1


@pytest.mark.parametrize(
    ("error", "raised", "arrived"),
    [
        (meshlib.ConnectFailed, meshlib.ConnectFailed, 0),
        (meshlib.ConnectTimeout, meshlib.ConnectTimeout, 0),
        (meshlib.Reset, meshlib.Reset, 3),
        (meshlib.Reset("mine"), meshlib.Reset, 3),
        (meshlib.ProtocolError, meshlib.ProtocolError, 3),
        (meshlib.AttemptTimeout, meshlib.DeadlineExceeded, 3),
        (meshlib.BodyBroken, meshlib.BodyBroken, 3),
        (httpx.ConnectError("mine"), meshlib.ConnectFailed, 0),
        (httpx.ReadError, meshlib.Reset, 3),
    ],
    ids=repr,
)
def test_errors_of_the_wire(
    mesh: MeshFixture, caller: Sync, error: Any, raised: type[meshlib.MeshError], arrived: int
) -> None:
    mesh.serve("orders", "a body")
    mesh.fail_next("orders", times=None, error=error)
    with pytest.raises(raised) as caught:
        caller.get(mesh, "http://orders/")
    assert isinstance(caught.value, httpx.TransportError)
    assert caught.value.request.url == "http://orders/"
    assert caught.value.service == "orders"
    assert caught.value.record is not None
    assert len(caught.value.record.attempts) == 3
    assert len(mesh.calls("orders")) == arrived


@pytest.mark.parametrize(
    "error", [ValueError, OSError("x"), meshlib.CircuitOpen, meshlib.RequestBodyError("x"), "reset"]
)
def test_an_error_that_no_attempt_ends_with_is_refused(mesh: MeshFixture, error: Any) -> None:
    mesh.serve("orders", 200)
    with pytest.raises(TypeError, match=r"meshlib.Reset or another WireError, .* not (\w+|meshlib\.errors\.\w+)$"):
        mesh.fail_next("orders", error=error)
    assert mesh.client("orders").get("/").status_code == 200


def test_a_failure_that_sent_nothing_is_retried_even_for_a_post(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 201)
    mesh.fail_next("orders", error=meshlib.ConnectFailed)
    assert caller.request(mesh, "POST", "http://orders/").status_code == 201


def test_a_status_or_an_error_not_both(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200)
    with pytest.raises(TypeError, match="a status or an error"):
        mesh.fail_next("orders", status=503, error=meshlib.Reset)


def test_retry_after_is_heeded(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    mesh.fail_next("orders", status=429, retry_after="1s")
    assert caller.get(mesh, "http://orders/").status_code == 200
    assert 1.0 <= mesh.calls("orders")[1].at <= 1.5


def test_a_killed_instance_refuses_connections_until_it_is_revived(mesh: MeshFixture, caller: Sync) -> None:
    served = mesh.serve("orders", 200, instances=2)
    mesh.kill("orders", instance=0)
    assert statuses(mesh, caller, 10) == [200] * 10
    assert {call.instance for call in mesh.calls("orders")} == {"orders-1"}
    served.kill()
    with pytest.raises(meshlib.ConnectFailed, match=r"refused \(the test killed it\)"):
        caller.get(mesh, "http://orders/")
    mesh.revive("orders")
    mesh.clock.advance("10m")
    assert statuses(mesh, caller, 1) == [200]


def test_an_instance_that_keeps_failing_is_ejected_and_comes_back() -> None:
    events: list[Any] = []
    with MeshFixture(defaults={"load_balancing": {"policy": "round_robin"}}) as mesh:
        mesh.on_event(events.append)
        served = mesh.serve("orders", 200, instances=2)
        mesh.fail_next("orders", times=5, instance=served[0])
        statuses(mesh, Sync(), 20)
        assert [type(event).__name__ for event in events] == ["Ejected"]
        assert len(mesh.calls("orders", instance=0)) == 5
        mesh.clock.advance("31s")
        statuses(mesh, Sync(), 10)
        assert [type(event).__name__ for event in events] == ["Ejected", "Returned"]
        assert len(mesh.calls("orders", instance=0)) > 5


def test_slowness_takes_no_time_and_moves_the_clock(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    mesh.slow("orders", "200ms")
    assert statuses(mesh, caller, 2) == [200, 200]
    assert mesh.clock.elapsed == pytest.approx(0.4)
    mesh.slow("orders", 0)
    assert statuses(mesh, caller, 1) == [200]
    assert mesh.clock.elapsed == pytest.approx(0.4)


def test_the_newest_slowness_holds_and_may_be_counted(mesh: MeshFixture, caller: Sync) -> None:
    served = mesh.serve("orders", 200)
    served.slow("1s")
    served.slow("3s", times=1)
    statuses(mesh, caller, 2)
    assert mesh.clock.elapsed == pytest.approx(4.0)


def test_what_is_too_slow_is_cut_at_the_attempt_s_deadline(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200, instances=2)
    mesh.slow("orders", "11s", times=1)
    assert caller.get(mesh, "http://orders/").status_code == 200
    first, second = mesh.calls("orders")
    assert 10.0 <= second.at - first.at <= 10.03


def test_a_hanging_service_ends_at_the_total_timeout(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    mesh.hang("orders")
    with pytest.raises(meshlib.DeadlineExceeded) as caught:
        caller.get(mesh, "http://orders/", timeout=2.5)
    assert caught.value.limit == "client"
    assert mesh.clock.elapsed == pytest.approx(2.5)


def test_httpx_s_own_read_timeout_holds_too(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    mesh.hang("orders", times=1)
    assert caller.get(mesh, "http://orders/", timeout=httpx.Timeout(None, read=0.5)).status_code == 200
    assert 0.5 <= mesh.clock.elapsed <= 0.53


def test_hanging_without_any_timeout_is_said() -> None:
    with MeshFixture(defaults={"timeout": None, "per_try_timeout": None}) as endless:
        endless.serve("orders", 200)
        endless.hang("orders")
        with pytest.raises(RuntimeError, match="it would wait for ever"):
            endless.client("orders").get("/")


def test_a_body_that_breaks_off_in_a_stream(mesh: MeshFixture) -> None:
    mesh.serve("orders", "0123456789")
    mesh.fail_next("orders", error=meshlib.BodyBroken)
    with mesh.client("orders").stream("GET", "/") as response:
        assert response.status_code == 200
        received = b""
        with pytest.raises(meshlib.BodyBroken):
            for chunk in response.iter_raw():
                received += chunk
    assert received == b"01234"


def test_a_stream_that_stalls_is_cut(mesh: MeshFixture) -> None:
    def stalls() -> Any:
        yield b"one"
        mesh.clock.advance("10m")
        yield b"two"

    mesh.serve("orders", lambda request: httpx.Response(200, content=stalls()))
    with (
        mesh.client("orders").stream("GET", "/") as response,
        pytest.raises(meshlib.AttemptTimeout, match="body in time"),
    ):
        response.read()


def test_an_open_circuit_is_felt_and_closes_again(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200)
    mesh.kill("orders")
    raised = []
    for _ in range(30):
        try:
            mesh.client("orders").get("/")
        except meshlib.MeshError as error:
            raised.append(type(error).__mro__[1])
    assert raised[0] is meshlib.ConnectFailed
    assert raised[-1] is meshlib.CircuitOpen
    mesh.revive("orders")
    mesh.clock.advance("61s")
    assert mesh.client("orders").get("/").status_code == 200


def test_reset_starts_over(mesh: MeshFixture, caller: Sync) -> None:
    served = mesh.serve("orders", 200, instances=2)
    mesh.fail_next("orders", times=None)
    mesh.hang("orders")
    served.slow("1s")
    for _ in range(30):
        caller.get(mesh, "http://orders/") if mesh.plan("GET", "http://orders/").candidates else None
        if any(cluster.breaker != "closed" for cluster in mesh.status().services[0].clusters):
            break
    mesh.kill("orders", instance=1)
    now = mesh.clock.elapsed
    mesh.reset()
    assert mesh.calls() == []
    assert statuses(mesh, caller, 20) == [200] * 20
    assert {call.instance for call in mesh.calls("orders")} == {"orders-0", "orders-1"}
    assert mesh.clock.elapsed == now
    assert mesh.status().services[0].clusters[0].breaker == "closed"


def test_the_same_test_does_the_same_each_time() -> None:
    def run() -> list[tuple[str, float]]:
        with MeshFixture(seed=7) as mesh:
            mesh.serve("orders", 200, instances=5)
            for _ in range(20):
                mesh.fail_next("orders")
                mesh.client("orders").get("/")
            return [(call.instance, call.at) for call in mesh.calls()]

    # A clock begins on the whole second that it is. From another one some numbers are rounded otherwise, and of two
    # instances with the same costs the other may be the better one.
    began = -1
    while began != (began := int(time.monotonic())):
        first, second = run(), run()
    assert [instance for instance, _ in first] == [instance for instance, _ in second]
    assert [at for _, at in first] == pytest.approx([at for _, at in second], abs=1e-6)


def test_no_in_flight_count_stays_behind(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200, instances=3)
    mesh.slow("orders", "50ms")
    mesh.fail_next("orders", times=5, error=meshlib.Reset)

    async def many() -> None:
        async with mesh.async_client("orders") as client:
            tasks = [asyncio.create_task(client.get("/")) for _ in range(50)]
            await asyncio.sleep(0)
            for task in tasks[::7]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(many())
    cluster = mesh.status().services[0].clusters[0]
    assert [endpoint.in_flight for endpoint in cluster.endpoints] == [0, 0, 0]
    assert cluster.in_flight == 0
