"""An application for uvicorn: a service in front of a database that does one thing at a time, for a while nothing.

``$DATABASE_MESH``, if set, is the configuration of the mesh whose middleware is around it.
"""

from __future__ import annotations

import asyncio
import json
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware

TAKES_S = 0.01
"""For one query, so that it can do a hundred a second."""


class Database:
    """Takes queries one by one, in order, and works on each that is not cancelled."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._free_at = 0.0

    async def query(self) -> None:
        """One query."""
        await self._work(TAKES_S)

    async def stall(self, for_s: float) -> None:
        """Nothing is done for a while."""
        await self._work(for_s)

    async def _work(self, for_s: float) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._one:
            # By the clock and not by sleeps, which are longer than they are asked to be, and on a busy machine far too
            # long: who waits here is worked on from when the one before was done.
            self._free_at = max(asked_at, self._free_at) + for_s
            await asyncio.sleep(self._free_at - loop.time())


database = Database()


async def query(request: Request) -> PlainTextResponse:
    await database.query()
    return PlainTextResponse("row")


async def stall(request: Request) -> PlainTextResponse:
    await database.stall(float(request.query_params["for_s"]))
    return PlainTextResponse("over")


app = Starlette(routes=[Route("/", query), Route("/stall", stall, methods=["POST"])])
if "DATABASE_MESH" in os.environ:
    app.add_middleware(MeshMiddleware, mesh=Mesh.from_dict(json.loads(os.environ["DATABASE_MESH"])))
