"""A real Envoy reads the load reports of the middleware, and weighs by them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware, Receive, Scope, Send
from meshlib.server.load import LoadReporter
from tests.envoy.harness import TYPES, Case, Place, ask, start
from tests.peers.process import wait_until
from tests.peers.servers import Envoy
from tests.server.conftest import _bound, _url, _uvicorn

POLICY = {
    "name": "envoy.load_balancing_policies.client_side_weighted_round_robin",
    "typed_config": {
        "@type": f"{TYPES}.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        "blackout_period": "0s",
        "weight_update_period": "0.1s",
    },
}
BUSY = {"light": 0.1, "heavy": 0.9}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    server = scope["server"]
    headers = [(b"x-endpoint", str(server[1]).encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def ports() -> Iterator[Callable[[str], dict[str, int]]]:
    """Starts one process as busy as each of `BUSY`, that tells so or not; gives their ports."""
    with ExitStack() as running:

        def serve(load: str) -> dict[str, int]:
            found = {}
            for name, busy in BUSY.items():
                mesh = running.enter_context(Mesh({"service": "orders", "discovery": [], "server": {"load": load}}))
                reporter = LoadReporter(functools.partial(float, busy)) if load == "always" else None
                told = MeshMiddleware(app, mesh, load=reporter)
                listener = running.enter_context(_bound())
                running.enter_context(_uvicorn(told, listener, lifespan="off"))
                found[name] = int(_url(listener).rpartition(":")[2])
            return found

        yield serve


def test_envoy_weighs_by_the_reports_that_it_gets(
    envoy_factory: Callable[[dict[str, Any]], Envoy], ports: Callable[[str], dict[str, int]]
) -> None:
    told, asked = ports("always"), ports("asked")
    weighted = {"load_balancing_policy": {"policies": [{"typed_extension_config": POLICY}]}}
    cases = [
        Case(name, [Place(port) for port in places.values()], weighted)
        for name, places in (("told", told), ("asked", asked))
    ]
    _, port = start(envoy_factory, cases)

    def shares(case: str) -> Counter[int | None]:
        return Counter(answer.port for answer in ask(port, [{"x-case": case}] * 100))

    wait_until(lambda: shares("told")[told["light"]] > 70, "Envoy prefers the one that is less busy", poll=0.001)
    even = shares("asked")
    assert 40 <= even[asked["light"]] <= 60, "Envoy does not ask, so it is not told"
