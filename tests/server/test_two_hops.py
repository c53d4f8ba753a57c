"""A deadline set in the storefront is seen, shortened, two hops on; criticality, baggage and trace arrive with it.

The calls between the services are plain httpx here, with the headers that a meshed call carries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flask
import httpx
import pytest
from fastapi import FastAPI

from meshlib.context import Criticality, current, scoped, timeout
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from tests.server.conftest import Serve, ServeWsgi
from tests.server.standin import StandInMesh, headers_of_a_call

Hop = dict[str, Any]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def hop(then: str | None) -> list[Hop]:
    """What this service inherits, and what those behind it do."""
    now = current()
    here = {
        "remaining": now.remaining,
        "criticality": now.criticality.name if now.criticality is not None else None,
        "baggage": dict(now.baggage),
        "traceparent": headers_of_a_call().get("traceparent"),
    }
    behind = httpx.get(then, headers=headers_of_a_call(), timeout=30).json() if then else []
    return [here, *behind]


def fastapi_sync(then: str | None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())
    app.add_api_route("/", lambda: hop(then))
    return app


def fastapi_async(then: str | None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=StandInMesh())

    @app.get("/")
    async def handler() -> list[Hop]:
        here = hop(None)
        if then is None:
            return here
        async with httpx.AsyncClient() as client:
            return [*here, *(await client.get(then, headers=headers_of_a_call(), timeout=30)).json()]

    return app


def flask_app(then: str | None) -> flask.Flask:
    app = flask.Flask(__name__)
    MeshExtension(StandInMesh()).init_app(app)
    app.add_url_rule("/", view_func=lambda: hop(then))
    return app


@pytest.fixture
def start(serve: Serve, serve_wsgi: ServeWsgi) -> Callable[[Any], str]:
    return lambda app: serve_wsgi(app) if isinstance(app, flask.Flask) else serve(app)


@pytest.mark.parametrize(
    ("orders", "catalogue"),
    [(flask_app, fastapi_async), (fastapi_async, flask_app), (fastapi_sync, fastapi_sync), (flask_app, flask_app)],
)
def test_a_deadline_is_seen_shortened_two_hops_on(start: Callable[[Any], str], orders: Any, catalogue: Any) -> None:
    url = start(orders(start(catalogue(None))))
    storefront = scoped(lambda scope: replace(scope, criticality=Criticality.CRITICAL, baggage={"tenant": "a b"}))
    with storefront, timeout("20s"):
        headers = {**headers_of_a_call(), "traceparent": TRACEPARENT}
        first, second = httpx.get(url, headers=headers, timeout=30).json()
        after = current().remaining
    assert after is not None
    assert 20 > first["remaining"] > second["remaining"] > after > 0
    for each in (first, second):
        assert each["criticality"] == "CRITICAL"
        assert each["baggage"] == {"tenant": "a b"}
        assert each["traceparent"] == TRACEPARENT


def test_what_the_first_hop_used_up_the_second_refuses_to_begin(start: Callable[[Any], str]) -> None:
    called: list[str] = []
    catalogue = flask.Flask(__name__)
    MeshExtension(StandInMesh()).init_app(catalogue)

    @catalogue.get("/")
    def handler() -> str:
        called.append("catalogue")
        return "called"

    behind = start(catalogue)

    async def use_up() -> int:
        with timeout(0):
            async with httpx.AsyncClient() as client:
                return (await client.get(behind, headers=headers_of_a_call(), timeout=30)).status_code

    orders = FastAPI()
    orders.add_middleware(MeshMiddleware, mesh=StandInMesh())
    orders.add_api_route("/", use_up)
    with timeout("20s"):
        assert httpx.get(start(orders), headers=headers_of_a_call(), timeout=30).json() == 504
    assert called == []
