"""Policies that are tried on live traffic first: beside the live ones they decide nothing, and say what they would."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import LoadBalancing, Mesh, OutlierDetection, Rate, RateLimit, Retry, Service, Shadow

CALLS = 30


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours. The first of its servers answers everything with a 503."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(503 if self.server is servers[0] else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


servers = [ThreadingHTTPServer(("127.0.0.1", 0), Orders) for _ in range(3)]
for server in servers:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

orders = Service(
    endpoints=[f"127.0.0.1:{server.server_port}" for server in servers],
    load_balancing=LoadBalancing(policy="round_robin"),
    outlier_detection=False,
    retry=Retry(max_retries=0),
    shadow=Shadow(
        outlier_detection=OutlierDetection(consecutive_errors=2),
        rate_limit=RateLimit(total=Rate(rate=0.01, burst=20)),
    ),
)

with Mesh(services={"orders": orders}) as mesh, mesh.client("orders") as client:
    answers = [client.get("/orders/42") for _ in range(CALLS)]
    failed = sum(answer.status_code == 503 for answer in answers)
    print(f"{failed} of {CALLS} calls failed, and nothing was done about it")
    for shadow in mesh.status().services[0].clusters[0].shadow:
        print(f"{shadow.policy} would have decided otherwise {shadow.differed} times: {shadow.counts}")
    record = meshlib.record(next(answer for answer in reversed(answers) if answer.status_code == 503))
    for text in record.shadow if record else ():
        print("of the last that failed:", text.replace(f":{servers[0].server_port}", ":(the first)"))

for server in servers:
    server.shutdown()
