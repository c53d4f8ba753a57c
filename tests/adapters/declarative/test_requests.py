"""What declared calls send: every kind of parameter, in a class of each sort, from threads and from event loops."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Protocol
from urllib.parse import parse_qsl
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer
from typing_extensions import TypedDict

from meshlib.adapters.declarative import (
    Body,
    Cookie,
    File,
    Form,
    HashKey,
    Header,
    Path,
    Query,
    Upload,
    delete,
    get,
    head,
    options,
    patch,
    post,
    put,
)
from meshlib.adapters.declarative.template import parse_template, segment, segments
from meshlib.testing import MeshFixture


class Color(Enum):
    RED = "red"
    DARK = 2


class Order(BaseModel):
    id: int
    note: Annotated[str | None, Field(alias="the-note")] = None
    size: int = 1


@dataclass
class Line:
    sku: str
    count: int = 1


class Filter(TypedDict, total=False):
    color: str
    sizes: list[int]


class Calls(Protocol):
    @get("/plain/{name}")
    def path(self, name: str) -> None: ...
    @get("/files/{name:path}")
    def file(self, name: str) -> None: ...
    @get("/{which}/{at}?fixed=1")
    def typed(self, which: Color, at: UUID) -> None: ...
    @get("/{orderId}")
    def named(self, order_id: Annotated[int, Path("orderId")]) -> None: ...
    @get("/query")
    def query(
        self,
        q: str | None = None,
        *,
        page: int = 1,
        tags: list[str] | None = None,
        color: Color | None = None,
        since: datetime | None = None,
        exact: bool | None = None,
        ratio: Annotated[float | None, Query("the ratio")] = None,
    ) -> None: ...
    @get("/at")
    def at(self, at: Annotated[datetime, PlainSerializer(lambda value: int(value.timestamp()))]) -> None: ...
    @get("/spread")
    def spread(
        self, filter: Annotated[Filter, Query()], more: Annotated[dict[str, str] | None, Query] = None
    ) -> None: ...
    @get("/headers", headers={"x-fixed": "f"})
    def headers(
        self,
        user: Annotated[str, Header("x-user")],
        x_ids: Annotated[list[int] | None, Header()] = None,
        x_fixed: Annotated[str | None, Header()] = None,
        session: Annotated[str | None, Cookie()] = None,
        theme: Annotated[Color, Cookie("th")] = Color.RED,
    ) -> None: ...
    @post("/json")
    def json(self, body: Order) -> None: ...
    @put("/lines")
    def lines(self, lines: list[Line]) -> None: ...
    @patch("/json")
    def patch(self, body: Annotated[Order, Body("application/merge-patch+json", exclude_unset=True)]) -> None: ...
    @post("/any")
    def any(self, body: Any = None) -> None: ...
    @post("/raw")
    def raw(self, content: bytes) -> None: ...
    @post("/text")
    def text(self, body: str) -> None: ...
    @post("/form")
    def form(self, user: Annotated[str, Form()], tags: Annotated[list[str] | None, Form("tag")] = None) -> None: ...
    @post("/login")
    def login(self, order: Annotated[Order, Form()]) -> None: ...
    @post("/upload")
    def upload(
        self,
        photo: Annotated[Upload, File()],
        others: Annotated[list[Upload] | None, File("other")] = None,
        caption: Annotated[str | None, Form()] = None,
    ) -> None: ...
    @post("/stream")
    def stream(self, body: Iterator[bytes]) -> None: ...
    @delete("/x")
    def delete(self) -> None: ...
    @head("/x")
    def head(self) -> None: ...
    @options("/x")
    def options(self) -> None: ...
    @get("/keyed")
    def keyed(self, user: Annotated[str, HashKey()], other: Annotated[str, Header("x-other")] = "o") -> None: ...
    @post("/stream")
    async def astream(self, body: AsyncIterator[bytes]) -> None: ...
    @get("/query")
    async def aquery(self, q: str, user: Annotated[str | None, Header("x-user")] = None) -> None: ...


@pytest.fixture
def sent(mesh: MeshFixture) -> Any:
    mesh.serve("orders", 204)
    calls = mesh.bind(Calls, "orders", prefix="/v1/", headers={"x-all": "a"})

    def call(called: str, /, *args: Any, **kwargs: Any) -> Any:
        result = getattr(calls, called)(*args, **kwargs)
        if asyncio.iscoroutine(result):
            asyncio.run(result)
        return mesh.calls("orders")[-1]

    return call


@pytest.mark.parametrize(
    ("name", "args", "target"),
    [
        ("path", ["42"], "/v1/plain/42"),
        ("path", ["a/b c?d#e%2F..&ü"], "/v1/plain/a%2Fb%20c%3Fd%23e%252F..%26%C3%BC"),
        ("path", ["a\r\nx: y"], "/v1/plain/a%0D%0Ax%3A%20y"),
        ("file", ["a/b c/d?"], "/v1/files/a/b%20c/d%3F"),
        ("typed", [Color.DARK, UUID(int=1)], "/v1/2/00000000-0000-0000-0000-000000000001?fixed=1"),
        ("named", [7], "/v1/7"),
        ("query", [], "/v1/query?page=1"),
        ("query", ["a b&c=ä+/"], "/v1/query?q=a%20b%26c%3D%C3%A4%2B%2F&page=1"),
        ("at", [datetime(2026, 1, 1, tzinfo=UTC)], "/v1/at?at=1767225600"),
        ("spread", [{"color": "red", "sizes": [1, 2]}], "/v1/spread?color=red&sizes=1&sizes=2"),
        ("spread", [{}, {"a b": "c"}], "/v1/spread?a%20b=c"),
    ],
)
def test_paths_and_queries(sent: Any, name: str, args: list[Any], target: str) -> None:
    assert sent(name, *args).url.raw_path.decode() == target


def test_values_of_a_query_by_their_types(sent: Any) -> None:
    seen = sent(
        "query",
        page=2,
        tags=["a", "b"],
        color=Color.RED,
        since=datetime(2026, 11, 23, 1, tzinfo=UTC),
        exact=True,
        ratio=0.5,
    )
    assert seen.url.params.multi_items() == [
        ("page", "2"),
        ("tags", "a"),
        ("tags", "b"),
        ("color", "red"),
        ("since", "2026-11-23T01:00:00Z"),
        ("exact", "true"),
        ("the ratio", "0.5"),
    ]


def test_headers_and_cookies(sent: Any) -> None:
    seen = sent("headers", "ada", [1, 2], session="s1")
    assert seen.headers["x-user"] == "ada"
    assert seen.headers["x-ids"] == "1, 2"
    assert seen.headers["cookie"] == "session=s1; th=red"
    assert (seen.headers["x-fixed"], seen.headers["x-all"]) == ("f", "a")
    assert sent("headers", "ada", x_fixed="mine").headers.get_list("x-fixed") == ["mine"]


@pytest.mark.parametrize(
    ("name", "body", "content_type", "content"),
    [
        ("json", Order(id=1), "application/json", b'{"id":1,"the-note":null,"size":1}'),
        ("lines", [Line("a"), Line("b", 2)], "application/json", b'[{"sku":"a","count":1},{"sku":"b","count":2}]'),
        (
            "patch",
            Order.model_validate({"id": 1, "the-note": None}),
            "application/merge-patch+json",
            b'{"id":1,"the-note":null}',
        ),
        ("any", {"a": [datetime(2026, 1, 1)]}, "application/json", b'{"a":["2026-01-01T00:00:00"]}'),
        ("any", None, None, b""),
        ("raw", b"\0\1", "application/octet-stream", b"\0\1"),
        ("text", "grün", "text/plain; charset=utf-8", "grün".encode()),
        ("form", "a b&c", "application/x-www-form-urlencoded", b"user=a+b%26c"),
        ("login", Order(id=1), "application/x-www-form-urlencoded", b"id=1&size=1"),
        ("stream", iter([b"a", b"b"]), "application/octet-stream", b"ab"),
    ],
)
def test_bodies(sent: Any, name: str, body: Any, content_type: str | None, content: bytes) -> None:
    seen = sent(name, body)
    assert (seen.headers.get("content-type"), seen.body) == (content_type, content)


def test_a_body_from_an_async_iterator(sent: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    assert sent("astream", chunks()).body == b"ab"


def test_files_make_a_multipart_form(sent: Any) -> None:
    seen = sent("upload", io.BytesIO(b"jpeg"), [("b.png", b"png", "image/png"), b"x"], caption="c")
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    for part in (b'name="photo"', b"jpeg", b'name="other"; filename="b.png"', b"image/png", b'name="caption"\r\n\r\nc'):
        assert part in seen.body


@pytest.mark.parametrize("name", ["delete", "head", "options"])
def test_methods(sent: Any, name: str) -> None:
    assert sent(name).method == name.upper()


def test_a_call_in_an_event_loop_sends_the_same(sent: Any) -> None:
    seen = sent("aquery", q="a b", user="ada")
    assert (seen.url.raw_path, seen.headers["x-user"]) == (b"/v1/query?q=a%20b", "ada")


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("path", [""], "parameter 'name': a segment of a path cannot be empty"),
        ("path", [".."], "parameter 'name': a segment of a path cannot be empty, . or .."),
        ("file", ["a/../b"], "parameter 'name': a path cannot"),
        ("file", ["/etc"], "parameter 'name': a path cannot"),
        ("path", [None], "parameter 'name': it is to be a single value"),
        ("headers", ["secret\r\nx-evil: 1"], "parameter 'user': the value of the header x-user"),
        ("headers", ["secret-ä"], "ASCII"),
        ("headers", ["u", None, None, "secret; b=c"], "parameter 'session': a cookie"),
        ("query", [["secret", {"a": 1}]], "parameter 'q'"),
        ("typed", ["secret", UUID(int=1)], "parameter 'which': it does not fit its type"),
        ("json", [{"id": "secret"}], "parameter 'body': it does not fit its type"),
    ],
)
def test_what_cannot_be_sent_is_told_without_its_value(sent: Any, name: str, args: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^Calls\.{name}: ") as caught:
        sent(name, *args)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None or "secret" not in str(caught.value.__context__)


@pytest.mark.parametrize(("args", "kwargs"), [([], {}), (["a", "b"], {}), (["a"], {"name": "b"}), ([], {"nme": "a"})])
def test_wrong_arguments_are_type_errors_as_of_any_function(sent: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"Calls\.path: .*name|Calls\.path: too many|Calls\.path: got"):
        sent("path", *args, **kwargs)


def test_the_hash_key_chooses_the_endpoint_and_is_not_sent() -> None:
    ring = {"services": {"orders": {"load_balancing": {"policy": "ring_hash"}}}}
    with MeshFixture(ring) as mesh:
        mesh.serve("orders", 204, instances=4)
        calls = mesh.bind(Calls, "orders")
        for user in "abcdefgh":
            for _ in range(3):
                calls.keyed(user)
        seen = [call.instance for call in mesh.calls("orders")]
        assert all(len(set(seen[at : at + 3])) == 1 for at in range(0, len(seen), 3))
        assert len(set(seen)) > 1
        assert mesh.calls("orders")[0].url.raw_path == b"/keyed"


def test_auth_redirects_and_cookies(mesh: MeshFixture) -> None:
    def serve(request: Any) -> httpx.Response:
        if request.path == "/plain/there":
            return httpx.Response(204, headers={"set-cookie": "user=ada"})
        return httpx.Response(302, headers={"location": "/plain/there"})

    mesh.serve("orders", serve)
    calls = mesh.bind(Calls, "orders", auth=("ada", "pw"), follow_redirects=True)
    calls.path("here")
    calls.path("here")
    assert all(call.headers["authorization"].startswith("Basic ") for call in mesh.calls("orders"))
    assert not any("cookie" in call.headers for call in mesh.calls("orders")), (
        "what one user was given is not another's"
    )
    assert "pw" not in repr(calls)


_TEXT = st.text(max_size=20).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))


@given(_TEXT)
def test_any_text_is_one_segment_or_refused(text: str) -> None:
    try:
        written = segment(text)
    except ValueError:
        assert text in ("", ".", "..")
        return
    assert "/" not in written
    assert httpx.URL(f"http://h/a/{written}").path == f"/a/{text}"


@given(_TEXT)
def test_any_text_is_a_path_below_or_refused(text: str) -> None:
    try:
        written = segments(text)
    except ValueError:
        assert text.startswith("/") or not {".", "..", ""}.isdisjoint(text.split("/"))
        return
    url = httpx.URL(f"http://h/a/{written}")
    assert url.raw_path.startswith(b"/a/")
    assert url.path == f"/a/{text}"


@given(st.lists(st.tuples(_TEXT, _TEXT), max_size=4))
def test_queries_come_back_as_they_were(pairs: list[tuple[str, str]]) -> None:
    from meshlib.adapters.declarative.encoding import encode_pairs

    for form in (False, True):
        assert (
            parse_qsl(encode_pairs(pairs, form=form), keep_blank_values=True)
            == [pair for pair in pairs if pair != ("", "")]
            or ("", "") in pairs
        )


@pytest.mark.parametrize(
    "text",
    ["orders", "//orders", "/a b", "/{a", "/{}", "/{a}/{a}", "/{a b}", "/a/../b", "/ä", "/a?b c", "/{a:int}", "/a%2"],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a"):
        parse_template(text)
