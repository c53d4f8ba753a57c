"""A call through the mesh: to a server in this process, so that it runs by itself."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import Mesh, Service


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours."""

    def do_GET(self) -> None:
        body = b'{"order": 42}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()

# With a registry the endpoints need not be written down: Mesh() and the name of the service are enough.
with Mesh(services={"orders": Service(endpoints=[f"127.0.0.1:{server.server_port}"], timeout="2s")}) as mesh:
    orders = mesh.client("orders")  # an httpx.Client
    answer = orders.get("/orders/42")
    print(answer.json())
    print(meshlib.record(answer))

server.shutdown()
