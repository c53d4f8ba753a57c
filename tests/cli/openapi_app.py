"""A service whose description a client is generated from, which then calls it."""

import datetime as dt
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Cookie, FastAPI, File, Form, Header, HTTPException, Query, UploadFile
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

app = FastAPI(title="Order Desk")


class State(StrEnum):
    OPEN = "open"
    DONE = "done"


class Line(BaseModel):
    sku: str
    count: int = 1


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Invoice(BaseModel):
    kind: Literal["invoice"]
    due: dt.date


class NewOrder(BaseModel):
    lines: list[Line]
    state: State = State.OPEN
    payment: Annotated[Card | Invoice, Field(discriminator="kind")]
    parent: "NewOrder | None" = None
    class_: Annotated[str | None, Field(alias="class")] = None


class Order(NewOrder):
    id: int
    at: dt.datetime


class Conflict(BaseModel):
    existing: int


NOW = dt.datetime(2026, 11, 23, 1, tzinfo=dt.UTC)


@app.get("/orders/{order_id}", responses={404: {"model": Conflict}})
def read_order(order_id: int, verbose: bool = False) -> Order:
    if order_id == 404:
        raise HTTPException(404)
    return Order.model_validate(
        {
            "id": order_id,
            "at": NOW,
            "lines": [],
            "payment": {"kind": "invoice", "due": "2026-12-01"},
            "class": str(verbose),
        }
    )


@app.post("/orders", status_code=201)
def create_order(order: NewOrder, idempotency_key: Annotated[str, Header()]) -> Order:
    fields = order.model_dump(by_alias=True, exclude_unset=True)
    return Order.model_validate({**fields, "id": 1, "at": NOW, "class": idempotency_key})


@app.get("/search")
def search(
    at: dt.datetime,
    tags: Annotated[list[str], Query()],
    state: State | None = None,
    trace: Annotated[UUID | None, Header(alias="X-Trace")] = None,
    session: Annotated[str | None, Cookie()] = None,
) -> dict[str, Any]:
    return {"at": at.isoformat(), "tags": tags, "state": state, "trace": trace, "session": session}


@app.post("/login")
def login(user: Annotated[str, Form()], remember: Annotated[bool, Form()] = False) -> dict[str, str]:
    return {"user": user, "remember": str(remember)}


@app.post("/upload")
async def upload(
    photo: UploadFile, others: Annotated[list[bytes], File()], caption: Annotated[str, Form()]
) -> list[str]:
    return [photo.filename or "", (await photo.read()).decode(), *(each.decode() for each in others), caption]


@app.delete("/orders/{order_id}", status_code=204, deprecated=True)
def remove(order_id: int) -> None:
    pass


@app.get("/text", response_class=PlainTextResponse)
def text() -> str:
    return "grün"


@app.get("/files/{path:path}")
def file(path: str) -> str:
    return path


@app.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Line"}}}}},
)
def events() -> StreamingResponse:
    return StreamingResponse(
        iter(['data: {"sku": "a"}\n\n', 'data: {"sku": "b", "count": 2}\n\n']), media_type="text/event-stream"
    )
