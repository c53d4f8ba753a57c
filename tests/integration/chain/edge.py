"""The first: FastAPI under uvicorn."""

from __future__ import annotations

import json
import os
from typing import Any

from fastapi import FastAPI, Request

from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware
from tests.integration.chain import witness

mesh = Mesh.from_dict(json.loads(os.environ["CHAIN_MESH"]))
shop = mesh.async_client("shop")
api = FastAPI()
api.add_middleware(MeshMiddleware, mesh=mesh)


@api.get("/")
async def page(request: Request) -> dict[str, Any]:
    run = {"x-test-run": request.headers.get("x-test-run", "")}
    offers = await shop.get("/offers", headers=run, params=dict(request.query_params))
    offers.raise_for_status()
    return {"edge": offers.json()}


@api.post("/")
async def order(request: Request) -> dict[str, Any]:
    run = {"x-test-run": request.headers.get("x-test-run", "")}
    placed = await shop.post("/offers", headers=run, params=dict(request.query_params))
    placed.raise_for_status()
    return {"edge": placed.json()}


app = witness.asgi(api)
