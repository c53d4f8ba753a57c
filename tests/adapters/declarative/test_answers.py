"""What answers become: values of the declared type, items of streams, pages, and exceptions."""

import asyncio
import contextlib
import inspect
import json
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, field_validator

import meshlib
from meshlib.adapters.declarative import (
    ByCursor,
    ByLink,
    ByPage,
    InvalidResponse,
    Response,
    ServerSentEvent,
    StatusError,
    decoding,
    get,
    head,
    paginated,
)
from meshlib.adapters.declarative.decoding import Events, JsonLines
from meshlib.adapters.declarative.pagination import link_to
from meshlib.testing import MeshFixture


class Order(BaseModel):
    model_config = ConfigDict(strict=True)
    id: int
    price: Decimal = Decimal(1)


@dataclass
class Problem:
    title: str


class Pin(BaseModel):
    pin: str

    @field_validator("pin")
    @classmethod
    def short(cls, value: str) -> str:
        if len(value) > 4:
            raise ValueError("too long")
        return value


class NotFound(StatusError[Problem]):
    pass


class Gone(NotFound):
    pass


ERRORS: dict[int | str, Any] = {404: NotFound, 410: Gone, 409: list[Problem], 412: None, "5xx": Problem}


class Calls(Protocol):
    @get("/x")
    def order(self) -> Order: ...
    @get("/x", errors=ERRORS)
    def maybe(self) -> Order | None: ...
    @get("/x", errors={"default": NotFound})
    async def anything(self) -> Any: ...
    @get("/x")
    def pins(self) -> dict[str, list[Pin]]: ...
    @get("/x")
    def nothing(self) -> None: ...
    @get("/x")
    def data(self) -> bytes: ...
    @get("/x")
    def text(self) -> str: ...
    @get("/x")
    def raw(self) -> httpx.Response: ...
    @get("/x", errors={404: NotFound})
    def raw_or_not_found(self) -> httpx.Response: ...
    @get("/x")
    def wrapped(self) -> Response[list[Order]]: ...
    @head("/x")
    def seen(self) -> Response[None]: ...
    @get("/x", errors=ERRORS)
    def orders(self) -> Iterator[Order]: ...
    @get("/x")
    def chunks(self) -> Iterator[bytes]: ...
    @get("/x")
    def lines(self) -> Iterator[str]: ...
    @get("/x")
    def events(self) -> Iterator[ServerSentEvent]: ...
    @get("/x", errors=ERRORS)
    def async_orders(self) -> AsyncIterator[Order]: ...
    @get("/x")
    async def opened_orders(self) -> AsyncIterator[Order]: ...
    @get("/x")
    @paginated(ByCursor("meta.next"), items="data.orders", max_pages=4)
    def by_cursor(self, limit: int = 2) -> Iterator[Order]: ...
    @get("/x")
    @paginated(ByLink())
    def by_link(self) -> Iterator[Order]: ...
    @get("/x")
    @paginated(ByPage(), items="orders")
    def by_page(self, page: int | None = None) -> Iterator[Order]: ...
    @get("/x")
    @paginated(ByPage("offset", first=0, step=2, pages="pages"), items="orders")
    def async_by_page(self) -> AsyncIterator[Order]: ...


Answer = Callable[[Any], Any]


def bound(mesh: MeshFixture, answer: Any) -> Calls:
    mesh.serve("orders", answer if callable(answer) else lambda request: answer)
    return mesh.bind(Calls, "orders", prefix="/v1")


def body(content: str | bytes, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    ("name", "answer", "value"),
    [
        ("order", body('{"id": 1, "price": "0.10"}'), Order(id=1, price=Decimal("0.10"))),
        ("maybe", body("", 200), None),
        ("maybe", body("null"), None),
        ("maybe", 204, None),
        ("maybe", 412, None),
        ("anything", {"a": [1]}, {"a": [1]}),
        ("nothing", {"a": 1}, None),
        ("data", b"\0\1", b"\0\1"),
        ("text", "grün", "grün"),
    ],
)
def test_values(mesh: MeshFixture, name: str, answer: Any, value: Any) -> None:
    result = getattr(bound(mesh, answer), name)()
    assert (asyncio.run(result) if asyncio.iscoroutine(result) else result) == value


