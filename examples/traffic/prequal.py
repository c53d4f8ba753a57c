"""Twelve instances of one service, of which four are slow: Prequal asks them, beside the calls, what they have to do.

Each instance works on one request at a time. The middleware of `meshlib.server` counts what waits, and answers probes.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from meshlib import LoadBalancing, Mesh, Service
from meshlib.server.wsgi import MeshMiddleware

SLOW, FAST = 4, 8


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def serve(name: str, seconds: float) -> str:
    one_at_a_time = threading.Lock()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        with one_at_a_time:
            time.sleep(seconds)
        start_response("200 OK", [("content-length", str(len(name)))])
        return [name.encode()]

    server = make_server("127.0.0.1", 0, MeshMiddleware(app), Threaded, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


addresses = [serve("slow", 0.04) for _ in range(SLOW)] + [serve("fast", 0.008) for _ in range(FAST)]
orders = Service(endpoints=addresses, load_balancing=LoadBalancing(policy="prequal"))

with Mesh(services={"orders": orders}) as mesh:
    client = mesh.client("orders")

    def burst(calls: int) -> Counter[str]:
        with ThreadPoolExecutor(8) as threads:
            return Counter(threads.map(lambda _: client.get("/").text, range(calls)))

    burst(50)
    time.sleep(1.1)  # by now it probes
    burst(50)
    answers = burst(200)
    print(f"a slow one had {answers['slow'] / SLOW:.0f} calls, a fast one {answers['fast'] / FAST:.0f}")
    print(next(line for line in str(mesh.status()).splitlines() if "orders: breaker" in line).strip())
