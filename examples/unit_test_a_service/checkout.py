"""A small service: it asks orders for an order, users for a name, and can do without the latter."""

from functools import cache
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException

import meshlib
from meshlib import Mesh

app = FastAPI()


@cache
def get_mesh() -> Mesh:
    return Mesh()


MeshDependency = Annotated[Mesh, Depends(get_mesh)]


@app.get("/checkout/{order_id}")
async def checkout(order_id: int, mesh: MeshDependency) -> dict[str, Any]:
    with meshlib.timeout("1s"):
        async with mesh.async_client("orders") as orders:
            try:
                response = await orders.get(f"/orders/{order_id}")
            except httpx.TransportError as error:
                raise HTTPException(503, "orders is not to be reached") from error
        if response.status_code == 404:
            raise HTTPException(404, f"there is no order {order_id}")
        order = response.raise_for_status().json()
        return {"order": order["id"], "total": order["total"], "greeting": await greeting(mesh, order["user"])}


async def greeting(mesh: Mesh, user: str) -> str:
    try:
        async with mesh.async_client("users") as users:
            response = await users.get(f"/users/{user}", timeout=0.2)
            return f"Hello, {response.raise_for_status().json()['name']}!"
    except httpx.HTTPError:  # meshlib's errors are httpx's too
        return "Hello!"
