"""A retry storm avoided: three services one behind the other, the last one down, and what each kind of care saves.

Every caller makes three attempts, so that a request of a user is 27 at the bottom. With retry budgets it is so for the
first ones only, and when the bottom says that it is overloaded, nobody repeats anything.
"""

import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from meshlib import Backoff, Mesh, Retry, RetryBudget, Service
from meshlib.server.wsgi import MeshMiddleware

REQUESTS = 10


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def serve(server: Any) -> str:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


def mesh_to(endpoint: str, budget: RetryBudget) -> Mesh:
    retry = Retry(max_retries=2, backoff=Backoff(base=0))
    behind = Service(
        endpoints=[endpoint], retry=retry, retry_budget=budget, circuit_breaker=False, outlier_detection=False
    )
    return Mesh(services={"behind": behind}, discovery=[])


def storm(budget: RetryBudget, *, says_so: bool) -> int:
    """How many requests the bottom gets for so many of a user."""
    got = 0

    class Bottom(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal got
            got += 1
            self.send_response(503)
            if says_so:
                self.send_header("x-envoy-overloaded", "true")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    def in_front_of(endpoint: str) -> tuple[str, Any]:
        mesh = mesh_to(endpoint, budget)
        client = mesh.client("behind")

        def application(environ: Any, start_response: Any) -> Iterable[bytes]:
            answer = client.get(environ["PATH_INFO"])
            start_response(f"{answer.status_code} -", [("content-length", "0")])
            return [b""]

        app = MeshMiddleware(application, mesh)
        server = make_server("127.0.0.1", 0, app, server_class=Threaded, handler_class=Quiet)
        return serve(server), server

    bottom = ThreadingHTTPServer(("127.0.0.1", 0), Bottom)
    inner, first = in_front_of(serve(bottom))
    outer, second = in_front_of(inner)
    with mesh_to(outer, budget) as mesh, mesh.client("behind") as client:
        for _ in range(REQUESTS):
            client.get("/")
    for server in (bottom, first, second):
        server.shutdown()
    return got


unbounded = RetryBudget(tokens=1e9)
print(f"{REQUESTS} requests of a user, and how many the last of three services gets")
print("no budget:", storm(unbounded, says_so=False))
print("gRPC's budget, the default:", storm(RetryBudget(), says_so=False))
print("it says that it is overloaded:", storm(unbounded, says_so=True))
