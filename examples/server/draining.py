"""Two workers of gunicorn are one entry in the registry. Told to end, they serve on until callers have heard."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
from flask import Flask, request

from meshlib import DeadlineExceeded, Mesh
from meshlib.server.flask import MeshExtension

os.environ.setdefault("MESHLIB_LOCAL_DIR", tempfile.mkdtemp())  # a registry of its own, for this example
PORT = int(os.environ.get("PORT", "0"))
mesh = Mesh(service="orders", server={"drain": {"notice": "2s"}}, **({"register": {"port": PORT}} if PORT else {}))
app = Flask(__name__)
MeshExtension(mesh).init_app(app)


@app.get("/")
def work() -> str:
    time.sleep(float(request.args.get("for", 0)))
    return "done"


def wait_for(server: "subprocess.Popen[bytes]") -> None:
    ends_at = time.monotonic() + 20
    while server.poll() is None:
        try:
            return mesh.wait_ready("orders", timeout="500ms")
        except DeadlineExceeded:
            if time.monotonic() > ends_at:
                raise
    sys.exit(f"gunicorn ended with {server.returncode}")  # it has said why


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    here = Path(__file__).parent
    command = ["gunicorn", "-c", "gunicorn_conf.py", "-b", f"127.0.0.1:{port}", "--log-level=error", "draining:app"]
    server = subprocess.Popen([sys.executable, "-m", *command], cwd=here, env={**os.environ, "PORT": str(port)})
    try:
        wait_for(server)
        ((orders,),) = ([each for each in mesh.status().services if each.name == "orders"],)
        print("entries of two workers:", sum(len(cluster.endpoints) for cluster in orders.clusters))

        long = threading.Thread(target=lambda: print("begun before:", mesh.client("orders").get("/?for=2").text))
        long.start()
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        print("begun behind the signal:", httpx.get(f"http://127.0.0.1:{port}/").text)
        long.join()
        print("ended with", server.wait(20))
    finally:
        server.kill()
        server.wait()
        mesh.close()


if __name__ == "__main__":
    main()
