"""FastAPI's idioms: a lifespan, and clients as dependencies that tests replace."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient

from meshlib import Mesh, MeshClosed, current
from meshlib.adapters.declarative import get
from meshlib.propagation import DEADLINE_MS
from meshlib.server.fastapi import MeshMiddleware, async_client_of, bound, client_of, lifespan
from meshlib.testing import MeshFixture


class Orders(Protocol):
    @get("/orders/{number}")
    async def order(self, number: int) -> dict[str, int]: ...


@pytest.fixture
def mesh() -> Iterator[MeshFixture]:
    with MeshFixture() as mesh:
        mesh.serve("orders", lambda request: {"id": int(request.url.path.rpartition("/")[2])})
        yield mesh


def storefront(mesh: Mesh) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=mesh)
    Async = Annotated[httpx.AsyncClient, Depends(async_client_of(mesh, "orders"))]
    Sync = Annotated[httpx.Client, Depends(client_of(mesh, "orders"))]
    Declared = Annotated[Orders, Depends(bound(mesh, Orders, "orders"))]

    @app.get("/async/{number}")
    async def async_(number: int, client: Async) -> Any:
        return (await client.get(f"/orders/{number}")).json()

    @app.get("/sync/{number}")
    def sync(number: int, client: Sync) -> Any:
        return client.get(f"/orders/{number}").json()

    @app.get("/declared/{number}")
    async def declared(number: int, orders: Declared) -> Any:
        return await orders.order(number)

    return app


@pytest.mark.parametrize("kind", ["async", "sync", "declared"])
def test_clients_are_dependencies(mesh: MeshFixture, kind: str) -> None:
    client = TestClient(storefront(mesh), client=("127.0.0.1", 1))
    assert client.get(f"/{kind}/42", headers={DEADLINE_MS: "5000"}).json() == {"id": 42}
    (call,) = mesh.calls("orders")
    assert 0 < int(call.headers[DEADLINE_MS]) <= 5000


def test_a_test_replaces_them_by_asking_for_the_same_again(mesh: MeshFixture) -> None:
    class Fake:
        async def get(self, path: str) -> httpx.Response:
            return httpx.Response(200, json={"fake": path})

        async def order(self, number: int) -> dict[str, int]:
            return {"fake": number}

    app = storefront(mesh)
    app.dependency_overrides[async_client_of(mesh, "orders")] = Fake
    app.dependency_overrides[bound(mesh, Orders, "orders")] = Fake
    client = TestClient(app)
    assert client.get("/async/42").json() == {"fake": "/orders/42"}
    assert client.get("/declared/42").json() == {"fake": 42}
    assert client.get("/sync/42").json() == {"id": 42}  # was not replaced
    assert client_of(mesh, "orders") != client_of(mesh, "users")
    assert client_of(mesh, "orders") != async_client_of(mesh, "orders")
    assert bound(mesh, Orders, "orders", prefix="/v2") != bound(mesh, Orders, "orders")
    assert repr(client_of(mesh, "orders")) == "<dependency client('orders',)>"


async def ask_twice(dependency: Any) -> bool:
    return await dependency() is await dependency()


def test_one_client_serves_all_requests(mesh: MeshFixture) -> None:
    assert asyncio.run(ask_twice(async_client_of(mesh, "orders")))


def test_a_class_of_which_no_call_can_be_made_is_refused_when_the_dependency_is_made(mesh: MeshFixture) -> None:
    class Undeclared(Protocol):
        async def order(self, number: int) -> dict[str, int]: ...

    with pytest.raises(TypeError, match="order"):
        bound(mesh, Undeclared, "orders")


def test_a_lifespan_holds_the_mesh_and_the_applications_own_inside() -> None:
    mesh = Mesh({"discovery": []})
    order: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        order.append("begun")
        yield {"database": "db"}
        order.append("closed" if "closed" in repr(mesh) else "open")

    app = FastAPI(lifespan=lifespan(mesh, own, carry_context=True))
    app.add_middleware(MeshMiddleware, mesh=mesh)

    @app.get("/")
    async def handler(request: Request) -> list[bool]:
        in_executor = await asyncio.get_running_loop().run_in_executor(None, current)
        return [request.state.mesh is mesh, request.state.database == "db", in_executor.remaining is not None]

    with TestClient(app, client=("127.0.0.1", 1)) as client:
        assert client.get("/", headers={DEADLINE_MS: "5000"}).json() == [True, True, True]
    assert order == ["begun", "open"]
    with pytest.raises(MeshClosed):
        mesh.client("orders").get("/")


def test_a_lifespan_without_one_of_the_applications_own() -> None:
    app = FastAPI(lifespan=lifespan(Mesh({"discovery": []})))

    @app.get("/")
    async def handler(request: Request) -> str:
        return request.state.mesh.mode

    with TestClient(app) as client:
        assert client.get("/").json() == "on"


def test_a_lifespan_of_the_applications_own_that_is_no_context_manager_says_what_is_missing() -> None:
    async def own(app: FastAPI) -> AsyncIterator[None]:
        yield

    with pytest.raises(TypeError, match="the lifespan own is to be decorated: @contextlib"):
        lifespan(Mesh({"discovery": []}), own)  # type: ignore[arg-type]


@pytest.mark.parametrize("dependency", [client_of, async_client_of])
def test_what_is_no_name_of_a_service_is_refused_when_the_dependency_is_made(
    mesh: MeshFixture, dependency: Any
) -> None:
    with pytest.raises(ValueError, match="'or ders' is not the name of a service"):
        dependency(mesh, "or ders")
    with pytest.raises(TypeError, match="the name of a service is expected"):
        dependency(mesh, 3)


def test_a_lifespan_without_its_mesh_says_how_it_is_given() -> None:
    with pytest.raises(TypeError, match=r"a Mesh is expected, not <fastapi.*lifespan=lifespan\(mesh\)"):
        with TestClient(FastAPI(lifespan=lifespan)):  # type: ignore[arg-type]
            pass


def test_an_application_started_again_with_a_mesh_that_was_closed_says_so() -> None:
    mesh = Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}})
    app = FastAPI(lifespan=lifespan(mesh))
    with TestClient(app):
        pass
    with pytest.raises(MeshClosed, match="closed; make a new one"), TestClient(app):
        pass
