"""Three times what a real server can do, of two criticalities: what is critical is served, the other takes the loss."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress

import pytest

import meshlib
from meshlib import Mesh, MeshError
from tests.integration.test_metastable import served

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("overload")]

CAPACITY = 100
RATES = {"critical_plus": 60, "sheddable": 240}
SECONDS = 5


async def load(address: str) -> tuple[Counter[str], Counter[str]]:
    """How many calls of each criticality ended well, and how many there were, by the defaults of the mesh."""
    good, all_of = Counter[str](), Counter[str]()
    loop, calls = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    async with Mesh(services={"orders": {"endpoints": [address], "timeout": "1s"}}, discovery=[]) as mesh:
        client = mesh.async_client("orders")

        async def one(criticality: str) -> None:
            all_of[criticality] += 1
            with meshlib.criticality(criticality), suppress(MeshError):
                response = await client.get("/")
                good[criticality] += response.is_success

        begun = sorted(
            ((n + 0.5) / rate, criticality) for criticality, rate in RATES.items() for n in range(rate * SECONDS)
        )
        began = loop.time()
        for at, criticality in begun:
            await asyncio.sleep(max(0.0, began + at - loop.time()))
            calls.append(asyncio.create_task(one(criticality)))
        await asyncio.gather(*calls)
    return good, all_of


def test_at_three_times_the_capacity_what_is_critical_is_served() -> None:
    config = {"service": "orders", "discovery": [], "server": {"admission": {"max_in_flight": 8}}}
    for _ in range(3):  # what else the machine has to do may spoil one, and not each
        with served(DATABASE_MESH=json.dumps(config)) as address:
            good, all_of = asyncio.run(load(address))
        if good["critical_plus"] > 0.99 * all_of["critical_plus"] and sum(good.values()) > 0.8 * CAPACITY * SECONDS:
            break

    assert sum(all_of.values()) == 3 * CAPACITY * SECONDS
    assert good["critical_plus"] > 0.99 * all_of["critical_plus"], good
    assert good["sheddable"] < 0.5 * all_of["sheddable"], good
    assert sum(good.values()) > 0.8 * CAPACITY * SECONDS, good