def test_what_is_beside_the_body(mesh: MeshFixture) -> None:
    calls = bound(mesh, (201, [{"id": 1}], {"x-total": "9"}))
    wrapped = calls.wrapped()
    assert (wrapped.body, wrapped.status, wrapped.headers["x-total"]) == ([Order(id=1)], 201, "9")
    assert wrapped.record is not None
    assert wrapped.record.attempts[0].endpoint.startswith("orders-0")
    assert calls.seen().status == 201


def test_a_raw_answer_is_given_whatever_its_status_unless_it_is_declared(mesh: MeshFixture) -> None:
    calls = bound(mesh, (404, {"title": "none"}))
    assert calls.raw().status_code == 404
    with pytest.raises(NotFound):
        calls.raw_or_not_found()


@pytest.mark.parametrize(
    ("status", "content", "raised", "value"),
    [
        (404, {"title": "none"}, NotFound, Problem("none")),
        (410, {"title": "gone"}, Gone, Problem("gone")),
        (409, [{"title": "there"}], StatusError, [Problem("there")]),
        (500, {"title": "oh"}, StatusError, Problem("oh")),
        (400, {"any": 1}, StatusError, {"any": 1}),
        (400, "text", StatusError, "text"),
        (302, "", StatusError, ""),
        (404, "<html>", NotFound, None),
        (404, {"title": 3}, NotFound, None),
    ],
)
def test_statuses_become_exceptions(
    mesh: MeshFixture, status: int, content: Any, raised: type[StatusError], value: Any
) -> None:
    calls = bound(mesh, (status, content))
    with pytest.raises(StatusError) as caught:
        calls.maybe()
    error = caught.value
    assert type(error) is raised
    assert error.body == value
    assert (error.operation, error.service, error.method, error.route) == ("Calls.maybe", "orders", "GET", "/v1/x")
    assert error.status == status
    assert str(error).startswith(f"Calls.maybe: orders answered {status} ")
    assert error.record is not None and error.response is not None
    assert (error.record.status, error.response.status_code) == (status, status)
    assert (value is None) == isinstance(error.__cause__, InvalidResponse)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.status, again.body, again.record) == (
        raised,
        str(error),
        status,
        value,
        error.record,
    )
    assert again.response is None
    assert not isinstance(error, meshlib.MeshError), "an answer is no failure of the mesh"


def test_the_default_is_for_all_other_statuses(mesh: MeshFixture) -> None:
    with pytest.raises(NotFound, match="418"):
        asyncio.run(bound(mesh, (418, {"title": "tea"})).anything())


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        ("order", '{"id": "1"}', {"id": "Input should be a valid integer"}),
        ("pins", '{"a": [{"pin": "1"}, {"pin": "secret-pin"}]}', {"a.1.pin": "Value error, too long"}),
        ("order", "<html>secret", {"": "Invalid JSON"}),
        ("order", "", {"": "Invalid JSON"}),
    ],
)
def test_an_answer_that_does_not_fit_names_the_field_and_no_value(
    mesh: MeshFixture, name: str, content: str, problems: dict[str, str]
) -> None:
    calls = bound(mesh, body(content))
    with pytest.raises(
        InvalidResponse, match=f"Calls.{name}: the answer of orders to GET /v1/x does not fit"
    ) as caught:
        getattr(calls, name)()
    error = caught.value
    for (path, text), (wanted, start) in zip(error.problems, problems.items(), strict=True):
        assert path == wanted
        assert text.startswith(start)
    assert "secret" not in str(error)
    assert error.__context__ is None and error.__cause__ is None, "pydantic's own error tells the values"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_an_answer_that_is_made_to_do_harm_does_none(mesh: MeshFixture) -> None:
    key = "x\nERROR all is lost" + "y" * 10_000
    with pytest.raises(InvalidResponse) as caught:
        bound(mesh, {key: [{"pin": 1}]}).pins()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    with pytest.raises(InvalidResponse, match="20000 values do not fit"):
        bound(mesh, ["x"] * 20_000).wrapped()
    with pytest.raises(StatusError) as failed:
        bound(mesh, body("[" * 100_000, 500)).data()
    assert failed.value.body == "[" * 100_000


