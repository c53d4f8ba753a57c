"""httpx2 through the mesh: retries, an event stream, and errors that the code knows."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

import meshlib
from meshlib.adapters import httpx2 as meshed


class Orders(BaseHTTPRequestHandler):
    """Is busy at the first request, and tells events."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        Orders.asked += 1
        body = b"data: shipped\n\nevent: done\ndata: 42\n\n" if self.path == "/events" else b'{"id": 42}'
        self.send_response(503 if Orders.asked == 1 else 200)
        self.send_header("Content-Type", "text/event-stream" if self.path == "/events" else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()
services = {"orders": {"endpoints": [f"127.0.0.1:{server.server_port}"]}, "gone": {"endpoints": ["127.0.0.1:1"]}}

with meshlib.Mesh(discovery=[], services=services) as mesh, meshed.client(mesh, "orders") as orders:
    response = orders.get("/orders/42")
    print("an httpx2 response:", isinstance(response, httpx2.Response), response.json())
    print("attempts:", [attempt.status for attempt in meshlib.record(response).attempts])

    with orders.sse("/events") as events:
        print("events:", [(event.event, event.data) for event in events])

    try:
        orders.get("http://gone/")
    except httpx2.ConnectError as error:
        print("an error that the code knows:", isinstance(error, meshlib.ConnectFailed), len(error.record.attempts))

server.shutdown()
server.server_close()
