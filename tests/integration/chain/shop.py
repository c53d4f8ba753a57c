"""The second: Flask under gunicorn, with threads."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, request

from meshlib import Mesh, MeshError
from meshlib.server.flask import MeshExtension
from tests.integration.chain import witness

mesh = Mesh.from_dict(json.loads(os.environ["CHAIN_MESH"]))
stock = mesh.client("stock")
app = Flask(__name__)
MeshExtension(mesh).init_app(app)


@app.route("/offers", methods=["GET", "POST"])
def offers() -> dict[str, Any]:
    run = {"x-test-run": request.headers.get("x-test-run", "")}
    try:
        found = stock.request(request.method, "/levels", headers=run, params=request.args)
    except MeshError:
        found = stock.get("/last-known", headers=run)  # which a caller who is gone does not wait for either
    found.raise_for_status()
    return {"shop": found.json()}


app.wsgi_app = witness.wsgi(app.wsgi_app)  # type: ignore[method-assign]