def test_many_problems_are_not_all_told(mesh: MeshFixture) -> None:
    calls = bound(mesh, [{"id": "x" * 10_000}] * 500)
    with pytest.raises(InvalidResponse, match="and 490 more") as caught:
        calls.wrapped()
    assert len(str(caught.value)) < 2000


def test_failures_without_an_answer_are_the_meshs(mesh: MeshFixture) -> None:
    calls = bound(mesh, 200)
    mesh.fail_next("orders", error=meshlib.ConnectFailed, times=9)
    with pytest.raises(meshlib.ConnectFailed) as caught:
        calls.order()
    assert isinstance(caught.value, httpx.ConnectError)


# Streams


class Slowly(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.given += 1
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def stream(*chunks: bytes, kind: str = "application/x-ndjson", status: int = 200) -> httpx.Response:
    return httpx.Response(status, stream=Slowly(*chunks), headers={"content-type": kind})


def taken(result: Any) -> list[Any]:
    if isinstance(result, AsyncIterator):
        return asyncio.run(_all(result))
    return list(result)


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


@pytest.mark.parametrize(
    ("name", "answer", "items"),
    [
        ("orders", lambda: stream(b'{"id": 1}\n{"i', b'd": 2}\n\n', b'{"id": 3}'), [Order(id=n) for n in (1, 2, 3)]),
        ("async_orders", lambda: stream(b'{"id": 1}\n{"id": 2}\n'), [Order(id=1), Order(id=2)]),
        (
            "orders",
            lambda: stream(b'\x1e{"id": 1}\n\x1e{"id": 2}\n', kind="application/json-seq"),
            [Order(id=1), Order(id=2)],
        ),
        (
            "orders",
            lambda: stream(b'data: {"id": 1}\n\n: keep\n\ndata: {"id"', b":2}\r\n\r\n", kind="text/event-stream"),
            [Order(id=1), Order(id=2)],
        ),
        ("chunks", lambda: stream(b"ab", b"", b"c"), [b"ab", b"c"]),
        ("lines", lambda: stream(b"a\nb\n"), ["a", "b"]),
        ("lines", lambda: stream(b"data: a\ndata: b\n\n", kind="text/event-stream; charset=utf-8"), ["a\nb"]),
        (
            "events",
            lambda: stream(b"\xef\xbb\xbfevent: made\nid: 7\nretry: 50\ndata: x\n\ndata\n\nid: 8\n\ndata: lost"),
            [ServerSentEvent("x", "made", "7", 50), ServerSentEvent("", "message", "7", 50)],
        ),
    ],
)
def test_streams(mesh: MeshFixture, name: str, answer: Answer, items: list[Any]) -> None:
    assert taken(getattr(bound(mesh, lambda request: answer()), name)()) == items  # type: ignore[call-arg]


def test_a_stream_that_is_awaited_is_open_then(mesh: MeshFixture) -> None:
    async def main() -> list[Order]:
        items = await calls.opened_orders()
        assert len(mesh.calls("orders")) == 1
        return [item async for item in items]

    calls = bound(mesh, lambda request: stream(b'{"id": 1}\n'))
    assert asyncio.run(main()) == [Order(id=1)]


def test_a_stream_is_asked_for_when_it_is_read_and_over_when_it_is_left(mesh: MeshFixture) -> None:
    def in_flight() -> list[int]:
        return [endpoint.in_flight for endpoint in mesh.status().services[0].clusters[0].endpoints]

    source = Slowly(*[b'{"id": 1}\n'] * 5)
    items = bound(mesh, lambda request: httpx.Response(200, stream=source)).orders()
    assert mesh.calls("orders") == []
    assert next(items) == Order(id=1)
    assert (source.given, in_flight()) == (1, [1])
    items.close()  # type: ignore[attr-defined]
    assert (source.given, in_flight()) == (1, [0])


@pytest.mark.parametrize("name", ["async_orders", "opened_orders"])
def test_a_stream_that_is_left_in_an_event_loop_is_over(mesh: MeshFixture, name: str) -> None:
    def in_flight() -> int:
        return mesh.status().services[0].clusters[0].endpoints[0].in_flight

    async def main() -> None:
        items = getattr(calls, name)()
        items = await items if inspect.isawaitable(items) else items
        async with contextlib.aclosing(items):
            async for item in items:
                assert (item, in_flight()) == (Order(id=1), 1)
                break
        assert in_flight() == 0
        task = asyncio.create_task(_all(calls.async_orders()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert in_flight() == 0

    calls = bound(mesh, lambda request: stream(*[b'{"id": 1}\n'] * 5))
    asyncio.run(main())


def test_one_object_serves_threads_and_loops_at_once(mesh: MeshFixture) -> None:
    class Echo(Protocol):
        @get("/{number}")
        def one(self, number: int) -> Order: ...
        @get("/{number}")
        async def later(self, number: int) -> Order: ...

    async def all_later(numbers: range) -> list[Order]:
        return await asyncio.gather(*(echo.later(number) for number in numbers))

    mesh.serve("echo", lambda request: {"id": int(request.path[1:])})
    echo = mesh.bind(Echo, "echo")
    with ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(asyncio.run, all_later(range(start, start + 20))) for start in (0, 20)]
        assert [order.id for order in pool.map(echo.one, range(40))] == list(range(40))
        assert [order.id for loop in loops for order in loop.result()] == list(range(40))


@pytest.mark.parametrize("name", ["orders", "async_orders"])
def test_a_stream_that_begins_with_an_error_raises_it(mesh: MeshFixture, name: str) -> None:
    calls = bound(mesh, lambda request: stream(b'{"title": "none"}', kind="application/json", status=404))
    with pytest.raises(NotFound) as caught:
        taken(getattr(calls, name)())
    assert caught.value.body == Problem("none")


@pytest.mark.parametrize("name", ["orders", "async_orders"])
def test_an_error_that_means_none_is_a_stream_without_items(mesh: MeshFixture, name: str) -> None:
    assert taken(getattr(bound(mesh, 412), name)()) == []


@pytest.mark.parametrize("name", ["orders", "async_orders"])
def test_an_item_that_does_not_fit_is_named_by_its_number(mesh: MeshFixture, name: str) -> None:
    calls = bound(mesh, lambda request: stream(b'{"id": 1}\n{"id": "secret"}\n'))
    with pytest.raises(InvalidResponse, match="item 2: id: Input should be a valid integer"):
        taken(getattr(calls, name)())


def test_an_item_that_never_ends_is_given_up(mesh: MeshFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_ITEM", 1000)
    for name, start in (("orders", b"["), ("events", b"data: "), ("events", b"data: x\n"), ("events", b"data\n")):
        calls = bound(mesh, lambda request, start=start: stream(start, *[start * 10] * 1000))
        with pytest.raises(InvalidResponse, match="an item of the stream is too long"):
            taken(getattr(calls, name)())


@given(
    st.lists(
        st.sampled_from([b"data: a", b"data:b", b"id: 1", b": c", b"", b"event: e", b"x", b"\n", b"\r"]), max_size=12
    ),
    st.data(),
)
def test_events_do_not_depend_on_how_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    ends = [data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])) for _ in lines]
    whole = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    one, other = Events(lambda event: event), Events(lambda event: event)
    expected = list(one.feed(whole))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [event for piece in pieces for event in other.feed(piece)] == expected


