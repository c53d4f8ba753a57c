"""Shadows in a mesh: what a caller, an operator and a record see of them."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import meshlib
from meshlib import CircuitBreaker, Retry, Service, Shadow
from meshlib.status import ShadowStatus
from meshlib.telemetry.events import Event, ShadowDiffers
from meshlib.testing import MeshFixture

SHADOW = {
    "circuit_breaker": {"min_calls": 3},
    "outlier_detection": {"consecutive_errors": 2},
    "rate_limit": {"total": {"rate": 1, "burst": 4}},
    "load_balancing": {"policy": "round_robin"},
}
SERVICE: dict[str, Any] = {"retry": {"max_retries": 0}, "shadow": SHADOW}


def shadows_of(mesh: MeshFixture) -> dict[str, ShadowStatus]:
    ((cluster,),) = (service.clusters for service in mesh.status().services)
    return {shadow.policy: shadow for shadow in cluster.shadow}


def test_a_call_goes_as_it_would_and_its_record_and_the_status_tell_of_its_shadows() -> None:
    with MeshFixture({"services": {"orders": SERVICE}}) as mesh:
        mesh.serve("orders", lambda request: 200, instances=2)
        told: list[Event] = []
        mesh.on_event(told.append)
        with mesh.client("orders") as client:
            for _ in range(4):
                assert client.get("/").status_code == 200
            mesh.fail_next("orders", 4)
            records = [meshlib.record(client.get("/")) for _ in range(5)]
        said = [{text for text in record.shadow if "would have" in text} for record in records if record]
        assert all("rate_limit would have refused it" in texts for texts in said)
        assert "shadow: rate_limit would have refused it" in str(records[0])
        shadows = shadows_of(mesh)
        assert list(shadows) == ["circuit_breaker", "rate_limit", "outlier_detection", "load_balancing"]
        assert (shadows["rate_limit"].same, shadows["rate_limit"].differed) == (4, 5)
        assert sum(shadows["load_balancing"].counts.values()) == 9
        assert sorted(shadows["load_balancing"].counts.values()) == [4, 5]
        line = "      shadow rate_limit: 5 of 9 decisions differed (55.6 %); refused 5, let_in 0, waited 0"
        assert line in str(mesh.status())
        assert "rate_limit" in {event.policy for event in told if isinstance(event, ShadowDiffers)}


def test_so_it_is_from_an_event_loop() -> None:
    async def main() -> None:
        async with MeshFixture({"services": {"orders": SERVICE}}) as mesh:
            mesh.serve("orders", lambda request: 200)
            async with mesh.async_client("orders") as client:
                answers = await asyncio.gather(*(client.get("/") for _ in range(6)))
            assert sum(bool(record.shadow) for record in map(meshlib.record, answers) if record) == 2
            assert (shadows_of(mesh)["rate_limit"].same, shadows_of(mesh)["rate_limit"].differed) == (4, 2)

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["observe", "on"])
def test_a_mesh_that_only_observes_compares_too(mode: str) -> None:
    with MeshFixture({"mode": mode, "services": {"orders": SERVICE}}) as mesh:
        mesh.serve("orders", lambda request: 200)
        with mesh.client("orders") as client:
            for _ in range(6):
                assert client.get("/").status_code == 200
        shadows = shadows_of(mesh)
        assert (shadows["rate_limit"].same, shadows["rate_limit"].differed) == (4, 2)
        assert (shadows["circuit_breaker"].same, shadows["circuit_breaker"].differed) == (6, 0)


def test_a_stream_that_nobody_reads_to_its_end_leaves_nothing_in_the_shadow() -> None:
    limits = {"shadow": {"limits": {"max_in_flight": 1}, "circuit_breaker": {}}}
    with MeshFixture({"services": {"orders": limits}}) as mesh:
        mesh.serve("orders", lambda request: {"some": "body"})
        client = mesh.client("orders")
        for _ in range(3):
            stream = client.stream("GET", "/")
            stream.__enter__()
            del stream
            gc.collect()
        assert (shadows_of(mesh)["limits"].same, shadows_of(mesh)["limits"].counts["waited"]) == (3, 0)


def test_a_dry_run_is_not_compared() -> None:
    with MeshFixture({"services": {"orders": SERVICE}}) as mesh:
        mesh.serve("orders", lambda request: 200)
        with mesh.client("orders") as client:
            client.get("/")
        mesh.plan("GET", "http://orders/")
        assert all(shadow.same + shadow.differed == 1 for shadow in shadows_of(mesh).values())


def test_a_breaker_of_pybreakers_is_compared_with_a_shadow_of_ours() -> None:
    pybreaker = pytest.importorskip("pybreaker")
    breaker = pybreaker.CircuitBreaker(fail_max=2)
    shadow = Shadow(circuit_breaker=CircuitBreaker(min_calls=100))
    orders = Service(circuit_breaker=breaker, retry=Retry(max_retries=0), shadow=shadow)
    with MeshFixture(services={"orders": orders}) as mesh:
        mesh.serve("orders", lambda request: 503)
        with mesh.client("orders") as client:
            for _ in range(2):
                client.get("/")
            with pytest.raises(meshlib.CircuitOpen) as caught:
                client.get("/")
        assert caught.value.record is not None
        assert caught.value.record.shadow == ("circuit_breaker would have let it in",)
        shadows = shadows_of(mesh)["circuit_breaker"]
        assert (shadows.same, shadows.differed, shadows.now) == (2, 1, "closed")
