"""Throttling: a service is asked for far more than it can do, and is spared what it would decline."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import LimitExceeded, Mesh, Retry, Service, Throttle

got = {"accepted": 0, "declined": 0}
lock = threading.Lock()
window = [time.monotonic(), 0]


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours: it takes four calls in 50 ms, and declines the rest."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with lock:
            now = time.monotonic()
            if now - window[0] > 0.05:
                window[:] = [now, 0]
            window[1] += 1
            accepted = window[1] <= 4
            got["accepted" if accepted else "declined"] += 1
        self.send_response(204 if accepted else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()


def storm(**policy: object) -> tuple[int, int, int]:
    """Calls from eight threads for a while: those that it accepted, declined, and that were not sent."""
    got.update(accepted=0, declined=0)
    spared = 0
    options = {"endpoints": [f"127.0.0.1:{server.server_port}"], "circuit_breaker": False, "outlier_detection": False}
    orders = Service(**options, retry=Retry(max_retries=0), **policy)  # type: ignore[arg-type]
    with Mesh(services={"orders": orders}) as mesh:

        def calls(_: int) -> int:
            refused, client, until = 0, mesh.client("orders"), time.monotonic() + 0.7
            while time.monotonic() < until:
                try:
                    client.get("/orders")
                except LimitExceeded as error:
                    refused += meshlib.record(error).refused_by == "throttle"
                time.sleep(0.005)
            return refused

        with ThreadPoolExecutor(8) as pool:
            spared = sum(pool.map(calls, range(8)))
    return got["accepted"], got["declined"], spared


accepted, declined, spared = storm()
print("without: declined more than it accepted:", declined > accepted, "and nothing was spared:", spared == 0)
accepted_then, declined_then, spared = storm(throttle=Throttle(k=1.5, window="1s"))
print(
    "with: it declined less than half as much:",
    declined_then < declined / 2,
    "because calls were not sent:",
    spared > 0,
)
print("and it did its work all the same:", accepted_then > accepted / 2)
server.shutdown()
