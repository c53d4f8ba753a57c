"""A service behind a Unix socket, as a sidecar or a process on the same machine offers it: no port, no network."""

import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import meshlib
from meshlib import Mesh, Service


class Orders(BaseHTTPRequestHandler):
    """Stands in for a service of yours; with uvicorn it would be ``uvicorn orders:app --uds /run/orders.sock``."""

    def do_GET(self) -> None:
        body = f"order 42, asked of {self.headers['host']}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a caller on this machine"


with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "orders.sock"
    server = socketserver.ThreadingUnixStreamServer(str(path), Orders)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    with Mesh(services={"orders": Service(endpoints=[f"unix:{path}"], timeout="2s")}) as mesh:
        answer = mesh.client("orders").get("/orders/42")
        print(answer.text)
        print(meshlib.record(answer).attempts[0].endpoint.replace(directory, "..."))

    server.shutdown()
    server.server_close()
