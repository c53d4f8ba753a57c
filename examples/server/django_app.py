"""A Django project in the mesh: one line in MIDDLEWARE and one setting; sync and async views, WSGI and ASGI."""

import asyncio
from typing import Any

import django
from django.conf import settings
from django.http import JsonResponse
from django.test import AsyncClient, Client
from django.urls import path

from meshlib.testing import MeshFixture

testing = MeshFixture()
testing.serve("catalogue", lambda request: {"item": int(request.url.path.rpartition("/")[2])})

settings.configure(
    SECRET_KEY="not one",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "meshlib.server.django.MeshMiddleware",  # the first of them
        "django.middleware.common.CommonMiddleware",
    ],
    MESHLIB_MESH=testing,  # a Mesh, a function that makes one, or its dotted path: "shop.mesh.make_mesh"
)
django.setup()

from meshlib.server.django import mesh  # noqa: E402 - settings come first in a file that is all of a project


def page(request: Any, number: int) -> JsonResponse:
    return JsonResponse(mesh().client("catalogue").get(f"/items/{number}").json())


async def page_async(request: Any, number: int) -> JsonResponse:
    async with mesh().async_client("catalogue") as client:
        return JsonResponse((await client.get(f"/items/{number}")).json())


urlpatterns = [path("pages/<int:number>", page), path("async/<int:number>", page_async)]

# Its tests: Django's own clients go through the middleware.

LEFT = {"x-meshlib-deadline-ms": "800"}


async def ask() -> Any:
    return await AsyncClient().get("/async/43", headers=LEFT)


with testing:
    print("wsgi:", Client().get("/pages/42", headers=LEFT).json())
    print("asgi:", asyncio.run(ask()).json())
    told = [int(call.headers["x-meshlib-deadline-ms"]) for call in testing.calls("catalogue")]
    print("the catalogue was told of the caller's deadline:", all(0 < left_ms <= 800 for left_ms in told))
    print("too late:", Client().get("/pages/42", headers={"x-meshlib-deadline-ms": "0"}).status_code)
    testing.slow("catalogue", "2s")
    print("the catalogue is slow:", Client().get("/pages/42", headers=LEFT).status_code)
