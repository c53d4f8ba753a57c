"""What is bound, and what is refused when it is: with class, method and parameter."""

import asyncio
import inspect
import sys
import typing
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Generic, Protocol, TypeVar

import httpx
import pytest
from pydantic import BaseModel

import meshlib
from meshlib.adapters.declarative import (
    Body,
    ByCursor,
    ByLink,
    ByPage,
    Form,
    HashKey,
    Header,
    Path,
    Query,
    Response,
    StatusError,
    get,
    paginated,
    post,
    request,
)
from meshlib.testing import MeshFixture

T = TypeVar("T")
Item_co = TypeVar("Item_co", covariant=True)


class Order(BaseModel):
    id: int


class Reads(Protocol[Item_co]):
    @get("/{id}")
    def one(self, id: int) -> Item_co:
        """One of them."""

    @get("/")
    async def all(self) -> list[Item_co]: ...


class Orders(Reads[Order], Protocol):
    @get("/{id}/state", timeout="1s", idempotent=False)
    def state(self, id: int) -> str: ...


class Abstract(ABC):
    @get("/{id}")
    @abstractmethod
    def one(self, id: int) -> Order: ...

    def twice(self, id: int) -> list[Order]:
        return [self.one(id), self.one(id)]


class Plain:
    greeting = "hello"

    def __init__(self, needed: str) -> None:
        raise AssertionError("what is bound is not made by its own constructor")

    @get("/{id}")
    def one(self, id: int) -> Order: ...  # type: ignore[empty-body]

    def most(self) -> str:
        return "20"


class Pages(BaseModel, Generic[T]):
    items: list[T]


class Listed(Protocol[T]):
    @get("/pages")
    def page(self) -> Pages[T]: ...
    @post("/pages")
    def add(self, body: T) -> None: ...


def serve(call: Any) -> Any:
    if call.path == "/":
        return [{"id": 1}]
    if call.path == "/pages":
        return {"items": [{"id": 1}]}
    return "open" if call.path.endswith("state") else {"id": int(call.path.rpartition("/")[2])}


@pytest.fixture
def served(mesh: MeshFixture) -> MeshFixture:
    mesh.serve("orders", serve)
    return mesh


def test_classes_of_every_sort(served: MeshFixture) -> None:
    orders = served.bind(Orders, "orders")
    assert orders.one(7) == Order(id=7)
    assert orders.state(7) == "open"
    assert asyncio.run(orders.all()) == [Order(id=1)]
    assert served.bind(Reads[Order], "orders").one(3) == Order(id=3)
    assert served.bind(Abstract, "orders").twice(2) == [Order(id=2), Order(id=2)]
    plain = served.bind(Plain, "orders")
    assert (plain.one(1), plain.greeting, plain.most()) == (Order(id=1), "hello", "20")
    listed = served.bind(Listed[Order], "orders")
    assert listed.page().items == [Order(id=1)]
    listed.add(Order(id=5))
    assert served.calls("orders")[-1].json() == {"id": 5}


def test_a_bound_object_looks_like_its_class(served: MeshFixture) -> None:
    orders = served.bind(Orders, "orders", prefix="/v2")
    assert repr(orders) == "<Orders at http://orders/v2 [3 calls]>"
    assert Orders in type(orders).__mro__
    assert inspect.signature(orders.one) == inspect.signature(Orders.one).replace(
        parameters=list(inspect.signature(Orders.one).parameters.values())[1:]
    )
    assert orders.one.__doc__ == "One of them."
    assert inspect.iscoroutinefunction(orders.all)
    assert not inspect.iscoroutinefunction(orders.one)


def test_what_the_decorator_says_reaches_the_mesh(served: MeshFixture) -> None:
    served.slow("orders", "5s", times=1)
    orders = served.bind(Orders, "orders", prefix="/v2")
    with pytest.raises(meshlib.DeadlineExceeded) as timed_out:
        orders.state(1)
    record = timed_out.value.record
    assert record is not None
    assert record.limit == "client"
    assert record.path == "/v2/1/state"
    served.fail_next("orders", status=503)
    with pytest.raises(StatusError):
        orders.state(1)  # idempotent=False: not repeated
    served.fail_next("orders", status=503)
    assert orders.one(1) == Order(id=1)


