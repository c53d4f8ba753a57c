"""The catalogue of the shop, in Flask: what an item is called."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from meshlib import Mesh
from meshlib.cli.demo.shop.serving import announce, listen
from meshlib.cli.demo.shop.trail import left_ms
from meshlib.server.flask import MeshExtension

ITEMS = ("kettle", "lamp", "teapot", "blanket", "candle", "notebook", "basket")

mesh = Mesh()
app = Flask(__name__)
MeshExtension(mesh).init_app(app)


@app.get("/items/<int:number>")
def item(number: int) -> dict[str, Any]:
    """One item."""
    return {"number": number, "name": ITEMS[number % len(ITEMS)]}


@app.get("/deadline")
def deadline() -> list[dict[str, Any]]:
    """How long there is left, at the end of the way."""
    return [{"service": "catalogue", "left_ms": left_ms()}]


class Handler(WSGIRequestHandler):
    """Keeps connections open, and writes no line per request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        pass


def main() -> None:
    """Serve until told to end, and be in the registry for as long."""
    with listen() as sock:
        port = sock.getsockname()[1]
        server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler, fd=sock.fileno())
        with mesh, mesh.register(port=port, service="catalogue", check_interval="1s"):
            announce(port)
            server.serve_forever()


if __name__ == "__main__":
    main()
