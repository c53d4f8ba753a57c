"""The Flask application that tests start under gunicorn."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import flask

from meshlib.context import current, current_scope
from meshlib.errors import DeadlineExceeded
from meshlib.server.flask import MeshExtension
from tests.server.standin import StandInMesh

app = flask.Flask(__name__)
MeshExtension(StandInMesh()).init_app(app)
left_behind: list[Any] = []


def inherited() -> dict[str, Any]:
    now = current()
    return {"remaining": now.remaining, "baggage": dict(now.baggage)}


@app.get("/inherited")
def answer() -> dict[str, Any]:
    return inherited()


@app.get("/stream")
def stream() -> flask.Response:
    def chunks() -> Iterator[str]:
        for _ in range(3):
            yield flask.json.dumps(inherited()) + "\n"

    response = flask.Response(chunks())
    scope, context = current_scope(), contextvars.copy_context()
    response.call_on_close(lambda: left_behind.append([scope.deadline, context.run(inherited)]))
    return response


@app.get("/left-behind")
def what_closing_saw() -> list[Any]:
    return left_behind


@app.get("/fails")
def fails() -> str:
    raise DeadlineExceeded("2 s passed", service="orders")


class ThreadState:
    """Outside of any request: what the worker's thread is left with."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/thread":
            body = flask.json.dumps({"clean": current_scope().request is None}).encode()
            start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(body)))])
            return [body]
        return self.inner(environ, start_response)


application = ThreadState(app)
