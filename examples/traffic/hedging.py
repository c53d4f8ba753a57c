"""A replica that is slow now and then, and a second attempt elsewhere for the calls that it keeps waiting."""

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import meshlib
from meshlib import Hedge, LoadBalancing, Mesh, Service

CALLS, PAUSE_S = 45, 0.25


class Replica(BaseHTTPRequestHandler):
    """Every fifth request that the first of them gets waits for a pause to end."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet
    pauses = count(1)

    def do_GET(self) -> None:
        if self.server is servers[0] and next(self.pauses) % 5 == 0:
            time.sleep(PAUSE_S)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"42")

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:  # the one who asked has gone: another was faster
        pass


def timed(began: float, response: object) -> tuple[float, int]:
    record = meshlib.record(response)
    assert record is not None
    return time.monotonic() - began, record.hedges


def from_a_thread(mesh: Mesh) -> list[tuple[float, int]]:
    with mesh.client("orders") as client:
        return [timed(time.monotonic(), client.get("/orders/42")) for _ in range(CALLS)]


def from_a_loop(mesh: Mesh) -> list[tuple[float, int]]:
    async def calls() -> list[tuple[float, int]]:
        async with mesh.async_client("orders") as client:
            return [timed(time.monotonic(), await client.get("/orders/42")) for _ in range(CALLS)]

    return asyncio.run(calls())


servers = [Server(("127.0.0.1", 0), Replica) for _ in range(3)]
for server in servers:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

endpoints = [f"127.0.0.1:{server.server_port}" for server in servers]
in_turn = LoadBalancing(policy="round_robin")  # the default would avoid the slow one by itself, for a while
plain = Service(endpoints=endpoints, load_balancing=in_turn)
hedged = Service(endpoints=endpoints, load_balancing=in_turn, hedge=Hedge(after="50ms", max_extra_percent=20))

for name, service in (("without hedging", plain), ("with hedging", hedged)):
    for how in (from_a_thread, from_a_loop):
        with Mesh(services={"orders": service}) as mesh:
            took = how(mesh)
        slow = sum(seconds >= PAUSE_S for seconds, _ in took)
        hedges = sum(hedges for _, hedges in took)
        print(f"{how.__name__.replace('_', ' ')}, {name}: {slow} calls were slow, {hedges} hedges")
