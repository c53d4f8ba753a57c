"""A wire that hands over a body whole, together with the head: nothing is held for it, and nothing need be closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.mesh import MeshParts
from meshlib.net.wire import AsyncWireResponse, Headers, Progress, SyncWireResponse, Target, WireLimits, WireRequest

JSON: Headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]


class Whole:
    """Answers each attempt with the next of `statuses` and its body, which has no other form."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)

    def _answer(self, progress: Progress) -> tuple[int, Headers, Any, Any, bytes, bytes, dict[str, Any], bytes]:
        progress.phase, progress.bytes_written, progress.answered = "body", True, True
        status = self.statuses.pop(0)
        return status, JSON, None, None, b"HTTP/1.1", b"", {}, b"{}" if status == 200 else b"no"


class SyncWhole(Whole):
    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        return SyncWireResponse(*self._answer(progress))


class AsyncWhole(Whole):
    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        return AsyncWireResponse(*self._answer(progress))


def mesh(parts: MeshParts, max_retries: int) -> Mesh:
    service = {"endpoints": ["127.0.0.1:8001", "127.0.0.1:8002"], "retry": {"max_retries": max_retries}}
    return Mesh({"discovery": [], "services": {"orders": service}}, parts=parts)


Answer = tuple[int, bytes, int]
"""Status, body, and how many attempts were in flight once the headers had been delivered."""


def in_flight(mesh: Mesh) -> int:
    cluster = mesh._wiring.plane.snapshots.service("orders").clusters[None]
    return sum(member.node.in_flight for member in cluster.members) + cluster.state.limit.in_flight


def get_sync(max_retries: int, *statuses: int, stream: bool = False) -> Answer:
    with mesh(MeshParts(sync_wire=SyncWhole(*statuses)), max_retries) as meshed, meshed.client("orders") as client:
        response = client.send(client.build_request("GET", "/"), stream=stream)
        held = in_flight(meshed)
        return response.status_code, response.read(), held


def get_async(max_retries: int, *statuses: int, stream: bool = False) -> Answer:
    async def get() -> Answer:
        async with mesh(MeshParts(async_wire=AsyncWhole(*statuses)), max_retries) as meshed:
            async with meshed.async_client("orders") as client:
                response = await client.send(client.build_request("GET", "/"), stream=stream)
                held = in_flight(meshed)
                return response.status_code, await response.aread(), held

    return asyncio.run(get())


both = pytest.mark.parametrize("get", [get_sync, get_async])


@both
@pytest.mark.parametrize("stream", [False, True])
def test_it_is_the_body_and_nothing_stays_in_flight_for_it(get: Callable[..., Answer], stream: bool) -> None:
    assert get(0, 200, stream=stream) == (200, b"{}", 0)


@both
def test_a_failure_is_retried(get: Callable[..., Answer]) -> None:
    assert get(1, 503, 200) == (200, b"{}", 0)


@both
def test_a_failure_that_is_not_retried_is_delivered(get: Callable[..., Answer]) -> None:
    assert get(0, 503) == (503, b"no", 0)
