"""A service that moved, and what its old paths do: rewritten, redirected, gone, and handed over to another list.

Beneath each call: what the server saw, or that nobody was called.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Mesh


class Handler(BaseHTTPRequestHandler):
    wbufsize = -1  # headers and body go out together

    def do_GET(self) -> None:
        body = f"{self.headers['host']}{self.path} tenant={self.headers['x-tenant']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Powered-By", "a server")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()

TEAM = [
    {"name": "exports", "match": [{"path": {"path_prefix": "/v1/exports"}}], "direct_response": {"status": 410}},
    {"name": "moved", "redirect": {"prefix": "/v2", "status": 308}},
]
ORDERS = {
    "endpoints": [f"127.0.0.1:{server.server_port}"],
    "routes": [
        {
            "name": "api",
            "match": [{"path": {"path_prefix": "/api/orders"}}],
            "rewrite": {"prefix": "/", "host": "orders.internal"},
            "headers": {"request": {"set": {"x-tenant": "blue"}}, "response": {"remove": ["x-powered-by"]}},
        },
        {"name": "v1", "match": [{"path": {"path_prefix": "/v1"}}], "delegate": "team"},
    ],
}

with Mesh({"discovery": [], "route_sets": {"team": TEAM}, "services": {"orders": ORDERS}}) as mesh:
    client = mesh.client("orders")

    response = client.get("/api/orders/42?full=1")
    record = meshlib.record(response)
    print(f"{record.path} was sent as {record.rewritten}: {response.text}, {'x-powered-by' in response.headers}")

    response = client.get("/v1/42?full=1")
    record = meshlib.record(response)
    print(f"{response.status_code} by {record.route}: {response.headers['location']}, {len(record.attempts)} attempts")

    response = mesh.client("orders", follow_redirects=True).get("/v1/42?full=1")
    print(f"followed: {response.text}")

    response = client.get("/v1/exports/7")
    print(f"{response.status_code} by {meshlib.record(response).route}: {meshlib.record(response).reply}")
    print("\n".join(mesh.plan("GET", "http://orders/api/orders/42").does))
server.shutdown()
