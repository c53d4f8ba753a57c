"""From end to end: servers with the middleware are probed from the control thread while calls go on."""

from __future__ import annotations

import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from meshlib import Mesh
from meshlib.server.wsgi import MeshMiddleware
from meshlib.telemetry.events import Event, LoadUnreported

COUNT = 10


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(application: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, application, Threaded, Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Instance:
    """One of them: what it was asked for, and whether for its load."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: Counter[str] = Counter()
        self.load: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        self.asked[environ["PATH_INFO"]] += 1
        self.load.append(environ.get("HTTP_X_MESHLIB_LOAD", ""))
        start_response("200 OK", [("content-length", str(len(self.name)))])
        return [self.name.encode()]


def config(addresses: list[str]) -> dict[str, Any]:
    return {"services": {"orders": {"endpoints": addresses, "load_balancing": {"policy": "prequal"}}}}


def until(true: Any, then: Any) -> None:
    for _ in range(2000):
        if true():
            return
        then()
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("tells", [True, False], ids=["with the middleware", "without"])
def test_endpoints_are_probed_beside_the_calls(tells: bool) -> None:
    instances = [Instance(str(number)) for number in range(COUNT)]
    events: list[Event] = []
    with ExitStack() as stack:
        applications = [MeshMiddleware(each) if tells else each for each in instances]
        addresses = [stack.enter_context(served(each)) for each in applications]
        mesh = stack.enter_context(Mesh.from_dict(config(addresses)))
        mesh.on_event(events.append)
        client = mesh.client("orders")

        def pool() -> Any:
            return mesh._wiring.plane.service("orders").clusters[None].balancer.pool  # type: ignore[union-attr]

        def told() -> bool:
            return len(pool()) >= 5 if tells else any(isinstance(each, LoadUnreported) for each in events)

        until(told, lambda: client.get("/").raise_for_status())
        status = str(mesh.status())
    assert ("balanced by peak_ewma" in status) is not tells
    probed = sum(each.asked["/.well-known/meshlib/load"] for each in instances)
    if tells:
        assert probed == 0  # the middleware answers
    else:
        assert probed <= 3 * COUNT  # until the first answer of each, and then they are left alone
    assert {each for instance in instances for each in instance.load} == {"in-flight"}


def test_a_copied_header_is_not_sent_where_nobody_balances_by_load() -> None:
    instance = Instance("one")
    with served(instance) as address:
        services = {"orders": {"endpoints": [address]}}
        with Mesh.from_dict({"services": services}) as mesh:
            mesh.client("orders").get("/", headers={"x-meshlib-load": "orca"}).raise_for_status()
    assert instance.load == [""]
