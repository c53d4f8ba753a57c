"""What a service says of its load to callers that ask: with each response, and to a probe.

A meshed client asks by itself where a service is balanced by load; here a plain one does.
"""

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware


async def order(request: Request) -> PlainTextResponse:
    await asyncio.sleep(0.02)
    return PlainTextResponse("42")


async def main() -> None:
    app = MeshMiddleware(Starlette(routes=[Route("/orders/42", order)]), Mesh(service="orders"))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://orders") as client:
        silent = await client.get("/orders/42")
        print("not asked:", silent.headers.get("x-meshlib-load"), silent.headers.get("endpoint-load-metrics"))

        asks = {"x-meshlib-load": "in-flight"}
        await client.get("/orders/42", headers=asks)
        under_way = asyncio.gather(*(client.get("/orders/42", headers=asks) for _ in range(5)))
        await asyncio.sleep(0.01)
        probe = await client.get("/.well-known/meshlib/load", headers=asks)
        print("a probe, with five requests under way:", probe.headers["x-meshlib-load"].partition(",")[0])
        await under_way

        told = await client.get("/orders/42", headers={"x-meshlib-load": "orca"})
        report = told.headers["endpoint-load-metrics"]
        print("asked for ORCA:", ", ".join(part.partition("=")[0] for part in report.split(", ")))


asyncio.run(main())
