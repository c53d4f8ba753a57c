"""A client as a class: paths, parameters, models and errors are declared, and the mesh makes the calls.

The service is a small server of this process. In one of yours only the class, `bind` and what follows stay.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Protocol

from pydantic import BaseModel

from meshlib import Mesh
from meshlib.adapters.declarative import ByCursor, InvalidResponse, Query, Response, StatusError, get, paginated, post


class Order(BaseModel):
    id: int
    total: float


class Problem(BaseModel):
    title: str


class NotFound(StatusError[Problem]):
    """There is no such order."""


class Orders(Protocol):
    @get("/orders/{order_id}", errors={404: NotFound}, timeout="2s")
    def order(self, order_id: int, include: Annotated[list[str] | None, Query(explode=False)] = None) -> Order: ...

    @get("/orders")
    @paginated(ByCursor("next"), items="orders")
    def all(self, limit: int = 2) -> Iterator[Order]: ...

    @post("/orders", idempotent=True)
    def create(self, body: Order) -> Response[Order]: ...


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {
            "/v1/orders/42?include=lines,buyer": (200, '{"id": 42, "total": "9.50"}'),
            "/v1/orders/7": (200, '{"id": 7, "total": "nine"}'),
            "/v1/orders?limit=2": (200, '{"orders": [{"id": 1, "total": 1}, {"id": 2, "total": 2}], "next": "c2"}'),
            "/v1/orders?limit=2&cursor=c2": (200, '{"orders": [{"id": 3, "total": 3}]}'),
        }
        self.answer(*answers.get(self.path, (404, '{"title": "no such order"}')))

    def do_POST(self) -> None:
        self.answer(201, self.rfile.read(int(self.headers["content-length"])).decode())

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Mesh(services={"orders": {"endpoints": [f"127.0.0.1:{server.server_port}"]}}) as mesh:
        orders = mesh.bind(Orders, "orders", prefix="/v1")
        print(orders)
        print("one:", orders.order(42, ["lines", "buyer"]))
        print("all:", [order.id for order in orders.all()])
        made = orders.create(Order(id=4, total=4))
        print("made:", made.status, made.body, f"in {len(made.record.attempts)} attempt" if made.record else "")
        try:
            orders.order(1)
        except NotFound as error:
            print("none:", error, "/", error.body.title if error.body else "")
        try:
            orders.order(7)
        except InvalidResponse as error:
            print("wrong:", error.problems)
    server.shutdown()
