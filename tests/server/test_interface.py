"""What can be called as an interface has it is an application, whatever else it is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from meshlib.server.interface import takes
from meshlib.server.wsgi import MeshMiddleware


class Called:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class Made:
    def __init__(self, environ: Any, start_response: Any) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


class Chosen:
    """Called by an attribute of each object, as sentry_sdk's middleware for ASGI."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__: Any = lambda environ, start_response: []


@Request.application
def wrapped(request: Request) -> Response:
    return Response("done")


@pytest.mark.parametrize(
    "app",
    [
        Called(),
        Made,
        Chosen(),
        wrapped,
        functools.partial(lambda settings, environ, start_response: [], {}),
        lambda *arguments, **more: [],
        lambda environ, start_response, more=None: [],
        max,  # Python knows no signature of it
    ],
    ids=["object", "class", "attribute", "wrapped", "partial", "any number", "more", "unknown"],
)
def test_an_application_of_wsgi_is_one(app: Any) -> None:
    assert takes(app, 2)


@pytest.mark.parametrize(
    "app",
    [None, "shop:app", lambda request: None, lambda scope, receive, send: None, Called],
    ids=["none", "name", "django", "asgi", "class"],
)
def test_what_could_not_be_called_so_is_none(app: Any) -> None:
    assert not takes(app, 2)


def test_an_application_that_wraps_a_view_of_werkzeug_is_served() -> None:
    assert Client(MeshMiddleware(wrapped)).get("/").text == "done"
