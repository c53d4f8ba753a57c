"""What is left of a call that is over: nothing that only the garbage collector could free."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from tests.adapters.support import address, ok
from tests.net.wire_servers import Peer, serving


class Callers:
    """Stands for what the frames of a program hold."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refuses(peer: Peer) -> None:
    peer.request()
    peer.reset()


def breaks(peer: Peer) -> None:
    peer.request()
    peer.send(ok()[:-1])


def fails_once(peer: Peer) -> None:
    if not peer.number:
        refuses(peer)
    while peer.request() is not None:
        peer.send(ok())


def is_silent(peer: Peer) -> None:
    peer.request()
    peer.wait_until_gone()


def one_call(client: httpx.Client, **options: Any) -> weakref.ref[Callers]:
    held = Callers()
    try:
        client.put("/", content=b"body", **options)
    except httpx.HTTPError:
        pass
    return weakref.ref(held)


async def one_async_call(client: httpx.AsyncClient, **options: Any) -> weakref.ref[Callers]:
    held = Callers()
    try:
        await client.put("/", content=b"body", **options)
    except httpx.HTTPError:
        pass
    return weakref.ref(held)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("script", [refuses, breaks, fails_once, is_silent, None])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_call_that_failed_holds_nothing_of_its_callers(script: Callable[[Peer], None] | None, kind: str) -> None:
    with serving(script or refuses) as server:
        endpoint = address(server) if script else "127.0.0.1:1"
        with Mesh({"discovery": [], "services": {"orders": {"endpoints": [endpoint]}}}) as mesh:
            if kind == "sync":
                left = one_call(mesh.client("orders"), timeout=0.3)
            else:
                left = asyncio.run(one_async_call(mesh.async_client("orders"), timeout=0.3))
        assert left() is None
