"""Large bodies: an upload that asks before it sends, and a download whose checksum comes behind it, as a trailer."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meshlib import Mesh

BLOCK = b"." * 65536


class Files(BaseHTTPRequestHandler):
    """Stands in for a service of yours."""

    protocol_version = "HTTP/1.1"

    def handle_expect_100(self) -> bool:
        if int(self.headers["content-length"]) <= 1_000_000:
            return super().handle_expect_100()
        self.send_response(413)
        self.send_header("content-length", "0")
        self.end_headers()
        return False

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.send_header("trailer", "x-sha256")
        self.end_headers()
        digest = hashlib.sha256()
        for _ in range(16):
            digest.update(BLOCK)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
        self.wfile.write(f"0\r\nx-sha256: {digest.hexdigest()}\r\n\r\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def blocks(number: int) -> Iterator[bytes]:
    """A body that is made while it is sent, and that is never in memory as a whole."""
    for made in range(1, number + 1):
        yield BLOCK
        print(f"sent {made} of {number}")


server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
threading.Thread(target=server.serve_forever, daemon=True).start()

with Mesh(services={"files": {"endpoints": [f"127.0.0.1:{server.server_port}"]}}) as mesh:
    files = mesh.client("files")
    for number in (2, 100):
        headers = {"content-length": str(number * len(BLOCK)), "expect": "100-continue"}
        print(files.put("/upload", content=blocks(number), headers=headers))

    digest = hashlib.sha256()
    with files.stream("GET", "/download") as response:
        for piece in response.iter_bytes():
            digest.update(piece)
    trailers = dict(response.extensions["trailers"])
    print("the checksum is right:", trailers[b"x-sha256"].decode() == digest.hexdigest())

server.shutdown()
server.server_close()
