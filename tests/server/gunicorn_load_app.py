"""The application that tests start under several workers of gunicorn: one request of it is held until another comes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meshlib import Mesh
from meshlib.server.wsgi import MeshMiddleware

_held = Path(os.environ["HELD_FILE"])


def _app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/held":
        _held.write_text("held")
        ends_at = time.monotonic() + 10
        while _held.exists() and time.monotonic() < ends_at:
            time.sleep(0.005)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]


application = MeshMiddleware(_app, Mesh(discovery=[]))
