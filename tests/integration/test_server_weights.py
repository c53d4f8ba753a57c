"""From end to end: servers say how loaded they are, by the middleware, and calls go where there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from meshlib.balance.load_report import HEADER
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.load import LoadReporter
from meshlib.testing import MeshFixture

QUEUE = {"server_weights": {"metrics": ["named_metrics.queue"]}}


def config(policy: str, **more: Any) -> dict[str, Any]:
    return {"services": {"orders": {"load_balancing": {"policy": policy, **more}}}}


def saying(report: str, name: str) -> Any:
    return lambda request: httpx.Response(200, text=name, headers={HEADER: report})


def test_calls_go_where_servers_have_room() -> None:
    with MeshFixture(config("server_weights", **QUEUE)) as mesh:
        mesh.serve("orders", saying("TEXT named_metrics.queue=0.2, rps_fractional=100", "free"))
        mesh.serve("orders", saying('JSON {"named_metrics": {"queue": 0.6}, "rps_fractional": 100}', "busy"))
        client = mesh.client("orders")
        before = Counter(client.get("/").text for _ in range(20))
        mesh.clock.advance(11)
        then = Counter(client.get("/").text for _ in range(40))
        mesh.clock.advance(200)
        at_last = Counter(client.get("/").text for _ in range(20))
    assert before == {"free": 10, "busy": 10}
    assert then == {"free": 30, "busy": 10}
    assert at_last == {"free": 10, "busy": 10}


def test_other_balancers_do_not_look() -> None:
    with MeshFixture(config("round_robin")) as mesh:
        mesh.serve("orders", saying("TEXT cpu_utilization=0.2, rps_fractional=100", "free"), instances=2)
        assert mesh.client("orders").get("/").status_code == 200
        cluster = mesh._wiring.plane.service("orders").clusters[None]
        assert {member.load.reported for member in cluster.members} == {None}


@pytest.mark.parametrize(
    "report", ["TEXT cpu_utilization=nan", "TEXT cpu_utilization=-1", "JSON [", "BIN ??", "", "x" * 9000]
)
def test_a_report_that_is_none_is_a_header_like_any_other(report: str) -> None:
    with MeshFixture(config("server_weights")) as mesh:
        mesh.serve("orders", saying(report, "it"), instances=2)
        client = mesh.client("orders")
        for _ in range(6):
            mesh.clock.advance(5)
            assert client.get("/").headers[HEADER] == report


def test_the_middleware_reports_to_async_callers() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def run() -> Counter[str]:
        async with MeshFixture(config("server_weights")) as mesh:
            uses: dict[str, Callable[[], float]] = {"free": lambda: 0.25, "busy": lambda: 0.5}
            for name, use in uses.items():
                load = LoadReporter(use, clock=mesh.clock.now)
                mesh.serve("orders", MeshMiddleware(app, load=load), name=name)
            client = mesh.async_client("orders")
            for _ in range(130):
                mesh.clock.advance(0.1)
                await client.get("/")
            before = len(mesh.calls("orders"))
            for _ in range(60):
                await client.get("/")
            return Counter(call.instance for call in mesh.calls("orders")[before:])

    found = asyncio.run(run())
    assert found["free"] > 1.5 * found["busy"]
