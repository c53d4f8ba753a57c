"""A Flask service in the registry: python examples/flask_catalogue.py [PORT]

Start several, each on a port of its own: callers use them all, and notice when one ends, however it ends.
"""

import sys
from typing import Any

from flask import Flask

import meshlib
from meshlib import Mesh
from meshlib.server.flask import MeshExtension

mesh = Mesh(service="catalogue")
app = Flask(__name__)
MeshExtension(mesh).init_app(app)  # calls made in a view inherit the caller's deadline, trace and baggage

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8001


@app.get("/items/<int:number>")
def item(number: int) -> dict[str, Any]:
    left_s = meshlib.current().remaining  # how long the caller will still wait; None if it did not say
    return {"number": number, "from_port": port, "left_ms": None if left_s is None else round(left_s * 1000)}


if __name__ == "__main__":
    with mesh.register(port=port, check_path="/items/1"):  # an entry for as long as this block runs
        app.run(port=port)
