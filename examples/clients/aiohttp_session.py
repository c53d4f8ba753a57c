"""Code that is written for aiohttp, through the mesh: retries, streams, timeouts, and errors that it knows."""

import asyncio

import aiohttp
from aiohttp import web

import meshlib
from meshlib.adapters.aiohttp import session

asked = 0


async def report(request: web.Request) -> web.StreamResponse:
    """Is busy at first; then comes line by line."""
    global asked
    asked += 1
    if asked == 1:
        return web.Response(status=503)
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(b"line %d\n" % number)
    return response


async def slow(request: web.Request) -> web.Response:
    print("told how long we wait:", int(request.headers["x-meshlib-deadline-ms"]) <= 300)
    await asyncio.sleep(5)
    return web.Response()


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/report", report), web.get("/slow", slow)])
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]

    services = {"orders": {"endpoints": [f"{host}:{port}"]}, "gone": {"endpoints": ["127.0.0.1:1"]}}
    async with meshlib.Mesh(discovery=[], services=services) as mesh, session(mesh, "orders") as orders:
        async with orders.get("/report") as response:
            print("lines, one by one:", [line.decode().strip() async for line in response.content])
            print("attempts:", [attempt.status for attempt in meshlib.record(response).attempts])
        try:
            await orders.get("/slow", timeout=aiohttp.ClientTimeout(total=0.3))
        except TimeoutError as error:
            print("a timeout that says why:", error.record.limit)
        async with session(mesh, "gone") as gone:
            try:
                await gone.get("/")
            except aiohttp.ClientConnectorError as error:
                print("an error that the code knows:", isinstance(error, meshlib.ConnectFailed), error.host)
    await runner.cleanup()


asyncio.run(main())
