"""HTTPRoutes as a team has them: a canary by header, a split, an old path that has moved, and a backend that is gone.

The documents are those of a cluster; only the endpoints are servers of this process.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from meshlib import Mesh

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"""

ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: orders}]
  rules:
  - name: split
    backendRefs: [{name: orders, port: 80, weight: 90}, {name: orders-v2, port: 80, weight: 10}]
  - name: testers
    matches: [{headers: [{name: x-tester, value: "yes"}]}]
    backendRefs: [{name: orders-v2, port: 80}]
  - name: moved
    matches: [{path: {value: /v1}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 301}
  - name: reports
    matches: [{path: {value: /reports}}]
    backendRefs: [{name: reports, port: 80}]
"""


def serve(name: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


servers = {name: serve(name) for name in ("orders", "orders-v2")}
with tempfile.TemporaryDirectory() as directory:
    services = [SERVICE.format(name=name, port=server.server_port) for name, server in servers.items()]
    Path(directory, "services.yaml").write_text("---".join(services))
    Path(directory, "routes.yaml").write_text(ROUTES)

    with Mesh({"namespace": "shop", "include": [directory]}) as mesh, mesh.client("orders") as orders:
        found = Counter(orders.get("/").text for _ in range(200))
        print(
            f"split: both are called: {len(found) == 2}, the first of them more: {found['orders'] > found['orders-v2']}"
        )
        print(f"testers: {orders.get('/', headers={'x-tester': 'yes'}).text}")
        moved = orders.get("/v1/42")
        print(f"moved: {moved.status_code} to {moved.headers['location']}")
        print(f"a backend that is not there: {orders.get('/reports').status_code}")
        print("\n".join(str(mesh.plan("GET", "http://orders/reports")).splitlines()[:4]))

for server in servers.values():
    server.shutdown()
