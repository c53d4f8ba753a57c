"""A service that answers what it was sent, by a parameter of every kind; a client is generated for it."""

import datetime as dt
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Body, Cookie, FastAPI, File, Form, Header, Query, Request, UploadFile
from pydantic import BaseModel, Field

app = FastAPI(title="Echo")


class Kind(StrEnum):
    NEW = "new"
    OLD = "old one"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = []


class Node(BaseModel):
    name: str
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    children: "list[Node]" = []
    at: dt.datetime | None = None
    price: Decimal | None = None
    pair: tuple[int, str] | None = None
    labels: dict[str, int] = {}
    from_: Annotated[str | None, Field(alias="from")] = None


class Page(BaseModel):
    offset: int = 0
    tags: list[str] = []
    order_by: Annotated[Kind | None, Field(alias="orderBy")] = None


@app.get("/path/{number}/{ratio}/{flag}/{kind}/{size}/{day}/{ident}/{name}")
def paths(
    number: int, ratio: float, flag: bool, kind: Kind, size: Size, day: dt.date, ident: UUID, name: str
) -> list[Any]:
    return [number, ratio, flag, kind, size, day, ident, name]


@app.get("/query")
def query(
    text: str,
    number: int = 1,
    flag: bool | None = None,
    many: Annotated[list[int], Query()] = [],  # noqa: B006
    kinds: Annotated[list[Kind] | None, Query(alias="kind[]")] = None,
    moment: dt.datetime | None = None,
    span: dt.timedelta | None = None,
    from_: Annotated[str | None, Query(alias="from")] = None,
) -> list[Any]:
    return [text, number, flag, many, kinds, moment, span, from_]


@app.get("/page")
def page(page: Annotated[Page, Query()]) -> Page:
    return page


@app.get("/headers")
def headers(
    x_number: Annotated[int, Header()],
    plain: Annotated[str | None, Header(alias="X_Plain", convert_underscores=False)] = None,
    session: Annotated[str | None, Cookie()] = None,
    class_: Annotated[Kind | None, Cookie(alias="class")] = None,
) -> list[Any]:
    return [x_number, plain, session, class_]


@app.put("/node")
def node(node: Node) -> Node:
    return node


@app.post("/nodes")
def nodes(nodes: list[Node]) -> list[Node]:
    return nodes


@app.post("/pet")
def pet(pet: Annotated[Cat | Dog, Body(discriminator="kind")]) -> Annotated[Cat | Dog, Field(discriminator="kind")]:
    return pet


@app.post("/map")
def mapped(values: dict[str, list[int]]) -> dict[str, list[int]]:
    return values


@app.post("/two")
def two(node: Node, count: Annotated[int, Body()]) -> list[Any]:
    return [node, count]


@app.post("/word")
def word(word: Annotated[str, Body()]) -> list[str]:
    return [word]


@app.post("/form")
def form(name: Annotated[str, Form()], tags: Annotated[list[str], Form()], size: Annotated[Size, Form()]) -> list[Any]:
    return [name, tags, size]


@app.post("/files")
def files(one: UploadFile, more: Annotated[list[UploadFile], File()], note: Annotated[str, Form()] = "-") -> list[Any]:
    return [one.filename, one.file.read().decode(), [each.file.read().decode() for each in more], note]


@app.get("/nothing", status_code=204)
def nothing() -> None:
    pass


_LIST = {"type": "array", "items": {"type": "string"}}
_RANGE = {"type": "object", "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}}}
_DEEP = {"type": "object", "properties": {"size": _RANGE, "tags": _LIST}}


def _parameter(name: str, place: str, schema: Any, **said: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **said}


@app.get(
    "/raw/{simple}/{label}/{matrix}",
    openapi_extra={
        "parameters": [
            _parameter("simple", "path", _LIST),
            _parameter("label", "path", _LIST, style="label", explode=True),
            _parameter("matrix", "path", _RANGE, style="matrix"),
            _parameter("commas", "query", _LIST, explode=False),
            _parameter("pipes", "query", _LIST, style="pipeDelimited"),
            _parameter("blanks", "query", _LIST, style="spaceDelimited"),
            _parameter("again", "query", _LIST, style="pipeDelimited", explode=True),
            _parameter("deep", "query", _DEEP, style="deepObject"),
            _parameter("free", "query", {"type": "object"}, style="deepObject"),
            _parameter("all", "query", {"type": "object", "additionalProperties": {"type": "integer"}}),
            _parameter("joined", "query", _RANGE, explode=False),
            _parameter("X-List", "header", _LIST),
            _parameter("X-Range", "header", _RANGE, explode=True),
        ]
    },
)
def raw(request: Request) -> dict[str, Any]:
    return {
        "path": request.scope["raw_path"].decode(),
        "query": request.scope["query_string"].decode(),
        "list": request.headers.get("x-list"),
        "range": request.headers.get("x-range"),
    }


@app.post(
    "/raw",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "deep": _DEEP, "tags": _LIST},
                    },
                    "encoding": {"deep": {"style": "deepObject"}, "tags": {"explode": False}},
                }
            },
        }
    },
)
async def raw_form(request: Request) -> list[str]:
    return [(await request.body()).decode()]
