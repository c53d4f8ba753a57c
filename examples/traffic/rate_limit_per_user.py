"""A rate limit for each user: one who asks too much is told when to come back, and nobody else notices."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Mesh, Rate, RateLimit, RateLimited, Service


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours."""

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()

limit = RateLimit(by="header:x-user", each=Rate(rate=5), overrides={"batch": Rate(rate=2)})
orders = Service(endpoints=[f"127.0.0.1:{server.server_port}"], rate_limit=limit)

with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client:
    for user in ("ada", "bob", "batch"):
        answered = 0
        try:
            for _ in range(8):
                client.get("/orders", headers={"x-user": user})
                answered += 1
        except RateLimited as error:
            print(f"{user}: {answered} calls, then refused by the {error.gate}; again in less than a second:", end=" ")
            print(0 < (error.retry_after_s or 0) < 1)

patient = Service(endpoints=orders.endpoints, rate_limit=RateLimit(total=Rate(rate=20, burst=1), max_wait="2s"))
with Mesh(services={"orders": patient}) as mesh, mesh.client("orders") as client:
    records = [meshlib.record(client.get("/orders")) for _ in range(4)]
    print("or calls wait for their turn:", [record.waits[0].reason for record in records[1:]])

server.shutdown()
