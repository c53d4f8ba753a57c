"""Three services for two hops, each as FastAPI and as Flask. No handler says a word about deadlines.

``SHOP_MESH`` is the mesh's configuration as JSON, ``SHOP_ROLE`` the service, ``SHOP_NEXT`` the one behind it, if any.
What a handler sees of its own request it puts first into the answer; the one behind it follows.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

import flask
from fastapi import BackgroundTasks, FastAPI, Request

import meshlib
from meshlib import Mesh
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension

ROLE, NEXT = os.environ["SHOP_ROLE"], os.environ.get("SHOP_NEXT", "")
mesh = Mesh(json.loads(os.environ["SHOP_MESH"]))
served: list[str] = []
afterwards: list[Any] = []


def seen(headers: dict[str, str], baggage_headers: int) -> dict[str, Any]:
    now = meshlib.current()
    return {
        "role": ROLE,
        "remaining": now.remaining,
        "criticality": now.criticality.name if now.criticality is not None else None,
        "baggage": dict(now.baggage),
        "baggage_headers": baggage_headers,
        "trace": headers.get("traceparent"),
        "attempt": headers.get("x-envoy-attempt-count"),
    }


# FastAPI

fastapi_app = FastAPI()
fastapi_app.add_middleware(MeshMiddleware, mesh=mesh)
async_next = mesh.async_client(NEXT or "nobody")


def _count(request: Request) -> int:
    return sum(name == b"baggage" for name, _ in request.scope["headers"])


@fastapi_app.get("/trail")
async def trail(request: Request) -> list[Any]:
    served.append("trail")
    here = seen(dict(request.headers), _count(request))
    await asyncio.sleep(0.02)
    return [here, *((await async_next.get("/trail")).json() if NEXT else [])]


@fastapi_app.get("/late")
async def late(background: BackgroundTasks) -> dict[str, bool]:
    async def task() -> None:
        response = await async_next.get("/trail")
        afterwards.append([meshlib.current().remaining, response.json()[0]["remaining"]])

    background.add_task(task)
    return {"begun": True}


@fastapi_app.get("/slow")
async def slow(seconds: float) -> str:
    served.append("slow")
    await asyncio.sleep(seconds)
    return "done"


@fastapi_app.get("/through")
async def through(seconds: float) -> Any:
    return (await async_next.get("/slow", params={"seconds": seconds})).text


@fastapi_app.get("/told")
async def told() -> dict[str, Any]:
    return {"served": served, "afterwards": afterwards}


# Flask

flask_app = flask.Flask(__name__)
MeshExtension(mesh).init_app(flask_app)
next_service = mesh.client(NEXT or "nobody")


@flask_app.get("/trail")
def flask_trail() -> list[Any]:
    served.append("trail")
    headers = {name.lower(): value for name, value in flask.request.headers.items()}
    here = seen(headers, len([name for name, _ in flask.request.headers.items() if name.lower() == "baggage"]))
    threading.Event().wait(0.02)
    return [here, *(next_service.get("/trail").json() if NEXT else [])]


@flask_app.get("/late")
def flask_late() -> flask.Response:
    response = flask.jsonify(begun=True)

    @response.call_on_close
    def task() -> None:
        answer = next_service.get("/trail")
        afterwards.append([meshlib.current().remaining, answer.json()[0]["remaining"]])

    return response


@flask_app.get("/slow")
def flask_slow() -> str:
    served.append("slow")
    threading.Event().wait(float(flask.request.args["seconds"]))
    return "done"


@flask_app.get("/through")
def flask_through() -> str:
    return next_service.get("/slow", params=flask.request.args).text


@flask_app.get("/told")
def flask_told() -> dict[str, Any]:
    return {"served": served, "afterwards": afterwards}
