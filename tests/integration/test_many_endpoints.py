"""Ten thousand endpoints, of which every fourth refuses: no call is lost, and nothing is held in the end."""

from __future__ import annotations

import threading
from collections import Counter

import meshlib
from meshlib import Mesh
from meshlib.mesh import MeshParts
from meshlib.net.wire import Progress, SyncWireResponse, Target, WireLimits, WireRequest
from tests.integration.test_sharing import nothing_is_held

COUNT = 10_000


class Half:
    """A wire without connections."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        endpoint = target.endpoint
        with self._lock:
            self.seen[endpoint.address] += 1
        if int(endpoint.host.rpartition(".")[2]) % 4 == 0:
            raise meshlib.ConnectFailed("refused", endpoint=endpoint.address)
        progress.bytes_written = progress.answered = True
        return SyncWireResponse(200, [(b"Content-Length", b"2")], iter((b"ok",)), lambda: None)


def test_no_call_is_lost_among_ten_thousand() -> None:
    endpoints = [f"10.0.{n // 250}.{n % 250 + 1}:80" for n in range(COUNT)]
    # Nobody can know an endpoint that was not called yet, so an attempt fails one time in four.
    retry = {"max_retries": 12, "backoff": {"base": "0s"}}
    orders = {"endpoints": endpoints, "retry_budget": {"tokens": 10_000}, "retry": retry}
    wire, lost = Half(), []
    with Mesh({"discovery": [], "services": {"orders": orders}}, parts=MeshParts(sync_wire=wire)) as mesh:

        def work() -> None:
            try:
                for n in range(250):
                    assert client.get(f"/{n}").text == "ok"
            except BaseException as error:
                lost.append(error)

        with mesh.client("orders") as client:
            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert lost == []
            assert len(wire.seen) > 1_000, "they are spread over all, not over a few"
            assert max(wire.seen.values()) < 50
            (service,) = mesh.status().services
            assert len(service.clusters[0].endpoints) == COUNT
            nothing_is_held(mesh)
