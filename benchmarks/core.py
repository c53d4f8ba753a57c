"""What costs no I/O: the policy core alone, clients on a null wire, and picks among few and many endpoints."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from benchmarks.loads import TASKS
from benchmarks.rounds import SyncCall
from benchmarks.servers import REPLY
from meshlib.adapters import sync_driver
from meshlib.adapters.exchange import Exchange
from meshlib.adapters.options import CallOptions
from meshlib.adapters.plane import RequestFacts
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.mesh import Mesh, MeshParts
from meshlib.net.wire import Headers, Progress, SyncWireResponse, Target, WireLimits, WireRequest

PATH = TASKS.path
MESHED_URL = f"http://orders{PATH}"
_REPLY_HEADERS: Headers = [
    (b"Server", b"nginx"),
    (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
    (b"Content-Type", b"application/json"),
    (b"Content-Length", b"%d" % len(REPLY)),
    (b"Connection", b"keep-alive"),
]
_REQUEST_HEADERS: Headers = [
    (b"Host", b"orders"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"python-httpx"),
]


class NullWire:
    """A wire that answers at once, without a connection."""

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """The reply."""
        progress.phase, progress.bytes_written, progress.answered = "body", True, True
        return SyncWireResponse(200, _REPLY_HEADERS, iter((REPLY,)), _nothing)


class NullTransport(httpx.BaseTransport):
    """The same for httpx alone."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The reply."""
        return httpx.Response(200, headers=_REPLY_HEADERS, stream=httpx.ByteStream(REPLY))


def _nothing() -> None:
    pass


@contextmanager
def without_io(names: set[str]) -> Iterator[dict[str, SyncCall]]:
    """Calls that do no I/O, by name: `core`, `mesh` (its client) and `httpx` (its client)."""
    endpoints = [f"127.0.0.1:{port}" for port in (8001, 8002, 8003)]
    config = {"service": "bench", "services": {"orders": {"endpoints": endpoints}}}
    wire = NullWire()
    with (
        Mesh(config, parts=MeshParts(sync_wire=wire)) as mesh,
        mesh.client("orders") as client,
        httpx.Client(transport=NullTransport()) as bare,
    ):
        mesh.wait_ready()
        calls: dict[str, SyncCall] = {
            "core": _core_call(mesh, wire),
            "mesh": lambda: client.get(MESHED_URL).content,
            "httpx": lambda: bare.get(MESHED_URL).content,
        }
        yield {name: call for name, call in calls.items() if name in names}


def _core_call(mesh: Mesh, wire: NullWire) -> SyncCall:
    """All that the mesh does in a call, beneath the client library: match, place, pick, time, account, observe."""
    plane = mesh._wiring.plane
    options = CallOptions(complete_body=True)
    seen = {name.decode("ascii").lower(): value.decode("ascii") for name, value in _REQUEST_HEADERS}

    def call() -> None:
        facts = RequestFacts("GET", "http", "orders", None, PATH, "", seen)
        view = plane.service("orders")
        meshed = plane.call(view, plane.route(view, facts), facts, options)
        exchange = Exchange(plane, meshed, method=b"GET", target=b"/orders/42", headers=_REQUEST_HEADERS, body=b"")
        sync_driver.drive(exchange, wire)

    return call


def picks(sizes: set[int]) -> dict[str, Callable[[int], object]]:
    """Bursts of picks among so many endpoints, by their number. Every endpoint has been called before."""
    return {str(size): _picks_among(size) for size in sorted(sizes)}


def _picks_among(size: int) -> Callable[[int], object]:
    rng = random.Random(size)
    state = ClusterState("orders", now=0.0)
    endpoints = [Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 8080) for n in range(size)]
    cluster: Cluster = state.view(endpoints, 0.0, rng)
    for member in cluster.members:
        member.load.answered(0.5, rng.uniform(0.001, 0.002))

    def burst(count: int) -> None:
        pick, now = cluster.pick, 1.0
        for _ in range(count):
            pick(now, rng)

    return burst
