"""What a type checker sees of the frameworks' idioms."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Protocol, assert_type

import httpx
from fastapi import Depends, FastAPI

from meshlib import ContextExecutor, Mesh
from meshlib.adapters.declarative import get
from meshlib.server.django import mesh as mesh_of_django
from meshlib.server.fastapi import MeshMiddleware, async_client_of, bound, client_of, lifespan
from meshlib.server.flask import MeshExtension, current_mesh


class Orders(Protocol):
    @get("/orders/{number}")
    async def order(self, number: int) -> dict[str, int]: ...


def fastapi_has_a_lifespan_and_dependencies(mesh: Mesh) -> None:
    app = FastAPI(lifespan=lifespan(mesh, carry_context=True))
    app.add_middleware(MeshMiddleware, mesh=mesh)
    assert_type(async_client_of(mesh, "orders"), Callable[[], Awaitable[httpx.AsyncClient]])
    assert_type(client_of(mesh, "orders"), Callable[[], Awaitable[httpx.Client]])
    declared = bound(mesh, Orders, "orders", prefix="/v2")

    @app.get("/")
    async def handler(orders: Annotated[Orders, Depends(declared)]) -> dict[str, int]:
        return await orders.order(42)


def a_lifespan_has_another_inside(mesh: Mesh) -> None:
    @asynccontextmanager
    async def own(app: FastAPI):  # type: ignore[no-untyped-def]
        yield {"database": 1}

    FastAPI(lifespan=lifespan(mesh, own))


def flask_has_clients_and_a_current_mesh(mesh: Mesh) -> None:
    assert_type(MeshExtension(mesh).client("orders"), httpx.Client)
    assert_type(current_mesh.client("orders"), httpx.Client)


def django_has_a_mesh() -> None:
    assert_type(mesh_of_django(), Mesh)


async def a_loop_has_an_executor() -> None:
    import asyncio

    assert_type(ContextExecutor.install(asyncio.get_running_loop(), max_workers=2), ContextExecutor)
