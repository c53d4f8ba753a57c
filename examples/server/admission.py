"""A service that can do ten things at once and is asked for far more: who is served, and what the others are told."""

import asyncio
from collections import Counter

import httpx
from fastapi import FastAPI

from meshlib import Mesh
from meshlib.server.fastapi import MeshMiddleware
from meshlib.testing import MeshFixture

# The service. In one of yours, this is all there is.

mesh = Mesh(
    service="catalogue",
    discovery=[],
    # All runs in one process here, so who waits may wait for long.
    server={"admission": {"max_in_flight": 10, "max_pending": 20, "interval": "5s", "fair_by": "header:x-client"}},
)
app = FastAPI()
app.add_middleware(MeshMiddleware, mesh=mesh)


@app.get("/items")
async def items() -> str:
    await asyncio.sleep(0.01)
    return "items"


@app.post("/items")
async def add() -> str:
    await asyncio.sleep(0.01)
    return "added"


# Those who call it.


async def call(times: int, **headers: str) -> Counter[int]:
    """So many calls at once."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://catalogue", headers=named) as client:
        answers = await asyncio.gather(*(client.get("/items") for _ in range(times)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["x-meshlib-refused"] == "overload" for answer in refused)
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    return Counter(answer.status_code for answer in answers)


async def main() -> None:
    batch = asyncio.create_task(call(200, x_meshlib_criticality="sheddable"))
    await asyncio.sleep(0)
    pages = await call(15, x_meshlib_criticality="critical")
    print("pages, while a batch floods the service:", dict(pages))
    print("of the batch most are refused:", (await batch)[503] > 150)

    greedy = asyncio.create_task(call(200, x_client="greedy"))
    await asyncio.sleep(0)
    modest = await call(5, x_client="modest")
    print("a caller with five requests, beside one with two hundred:", dict(modest))
    print("of the greedy one most are refused:", (await greedy)[503] > 150)

    # A meshed caller makes a POST that was refused at another instance: it was not begun here.
    async with MeshFixture(services={"catalogue": {"load_balancing": {"policy": "round_robin"}}}) as caller:
        caller.serve("catalogue", app, name="full")
        caller.serve("catalogue", lambda request: "added elsewhere", name="free")
        flood = asyncio.create_task(call(200, x_meshlib_criticality="critical_plus"))
        await asyncio.sleep(0)
        answers = [await caller.async_client("catalogue").post("/items") for _ in range(2)]
        print("POSTs to a full instance and a free one:", [answer.text for answer in answers])
        print("were refused by the full one first:", len(caller.calls("catalogue", instance="full")) > 0)
        await flood

    status = mesh.status().serving
    assert status is not None
    assert status.admission is not None
    print("who gave way:", [reason for reason in status.admission.shed if reason in ("outranked", "over_share")])


asyncio.run(main())
mesh.close()