@given(st.lists(st.integers(), max_size=8), st.lists(st.integers(0, 60), max_size=5))
def test_lines_do_not_depend_on_how_they_are_cut(values: list[int], cuts: list[int]) -> None:
    whole = b"".join(b"%d\n" % value for value in values)
    decoder = JsonLines(json.loads)
    places = sorted(min(cut, len(whole)) for cut in cuts)
    pieces = [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]
    assert [item for piece in pieces for item in decoder.feed(piece)] + list(decoder.end()) == values


# Pages


def test_pages_by_cursor(mesh: MeshFixture) -> None:
    cursors = {None: "b&c", "b&c": 7, "7": None}

    def serve(request: Any) -> Any:
        cursor = request.query.get("cursor")
        number = list(cursors).index(cursor)
        return {
            "data": {"orders": [{"id": number}], "more": 1},
            "meta": {"next": cursors[cursor]} if number < 2 else None,
        }

    calls = bound(mesh, serve)
    items = calls.by_cursor()
    assert mesh.calls("orders") == [], "nothing is asked for before it is wanted"
    assert next(items) == Order(id=0)
    assert len(mesh.calls("orders")) == 1
    assert list(items) == [Order(id=1), Order(id=2)]
    assert [call.url.query for call in mesh.calls("orders")] == [
        b"limit=2",
        b"limit=2&cursor=b%26c",
        b"limit=2&cursor=7",
    ]


