"""Injected faults as users of httpx see them: sync and async, lean and streamed, with real servers behind."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import DeadlineExceeded, Fault, FaultAbort, FaultDelay, Mesh, Retry, Service
from tests.adapters.support import address, mesh_of, origins
from tests.integration.calling import Caller

ABORT = {"abort": {"status": 503, "percent": 100}}


def test_an_abort_is_a_response_like_any_other_and_says_what_it_is(caller: Caller) -> None:
    with origins(None) as ((origin,), servers), mesh_of(*servers, fault=ABORT) as mesh:
        orders = caller.client(mesh)
        for response in (orders("GET", "/a"), orders.stream("GET", "/a")[0], orders("POST", "/a", json={"a": 1})):
            assert (response.status_code, response.text) == (503, "fault filter abort")
            assert response.extensions["meshlib.fault"] == "status 503"
            record = meshlib.record(response)
            assert (record.fault, record.attempts, record.no_retry) == ("status 503", (), None)
        with pytest.raises(httpx.HTTPStatusError):
            orders("GET", "/a").raise_for_status()
        head = orders("HEAD", "/a")
        assert (head.status_code, head.content) == (503, b"")
        assert origin.seen == []
        assert "faults are injected: status 503 for 100%" in mesh.plan("GET", "http://orders/a").notes
        (service,) = mesh.status().services
        assert (service.budget_tokens, service.clusters[0].in_flight) == (20, 0)


def test_a_client_of_ones_own_gets_it_too(caller: Caller) -> None:
    with origins(None) as ((origin,), servers), mesh_of(*servers, fault=ABORT) as mesh:
        response = caller.attached(mesh)("GET", "http://orders/a")
        assert (response.status_code, response.extensions["meshlib.fault"]) == (503, "status 503")
        assert origin.seen == []


def test_a_reset_is_the_error_that_a_reset_is(caller: Caller) -> None:
    with (
        origins(None) as ((origin,), servers),
        mesh_of(*servers, fault={"abort": {"reset": True, "percent": 100}}) as mesh,
    ):
        with pytest.raises(meshlib.Reset) as caught:
            caller.client(mesh)("GET", "/a")
        assert isinstance(caught.value, httpx.TransportError)
        assert meshlib.record(caught.value).fault == "a reset"
        assert origin.seen == []


def test_a_delay_takes_its_time_and_the_timeout_cuts_it(caller: Caller) -> None:
    delay = {"delay": {"fixed": "80ms", "percent": 100}}
    with origins(None) as ((origin,), servers), mesh_of(*servers, fault=delay) as mesh:
        orders = caller.client(mesh)
        began = time.monotonic()
        response = orders("GET", "/a")
        assert time.monotonic() - began >= 0.08
        assert (response.status_code, meshlib.record(response).fault) == (200, "a delay of 80ms")
        with pytest.raises(DeadlineExceeded) as caught:
            orders("GET", "/a", extensions=meshlib.call(timeout="20ms"))
        assert meshlib.record(caught.value).attempts == ()
        assert len(origin.seen) == 1


def test_one_route_alone_has_faults_and_in_code_they_are_objects(caller: Caller) -> None:
    with origins(None) as ((origin,), servers):
        orders = Service(
            endpoints=[address(servers[0])],
            routes=[
                meshlib.Route(
                    name="pay",
                    match=[meshlib.Match(path=meshlib.PathMatch(prefix="/pay"))],
                    fault=Fault(abort=FaultAbort(status=418, percent=100), delay=FaultDelay(fixed=0.001, percent=100)),
                    retry=Retry(on=["5xx", 418]),
                )
            ],
        )
        with Mesh(services={"orders": orders}, discovery=[]) as mesh:
            client = caller.client(mesh)
            assert client("GET", "/other").status_code == 200
            assert client("GET", "/pay/1").status_code == 418
        assert len(origin.seen) == 1


def test_a_request_asks_for_a_fault(caller: Caller) -> None:
    fault: dict[str, Any] = {"abort": {"percent": 100}, "headers": True}
    with origins(None) as (_, servers), mesh_of(*servers, fault=fault) as mesh:
        orders = caller.client(mesh)
        assert orders("GET", "/a").status_code == 200
        assert orders("GET", "/a", headers={"X-Envoy-Fault-Abort-Request": "429"}).status_code == 429
        grpc = {"x-envoy-fault-abort-grpc-request": "14", "content-type": "application/grpc"}
        response = orders("POST", "/a", headers=grpc)
        assert (response.status_code, response.headers["grpc-status"]) == (200, "14")


def test_who_only_watches_is_not_hurt(caller: Caller) -> None:
    with origins(None) as ((origin,), servers):
        service = {"endpoints": [address(servers[0])], "hosts": [address(servers[0])], "fault": ABORT}
        with Mesh({"discovery": [], "services": {"orders": service}, "mode": "observe"}) as mesh:
            response = caller.attached(mesh)("GET", f"http://{address(servers[0])}/a")
            assert response.status_code == 200
            assert "would inject status 503" in meshlib.record(response).why
        assert len(origin.seen) == 1
