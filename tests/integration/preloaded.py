"""An application whose mesh is made and used before gunicorn forks its workers (``--preload``)."""

from __future__ import annotations

import json
import os
from typing import Any

import flask

import meshlib
from meshlib import Mesh
from meshlib.server.flask import MeshExtension

app = flask.Flask(__name__)
mesh = Mesh(json.loads(os.environ["SHOP_MESH"]))
MeshExtension(mesh).init_app(app)
orders = mesh.client("orders")
master = orders.get("/at-import").text
"""The control thread runs, connections are open, and then comes the fork."""


@app.get("/")
def index() -> dict[str, Any]:
    response = orders.get("/x")
    record = meshlib.record(response)
    assert record is not None
    return {
        "pid": os.getpid(),
        "text": response.text,
        "attempts": len(record.attempts),
        "draw": mesh._wiring.plane.rng.random(),
        "master": master,
    }
