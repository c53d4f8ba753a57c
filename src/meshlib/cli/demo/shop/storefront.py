"""The storefront of the shop, in FastAPI: a page shows an order and an item. It calls through the mesh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Response

import meshlib
from meshlib import Mesh
from meshlib.cli.demo.shop.journal import Journal
from meshlib.cli.demo.shop.serving import announce, listen
from meshlib.cli.demo.shop.trail import left_ms, trail
from meshlib.server.fastapi import MeshMiddleware

sock = listen()
mesh = Mesh()
journal = Journal(mesh)
orders = mesh.async_client("orders")
catalogue = mesh.async_client("catalogue")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Serve once there is somebody to call."""
    async with mesh:
        await mesh.ready("orders", "catalogue", timeout="20s")
        announce(sock.getsockname()[1])
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(MeshMiddleware, mesh=mesh)


@app.get("/pages/{number}")
async def page(number: int, response: Response) -> dict[str, Any]:
    """A page: complete, or 502."""
    began = time.perf_counter()
    with meshlib.timeout("2s"):  # for the whole page, and everything that is called for it
        order, item = await asyncio.gather(
            orders.get(f"/orders/{number}"), catalogue.get(f"/items/{number}"), return_exceptions=True
        )
    calls = [*trail("orders", order), *trail("catalogue", item)]
    complete = all(isinstance(answer, httpx.Response) and answer.is_success for answer in (order, item))
    response.status_code = 200 if complete else 502
    return {"ms": (time.perf_counter() - began) * 1000, "calls": calls}


@app.get("/deadline")
async def deadline() -> list[dict[str, Any]]:
    """How long there is left here, and further on."""
    with meshlib.timeout("1s"):
        here = {"service": "storefront", "left_ms": left_ms()}
        await asyncio.sleep(0.02)  # what a real service does in the meantime
        further: list[dict[str, Any]] = (await orders.get("/deadline")).json()
    return [here, *further]


@app.get("/mesh")
async def seen(since: int = 0) -> dict[str, Any]:
    """What the mesh of this process sees."""
    return journal.told(since)


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])
