"""A breaker for a whole fleet: one process finds the service down, and another one does not even try.

Needs ``pip install "meshlib-http[redis]"`` and a Redis, by default the one at redis://127.0.0.1:6379/15; set
``REDIS_URL`` for another.
"""

import os
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meshlib import CircuitOpen, Fleet, FleetBreaker, Mesh, Redis, Retry, Service

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/15")
try:
    import redis

    redis.Redis.from_url(URL, socket_connect_timeout=1).ping()
except Exception as error:
    print(f"skipped: no Redis ({type(error).__name__})")
    sys.exit()


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours, which is down."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()

shared = Fleet(circuit_breaker=FleetBreaker(fail_max=3, reset_timeout="5s"))
orders = Service(endpoints=[f"127.0.0.1:{server.server_port}"], retry=Retry(max_retries=0), fleet=shared)
fleet = Redis(url=URL, prefix=f"example-{uuid.uuid4()}", max_wait="1s")


def process() -> Mesh:
    """Each of these would be a process of its own."""
    return Mesh(services={"orders": orders}, redis=fleet)


with process() as one, process() as two:
    print("the first process:", [one.client("orders").get("/").status_code for _ in range(3)])
    for _ in range(50):  # its outcomes are told on a thread of their own
        try:
            two.client("orders").get("/")
        except CircuitOpen as error:
            print("the second one:", error.message.partition(";")[0])
            print("refused by:", error.record.refused_by if error.record else None)
            break

server.shutdown()
