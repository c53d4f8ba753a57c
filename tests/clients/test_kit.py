"""The test kit serves every client: services of the test, without a network."""

from __future__ import annotations

import json

import pytest

import meshlib
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


@pytest.mark.parametrize("driver", [pytest.param(each, id=name) for name, each in DRIVERS.items() if each.goes_outside])
def test_hosts_outside_are_served_or_refused_for_every_client(driver: Driver) -> None:
    url = "http://api.example.com/v1?a=b"
    with MeshFixture() as mesh:
        with pytest.raises(meshlib.UnknownService, match="no network in a MeshFixture") as refused:
            driver.call(mesh, "GET", url)
        assert isinstance(refused.value, driver.errors.connect)
        mesh.serve("api.example.com", lambda request: {"url": str(request.url), "sent": request.content.decode()})
        answer = driver.call(mesh, "POST", url, body=b"x=1")
        call = mesh.calls("api.example.com")[0]
        mesh.serve("orders", 201)
        mesh.mode = "off"
        plain = driver.call(mesh, "GET", "http://orders/")
    assert (answer.status, json.loads(answer.body)) == (200, {"url": url, "sent": "x=1"})
    assert "x-meshlib-deadline-ms" not in call.headers
    assert (plain.status, plain.record) == (201, None)


@pytest.mark.parametrize("driver", [pytest.param(each, id=name) for name, each in DRIVERS.items() if each.goes_outside])
def test_a_host_outside_may_break_off(driver: Driver) -> None:
    with MeshFixture() as mesh:
        mesh.serve("api.example.com", 200)
        mesh.fail_next("api.example.com", error=meshlib.Reset("gone"))
        with pytest.raises(driver.errors.reset):
            driver.call(mesh, "POST", "http://api.example.com/")
        assert driver.call(mesh, "GET", "http://api.example.com/").status == 200
