"""The last: FastAPI again. ``?slow=SECONDS`` makes it take its time."""

from __future__ import annotations

import asyncio
import json
import os

from fastapi import FastAPI, Request

from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware
from tests.integration.chain import witness

mesh = Mesh.from_dict(json.loads(os.environ["CHAIN_MESH"]))
api = FastAPI()
api.add_middleware(MeshMiddleware, mesh=mesh)


@api.api_route("/count", methods=["GET", "POST"])
async def count(request: Request, slow: float = 0.0) -> dict[str, int]:
    run, method = request.headers.get("x-test-run", ""), request.method
    try:
        await asyncio.sleep(slow)
    except asyncio.CancelledError:
        witness.note(what="cancelled", run=run, path="/count", method=method)
        raise
    witness.note(what="counted", run=run, path="/count", method=method)
    return {"depot": 7}


app = witness.asgi(api)
