"""Two instances of one service, one on a machine three times as fast: calls go where the servers say they have room.

Here the servers make their reports up. In a service of yours the middleware does it:
``app.add_middleware(MeshMiddleware, mesh=mesh, load=LoadReporter())``.
"""

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meshlib import LoadBalancing, Mesh, ServerWeights, Service

UTILIZATION = {"fast": 0.2, "slow": 0.6}


def serve(name: str) -> str:
    class Orders(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body go out together

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("endpoint-load-metrics", f"TEXT cpu_utilization={UTILIZATION[name]}, rps_fractional=100")
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


orders = Service(
    endpoints=[serve("fast"), serve("slow")],
    load_balancing=LoadBalancing(
        policy="server_weights",
        server_weights=ServerWeights(blackout="500ms", update="100ms"),  # by default 10s and 1s
    ),
)

with Mesh(services={"orders": orders}) as mesh:
    client = mesh.client("orders")

    def shares(calls: int) -> str:
        answers = Counter(client.get("/").text for _ in range(calls))
        return ", ".join(f"{name} {answers[name] / calls:.0%}" for name in UTILIZATION)

    print(f"before they have reported for long enough: {shares(40)}")
    time.sleep(0.7)
    client.get("/")
    print(f"then: {shares(200)}")
