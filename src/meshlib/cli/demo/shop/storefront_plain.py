"""The storefront of the shop without a mesh: httpx, and a list of addresses that is gone through in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Response

from meshlib.cli.demo.shop.serving import addresses, announce, listen
from meshlib.cli.demo.shop.trail import RoundRobin

sock = listen()
# httpx would wait for 5 s; a page may take 2 s, as that of the other storefront.
orders = RoundRobin("orders", addresses("orders"), timeout_s=2.0)
catalogue = RoundRobin("catalogue", addresses("catalogue"), timeout_s=2.0)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Serve."""
    announce(sock.getsockname()[1])
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/pages/{number}")
async def page(number: int, response: Response) -> dict[str, Any]:
    """A page: complete, or 502."""
    began = time.perf_counter()
    (order, order_calls), (item, item_calls) = await asyncio.gather(
        orders.get(f"/plain/orders/{number}"), catalogue.get(f"/items/{number}")
    )
    complete = all(isinstance(answer, httpx.Response) and answer.is_success for answer in (order, item))
    response.status_code = 200 if complete else 502
    return {"ms": (time.perf_counter() - began) * 1000, "calls": [*order_calls, *item_calls]}


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])
