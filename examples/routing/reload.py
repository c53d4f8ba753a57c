"""A configuration that changes while calls are made: a canary is begun, a slip is refused, nothing fails.

The file is mounted as Kubernetes mounts a ConfigMap: a link to a link to a directory that is swapped.
"""

import os
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from meshlib import Mesh
from meshlib.telemetry.events import ConfigRefused, ConfigReloaded, Event


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.server.version.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silent."""


def serve(version: str) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.version = version  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


v1, v2 = serve("v1"), serve("v2")


def config(v1_weight: object, v2_weight: object) -> str:
    return f"""
watch: {{interval: 50ms}}
services:
  orders:
    endpoints:
      - {{address: "{v1}", metadata: {{version: v1}}}}
      - {{address: "{v2}", metadata: {{version: v2}}}}
    subsets: {{v1: {{version: v1}}, v2: {{version: v2}}}}
    routes:
      - name: canary
        backends: [{{subset: v1, weight: {v1_weight}}}, {{subset: v2, weight: {v2_weight}}}]
"""


def mount(directory: Path, name: str, text: str) -> None:
    """Swap the files of a volume, as Kubernetes does."""
    (directory / name).mkdir()
    (directory / name / "mesh.yaml").write_text(text)
    (directory / "..data_tmp").symlink_to(name)
    os.replace(directory / "..data_tmp", directory / "..data")


volume = Path(tempfile.mkdtemp())
mount(volume, "..2026_1", config(100, 0))
(volume / "mesh.yaml").symlink_to("..data/mesh.yaml")

told: list[Event] = []
with Mesh.from_file(volume / "mesh.yaml") as mesh:
    mesh.on_event(told.append)
    orders = mesh.client("orders")

    def calls_until(kind: type[Event]) -> Counter[str]:
        count, seen = len(told), Counter[str]()
        deadline = time.monotonic() + 10
        while not any(isinstance(event, kind) for event in told[count:]) and time.monotonic() < deadline:
            seen[orders.get("/").text] += 1  # would raise, if a call failed
        return seen

    print("before:", Counter(orders.get("/").text for _ in range(50)))

    mount(volume, "..2026_2", config(50, 50))
    calls_until(ConfigReloaded)
    print("canary at half:", sorted({orders.get("/").text for _ in range(50)}))

    mount(volume, "..2026_3", config("all", 0))
    calls_until(ConfigRefused)
    print("a slip is refused, and the last good one stays:", sorted({orders.get("/").text for _ in range(50)}))
    print("why:", next(event.detail for event in told if isinstance(event, ConfigRefused)).partition("weight: ")[2])

    mount(volume, "..2026_4", config(0, 100))
    calls_until(ConfigReloaded)
    print("all of it:", Counter(orders.get("/").text for _ in range(50)))
