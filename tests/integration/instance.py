"""A service that says its name: ``python -m tests.integration.instance CONFIG NAME REGISTER``, both as JSON.

It prints its port and its id in the registry when it is registered, and ends when its input does.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from meshlib import Mesh


def main(config: str, name: str, register: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Mesh(json.loads(config)) as mesh, mesh.register(server.server_port, **json.loads(register)) as registration:
        print(json.dumps([server.server_port, registration.instance.instance_id]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
