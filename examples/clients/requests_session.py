"""Code that is written for requests, through the mesh: retries, cookies, uploads, streams, and errors that it knows."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

import meshlib
from meshlib.adapters.requests import session


class Orders(BaseHTTPRequestHandler):
    """Is busy at every second request for a report, and counts what is uploaded."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        Orders.asked += self.path == "/report"
        busy = self.path == "/report" and Orders.asked % 2 == 1
        self.answer(503 if busy else 200, b"a line\n" * 3)

    def do_POST(self) -> None:
        size = 0
        while chunk := int(self.rfile.readline(), 16):
            size += len(self.rfile.read(chunk + 2)) - 2
        self.rfile.readline()
        self.answer(201, str(size).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "seen=yes")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Orders)
threading.Thread(target=server.serve_forever, daemon=True).start()
services = {"orders": {"endpoints": [f"127.0.0.1:{server.server_port}"]}, "gone": {"endpoints": ["127.0.0.1:1"]}}

with meshlib.Mesh(discovery=[], services=services) as mesh:
    orders = session(mesh, "orders")

    with orders.get("/report", stream=True, timeout=2) as response:
        print("lines, one by one:", [line.decode() for line in response.iter_lines()])
        print("attempts:", [attempt.status for attempt in meshlib.record(response).attempts])
    print("cookies are kept:", orders.cookies.get_dict())

    with meshlib.call(idempotent=True, route="/orders"):  # options of the calls inside
        print("uploaded:", orders.post("/orders", data=(b"x" * 1000 for _ in range(3))).text, "bytes")

    try:
        session(mesh, "gone").get("/")
    except requests.ConnectionError as error:
        print("an error that the code knows:", isinstance(error, meshlib.ConnectFailed), len(error.record.attempts))

server.shutdown()
server.server_close()
