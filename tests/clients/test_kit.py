"""The test kit serves every client: services of the test, without a network."""

from __future__ import annotations

import pytest

from meshlib.testing import MeshFixture
from tests.clients.driving import DRIVERS, Driver


@pytest.mark.parametrize("driver", [pytest.param(each, id=name) for name, each in DRIVERS.items() if not each.variant])
def test_the_kit_serves_every_client(driver: Driver) -> None:
    with MeshFixture() as mesh:
        mesh.serve("orders", lambda request: {"id": 42}, instances=2)
        mesh.fail_next("orders", status=503)
        answer = driver.call(mesh, "GET", "http://orders/orders/42")
        first, second = mesh.calls("orders")
    assert (answer.status, answer.body.replace(b" ", b"")) == (200, b'{"id":42}')
    assert first.instance != second.instance