def test_the_template_names_the_operation(served: MeshFixture) -> None:
    seen: list[str | None] = []
    plane = served._wiring.plane
    call = plane.call
    plane.call = lambda *args, **kwargs: (seen.append(args[3].route), call(*args, **kwargs))[1]  # type: ignore[method-assign]
    served.bind(Orders, "orders", prefix="/v2").one(5)
    assert seen == ["/v2/{id}"]


def test_a_fake_of_the_same_shape_serves_tests() -> None:
    class Fake:
        def one(self, id: int) -> Order:
            return Order(id=id)

        async def all(self) -> list[Order]:
            return []

        def state(self, id: int) -> str:
            return "fake"

    def use(orders: Orders) -> str:
        return orders.state(1)

    assert use(Fake()) == "fake"


# What is refused


def declared(function: Callable[..., Any], decorator: Callable[[Any], Any]) -> type:
    return type("Orders", (), {"call": decorator(function)})


def no_self() -> None: ...
def unknown(self, x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def unknown_result(self) -> "Nowhere": ...  # type: ignore[no-untyped-def, name-defined]  # noqa: F821
def unannotated(self, x) -> None: ...  # type: ignore[no-untyped-def]
def silent(self): ...  # type: ignore[no-untyped-def]
def many(self: Any, *x: int) -> None: ...
def two_bodies(self: Any, a: Order, b: Order) -> None: ...
def body_and_form(self: Any, a: Order, b: Annotated[str, Form()]) -> None: ...
def two_places(self: Any, a: Annotated[str, Header(), Query()]) -> None: ...
def twice(self: Any, a: Annotated[str, Header("x-a")], b: Annotated[str, Header("X-A")]) -> None: ...
def keys(self: Any, a: Annotated[str, HashKey()], b: Annotated[str, HashKey()]) -> None: ...
def bad_header(self: Any, a: Annotated[str, Header("x a")]) -> None: ...
def framing(self: Any, a: Annotated[str, Header("Content-Length")]) -> None: ...
def structured_header(self: Any, a: Annotated[Order, Header()]) -> None: ...
def not_there(self: Any, a: Annotated[str, Path("b")]) -> None: ...
def default_marker(self: Any, a: str = Query("q")) -> None: ...  # type: ignore[assignment]
def open_variable(self: Any) -> list[T]: ...  # type: ignore[empty-body]
def wrong_stream(self: Any, body: AsyncIterator[bytes]) -> None: ...
def stream_of_models(self: Any, body: Iterator[Order]) -> None: ...
def bare_response(self: Any) -> Response: ...  # type: ignore[type-arg, empty-body]
def bare_stream(self: Any) -> Iterator: ...  # type: ignore[type-arg, empty-body]
def bare_typing_stream(self: Any) -> typing.AsyncIterator: ...  # type: ignore[type-arg, empty-body]
def stream_in_response(self: Any) -> Response[Iterator[bytes]]: ...  # type: ignore[empty-body]
async def sync_stream(self: Any) -> Iterator[Order]: ...  # type: ignore[empty-body]
def one(self: Any, id: int) -> Order: ...  # type: ignore[empty-body]
def pages_of_one(self: Any) -> list[Order]: ...  # type: ignore[empty-body]
async def awaited_pages(self: Any) -> AsyncIterator[Order]: ...  # type: ignore[empty-body]


class Unreadable:
    pass


def arbitrary(self: Any) -> Unreadable: ...  # type: ignore[empty-body]
def arbitrary_body(self: Any, body: Unreadable) -> None: ...


def paged(path: str) -> Callable[[Any], Any]:
    return lambda function: get(path)(paginated(ByLink())(function))


@pytest.mark.parametrize(
    ("function", "decorator", "message"),
    [
        (no_self, get("/"), "Orders.call: a method has `self`"),
        (unknown, get("/"), "Orders.call: parameter 'x' has an annotation that cannot be looked up"),
        (unknown_result, get("/"), "Orders.call: what it returns has an annotation that cannot be looked up"),
        (unannotated, get("/"), "Orders.call: parameter 'x' has no annotation"),
        (silent, get("/"), "Orders.call: say what it returns"),
        (many, get("/"), "Orders.call: parameter 'x' stands for any number"),
        (two_bodies, post("/"), "Orders.call: two bodies: 'a' and 'b'"),
        (body_and_form, post("/"), "Orders.call: parameter 'a' is a body, and others are of a form"),
        (two_places, get("/"), "Orders.call: parameter 'a' is to go to two places: Header and Query"),
        (twice, get("/"), "Orders.call: 'a' and 'b' are both 'x-a' in the header"),
        (keys, get("/"), "Orders.call: 'a' and 'b' are both the HashKey"),
        (bad_header, get("/"), "Orders.call: parameter 'a' 'x a' is no name of a header"),
        (framing, get("/"), "Orders.call: parameter 'a' the header Content-Length is not for a parameter to set"),
        (structured_header, get("/"), "Orders.call: parameter 'a' is no text"),
        (not_there, get("/"), "Orders.call: parameter 'a' is to go into the path, which has no {b}"),
        (default_marker, get("/"), "Orders.call: parameter 'a': write Annotated[..., Query(...)]"),
        (open_variable, get("/"), "Orders.call: what it returns has a type variable that nothing fills"),
        (wrong_stream, post("/"), "Orders.call: parameter 'body' is to be an Iterator[bytes]: the method is not"),
        (stream_of_models, post("/"), "Orders.call: parameter 'body' is a stream, and only one of bytes"),
        (bare_response, get("/"), "Orders.call: what it returns: say of what"),
        (bare_stream, get("/"), "Orders.call: what it returns: say of what: Iterator[...]"),
        (bare_typing_stream, get("/"), "Orders.call: what it returns: say of what: AsyncIterator[...]"),
        (stream_in_response, get("/"), "Orders.call: what it returns: a Response has a value"),
        (sync_stream, get("/"), "Orders.call: an async method returns an AsyncIterator"),
        (arbitrary, get("/"), "Orders.call: what it returns has a type that pydantic cannot read"),
        (arbitrary_body, post("/"), "Orders.call: parameter 'body' has a type that pydantic cannot write"),
        (one, get("/{id}/{other}"), "Orders.call: the path has {other}, and no parameter is named so"),
        (two_bodies, get("/"), "Orders.call: parameter 'a' is no text, and a GET has no body by itself"),
        (pages_of_one, paged("/"), "Orders.call: what is paginated returns an Iterator"),
        (awaited_pages, paged("/"), "Orders.call: what is paginated is written `def`"),
    ],
)
def test_a_method_of_which_no_call_can_be_made_is_refused(
    served: MeshFixture, function: Any, decorator: Any, message: str
) -> None:
    cls = declared(_copy(function), decorator)
    with pytest.raises(TypeError) as caught:
        served.bind(cls, "orders")
    assert message in str(caught.value)


LATE = """
class Orders(Protocol):
    @get("/{id}")
    def order(self, id: int) -> Later: ...

class Wrong(Protocol):
    @get("/{id}")
    def order(self, id: int, tags: list[Missing] | None = None) -> Later: ...

class Later(BaseModel):
    id: int
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python looks annotations up at once")
def test_annotations_are_looked_up_when_the_class_is_bound() -> None:
    made: dict[str, Any] = {"Protocol": Protocol, "get": get, "BaseModel": BaseModel}
    exec(compile(LATE, "late", "exec", dont_inherit=True), made)
    with meshlib.Mesh.from_dict({}) as mesh:
        assert mesh.bind(made["Orders"], "orders")
        with pytest.raises(TypeError, match=r"Wrong\.order: parameter 'tags' .*\(name 'Missing' is not defined\)"):
            mesh.bind(made["Wrong"], "orders")


def _copy(function: Any) -> Any:
    from types import FunctionType

    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__annotations__ = dict(function.__annotations__)
    return copy


def test_classes_that_declare_too_little_are_refused(served: MeshFixture) -> None:
    class Nothing(Protocol): ...

    class Forgotten(Protocol):
        @get("/{id}")
        def one(self, id: int) -> Order: ...
        def other(self, id: int) -> Order: ...

    class Half(ABC):
        @get("/{id}")
        @abstractmethod
        def one(self, id: int) -> Order: ...
        @property
        @abstractmethod
        def other(self) -> int: ...

    class Static:
        @staticmethod
        @get("/")
        def one() -> None: ...

    for shape, message in (
        (Nothing, "Nothing declares no call"),
        (Forgotten, "Forgotten.other is not declared"),
        (Half, "Half: other: abstract, and not declared"),
        (Static, "Static.one: only a plain method can be a call, not a staticmethod"),
        (3, "a class is to be bound, not 3"),
    ):
        with pytest.raises(TypeError, match=message):
            served.bind(shape, "orders")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"prefix": "v1"}, {"prefix": "/{a}"}, {"headers": {"x": "a\nb"}}, {"timeout": "x"}]
)
def test_wrong_options_of_bind_are_refused(served: MeshFixture, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"x|v1|a"):
        served.bind(Orders, "orders", **options)
    with pytest.raises(ValueError, match="not the name of a service"):
        served.bind(Orders, "a/b")
    with pytest.raises(TypeError, match="the name of a service is expected, such as 'orders', not <class"):
        served.bind("orders", Orders)  # type: ignore[arg-type, type-var]


WRONG: list[Callable[[], Any]] = [
    lambda: request("get", "/"),
    lambda: get("orders"),
    lambda: get("/", timeout="soon"),
    lambda: get("/", errors={"5x": Order}),
    lambda: get("/", errors={99: Order}),
    lambda: get("/", errors={404: KeyError}),
    lambda: get("/", headers={"x": "a\r\nb"}),
    lambda: get("/")(3),
    lambda: get("/")(get("/")(_copy(one))),
    lambda: paginated("next"),  # type: ignore[arg-type]
    lambda: paginated(ByCursor("next")),
    lambda: paginated(ByLink(), max_pages=0),
    lambda: paginated(ByPage(step=0)),
    lambda: paginated(ByLink(), items="a..b"),
    lambda: paginated(ByLink())(paginated(ByLink())(_copy(one))),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_declarations_are_refused_at_once(number: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        WRONG[number]()


def test_a_decorator_without_its_path_and_a_brace_without_another_are_told() -> None:
    with pytest.raises(TypeError, match=r"a path is expected, as in @get\('/orders/\{id\}'\), not <function one"):
        get(one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'/orders/\{id' has a character .*; a brace has no other"):
        get("/orders/{id")


def test_bodies_may_be_named_as_one_likes(served: MeshFixture) -> None:
    class Named(Protocol):
        @post("/1")
        def put_one(self, order: Annotated[dict[str, int], Body()]) -> Order: ...

    assert served.bind(Named, "orders").put_one({"id": 9}) == Order(id=1)
    assert served.calls("orders")[-1].json() == {"id": 9}


def test_the_mode_off_sends_calls_as_plain_httpx(served: MeshFixture) -> None:
    with MeshFixture({"mode": "off"}) as mesh:
        mesh.serve("orders", serve)
        assert mesh.bind(Orders, "orders").one(1) == Order(id=1)
        assert "x-envoy-attempt-count" not in mesh.calls("orders")[-1].headers


def test_clients_are_httpx_ones_underneath(served: MeshFixture) -> None:
    class Raw(Protocol):
        @get("/7")
        def seven(self) -> httpx.Response: ...

    response = served.bind(Raw, "orders").seven()
    assert response.json() == {"id": 7}
    assert meshlib.record(response) is not None
