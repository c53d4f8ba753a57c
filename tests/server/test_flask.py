"""The Flask extension: application factories, sync and async views, error handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context

from meshlib.context import current, current_scope
from meshlib.errors import CircuitOpen, ConfigError, DeadlineExceeded, MeshError, NoEndpoint, UnknownService
from meshlib.propagation import DEADLINE_MS
from meshlib.server.flask import MeshExtension, current_mesh
from meshlib.testing import MeshFixture
from tests.server.standin import StandInMesh

LEFT = {DEADLINE_MS: "5000", "baggage": "tenant=t1"}


def inherited() -> dict[str, Any]:
    now = current()
    return {"deadline": now.remaining is not None, "baggage": dict(now.baggage)}


ALL = {"deadline": True, "baggage": {"tenant": "t1"}}


def application(mesh: MeshExtension | None = None) -> Flask:
    app = Flask(__name__)
    (mesh or MeshExtension(StandInMesh())).init_app(app)

    @app.get("/sync")
    def sync() -> dict[str, Any]:
        return inherited()

    @app.get("/async")
    async def async_() -> dict[str, Any]:
        await asyncio.sleep(0)
        return inherited()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            for _ in range(2):
                yield f"{inherited() == ALL};"

        return Response(stream_with_context(chunks()))

    @app.get("/fails/<name>")
    def fails(name: str) -> str:
        raise {
            "deadline": DeadlineExceeded("2 s passed", service="orders"),
            "open": CircuitOpen("open", service="orders", retry_after_s=3),
            "none": NoEndpoint("none", service="orders"),
            "unknown": UnknownService("unknown", service="orders"),
            "bug": KeyError("bug"),
        }[name]

    return app


@pytest.mark.parametrize("path", ["/sync", "/async"])
def test_views_inherit_all(path: str) -> None:
    with application().test_client() as client:
        assert client.get(path, headers=LEFT).json == ALL
        assert client.get(path).json == {"deadline": False, "baggage": {}}
    assert current_scope().request is None


def test_a_streamed_response_keeps_the_deadline() -> None:
    with application().test_client() as client:
        assert client.get("/stream", headers=LEFT).text == "True;True;"


def test_an_expired_request_is_refused_before_the_application() -> None:
    app = application()

    @app.before_request
    def seen() -> None:
        raise AssertionError("called")

    answer = app.test_client().get("/sync", headers={DEADLINE_MS: "0"})
    assert answer.status_code == 504
    assert answer.headers["x-meshlib-refused"] == "expired"


def test_it_is_found_in_the_application_and_adds_itself_once() -> None:
    mesh = MeshExtension(StandInMesh())
    app = application(mesh)
    assert app.extensions["meshlib"] is mesh
    wrapped = app.wsgi_app
    mesh.init_app(app)
    assert app.wsgi_app is wrapped
    with pytest.raises(RuntimeError, match="has a MeshExtension already"):
        MeshExtension().init_app(app)


def test_one_extension_serves_many_applications_and_one_may_be_named_at_once() -> None:
    mesh = MeshExtension()
    for app in (application(mesh), application(mesh)):
        assert app.test_client().get("/sync", headers=LEFT).json == ALL
    app = Flask(__name__)
    named = MeshExtension(app=app)
    assert app.extensions["meshlib"] is named


def test_a_network_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="trusted_peers"):
        MeshExtension(StandInMesh(trusted_peers=("intranet",)), Flask(__name__))


@pytest.mark.parametrize("testing", [False, True])
@pytest.mark.parametrize(("name", "status"), [("deadline", 504), ("open", 503), ("none", 503)])
def test_errors_of_the_mesh_become_504_and_503(name: str, status: int, testing: bool) -> None:
    app = application()
    app.testing = testing

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers["x-after"] = "yes"
        return response

    answer = app.test_client().get(f"/fails/{name}")
    assert answer.status_code == status
    assert answer.json is not None
    assert answer.json["detail"].startswith("orders: ")
    assert answer.headers.get("retry-after") == ("3" if name == "open" else None)
    assert answer.headers["x-after"] == "yes"


@pytest.mark.parametrize("name", ["unknown", "bug"])
def test_other_errors_stay_flasks(name: str) -> None:
    assert application().test_client().get(f"/fails/{name}").status_code == 500


@pytest.mark.parametrize("kind", [DeadlineExceeded, MeshError, TimeoutError, Exception])
def test_an_error_handler_of_the_application_comes_first(kind: type[Exception]) -> None:
    app = application()
    app.register_error_handler(kind, lambda error: ("own", 418))
    assert app.test_client().get("/fails/deadline").status_code == 418


def test_mapping_errors_can_be_turned_off_and_is_off_with_the_mesh() -> None:
    for mesh in (MeshExtension(map_errors=False), MeshExtension(StandInMesh(mode="off"))):
        assert application(mesh).test_client().get("/fails/deadline").status_code == 500


# The mesh and its clients


def calling(mesh: MeshExtension) -> Flask:
    app = application(mesh)

    @app.get("/order/<number>")
    def order(number: str) -> Any:
        return mesh.client("orders").get(f"/orders/{number}").json()

    @app.get("/by-the-mesh")
    def by_the_mesh() -> Any:
        return current_mesh.client("orders").get("/orders/7").json()

    return app


@pytest.fixture
def mesh() -> Iterator[MeshFixture]:
    with MeshFixture() as mesh:
        mesh.serve("orders", lambda request: {"id": request.url.path})
        yield mesh


def test_views_take_clients_from_the_extension_and_the_current_mesh(mesh: MeshFixture) -> None:
    client = calling(MeshExtension(mesh)).test_client()
    for _ in range(2):
        assert client.get("/order/42", headers=LEFT).json == {"id": "/orders/42"}
    assert client.get("/by-the-mesh").json == {"id": "/orders/7"}
    assert 0 < int(mesh.calls("orders")[0].headers[DEADLINE_MS]) <= 5000


def test_an_application_brings_its_own_mesh_by_its_config(mesh: MeshFixture) -> None:
    extension = MeshExtension(StandInMesh(mode="off"))
    app = Flask(__name__)
    app.config["MESHLIB_MESH"] = mesh
    extension.init_app(app)
    with app.app_context():
        assert current_mesh == mesh
        assert extension.client("orders").get("/orders/1").json() == {"id": "/orders/1"}
        assert extension.client("orders") is extension.client("orders")
    with application(extension).app_context():
        assert current_mesh != mesh


def test_without_a_mesh_there_are_no_clients() -> None:
    extension = MeshExtension()
    with application(extension).app_context():
        assert not current_mesh
        with pytest.raises(RuntimeError, match="no mesh to make calls by"):
            extension.client("orders")
    with pytest.raises(RuntimeError, match="outside of application context"):
        current_mesh.client("orders")


def test_an_application_in_the_place_of_the_mesh_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a Mesh is expected, not Flask$"):
        MeshExtension(Flask(__name__))  # type: ignore[arg-type]
    app = Flask(__name__)
    app.config["MESHLIB_MESH"] = "mesh.yaml"
    with pytest.raises(TypeError, match=r"a Mesh is expected, not str$"):
        MeshExtension().init_app(app)
