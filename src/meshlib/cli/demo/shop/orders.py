"""The orders of the shop, in FastAPI. Each names its item, so each asks the catalogue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from meshlib import Mesh
from meshlib.cli.demo.shop.journal import Journal
from meshlib.cli.demo.shop.serving import addresses, announce, listen
from meshlib.cli.demo.shop.trail import RoundRobin, left_ms, trail
from meshlib.server.fastapi import MeshMiddleware

VERSION = sys.argv[1] if len(sys.argv) > 1 else "v1"

sock = listen()
mesh = Mesh()
journal = Journal(mesh)
catalogue = mesh.async_client("catalogue")
catalogue_plain = RoundRobin("catalogue", addresses("catalogue"), timeout_s=2.0)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Be in the registry while serving."""
    port = sock.getsockname()[1]
    async with mesh, mesh.register(port=port, service="orders", metadata={"version": VERSION}, check_interval="1s"):
        announce(port)
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(MeshMiddleware, mesh=mesh)


@app.get("/orders/{number}")
async def order(number: int) -> dict[str, Any]:
    """One order, by way of the mesh."""
    await trouble.happen()
    try:
        # The deadline of whoever called this service holds for this call too; nothing need be said about it.
        item = await catalogue.get(f"/items/{number}")
        item.raise_for_status()
    except httpx.HTTPError as error:
        raise HTTPException(502, f"catalogue: {error}") from error
    return {"number": number, "item": item.json()["name"], "calls": trail("catalogue", item)}


@app.get("/plain/orders/{number}")
async def order_plain(number: int) -> dict[str, Any]:
    """The same by way of httpx."""
    await trouble.happen()
    item, calls = await catalogue_plain.get(f"/items/{number}")
    if not isinstance(item, httpx.Response) or item.is_error:
        raise HTTPException(502, f"catalogue: {item!r}")
    return {"number": number, "item": item.json()["name"], "calls": calls}


@app.get("/deadline")
async def deadline() -> list[dict[str, Any]]:
    """How long there is left here, and further on."""
    here = {"service": "orders", "left_ms": left_ms()}
    await asyncio.sleep(0.03)  # what a real service does in the meantime
    further: list[dict[str, Any]] = (await catalogue.get("/deadline")).json()
    return [here, *further]


# What the demo does to this instance


class Trouble(BaseModel):
    """What this instance is told to do wrong: answer late, or with an error."""

    delay_s: float = 0.0
    status: int = 0

    async def happen(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.status:
            raise HTTPException(self.status, "told to fail")


trouble = Trouble()


@app.put("/trouble")
async def set_trouble(wanted: Trouble) -> None:
    """Misbehave from now on, or stop that."""
    global trouble
    trouble = wanted


@app.get("/mesh")
async def seen(since: int = 0) -> dict[str, Any]:
    """What the mesh of this process sees."""
    return journal.told(since)


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])
