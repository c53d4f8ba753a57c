"""A service that says whether it is to get requests: a check of its own, and what it says when it is about to leave."""

import asyncio

import httpx
from fastapi import FastAPI

from meshlib import Mesh
from meshlib.server.fastapi import MeshMiddleware

# The service. In one of yours, this is all there is.

mesh = Mesh(service="catalogue", discovery=[], server={"health": {"live": "/livez", "ready": "/readyz"}})
app = FastAPI()
app.add_middleware(MeshMiddleware, mesh=mesh)


async def ping_database() -> None:
    await asyncio.sleep(0.001)


def look_at_disk() -> None:
    raise OSError("no space left on device")


mesh.serving.add_check("database", ping_database, timeout="500ms")


# Those who ask: Kubernetes, a registry, a load balancer.


async def ask(path: str, peer: str = "127.0.0.1") -> str:
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://catalogue") as client:
        answer = await client.get(path)
        content = answer.json()
        return f"{answer.status_code} {content['status']} {content.get('reasons', '')}".rstrip()


async def main() -> None:
    print("live:", await ask("/livez"))
    print("ready:", await ask("/readyz"))
    mesh.serving.add_check("disk", look_at_disk)
    print("a check fails:", await ask("/readyz"))
    print("a stranger is not told why:", await ask("/readyz", peer="203.0.113.9"))
    mesh.serving.checks.remove("disk")
    mesh.serving.draining = True  # as it is from SIGTERM on
    print("about to leave:", await ask("/readyz"))
    print("and alive all the same:", await ask("/livez"))


asyncio.run(main())
mesh.close()
