"""What a type checker sees of declarative clients; nothing runs it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar, assert_type

from meshlib import Mesh
from meshlib.adapters.declarative import (
    Body,
    ByCursor,
    ByLink,
    File,
    Form,
    Header,
    Query,
    Response,
    StatusError,
    Upload,
    get,
    paginated,
    post,
)

T_co = TypeVar("T_co", covariant=True)


@dataclass
class Order:
    id: int


@dataclass
class Problem:
    title: str


class NotFound(StatusError[Problem]):
    """No such order."""


class Bare(StatusError):
    """Of any body."""


class Orders(Protocol):
    @get("/orders/{order_id}", errors={404: NotFound, "5xx": Problem}, timeout="2s")
    def order(self, order_id: int, user: Annotated[str | None, Header("x-user")] = None) -> Order: ...

    @get("/orders/{order_id}")
    async def order_later(self, order_id: int) -> Response[Order]: ...

    @get("/orders")
    @paginated(ByCursor("next"), items="items")
    def all(self, tags: Annotated[list[str] | None, Query("tag")] = None) -> Iterator[Order]: ...

    @get("/orders")
    @paginated(ByLink())
    def all_later(self) -> AsyncIterator[Order]: ...

    @post("/orders", idempotent=True)
    def create(self, body: Annotated[Order, Body(exclude_none=True)]) -> None: ...

    @post("/photo")
    def photo(self, photo: Annotated[Upload, File()], caption: Annotated[str, Form()]) -> bytes: ...


class Reads(Protocol[T_co]):
    @get("/{id}")
    def one(self, id: int) -> T_co: ...


class Fake:
    def one(self, id: int) -> Order:
        return Order(id)


def in_a_thread(mesh: Mesh) -> None:
    orders = mesh.bind(Orders, "orders", prefix="/v2", headers={"x-a": "b"}, auth=("a", "b"), timeout=2)
    assert_type(orders, Orders)
    assert_type(orders.order(7), Order)
    assert_type([order.id for order in orders.all(tags=["a"])], list[int])
    assert_type(orders.photo(("a.png", b"", "image/png"), caption="c"), bytes)
    orders.order("7")  # type: ignore[arg-type]
    orders.create({"id": 7})  # type: ignore[arg-type]
    assert_type(mesh.bind(Reads[Order], "orders").one(7), Order)
    reads: Reads[Order] = Fake()
    assert_type(reads.one(1), Order)


async def in_a_loop(mesh: Mesh) -> None:
    orders = mesh.bind(Orders, "orders")
    answer = await orders.order_later(7)
    assert_type(answer.body, Order)
    assert_type(answer.status, int)
    async for order in orders.all_later():
        assert_type(order, Order)


def on_errors(error: NotFound) -> None:
    assert_type(error.body, Problem | None)
    assert_type(error.status, int)
