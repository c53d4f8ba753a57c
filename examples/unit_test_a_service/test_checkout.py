"""Its tests: `pytest examples/unit_test_a_service`. No network, no waiting, the team's own mesh.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkout import app, get_mesh

from meshlib import ConnectFailed
from meshlib.testing import MeshFixture, ReceivedRequest

ORDER = {"id": 42, "total": "9.50", "user": "ann"}


@pytest.fixture
def mesh_config() -> Path:
    return Path(__file__).parent / "mesh.yaml"


@pytest.fixture(autouse=True)
def services(mesh: MeshFixture) -> Iterator[None]:
    mesh.serve("orders", order)
    mesh.serve("users", {"name": "Ann"})
    mesh.serve("checkout", app)
    app.dependency_overrides[get_mesh] = lambda: mesh
    yield
    app.dependency_overrides.clear()


def order(request: ReceivedRequest) -> Any:
    return ORDER if request.path == "/orders/42" else (404, "none")


def check_out(mesh: MeshFixture, order_id: int = 42) -> httpx.Response:
    return mesh.client("checkout").get(f"/checkout/{order_id}")


def test_an_order_is_checked_out(mesh: MeshFixture) -> None:
    assert check_out(mesh).json() == {"order": 42, "total": "9.50", "greeting": "Hello, Ann!"}


def test_an_order_that_does_not_exist(mesh: MeshFixture) -> None:
    assert check_out(mesh, 7).status_code == 404


def test_a_bad_instance_of_orders_is_not_noticed(mesh: MeshFixture) -> None:
    mesh.kill("orders", instance=0)
    for _ in range(10):
        assert check_out(mesh).status_code == 200


def test_orders_down(mesh: MeshFixture) -> None:
    mesh.fail_next("orders", times=None, error=ConnectFailed)
    assert check_out(mesh).status_code == 503


@pytest.mark.parametrize("trouble", ["slow", "down", "broken"])
def test_checkout_does_without_users(mesh: MeshFixture, trouble: str) -> None:
    if trouble == "slow":
        mesh.slow("users", "10s")
    elif trouble == "down":
        mesh.kill("users")
    else:
        mesh.fail_next("users", status=500)
    assert check_out(mesh).json()["greeting"] == "Hello!"
    assert mesh.clock.elapsed <= 0.25


def test_orders_knows_how_long_we_wait(mesh: MeshFixture) -> None:
    check_out(mesh)
    assert mesh.calls("orders")[0].headers["x-meshlib-deadline-ms"] == "1000"
