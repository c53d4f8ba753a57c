"""A new version gets a copy of all calls before anybody depends on it: it fails and hangs, and nobody notices."""

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Mesh

seen: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.server.name  # type: ignore[attr-defined]
        seen[f"{name} {self.path} {body.decode()}"] += 1
        if name == "orders-next":
            time.sleep(0.2)
        self.send_response(200 if name == "orders" else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Silent."""


def serve(name: str) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.name = name  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


services = {
    "orders": {"endpoints": [serve("orders")], "routes": [{"mirror": {"service": "orders-next"}}]},
    "orders-next": {"endpoints": [serve("orders-next")]},
}

with Mesh(services=services, discovery=[]) as mesh, mesh.client("orders") as orders:
    orders.post("/warm", content=b"up")
    began = time.monotonic()
    responses = [orders.post("/pay", content=b"42") for _ in range(5)]
    took_s = time.monotonic() - began
    print("answers:", Counter(response.status_code for response in responses))
    print("nobody waited for the copies:", took_s < 0.2)
    record = meshlib.record(responses[0])
    print("mirrored to:", record.mirrored if record else None)
    deadline = time.monotonic() + 5
    while seen["orders-next /pay 42"] < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    print("orders got:", seen["orders /pay 42"], "and orders-next:", seen["orders-next /pay 42"])
