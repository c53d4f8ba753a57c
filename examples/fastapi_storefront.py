"""A FastAPI service that calls another one through the mesh: python examples/fastapi_storefront.py [PORT]"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

import meshlib
from meshlib import Mesh, Retry, Service
from meshlib.server.fastapi import MeshMiddleware

mesh = Mesh(
    service="storefront",
    services={"catalogue": Service(per_try_timeout="300ms", retry=Retry(max_retries=2))},
)
catalogue = mesh.async_client("catalogue")  # an httpx.AsyncClient


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with mesh:  # watches what it will call, from the start
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(MeshMiddleware, mesh=mesh)  # takes in what callers say: deadline, trace, baggage


@app.get("/pages/{number}")
async def page(number: int) -> dict[str, Any]:
    with meshlib.timeout("1s"):  # for all that is called in here, and for all that they call
        answer = await catalogue.get(f"/items/{number}")
    answer.raise_for_status()
    record = meshlib.record(answer)
    return {"item": answer.json(), "attempts": len(record.attempts) if record else 0}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
