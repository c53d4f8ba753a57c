"""One request reaches a developer's own instance, two hops away; others, and forged ones, do not.

A shop of three services, storefront -> orders -> users, and beside it Alice's copy of users.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx

from meshlib import Mesh
from meshlib.routing.override import sign_override
from meshlib.server.wsgi import MeshMiddleware

KEY = "a secret of this environment"


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Silent."""


def serve(answer: Callable[[], str], mesh: Mesh | None = None) -> str:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = json.dumps(answer()).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = make_server("127.0.0.1", 0, app if mesh is None else MeshMiddleware(app, mesh), handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


def mesh_of(name: str, **services: str) -> Mesh:
    return Mesh(
        service=name,
        discovery=[],
        services={each.replace("_", "-"): {"endpoints": [address]} for each, address in services.items()},
        overrides={"key": KEY, "allow": [{"service": "users", "to": "users-dev-*"}]},
    )


users = serve(lambda: "the users of all")
alice = serve(lambda: "Alice's users")

with (
    mesh_of("orders", users=users, users_dev_alice=alice) as of_orders,
    of_orders.client("users") as to_users,
):
    orders = serve(lambda: f"orders with {to_users.get('/').json()}", of_orders)
    with mesh_of("storefront", orders=orders) as of_storefront, of_storefront.client("orders") as to_orders:
        storefront = serve(lambda: f"a page from {to_orders.get('/').json()}", of_storefront)

        def ask(override: str | None = None) -> str:
            headers = {} if override is None else {"x-meshlib-override": override}
            return str(httpx.get(f"http://{storefront}/", headers=headers).json())

        signed = sign_override({"users": "users-dev-alice"}, KEY, expires_at=time.time() + 600)
        print("without:", ask())
        print("signed:", ask(signed))
        print("unsigned:", ask("users=users-dev-alice"))
        print("forged:", ask(signed.replace("alice", "mallory")))
        print("expired:", ask(sign_override({"users": "users-dev-alice"}, KEY, expires_at=time.time() - 1)))
