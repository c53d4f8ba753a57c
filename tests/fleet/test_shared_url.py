"""The URL of a fleet's Redis may have parameters that redis-py does not take: that is told, and calls go on."""

from __future__ import annotations

import pytest

from meshlib import Mesh
from meshlib.telemetry import events
from tests.adapters.support import address, ok, origins
from tests.peers.process import wait_until

pytest.importorskip("redis")


@pytest.mark.parametrize("parameter", ["socket_timeout=soon", "no_such=thing"])
def test_parameters_that_nobody_knows_are_told_and_do_no_harm(parameter: str) -> None:
    url = f"redis://:s3cr3t@127.0.0.1:1/0?{parameter}"
    told: list[events.Event] = []
    with origins(lambda seen, number: ok(b"42")) as (_, [server]):
        service = {"endpoints": [address(server)], "fleet": {"rate_limit": {"rate": 5}, "circuit_breaker": {}}}
        with Mesh(redis={"url": url}, services={"orders": service}) as mesh:
            mesh.on_event(told.append)
            assert mesh.client("orders").get("/").text == "42"
            wait_until(lambda: any(isinstance(each, events.FleetUnwell) for each in told), "it is told")
    (unwell,) = [each for each in told if isinstance(each, events.FleetUnwell)]
    assert "its URL cannot be used" in str(unwell)
    assert parameter.partition("=")[0] in str(unwell)
    assert "s3cr3t" not in repr(told)