def test_pages_that_never_end_are_given_up(mesh: MeshFixture) -> None:
    def serve(request: Any) -> Any:
        here = int(request.query.get("cursor", 0))
        return {"data": {"orders": [{"id": here}]}, "meta": {"next": here + 1}}

    items = bound(mesh, serve).by_cursor()
    assert [next(items).id for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InvalidResponse, match="more than 4 pages"):
        next(items)


def test_a_cursor_that_leads_nowhere_else_is_given_up(mesh: MeshFixture) -> None:
    calls = bound(mesh, {"data": {"orders": []}, "meta": {"next": "same"}})
    with pytest.raises(InvalidResponse, match="next leads to the same page again"):
        list(calls.by_cursor())


def test_pages_by_link(mesh: MeshFixture) -> None:
    links = {
        b"/v1/x": '</x>; rel="prev", <?p=2>; title="a, b"; rel="last next"',
        b"/v1/x?p=2": "<http://orders/other?p=3>; rel=next",
        b"/other?p=3": "",
    }

    def serve(request: Any) -> Any:
        return (200, [{"id": len(request.url.raw_path)}], {"link": links[request.url.raw_path]})

    assert [order.id for order in bound(mesh, serve).by_link()] == [5, 9, 10]


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("<http://evil.example/x>; rel=next", "leads to another host, 'evil.example'"),
        ("<//evil.example/x>; rel=next", "leads to another host"),
        ("<http://orders:81/x>; rel=next", "leads to another host"),
        ("<ftp://orders/x>; rel=next", "leads to another host"),
        ("<http://h:x/x>; rel=next", "is no URL"),
        ("</v1/x>; rel=next", "leads to the same page again"),
    ],
)
def test_a_link_that_leads_elsewhere_is_not_followed(mesh: MeshFixture, link: str, message: str) -> None:
    calls = bound(mesh, (200, [], {"link": link}))
    with pytest.raises(InvalidResponse, match="next") as caught:
        list(calls.by_link())
    assert message in str(caught.value)
    assert len(mesh.calls("orders")) == 1


def test_pages_by_number(mesh: MeshFixture) -> None:
    def serve(request: Any) -> Any:
        page = int(request.query["page"])
        return {"orders": [{"id": page}] if page < 3 else []}

    calls = bound(mesh, serve)
    assert [order.id for order in calls.by_page()] == [1, 2]
    assert [order.id for order in calls.by_page(page=2)] == [2]
    assert [call.query["page"] for call in mesh.calls("orders")] == ["1", "2", "3", "2", "3"]


def test_pages_by_offset_with_their_count(mesh: MeshFixture) -> None:
    calls = bound(mesh, lambda request: {"orders": [{"id": int(request.query["offset"])}], "pages": 2})
    assert [order.id for order in taken(calls.async_by_page())] == [0, 2]
    assert len(mesh.calls("orders")) == 2


def test_a_page_that_does_not_fit_names_the_field(mesh: MeshFixture) -> None:
    calls = bound(mesh, {"data": {"orders": [{"id": 1}, {"id": "x"}]}})
    with pytest.raises(InvalidResponse, match=r"data\.orders\.1\.id"):
        list(calls.by_cursor())
    mesh.fail_next("orders", status=404)
    with pytest.raises(StatusError, match="404"):
        list(calls.by_page())


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<a>; rel="next"', "a"),
        ("<a>; rel=prev, <b>; rel=NEXT", "b"),
        ('<a>; title="x; rel=next"; rel=prev, <b>; rel="start next"', "b"),
        ("<a>; rel=prev; rel=next", None),
        ("<a>; rel", None),
        ("<a>", None),
        ("a; rel=next", None),
        ("<a; rel=next", None),
        ("", None),
        ("<a>; rel=prev" + " ;" * 5000, None),
        ("<a>; x=" + " " * 9000 + "; rel=next", "a"),
        ("<a>; " * 2000, None),
        (',<a>; rel="\\n\\ext"', None),
    ],
)
def test_link_headers(header: str, target: str | None) -> None:
    assert link_to(httpx.Response(200, headers={"link": header}), "next") == target
