"""A FastAPI service in the mesh: a lifespan, clients as dependencies, and a test that replaces one.

The handlers say nothing of deadlines; what a caller still waits for reaches the service that they call all the same.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Protocol

import httpx
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from meshlib import Mesh, Service
from meshlib.adapters.declarative import get
from meshlib.server.fastapi import MeshMiddleware, async_client_of, bound, lifespan


class Catalogue(BaseHTTPRequestHandler):
    """The service that is called: it answers what it was told."""

    def do_GET(self) -> None:
        in_time = int(self.headers["x-meshlib-deadline-ms"]) <= 800
        body = json.dumps({"item": int(self.path.rpartition("/")[2]), "in_time": in_time}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Items(Protocol):
    @get("/items/{number}")
    async def item(self, number: int) -> dict[str, Any]: ...


catalogue = ThreadingHTTPServer(("127.0.0.1", 0), Catalogue)
threading.Thread(target=catalogue.serve_forever, daemon=True).start()

# The service. In one of yours, this is all there is.

address = f"127.0.0.1:{catalogue.server_port}"
mesh = Mesh(service="storefront", discovery=[], services={"catalogue": Service(endpoints=[address])})
catalogue_client = async_client_of(mesh, "catalogue")
Client = Annotated[httpx.AsyncClient, Depends(catalogue_client)]
Declared = Annotated[Items, Depends(bound(mesh, Items, "catalogue"))]

app = FastAPI(lifespan=lifespan(mesh))
app.add_middleware(MeshMiddleware, mesh=mesh)


@app.get("/pages/{number}")
async def page(number: int, client: Client) -> Any:
    return (await client.get(f"/items/{number}")).json()


@app.get("/declared/{number}")
async def declared(number: int, items: Declared) -> Any:
    return await items.item(number)


# Its tests.


class Fake:
    async def get(self, path: str) -> httpx.Response:
        return httpx.Response(200, json={"fake": path})


with TestClient(app, client=("127.0.0.1", 1)) as caller:
    print("called:", caller.get("/pages/42", headers={"x-meshlib-deadline-ms": "800"}).json())
    print("declared:", caller.get("/declared/43", headers={"x-meshlib-deadline-ms": "800"}).json())
    print("too late:", caller.get("/pages/42", headers={"x-meshlib-deadline-ms": "0"}).status_code)
    app.dependency_overrides[catalogue_client] = Fake
    print("replaced:", caller.get("/pages/42").json())
catalogue.shutdown()
