"""A Flask service in the mesh, by an application factory: its clients, and a test that brings a mesh of its own."""

from typing import Any

from flask import Flask

import meshlib
from meshlib import Mesh
from meshlib.server.flask import MeshExtension, current_mesh
from meshlib.testing import MeshFixture

# The service. In one of yours, this is all there is.

extension = MeshExtension(Mesh(service="storefront", discovery=[]))


def create_app(**config: Any) -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(config)
    extension.init_app(app)

    @app.get("/pages/<int:number>")
    def page(number: int) -> Any:
        answer = extension.client("catalogue").get(f"/items/{number}")
        return {"item": answer.json(), "left": meshlib.current().remaining is not None}

    @app.get("/mode")
    def mode() -> str:
        return current_mesh.mode

    return app


# Its tests.

with MeshFixture() as mesh:
    mesh.serve("catalogue", lambda request: {"path": request.url.path})
    caller = create_app(MESHLIB_MESH=mesh).test_client()
    print("called:", caller.get("/pages/42", headers={"x-meshlib-deadline-ms": "800"}).json)
    left_ms = int(mesh.calls("catalogue")[0].headers["x-meshlib-deadline-ms"])
    print("the catalogue was told of the caller's deadline:", 0 < left_ms <= 800)
    print("too late:", caller.get("/pages/42", headers={"x-meshlib-deadline-ms": "0"}).status_code)
    mesh.slow("catalogue", "2s")
    print("the catalogue is slow:", caller.get("/pages/42", headers={"x-meshlib-deadline-ms": "800"}).status_code)
print("in production:", create_app().test_client().get("/mode").text)
